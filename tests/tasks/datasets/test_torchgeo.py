"""Benchmarks through torchgeo's own classes, on small folders in their real layouts."""

import json
import re
import tarfile

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image

from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.torchgeo import DATA_SETS, _scene, torchgeo_data
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import finetune, predict
from a2mae.tasks.metrics.scores import score_task
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.registry import Task

RNG = np.random.default_rng(0)


def picture(path, size=32, low=0, high=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(low, high, (size, size, 3)).astype(np.uint8)).save(path)


def tif(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array if array.ndim == 3 else array[None]
    profile = dict(zip(("count", "height", "width"), array.shape, strict=True), dtype=array.dtype.name)
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_200_000)}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place) as target:
        target.write(array)


def written(name, root, tmp_path, task, chip_px=32):
    write_source(tmp_path / "data", torchgeo_data(name, root, task, chip_px=chip_px))
    return TaskData(tmp_path / "data")


def class_list(root, name, files):
    for split, part in files.items():
        (root / f"{name}-{split}.txt").write_text("\n".join(part) + "\n")


def test_resisc45_and_its_split_files(tmp_path):
    root, files = tmp_path / "resisc", {"train": [], "val": [], "test": []}
    for label in ("airport", "forest"):
        for number, split in enumerate(("train", "train", "val", "test")):
            picture(root / "NWPU-RESISC45" / label / f"{label}_{number:03d}.jpg")
            files[split].append(f"{label}_{number:03d}.jpg")
    class_list(root, "resisc45", files)
    data = written("RESISC45", root, tmp_path, Task.CLASSIFY)
    assert data.spec.class_names == ("airport", "forest")
    assert data.samples["split"].value_counts().to_dict() == {"train": 4, "val": 2, "test": 2}
    assert sorted(data.samples["sample_id"])[0] == "test-airport_003"
    assert data.read_targets(np.arange(8)).tolist() == data.samples["label"].tolist()


def test_uc_merced_as_torchgeo_resizes_it(tmp_path):
    root, files = tmp_path / "ucm", {"train": [], "val": [], "test": []}
    for label in ("beach", "river"):
        for number, split in enumerate(("train", "val", "test")):
            tif(
                root / "UCMerced_LandUse" / "Images" / label / f"{label}{number:02d}.tif",
                RNG.integers(1, 255, (3, 32 - number, 32)).astype(np.uint8),
            )
            files[split].append(f"{label}{number:02d}.tif")
    class_list(root, "uc_merced", files)
    data = written("UCMerced", root, tmp_path, Task.CLASSIFY, chip_px=None)
    assert data.image_shape == (1, 3, 256, 256)
    test = data.read(data.rows("test"))
    with rasterio.open(root / "UCMerced_LandUse" / "Images" / "beach" / "beach02.tif") as source:
        stored = source.read() / 255
    assert abs(test.images[0, 0].mean() - stored.mean()) < 0.02


def test_eurosat_is_reflectance_in_its_band_order(tmp_path):
    root, files = tmp_path / "eurosat", {"train": [], "val": [], "test": []}
    base = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    for label in ("Forest", "River"):
        for number, split in enumerate(("train", "val", "test")):
            counts = RNG.integers(500, 700, (13, 64, 64)).astype(np.uint16)
            counts[12] = 4000  # B8A comes last
            tif(base / label / f"{label}_{number}.tif", counts)
            files[split].append(f"{label}_{number}.jpg")
    class_list(root, "eurosat", files)
    data = written("EuroSAT", root, tmp_path, Task.CLASSIFY, chip_px=64)
    read = data.read(np.arange(6), [data.spec.band_index("B8A"), data.spec.band_index("red")])
    np.testing.assert_allclose(read.images[:, 0, 0], 0.4, atol=1e-6)
    assert 0.04 < read.images[:, 0, 1].mean() < 0.08


def test_a_vrt_named_tif_is_not_read_through_torchgeo_either(tmp_path):
    """It may name any file: it is told as one that cannot be read; rasterio itself is as it was afterwards."""
    root, files = tmp_path / "eurosat", {"train": [], "val": [], "test": []}
    base = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    for label in ("Forest", "River"):
        for number, split in enumerate(("train", "val", "test")):
            tif(base / label / f"{label}_{number}.tif", RNG.integers(500, 700, (13, 64, 64)).astype(np.uint16))
            files[split].append(f"{label}_{number}.jpg")
    class_list(root, "eurosat", files)
    secret = tmp_path / "secret.tif"
    (base / "Forest" / "Forest_1.tif").rename(secret)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}"><SimpleSource><SourceFilename>{secret}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in range(1, 14)
    )
    vrt = base / "Forest" / "Forest_1.tif"
    vrt.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>')
    opened = rasterio.open
    with pytest.raises(
        TaskDataError, match=r"1 of 6 files .*val-Forest_1: .*Forest_1\.tif is a VRT, which may name any"
    ):
        written("EuroSAT", root, tmp_path, Task.CLASSIFY, chip_px=64)
    assert rasterio.open is opened
    with opened(vrt) as source:  # as torchgeo alone would have
        assert source.read(1).min() >= 500


def test_levir_cd_pairs(tmp_path):
    root = tmp_path / "levir"
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            for date in "AB":
                picture(root / date / f"{split}_{number}.png", 64)
            (root / "label").mkdir(exist_ok=True)
            mask = np.zeros((64, 64), np.uint8)
            mask[10:30, 40:60] = 255
            Image.fromarray(mask).save(root / "label" / f"{split}_{number}.png")
    data = written("LEVIRCD", root, tmp_path, Task.DETECT_CHANGE)
    assert data.image_shape == (2, 3, 32, 32)
    assert data.samples["split"].value_counts().to_dict() == {"train": 12, "test": 8, "val": 4}
    assert data.read_targets(np.arange(24)).sum() == 6 * 20 * 20
    assert data.spec.gsd_m == 0.5


def test_xview2_damage_becomes_change(tmp_path):
    root = tmp_path / "xview2"
    for directory, count in (("train", 12), ("test", 2)):
        for number in range(count):
            for when, level in (("pre", 1), ("post", 3)):
                picture(root / directory / "images" / f"fire_{number:08d}_{when}_disaster.png", 32)
                target = np.zeros((32, 32), np.uint8)
                target[:8] = level if when == "pre" else 1  # standing
                target[8:12] = 1 if when == "pre" else level  # destroyed
                (root / directory / "targets").mkdir(parents=True, exist_ok=True)
                name = f"fire_{number:08d}_{when}_disaster_target.png"
                Image.fromarray(target).save(root / directory / "targets" / name)
    data = written("XView2", root, tmp_path, Task.DETECT_CHANGE)
    expected = np.zeros((32, 32), np.uint8)
    expected[8:12] = 1
    for target in data.read_targets(np.arange(14)):
        np.testing.assert_array_equal(target, expected)
    assert set(data.samples["split"]) <= {"train", "val", "test"}


def test_oscd_thirteen_bands_twice(tmp_path):
    root = tmp_path / "oscd"
    names = [*(f"B{i:02d}" for i in range(1, 9)), "B8A", "B09", "B10", "B11", "B12"]
    for split, regions in (("Train", ("paris", "rome", "beirut")), ("Test", ("milano",))):
        for region in regions:
            images = root / "Onera Satellite Change Detection dataset - Images" / region
            for date in (1, 2):
                for number, band in enumerate(names):
                    counts = RNG.integers(300 + 100 * number, 350 + 100 * number, (32, 32)).astype(np.uint16)
                    tif(images / f"imgs_{date}_rect" / f"{band}.tif", counts)
            (images / "dates.txt").write_text("date_1: 20160101\ndate_2: 20180101\n")
            labels = root / f"Onera Satellite Change Detection dataset - {split} Labels" / region / "cm"
            labels.mkdir(parents=True)
            Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(labels / "cm.png")
    data = written("OSCD", root, tmp_path, Task.DETECT_CHANGE)
    assert data.image_shape == (2, 13, 32, 32)
    assert data.spec.band_names[8] == "B8A"
    means = data.read(np.arange(4)).images.mean((0, 1, 3, 4))
    np.testing.assert_allclose(means, 0.0325 + 0.01 * np.arange(13), atol=1e-3)
    assert set(data.samples["sample_id"]) == {"train-paris", "train-rome", "train-beirut", "test-milano"}


@pytest.fixture(scope="module")
def bigearthnet(tmp_path_factory):
    """Sixty patches: bright ones are pastures, ones with bright near infrared have forest too."""
    root = tmp_path_factory.mktemp("bigearthnet")
    rng = np.random.default_rng(0)
    bands = [*(f"B{i:02d}" for i in range(1, 9)), "B8A", "B09", "B11", "B12"]
    splits = {"train": [], "val": [], "test": []}
    for number in range(60):
        name = f"S2A_MSIL2A_2017_{number:02d}"
        pasture, forest = bool(number % 2), bool(number // 2 % 2)
        for band in bands:
            level = 2500 if (pasture and band == "B04") or (forest and band == "B03") else 600
            level_noise = rng.normal(level, 40, (24, 24)).astype(np.uint16)
            tif(root / "BigEarthNet-v1.0" / name / f"{name}_{band}.tif", level_noise)
        labels = ["Pastures"] * pasture + ["Coniferous forest"] * forest + ["Water bodies"]
        document = {"labels": labels}
        (root / "BigEarthNet-v1.0" / name / f"{name}_labels_metadata.json").write_text(json.dumps(document))
        splits["train" if number < 40 else "val" if number < 48 else "test"].append(f"{name},S1_{number}")
    for split, lines in splits.items():
        (root / f"bigearthnet-{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def test_bigearthnet_has_several_labels_and_is_learnt(bigearthnet, tmp_path):
    data = written("BigEarthNet", bigearthnet, tmp_path, Task.CLASSIFY, chip_px=24)
    assert data.spec.multi_label
    assert len(data.spec.class_names) == 19
    targets = data.read_targets(np.arange(60))
    assert targets.shape == (60, 19)
    assert targets.sum(1).min() == 1
    assert targets.sum(1).max() == 3
    assert any(note.startswith("no training label of: ") for note in data.spec.notes)
    torch.manual_seed(0)
    encoder = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=1, decoder_dim=32).encoder
    plan = plan_inputs(data, ("red", "green", "blue"), {}, bands_per_view=3)
    inputs = TaskInputs(data, plan)
    model = TaskModel(encoder, HeadConfig(Task.CLASSIFY, "mean", 19, multi_label=True))
    recipe = FinetuneParameters(steps=60, batch_size=16, lr=1e-2, warmup_steps=5)
    finetune(model, inputs, data.rows("train"), recipe, seed=0, device=torch.device("cpu"))
    rows = data.rows("test")
    prediction = predict(model, inputs, rows, batch_size=16, device=torch.device("cpu"))
    scores = score_task(data, rows, prediction, resamples=200, seed=0)
    assert scores.scores["micro_f1"].value > 0.9
    assert scores.scores["macro_f1"].low <= scores.scores["macro_f1"].value <= scores.scores["macro_f1"].high
    assert set(scores.per_class) >= {"Pastures", "Coniferous forest"} & set(data.spec.class_names)
    assert scores.confusion.shape == (19, 19)


def stated(task, dataset, root, **data):
    """The parameter group of a data set that has no mapping here."""
    return TaskParameters.model_validate(
        {"task": task, "bands": ["red", "green", "blue"], "data": {"dataset": dataset, "folder": str(root), **data}}
    )


@pytest.fixture
def deepglobe(tmp_path):
    """Land cover as colours: water on the left, a town above it, what nobody knows on the right."""
    root = tmp_path / "deepglobe"
    for folder, count in (("training_data", 12), ("test_data", 2)):
        for number in range(count):
            picture(root / "data" / folder / "images" / f"{number}_sat.jpg")
            mask = np.zeros((32, 32, 3), np.uint8)
            mask[:, :16] = (0, 0, 255)
            mask[:4, :16] = (0, 255, 255)
            (root / "data" / folder / "masks").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "data" / folder / "masks" / f"{number}_mask.png")
    return root


def test_a_set_without_mapping_is_read_as_stated(deepglobe, tmp_path):
    words = {"format": "rgb_bytes", "gsd_m": 0.5, "ignore": [6]}
    splits = {"splits": {"train": "train", "test": "test"}}
    options = stated("segment", "DeepGlobeLandCover", deepglobe, **words, torchgeo=splits)
    write_source(tmp_path / "data", prepare(options, None, tmp_path))
    data = TaskData(tmp_path / "data")
    assert data.spec.class_names[4] == "Water"  # torchgeo's own names
    assert (data.spec.gsd_m, data.spec.source, len(data.rows("test"))) == (0.5, "DeepGlobeLandCover", 2)
    assert len(data.rows("val")) > 0 and len(data.rows("train")) + len(data.rows("val")) == 12
    for target in data.read_targets(np.arange(14)):
        assert (target[4:, :16] == 4).all() and (target[:4, :16] == 0).all() and (target[:, 16:] == IGNORE).all()
    assert any("as stated in the parameters" in note for note in data.spec.notes)


def test_a_set_without_splits_is_split_by_name(tmp_path):
    for label in ("beach", "forest"):
        for number in range(40):
            picture(tmp_path / "PatternNet" / "images" / label / f"{label}{number:03d}.jpg")
    options = stated("classify", "PatternNet", tmp_path, torchgeo={})
    write_source(tmp_path / "data", prepare(options, None, tmp_path))
    data = TaskData(tmp_path / "data")
    assert data.spec.class_names == ("beach", "forest")
    names, labels = data.samples["sample_id"], data.read_targets(np.arange(80))
    assert [("forest" in name) for name in names] == (labels == 1).tolist()
    assert {split: len(data.rows(split)) > 0 for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), True
    )


@pytest.mark.parametrize(
    ("dataset", "data", "message"),
    [
        ("NAIP", {}, "torchgeo has no data set of samples named 'NAIP'; it is a mosaic"),
        ("os", {}, "torchgeo has no data set of samples named 'os'"),
        ("PatternNet", {"torchgeo": {"arguments": {"bands": "s2"}}}, "PatternNet takes no bands; it takes nothing"),
        ("DeepGlobeLandCover", {"torchgeo": {"arguments": {"bands": "all"}}}, "takes no bands; it takes split"),
        ("DeepGlobeLandCover", {"first_class": 1}, "labels 0 are outside the 7 values 1 .*segment.data.first_class"),
        ("DeepGlobeLandCover", {"class_names": ["urban", "field"]}, "labels 4, 6 are outside the 2 values 0 urban, 1"),
        ("COWC", {}, "torchgeo has no data set of samples named 'COWC'"),
        ("SSL4EO", {}, "torchgeo has no data set of samples named 'SSL4EO'"),
        ("NonGeoDataset", {}, "torchgeo has no data set of samples named 'NonGeoDataset'"),
        ("SKIPPD", {}, "torchgeo reads SKIPPD by pickle, which runs what a file says"),
        (
            "DeepGlobeLandCover",
            {"torchgeo": {"splits": {"train": "train", "x": "test"}}},
            "cannot be opened at .*split='x'",
        ),
        (
            "CopernicusBench",
            {},
            "torchgeo's CopernicusBench cannot be opened at .* with no arguments .*argument: 'name'",
        ),
        ("DeepGlobeLandCover", {"format": "eurosat_ms"}, "3 bands, but the stated format has 13"),
    ],
)
def test_what_is_stated_wrongly_is_told(deepglobe, tmp_path, dataset, data, message):
    data = {"torchgeo": {}, **data}
    options = stated("segment", dataset, deepglobe, **data)
    with pytest.raises(TaskDataError, match=message):
        write_source(tmp_path / "data", prepare(options, None, tmp_path))


def test_parameters_of_a_stated_set_are_checked():
    with pytest.raises(ValueError, match="splits must lead to train and test, found train"):
        stated("segment", "X", "x", torchgeo={"splits": {"train": "train"}})
    with pytest.raises(ValueError, match="decided elsewhere: download, root"):
        stated("segment", "X", "x", torchgeo={"arguments": {"root": "/", "download": True}})
    with pytest.raises(ValueError, match=r"'unlabelled' is gone; set data\.ignore"):
        stated("segment", "X", "x", torchgeo={"unlabelled": [6]})


def test_labels_of_a_known_set_are_not_stated_again(tmp_path):
    with pytest.raises(
        TaskDataError, match=r"segment\.data: first_class, .* and those of LoveDA are known: leave them"
    ):
        prepare(stated("segment", "LoveDA", tmp_path, first_class=1), None, tmp_path)


def loveda(root, values, size=32):
    """Pictures whose masks hold values: the first on the left, the second on the right."""
    for split, count in (("Train", 12), ("Val", 3)):
        for number in range(count):
            picture(root / split / "Rural" / "images_png" / f"{number}.png", size)
            mask = np.full((size, size), values[0], np.uint8)
            mask[:, size // 2 :] = values[-1]
            (root / split / "Rural" / "masks_png").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / split / "Rural" / "masks_png" / f"{number}.png")


@pytest.mark.parametrize(
    ("values", "data", "found"),
    [
        ((0, 255), {}, "all other masks hold 0 and 255 alone: 255 is ignored, so nothing would be 'roof'"),
        ((0, 255), {"class_values": [0, 255]}, [0, 1]),
        ((0, 255), {"ignore": [255], "class_names": ["land", "roof"]}, [0, IGNORE]),
        ((1, 2), {"first_class": 1}, [0, 1]),
        ((1, 255), {"first_class": 1}, [0, IGNORE]),
        ((1, 3), {"first_class": 1}, "labels 3 are outside the 2 values 1 land, 2 roof (255 is ignored)"),
        ((0, 1), {"first_class": 1}, "labels 0 are outside the 2 values 1 land, 2 roof"),
    ],
)
def test_labels_are_read_by_the_rule_of_masks(tmp_path, values, data, found):
    loveda(tmp_path / "loveda", values)
    words = {"class_names": ["land", "roof"], "torchgeo": {"splits": {"train": "train", "val": "test"}}, **data}
    words["torchgeo"]["arguments"] = {"scene": ["rural"]}
    source = prepare(stated("segment", "LoveDA", tmp_path / "loveda", **words), None, tmp_path)
    targets = (target for sample in source.samples() for target in [sample.target])
    if isinstance(found, str):
        with pytest.raises(TaskDataError, match=re.escape(found)):
            list(targets)
        return
    assert all((target[:, :16] == found[0]).all() and (target[:, 16:] == found[1]).all() for target in targets)


def test_what_no_sensor_measured_is_not_valid(tmp_path):
    seen = np.zeros((32, 32), bool)
    seen[8:28] = True
    for split in ("train", "test"):
        for number in range(3):
            counts = RNG.integers(1500, 1700, (3, 32, 32)).astype(np.float32)
            counts[1, :8], counts[2, :8, 9:] = np.nan, -3.4e38
            counts[:, 28:] = 0  # the format's nodata
            tif(tmp_path / "solar" / split / "input" / f"img({number}).tif", counts)
            tif(tmp_path / "solar" / split / "labels" / f"target({number}).tif", np.eye(32, dtype=np.uint8))
    words = {"format": "sentinel-2-l2a", "file_bands": ["red", "green", "blue"], "class_names": ["land", "plant"]}
    splits = {"splits": {"train": "train", "test": "test"}}
    options = stated("segment", "SolarPlantsBrazil", tmp_path / "solar", **words, torchgeo=splits)
    write_source(tmp_path / "data", prepare(options, None, tmp_path))
    data = TaskData(tmp_path / "data")
    read = data.read(np.arange(6))
    assert (read.valid[:, 0] == seen).all() and (read.targets[:, ~seen] == IGNORE).all()
    assert 0.049 < read.images[..., seen].min() <= read.images.max() < 0.071
    for path in (tmp_path / "solar").rglob("img*.tif"):
        tif(path, np.full((3, 32, 32), np.nan, np.float32))
    with pytest.raises(
        TaskDataError, match=r"SolarPlantsBrazil: no pixel of any image is valid .*: set segment\.data\."
    ):
        list(prepare(options, None, tmp_path).samples())


def test_unequal_pictures_are_cut_or_padded_and_unequal_pairs_are_refused(tmp_path):
    root, files = tmp_path / "resisc", {"train": [], "val": [], "test": []}
    for label in ("airport", "forest"):
        for split, names in files.items():
            picture(root / "NWPU-RESISC45" / label / f"{label}_{split}.jpg", 32 if label == "airport" else 24, low=1)
            names.append(f"{label}_{split}.jpg")
    class_list(root, "resisc45", files)
    source = torchgeo_data("RESISC45", root, Task.CLASSIFY, chip_px=None)
    shares = [sample.valid.mean() for sample in source.samples()]
    assert sorted(shares) == [(24 / 32) ** 2] * 3 + [1] * 3
    assert any("images of another size, cut from the middle or padded" in note for note in source.late_notes())

    for split in ("train", "val", "test"):
        for date, size in (("A", 64), ("B", 48)):
            picture(tmp_path / "levir" / date / f"{split}_0.png", size)
        (tmp_path / "levir" / "label").mkdir(exist_ok=True)
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "levir" / "label" / f"{split}_0.png")
    with pytest.raises(TaskDataError, match=r"3 of 3 files in LEVIRCD cannot be read .* equal size"):
        list(torchgeo_data("LEVIRCD", tmp_path / "levir", Task.DETECT_CHANGE, chip_px=None).samples())


def test_what_is_not_there_not_known_or_for_another_task(tmp_path):
    with pytest.raises(TaskDataError, match=r"RESISC45 is not at .* in the layout that torchgeo reads"):
        torchgeo_data("RESISC45", tmp_path, Task.CLASSIFY, chip_px=None)
    with pytest.raises(TaskDataError, match="'Eurosat' is not mapped; known are EuroSAT, RESISC45"):
        torchgeo_data("Eurosat", tmp_path, Task.CLASSIFY, chip_px=None)
    with pytest.raises(TaskDataError, match="OSCD is for detect_change, not for segment"):
        torchgeo_data("OSCD", tmp_path, Task.SEGMENT, chip_px=None)
    options = TaskParameters.model_validate({"task": "classify", "data": {"dataset": "EuroSAT"}})
    with pytest.raises(TaskDataError, match=r"set classify\.data\.folder to where it lies"):
        prepare(options, None, tmp_path)


@pytest.mark.parametrize("link", ["images", "file.tif", "deep/er/file.tif"])
def test_links_out_of_the_root_are_refused(tmp_path, link):
    root, other = tmp_path / "resisc", tmp_path / "other"
    other.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(other)
    with pytest.raises(TaskDataError, match=rf"{link} is a link out of .*resisc, to .*other: .*copy them into it"):
        torchgeo_data("RESISC45", root, Task.CLASSIFY, chip_px=None)
    (root / link).unlink()
    (root / link).symlink_to(root)
    with pytest.raises(TaskDataError, match="RESISC45 is not at"):
        torchgeo_data("RESISC45", root, Task.CLASSIFY, chip_px=None)


@pytest.mark.parametrize("name", ["../evil.txt", "link"])
def test_an_archive_that_a_set_unpacks_writes_nothing_outside(tmp_path, name):
    """torchvision unpacks a .tar.gz that lies where a set is expected, and Python 3.11 would follow any path in it."""
    root = tmp_path / "xview2"
    root.mkdir()
    for split in ("train_images_labels_targets", "test_images_labels_targets"):
        with tarfile.open(root / f"{split}.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, "/etc") if name == "link" else (tarfile.REGTYPE, "")
            archive.addfile(member)
    with pytest.raises(TaskDataError, match=r"XView2 cannot be opened at .*(outside|absolute path)"):
        prepare(TaskParameters.model_validate(
            {"task": "detect_change", "data": {"dataset": "XView2", "folder": str(root)}}
        ), None, None)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["xview2"]
    assert "extraction_filter" not in vars(tarfile.TarFile)


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"image1": np.zeros((3, 8, 8))}, "hands out image1, classify needs 'image' and 'label'"),
        (
            {"image": np.zeros((8, 8)), "label": 1},
            r"'image' is float64 of shape \(8, 8\), expected numbers of 3 or 4 axes",
        ),
        ({"image": np.zeros((3, 8, 8)), "label": "wood"}, "'label' is <U4 of shape"),
    ],
)
def test_what_torchgeo_hands_out_is_looked_at(sample, told):
    with pytest.raises(TaskDataError, match=told):
        _scene("a", None, sample, DATA_SETS["EuroSAT"], None)


def test_classes_of_a_known_set_are_not_named(tmp_path):
    options = stated("classify", "EuroSAT", tmp_path, class_names=["a", "b"])
    with pytest.raises(TaskDataError, match=r"classify\.data\.class_names: the classes of EuroSAT are known"):
        prepare(options, None, tmp_path)


def test_every_mapping_names_a_class_of_torchgeo_and_states_its_units():
    import torchgeo.datasets

    for name, mapped in DATA_SETS.items():
        assert hasattr(torchgeo.datasets, name)
        assert mapped.reference
        assert mapped.layout.gsd_m > 0
        wavelengths = [band.center_wavelength_nm for band in mapped.layout.sensor.bands]
        assert min(wavelengths) > 300
        assert bool(mapped.classes) == (mapped.task is Task.SEGMENT)  # others have them from torchgeo, or changed
        if mapped.target is not None:
            assert mapped.target(np.array([0, 1, 2])).max() in (1, 1, IGNORE)

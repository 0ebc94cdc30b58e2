"""Models that read image sets: what decides their answer, and what does not."""

import dataclasses

import numpy as np
import pytest
import torch

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.evaluation.both_starts import answered, score_both
from a2mae.tasks.finetune.calibration import calibrate
from a2mae.tasks.finetune.finetuned import finetune_start, load_task_model, save_task_model
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import finetune, head_for, predict
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.registry import Task
from helpers.small_archive import L8, S1, S2, land_cover, land_use, small_archive

CPU = torch.device("cpu")
BANDS = ["red", "green", "blue", "nir", "vv", "vh"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    tables = small_archive(folder / "store", clouded={(1, "2023-07-01")})
    return tables, land_cover(folder, tables)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The same, but its fields have become woods in 2023."""
    folder = tmp_path_factory.mktemp("grown")
    tables = small_archive(folder / "store", clouded={(1, "2023-07-01")}, grown="2023-01-01")
    return tables, land_use(folder, tables)


@pytest.fixture
def of_task(archive, grown):
    return lambda task: grown if task == "detect_transitions" else archive


def pretrained_with(encoding, folder):
    """A model directory that knows light and radar."""
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32, encoding=encoding)
    light = {band: [0.06, 0.05] for band in ("B02", "B03", "B04", "B08", "SR_B2", "SR_B3", "SR_B4", "SR_B5")}
    taught = {S2: light, L8: light, S1: {"vv": [-11.0, 3.0], "vh": [-17.0, 3.0]}}
    return save_pretrained(model, folder / "m", config={"sensors": [S2, L8, S1], "normalization": taught})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretrained_with("own", tmp_path_factory.mktemp("pretrained"))


def options(labels, task="segment", head="linear", *, images=5, join="attention", bands=BANDS, **changes):
    data = {"labels": str(labels), "archive": {"sensors": [S2], "bands": bands, "chip_px": 48, "min_valid": 0.4}}
    data |= {"value_property": "height"} if task == "estimate" else {"class_names": ["field", "wood"]}
    if task == "classify" or head == "mean":
        data["archive"]["chip_px"] = 24
    recipe = {"steps": 12, "batch_size": 4, "lr": 3e-3, "warmup_steps": 2, "precision": "32-true"}
    asked = {"task": task, "head": head, "bands": bands, "data": data, "finetune": recipe, "threads": 1}
    data["archive"]["inputs"] = {"images": images, "join": join, **({"sensors": [S2, L8, S1]} if images > 1 else {})}
    return TaskParameters.model_validate({**asked, **changes})


def data_for(asked, tables, folder):
    write_source(folder, prepare(asked, tables, None))
    return TaskData(folder)


def short(asked):
    return asked.model_copy(update={"finetune": FinetuneParameters(steps=2, batch_size=4, precision="32-true")})


@pytest.mark.parametrize("encoding", ["own", "paper"])
def test_law_neither_order_nor_missing_images_nor_unseen_pixels_matter(archive, tmp_path, encoding):
    asked = options(archive[1], head="rcf")
    data = data_for(asked, archive[0], tmp_path / "data")
    finetuned = finetune_start(short(asked), data, pretrained_with(encoding, tmp_path), "pretrained").finetuned
    model, batch = finetuned.model.requires_grad_(False).eval(), TaskInputs(data, finetuned.plan).batch(np.arange(6))
    torch.nn.init.normal_(model.joiner.queries[0][1].weight)  # attention that is no mean
    found = model(batch)
    if model.encoder.config.encoding == "own":  # the paper's is the anchor's for all images
        order = [0, 3, 1, 4, 2]
        moved = {name: getattr(batch, name)[:, order] for name in ("images", "day", "wavelength_nm", "valid")}
        torch.testing.assert_close(model(dataclasses.replace(batch, **moved)), found, atol=1e-4, rtol=1e-4)
    more = {
        "images": torch.nn.functional.pad(batch.images, (0, 0) * 3 + (0, 2), value=7.0),
        "day": torch.nn.functional.pad(batch.day, (0, 2)),
        "wavelength_nm": torch.nn.functional.pad(batch.wavelength_nm, (0, 0, 0, 2), value=-1.0),
        "valid": torch.nn.functional.pad(batch.valid, (0, 0) * 2 + (0, 2)),
    }
    torch.testing.assert_close(model(dataclasses.replace(batch, **more)), found, atol=1e-4, rtol=1e-4)
    absent = ~batch.valid.flatten(2).any(2)
    assert absent.any(), "places without radar or Landsat"
    images = batch.images.clone()
    images[absent] = 9.0
    torch.testing.assert_close(model(dataclasses.replace(batch, images=images)), found, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(found).all()


def test_a_set_of_one_image_is_read_as_a_single_image(archive, pretrained, tmp_path):
    asked = options(archive[1], images=1, bands=["red", "green", "blue"], head="conv")
    data = data_for(asked, archive[0], tmp_path / "data")
    run = finetune_start(short(asked), data, pretrained, "pretrained")
    single = run.finetuned.model.requires_grad_(False).eval()
    batch = TaskInputs(data, run.finetuned.plan).batch(np.flatnonzero(data.samples["place"] != "p1"))
    assert batch.valid is None and batch.wavelength_nm.ndim == 1
    several = TaskModel(single.encoder, dataclasses.replace(single.config, images=2)).requires_grad_(False).eval()
    several.head.load_state_dict(single.head.state_dict())
    count = len(batch.images)
    as_set = dataclasses.replace(
        batch,
        valid=torch.ones(count, 1, 48, 48, dtype=torch.bool),
        wavelength_nm=batch.wavelength_nm.expand(count, 1, -1),
    )
    torch.testing.assert_close(several(as_set), single(batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("task", "head"), [("segment", "rcf"), ("classify", "attentive")])
def test_sets_of_one_image_are_sets(archive, pretrained, tmp_path, task, head):
    """Where no place has two images of a period; such a model had nothing that joins, and failed in its first step."""
    asked = options(archive[1], task, head, bands=BANDS[:3])
    archive_only = asked.data.archive.model_copy(
        update={"inputs": InputParameters(images=2, sensors=[S2], window=["2023-07-01", "2023-07-01"])}
    )
    asked = short(asked.model_copy(update={"data": asked.data.model_copy(update={"archive": archive_only})}))
    data = data_for(asked, archive[0], tmp_path / "data")
    assert data.image_shape[0] == 1 and data.spec.set_sensors
    finetuned = finetune_start(asked, data, pretrained, "pretrained").finetuned
    assert finetuned.model.config.images == 1
    found = predict(finetuned.model, TaskInputs(data, finetuned.plan), data.rows("train"), batch_size=4, device=CPU)
    assert np.isfinite(found).all() and len(found) == len(data.rows("train"))


def test_attention_begins_at_the_mean_and_learns(archive, pretrained, tmp_path):
    asked = options(archive[1], head="conv")
    data = data_for(asked, archive[0], tmp_path / "data")
    inputs = TaskInputs(data, finetune_start(asked, data, pretrained, "random").finetuned.plan)
    models = {}
    for join in ("attention", "mean"):
        config = head_for(data, inputs.plan, options(archive[1], join=join), "conv")
        assert (config.images, config.join) == (5, join)
        torch.manual_seed(0)
        model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32, encoding="own").encoder
        torch.manual_seed(1)
        models[join] = TaskModel(model, config).eval()
    with torch.no_grad():
        batch = inputs.batch(np.arange(4))
        torch.testing.assert_close(models["attention"](batch), models["mean"](batch))
    recipe = FinetuneParameters(steps=5, batch_size=4, precision="32-true")
    finetune(models["attention"], inputs, data.rows("train"), recipe, seed=0, device=CPU)
    assert all(float(query[1].weight.abs().max()) > 0 for query in models["attention"].joiner.queries)


@pytest.mark.parametrize(
    ("task", "head"),
    [("segment", "rcf"), ("segment", "detail"), ("segment", "upernet"), ("estimate", "conv"), ("estimate", "mean"),
     ("classify", "linear"), ("classify", "rcf"), ("classify", "attentive"), ("detect_transitions", "rcf"),
     ("detect_transitions", "detail"), ("detect_transitions", "upernet")],
)  # fmt: skip
def test_every_head_decodes_sets_and_comes_back_from_disk(of_task, pretrained, tmp_path, task, head):
    tables, labels = of_task(task)
    asked = options(labels, task, head)
    data = data_for(asked, tables, tmp_path / "data")
    run = finetune_start(asked, data, pretrained, "pretrained")
    save_task_model(tmp_path / "model", run)
    again = load_task_model(tmp_path / "model")
    rows = data.rows("test")
    inputs = TaskInputs(data, again.plan)
    found = predict(again.model, inputs, rows, batch_size=64, device=CPU)
    np.testing.assert_array_equal(found, predict(run.finetuned.model, inputs, rows, batch_size=64, device=CPU))
    dates = again.spec.task.kind.dates
    assert found.shape == data.read_targets(rows).shape and again.model.config.images == data.image_shape[0] / dates


@pytest.mark.parametrize("head", ["conv", "rcf"])
def test_law_of_pairs_neither_order_nor_missing_images_matter_and_the_dates_do(grown, pretrained, tmp_path, head):
    asked = options(grown[1], "detect_transitions", head)
    data = data_for(asked, grown[0], tmp_path / "data")
    finetuned = finetune_start(short(asked), data, pretrained, "pretrained").finetuned
    model, batch = finetuned.model.requires_grad_(False).eval(), TaskInputs(data, finetuned.plan).batch(np.arange(6))
    for query in model.joiner.queries:
        torch.nn.init.normal_(query[1].weight)
    found, half = model(batch), batch.images.shape[1] // 2
    assert found.shape[1] == 2 * 2 + 2 and batch.images.shape[1] == 2 * half == 2 * model.config.images

    def given(order):
        """The batch with images in another order; -1 is a missing one that holds rubbish."""
        index = torch.tensor(order).clamp(min=0)
        gone = torch.tensor([number < 0 for number in order])
        moved = {name: getattr(batch, name)[:, index].clone() for name in ("images", "day", "wavelength_nm", "valid")}
        moved["images"][:, gone], moved["wavelength_nm"][:, gone], moved["valid"][:, gone] = 7.0, -1.0, False
        return dataclasses.replace(batch, **moved)

    same = [*reversed(range(half)), *reversed(range(half, 2 * half))]
    torch.testing.assert_close(model(given(same)), found, atol=1e-4, rtol=1e-4)
    more = [*range(half), -1, -1, *range(half, 2 * half), -1, -1]
    torch.testing.assert_close(model(given(more)), found, atol=1e-4, rtol=1e-4)
    swapped = model(given([*range(half, 2 * half), *range(half)]))
    torch.testing.assert_close(swapped[:, :2], found[:, 2:4], atol=1e-4, rtol=1e-4)
    assert (swapped[:, :2] - found[:, :2]).abs().max() > 1e-3


def test_a_pair_of_sets_of_one_image_is_read_as_a_pair(grown, pretrained, tmp_path):
    asked = options(grown[1], "detect_transitions", "conv", images=1, bands=["red", "green", "blue"])
    data = data_for(asked, grown[0], tmp_path / "data")
    run = finetune_start(short(asked), data, pretrained, "pretrained")
    single = run.finetuned.model.requires_grad_(False).eval()
    whole = np.flatnonzero(data.read(np.arange(len(data.samples))).valid.all(axis=(1, 2, 3)))
    batch = TaskInputs(data, run.finetuned.plan).batch(whole)
    several = TaskModel(single.encoder, dataclasses.replace(single.config, images=2)).requires_grad_(False).eval()
    missing = several.load_state_dict(single.state_dict(), strict=False)
    assert all(name.startswith("joiner.") for name in missing.missing_keys) and not missing.unexpected_keys
    as_sets = dataclasses.replace(
        batch,
        valid=torch.ones(len(whole), 2, 48, 48, dtype=torch.bool),
        wavelength_nm=batch.wavelength_nm.expand(len(whole), 2, -1),
    )
    torch.testing.assert_close(several(as_sets), single(batch), atol=1e-4, rtol=1e-4)


def test_scores_twin_and_pictures_of_pairs_of_sets(grown, pretrained, tmp_path):
    recipe = {"steps": 40, "batch_size": 4, "lr": 3e-3, "warmup_steps": 2, "loss": "cross_entropy_dice"}
    asked = options(grown[1], "detect_transitions", "rcf", images=3, bootstrap=100, finetune=recipe)
    data = data_for(asked, grown[0], tmp_path / "data")
    models = {start: finetune_start(asked, data, pretrained, start).finetuned for start in ("pretrained", "random")}
    result = score_both(asked, data, models)
    assert result.metrics["pretrained"]["f_scd"] > 0.8 and result.metrics["rcf"]["f_scd"] > 0.8
    half = data.image_shape[0] // 2
    first = list(data.samples["sample_id"]).index(result.pictures["sample_id"][0])
    arrays = data.read(np.array([first]))
    for name, number in (("image_before", 0), ("image_after", half)):
        seen = arrays.valid[0, number]
        assert (result.pictures[name][0].any(-1) <= seen).all() and result.pictures[name].shape[1:] == (48, 48, 3)
    bright = [result.pictures[f"image_{date}"][0, 24:].mean(axis=(0, 2)) for date in ("before", "after")]
    west, east = np.array([[line[:20].mean(), line[28:].mean()] for line in bright]).T
    assert west[0] > 2 * east[0] and west[1] == pytest.approx(east[1], rel=0.2), "the field is a wood in the second"


def test_scores_twin_and_baseline_of_sets(archive, pretrained, tmp_path):
    asked = options(archive[1], head="rcf", symmetric=True, bootstrap=100)
    data = data_for(asked, archive[0], tmp_path / "data")
    models = {start: finetune_start(asked, data, pretrained, start).finetuned for start in ("pretrained", "random")}
    result = score_both(asked, data, models)
    assert result.metrics["pretrained"]["miou"] > 0.8 and "gain_low" not in result.metrics and "gain" in result.metrics
    assert result.metrics["rcf"]["miou"] > 0.8 and result.pictures["image"].shape[1:] == (48, 48, 3)
    assert any("a sample is an image set" in rule for rule in result.metrics["rules"])


def test_a_stopped_finetuning_of_sets_goes_on_to_the_same_weights(archive, pretrained, tmp_path, monkeypatch):
    asked = options(archive[1], head="conv")
    data = data_for(asked, archive[0], tmp_path / "data")
    whole = finetune_start(asked, data, pretrained, "pretrained").finetuned.model.state_dict()
    stopped = TaskInputs.batch

    def stops(self, rows):
        stops.left -= 1
        if not stops.left:
            raise KeyboardInterrupt
        return stopped(self, rows)

    stops.left = 8
    monkeypatch.setattr("a2mae.tasks.finetune.checkpoints._EVERY_S", 0.0, raising=False)
    monkeypatch.setattr(TaskInputs, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        finetune_start(asked, data, pretrained, "pretrained", tmp_path / "run")
    monkeypatch.setattr(TaskInputs, "batch", stopped)
    again = finetune_start(asked, data, pretrained, "pretrained", tmp_path / "run").finetuned.model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_model_of_single_images_is_described_as_before():
    config = HeadConfig(Task.SEGMENT, "conv", 2)
    assert not {"images", "join"} & config.to_dict().keys()


@pytest.mark.parametrize("task", ["segment", "classify", "detect_transitions"])
def test_more_sets_than_a_batch_holds_are_calibrated_and_scored_as_few(of_task, pretrained, tmp_path, task):
    tables, labels = of_task(task)
    asked = options(labels, task)
    data = data_for(asked, tables, tmp_path / "data")
    finetuned = finetune_start(short(asked), data, pretrained, "pretrained").finetuned
    model, inputs = finetuned.model, TaskInputs(data, finetuned.plan)
    few = np.arange(len(data.samples))[: 64 // 5]
    many = np.tile(few, 3)
    for rows in (few, many):
        model.config = dataclasses.replace(model.config, temperature=1.0)
        calibrate(model, inputs, rows, seed=0, device=CPU)
        if rows is few:
            expected = model.config.temperature
    assert model.config.temperature == pytest.approx(expected, rel=1e-3) and expected != 1
    prediction, counts = answered(model, inputs, many, CPU)
    assert np.array_equal(prediction, predict(model, inputs, many, batch_size=500, device=CPU))
    once, of_few = answered(model, inputs, few, CPU)
    assert np.array_equal(prediction, np.tile(once, (3, *[1] * (once.ndim - 1))))
    assert counts.answers().matrix == pytest.approx(3 * of_few.answers().matrix)

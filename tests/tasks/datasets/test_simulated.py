import itertools
import json
import shutil

import numpy as np
import pytest
from affine import Affine

from a2mae.errors import A2maeError
from a2mae.simulate.run import simulate, tiny_parameters
from a2mae.tasks.data_parameters import SimulatedDataParameters
from a2mae.tasks.datasets.cuts import Truth, displacement_m
from a2mae.tasks.datasets.simulated import cut_simulated
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.store_samples import Tables
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import is_changed
from helpers.built_world import build_world

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny world whose scenes are displaced by up to three pixels."""
    folder = tmp_path_factory.mktemp("simulated")
    asked = tiny_parameters(seed=5)
    far = {
        sensor: tuple(look.model_copy(update={"shift_px": 3.0}) for look in looks)
        for sensor, looks in asked.acquisitions.items()
    }
    simulate(asked.model_copy(update={"acquisitions": far}), folder)
    return folder


@pytest.fixture(scope="module")
def registered(world, tmp_path_factory):
    return build_world(world, tmp_path_factory.mktemp("registered") / "store.zarr")[0]


@pytest.fixture(scope="module")
def nominal(world, tmp_path_factory):
    return build_world(world, tmp_path_factory.mktemp("nominal") / "store.zarr", move=False)[0]


def parameters(**values):
    return SimulatedDataParameters(**{"bands": BANDS, "chip_px": 64, "min_valid": 0.3, **values})


def mismatch(pixels, classes):
    """Within-class variance over total variance, summed over bands: smallest where labels lie on their pixels."""
    scored = classes != IGNORE
    values = pixels[:, scored].astype(float)
    within = sum(
        ((values[:, classes[scored] == c] - values[:, classes[scored] == c].mean(1, keepdims=True)) ** 2).sum(1)
        for c in np.unique(classes[scored])
    )
    return float((within / ((values - values.mean(1, keepdims=True)) ** 2).sum(1)).sum())


def best_offset(tables, truth, image):
    """Displacement in whole pixels at which the truth fits the stored image best, found by trying all of them."""
    place = tables.locations.set_index("location_id").loc[image["location_id"]]
    pixels, valid = tables.store.read("sentinel-2-l2a", [image["row"]], ["B02", "B03", "B04", "B08", "B11"])
    transform = Affine.translation(place["x_m"], place["y_m"]) @ Affine.scale(10, -10)

    def fit(offset):
        classes = truth.on_grid(
            truth.region(image["scene_id"]),
            truth.period(image["scene_id"]),
            crs=place["crs"],
            transform=transform,
            shape=pixels.shape[-2:],
            shift_m=(offset[0] * 10.0, offset[1] * 10.0),
        )
        return mismatch(pixels[0], np.where(valid[0], classes, IGNORE))

    return min(itertools.product(range(-4, 5), repeat=2), key=fit)


@pytest.mark.parametrize("kind", ["registered", "nominal"])
def test_truth_is_moved_as_the_image_was(world, registered, nominal, kind):
    tables = registered if kind == "registered" else nominal
    truth = Truth(world)
    reference = tables.images[tables.images["is_reference"]].set_index("set_id")["scene_id"]
    far = []
    one_place = tables.images[tables.images["location_id"] == tables.images["location_id"].iloc[0]]
    for _, image in one_place.iterrows():
        east, north = displacement_m(image, reference, truth)
        found = best_offset(tables, truth, image)
        assert abs(found[0] - east / 10) <= 1
        assert abs(found[1] - north / 10) <= 1
        far.append(max(abs(east), abs(north)))
    assert max(far) > 10  # the world's shifts are larger than what the assertion forgives
    shared = {displacement_m(image, reference, truth) for _, image in tables.images.iterrows()}
    assert len(shared) == (1 if kind == "registered" else 2)  # one scene is every place's reference; two scenes in all


def test_segmentation_labels_lie_on_their_pixels(world, registered, tmp_path):
    source = cut_simulated(Task.SEGMENT, registered, Truth(world), parameters(), seed=0)
    count = write_task_data(tmp_path / "data", source.spec, source.samples())
    data = TaskData(tmp_path / "data")
    assert count == len(data.samples) > 40
    read = data.read(np.arange(count))
    red, nir = read.images[:, 0, data.spec.band_index("red")], read.images[:, 0, data.spec.band_index("nir")]
    of_class = {name: read.targets == i for i, name in enumerate(data.spec.class_names)}
    vegetation = (nir - red) / np.maximum(nir + red, 1e-3)
    assert np.median(vegetation[of_class["broadleaf_forest"]]) > 0.5 > np.median(vegetation[of_class["built_up"]])
    assert (read.targets[~read.valid[:, 0]] == IGNORE).all()
    # every place in one split, samples named once, grid centres inside the region
    assert data.samples.groupby("place")["split"].nunique().max() == 1
    assert data.samples["sample_id"].is_unique
    assert data.samples["lon"].nunique() > 4
    assert data.samples["lon"].between(12.2, 12.4).all()


def test_trees_are_green_and_have_heights_that_show(world, registered, tmp_path):
    source = cut_simulated(Task.ESTIMATE, registered, Truth(world), parameters(), seed=0)
    write_task_data(tmp_path / "data", source.spec, source.samples())
    data = TaskData(tmp_path / "data")
    assert str(data.spec.quantity) == "tree height, m" and data.spec.class_names == () and data.spec.per_pixel
    read = data.read(np.arange(len(data.samples)))
    known = np.isfinite(read.targets)
    assert (known <= read.valid[:, 0]).all() and known.mean() > 0.5
    heights = read.targets[known]
    assert heights.min() == 0 and 18 < heights.max() <= 25.2  # a conifer of 18 m, 40 % more where it is darkest
    red, nir = (read.images[:, 0, data.spec.band_index(name)][known] for name in ("red", "nir"))
    vegetation = (nir - red) / np.maximum(nir + red, 1e-3)
    assert np.median(vegetation[heights > 10]) > 0.5
    tall = heights > 8
    assert np.corrcoef(nir[tall], heights[tall])[0, 1] < -0.2, "taller stands are darker in the near infrared"
    whole = cut_simulated(Task.ESTIMATE, registered, Truth(world), parameters(), seed=0, per_pixel=False)
    means = {sample_key(cut): float(np.nanmean(cut.target)) for cut in source.cuts}
    assert len(whole.cuts) > 10 and not whole.spec.per_pixel
    assert all(float(cut.target) == pytest.approx(means[sample_key(cut)], abs=1e-4) for cut in whole.cuts)


def test_a_simulation_of_an_earlier_version_has_no_trees(world, registered, tmp_path):
    document = json.loads((world / "manifest.json").read_text())
    for region in document["regions"]:
        del region["tree_height"]
    (tmp_path / "truth").symlink_to(world / "truth")
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(TaskDataError, match="has no height of trees: it is of an earlier version, simulate again"):
        cut_simulated(Task.ESTIMATE, registered, Truth(tmp_path), parameters(), seed=0)


def test_classification_is_balanced_pure_and_within_budget(world, registered):
    source = cut_simulated(
        Task.CLASSIFY, registered, Truth(world), parameters(chip_px=16, min_purity=0.7, max_train=60), seed=0
    )
    train = [int(cut.target) for cut in source.cuts if cut.split == "train"]
    counts = np.bincount(train, minlength=len(source.spec.class_names))
    assert len(source.spec.class_names) >= 3
    assert counts.min() >= 1
    assert counts.max() <= 60 // len(source.spec.class_names)
    truth = Truth(world)
    whole = cut_simulated(
        Task.SEGMENT, registered, truth, parameters(chip_px=16, min_valid=0.3), seed=0
    )  # the same windows with all their pixels
    pixels = {sample_key(cut): cut.target for cut in whole.cuts}
    for cut in source.cuts:
        name = source.spec.class_names[int(cut.target)]
        target = pixels[sample_key(cut)]
        assert np.mean(target == whole.spec.class_names.index(name)) >= 0.7
    again = cut_simulated(
        Task.CLASSIFY, registered, truth, parameters(chip_px=16, min_purity=0.7, max_train=60), seed=0
    )
    assert [sample_key(cut) for cut in again.cuts] == [sample_key(cut) for cut in source.cuts]


def sample_key(cut):
    return (*(image["image_id"] for image in cut.images), cut.window)


def test_change_pairs_show_the_change_where_the_mask_says(world, registered, tmp_path):
    source = cut_simulated(Task.DETECT_CHANGE, registered, Truth(world), parameters(), seed=0)
    write_task_data(tmp_path / "data", source.spec, source.samples())
    data = TaskData(tmp_path / "data")
    assert data.spec.class_names == ("unchanged", "changed")
    assert data.image_shape[:2] == (2, 6)
    assert (data.samples["day"] > data.samples["day_before"]).all()
    read = data.read(np.arange(len(data.samples)))
    difference = np.abs(read.images[:, 1] - read.images[:, 0]).mean(axis=1)
    changed, same = read.targets == 1, read.targets == 0
    assert changed.sum() > 500
    assert difference[changed].mean() > 2 * difference[same].mean()
    assert (read.targets[~read.valid.all(axis=1)] == IGNORE).all()


def test_transitions_are_the_land_cover_of_both_dates_where_the_mask_says_change(world, registered, tmp_path):
    asked = parameters()
    found = {}
    for task in (Task.DETECT_CHANGE, Task.DETECT_TRANSITIONS):
        source = cut_simulated(task, registered, Truth(world), asked, seed=0)
        write_task_data(tmp_path / task, source.spec, source.samples())
        found[task] = TaskData(tmp_path / task)
    transitions, change = found[Task.DETECT_TRANSITIONS], found[Task.DETECT_CHANGE]
    assert transitions.samples["sample_id"].tolist() == change.samples["sample_id"].tolist()
    rows = np.arange(len(change.samples))
    codes, changed = transitions.read_targets(rows), change.read_targets(rows)
    names = transitions.spec.class_names
    assert 2 <= len(names) <= 15 and set(names) <= set(Truth(world).class_names)
    known = (codes != IGNORE) & (changed != IGNORE)
    np.testing.assert_array_equal(is_changed(codes, len(names))[known], changed[known] == 1)
    assert is_changed(codes, len(names)).sum() > 300 and not (codes == 0).any(), "every class is known"


SENSORS = ("sentinel-2-l2a", "landsat-oli-c2-l2")


@pytest.fixture(scope="module")
def two_sensors(world, tmp_path_factory):
    return build_world(world, tmp_path_factory.mktemp("two") / "store.zarr", sensors=SENSORS)[0]


@pytest.mark.parametrize("task", [Task.DETECT_CHANGE, Task.DETECT_TRANSITIONS])
def test_pairs_of_image_sets_show_the_change_as_pairs_do(world, two_sensors, tmp_path, task):
    """Sets of one year each, with the labels of the pair of Sentinel-2 images that is in them."""
    truth, found = Truth(world), {}
    for images in (1, 4):
        of_sets = {"window": "per year", "sensors": SENSORS} if images > 1 else {}
        asked = parameters(inputs={"images": images, **of_sets})
        source = cut_simulated(task, two_sensors, truth, asked, seed=0)
        write_task_data(tmp_path / str(images), source.spec, source.samples())
        found[images] = TaskData(tmp_path / str(images))
    pairs, sets = found[1], found[4]
    size = sets.image_shape[0] // 2
    assert pairs.image_shape[0] == 2 and size >= 2 and len(sets.samples)
    days, there = sets.image_days, sets.image_sensors != ""
    years = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    assert (years[:, :size] == 2020).all() and (years[:, size:] == 2023).all()
    assert (there[:, :size].sum(1) > 1).any() and (there[:, size:].sum(1) > 1).any()
    read, key = sets.read(np.arange(len(sets.samples))), sets.samples["sample_id"]
    assert (days[:, 0] == sets.samples["day_before"]).all() and (days[:, size] == sets.samples["day"]).all()
    shown = [read.valid[:, part].any(axis=1) for part in (slice(size), slice(size, None))]
    np.testing.assert_array_equal(read.targets == IGNORE, ~(shown[0] & shown[1]))
    places = {name.split("-and ")[0] + "-" + "-".join(name.split("-")[-2:]): row for row, name in enumerate(key)}
    same = [(row, places[name]) for row, name in enumerate(pairs.samples["sample_id"]) if name in places]
    assert len(same) > 5
    for one, other in same:
        of_pair, of_sets = pairs.read_targets(np.array([one]))[0], read.targets[other]
        np.testing.assert_array_equal(of_sets[of_pair != IGNORE], of_pair[of_pair != IGNORE])


def test_pairs_across_sensors_share_the_first_ones_grid(world, two_sensors, tmp_path):
    asked = parameters(sensors=SENSORS, bands=("red", "green", "blue", "nir"), cross_sensor=True, pairs_per_place=8)
    source = cut_simulated(Task.DETECT_CHANGE, two_sensors, Truth(world), asked, seed=0)
    write_task_data(tmp_path / "data", source.spec, source.samples())
    data = TaskData(tmp_path / "data")
    mixed = data.samples[data.samples["sensor"] != data.samples["sensor_before"]]
    assert len(mixed)
    assert set(data.samples["gsd_m"]) == {10.0}
    read = data.read(mixed.index.to_numpy())
    both = read.valid.all(axis=1) & (read.targets == 0)
    red_before, red_after = read.images[:, 0, 0], read.images[:, 1, 0]
    # the same ground in two sensors' red, brought to one grid: alike where nothing changed, and there only
    aligned = np.corrcoef(red_before[both], red_after[both])[0, 1]
    off = np.roll(red_after, 4, axis=-1), both & np.roll(both, 4, axis=-1)
    assert aligned > 0.6
    assert aligned > 1.1 * np.corrcoef(red_before[off[1]], off[0][off[1]])[0, 1]


def test_what_cannot_be_cut_is_named(world, registered, tmp_path):
    truth = Truth(world)
    with pytest.raises(TaskDataError, match="no sensor 'gaofen-1'; it has sentinel-2-l2a"):
        cut_simulated(Task.SEGMENT, registered, truth, parameters(sensors=("gaofen-1",)), seed=0)
    with pytest.raises(ValueError, match="has no band 'thermal'"):
        cut_simulated(Task.SEGMENT, registered, truth, parameters(bands=("thermal",)), seed=0)
    with pytest.raises(TaskDataError, match="chip_px 512 is larger than the footprint's 192 pixels at 10 m"):
        cut_simulated(Task.SEGMENT, registered, truth, parameters(chip_px=512), seed=0)
    with pytest.raises(TaskDataError, match="fewer than two land-cover classes"):
        cut_simulated(Task.CLASSIFY, registered, truth, parameters(min_purity=1.0, chip_px=192), seed=0)
    with pytest.raises(A2maeError, match="run `kedro run --pipelines=simulate`"):
        Truth(tmp_path)
    foreign = registered.images.assign(scene_id="somebody-else")
    tables = Tables(registered.store, foreign, registered.sets, registered.locations)
    with pytest.raises(TaskDataError, match="'somebody-else' is not of the simulation"):
        cut_simulated(Task.SEGMENT, tables, truth, parameters(), seed=0)


def test_one_date_gives_no_pairs(world, registered, tmp_path):
    first = registered.images[registered.images["is_reference"]]
    tables = Tables(registered.store, first, registered.sets, registered.locations)
    source = cut_simulated(Task.DETECT_CHANGE, tables, Truth(world), parameters(), seed=0)
    with pytest.raises(TaskDataError, match="gave no samples"):
        write_task_data(tmp_path / "data", source.spec, source.samples())


def test_torn_simulation_is_refused(world, tmp_path):
    shutil.copytree(world, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "version": 9}))
    with pytest.raises(ValueError, match="not a manifest of version 1"):
        Truth(tmp_path / "copy")


@pytest.mark.parametrize(
    ("stated", "named"), [({"class_names": ["a", "b"]}, "class_names"), ({"ignore": [7], "first_class": 1}, "ignore")]
)
def test_what_labels_of_ones_own_stand_for_is_not_passed_over(world, registered, stated, named):
    options = TaskParameters.model_validate({"task": "segment", "data": stated})
    with pytest.raises(
        TaskDataError, match=f"segment.data: the classes of the simulated truth are known, and .*{named}"
    ):
        prepare(options, registered, world)

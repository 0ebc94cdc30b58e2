"""Image sets as samples: which images are in them, what they hold, and what is refused."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.tasks.data_parameters import SEASONS, InputParameters, nearer_than_halfway
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from helpers.small_archive import FIELD, L8, S1, S2, WOOD, land_cover, land_use, small_archive

BANDS = ["red", "green", "blue", "nir"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    tables = small_archive(folder / "store", clouded={(1, "2023-07-01")})
    return tables, land_cover(folder, tables)


def asked(labels, inputs, task="segment", bands=BANDS, archive=None, **options):
    data = {"labels": str(labels), "archive": {"sensors": [S2], "bands": bands, "chip_px": 48, "min_valid": 0.4}}
    data["archive"] |= {"inputs": inputs} | (archive or {})
    if task != "estimate":
        data["class_names"] = ["field", "wood"]
    else:
        data["value_property"] = "height"
    return TaskParameters.model_validate({"task": task, "data": data, "bands": bands[:3], **options})


def read(options, tables, folder):
    write_source(folder / "data", prepare(options, tables, None))
    return TaskData(folder / "data")


def test_a_set_is_the_images_of_a_place_with_the_label_of_the_last_of_the_first_sensor(archive, tmp_path):
    tables, labels = archive
    data = read(asked(labels, {"images": 4, "sensors": [S2, L8]}), tables, tmp_path)
    assert data.image_shape == (4, 4, 48, 48) and len(data.samples) == 6
    assert set(data.samples["day"]) == {data.samples["day"].iloc[0]} and (data.samples["sensor"] == S2).all()
    first = data.samples.index[data.samples["place"] == "p1"][0]
    # turns of sensors after the labelled image's: Landsat, then the Sentinel-2 images that show most
    assert data.image_sensors[first].tolist() == [S2, L8, S2, S2]
    last = data.samples.index[data.samples["place"] == "p5"][0]
    assert data.image_sensors[last].tolist() == [S2, S2, S2, ""], "no Landsat there: an image is missing"
    assert data.image_days[last][3] == data.image_days[last][0]
    arrays = data.read(np.array([first, last]))
    assert not arrays.valid[1, 3].any() and not arrays.images[1, 3].any()
    nir = arrays.images[0, :, 3]
    for image in range(4):
        assert nir[image][arrays.valid[0, image] & (np.arange(48) < 20)].mean() == pytest.approx(FIELD, abs=0.01)
        assert nir[image][arrays.valid[0, image] & (np.arange(48) > 28)].mean() == pytest.approx(WOOD, abs=0.01)


def test_ground_that_any_image_shows_keeps_its_label(archive, tmp_path):
    tables, labels = archive
    several = read(asked(labels, {"images": 3}), tables, tmp_path)
    row = np.flatnonzero(several.samples["place"] == "p1")
    assert not several.read(row).valid[0, 0, :24].any(), "clouded in the labelled image"
    assert (several.read_targets(row)[0, :24] != 255).all()


def test_one_image_is_what_it_was(archive, tmp_path):
    tables, labels = archive
    data = read(asked(labels, {"images": 1}), tables, tmp_path)
    assert data.image_shape[0] == 1 and not data.spec.set_sensors and len(data.samples) == 18
    assert "set_sensors" not in data.spec.to_dict() and "sensor" not in list((tmp_path / "data/arrays.zarr").iterdir())
    assert data.image_sensors.shape == data.image_days.shape == (18, 1)


@pytest.mark.parametrize(
    ("window", "days"),
    [
        ("per year", {"2022-07-01": {"2022-07-01"}, "2023-07-01": {"2023-01-10", "2023-07-01"}}),
        ("summer", {"2022-07-01": {"2022-07-01"}, "2023-07-01": {"2023-07-01"}}),
        ("winter", {"2023-01-10": {"2023-01-10"}}),
        ([dt.date(2022, 12, 1), dt.date(2023, 12, 1)], {"2023-07-01": {"2023-01-10", "2023-07-01"}}),
        (None, {"2023-07-01": {"2022-07-01", "2023-01-10", "2023-07-01"}}),
    ],
)
def test_windows(archive, tmp_path, window, days):
    tables, labels = archive
    data = read(asked(labels, {"images": 6, "window": window}), tables, tmp_path)
    found = {}
    for row in np.flatnonzero(data.samples["place"] == "p0"):
        there = data.image_sensors[row] != ""
        dates = [str(np.datetime64(int(day), "D")) for day in data.image_days[row][there]]
        found[dates[0]] = set(dates)
    assert found == days


def test_radar_and_light_in_one_set(archive, tmp_path):
    tables, labels = archive
    bands = [*BANDS, "vv", "vh"]
    data = read(asked(labels, {"images": 5, "sensors": [S2, S1]}, bands=bands), tables, tmp_path)
    light, radar = data.spec.set_sensors
    assert (light.lacks, radar.lacks) == (("vv", "vh"), ("B04", "B03", "B02", "B08"))
    row = np.flatnonzero(data.samples["place"] == "p1")
    assert data.image_sensors[row[0], 1] == S1
    arrays = data.read(row)
    in_db = arrays.images[0, 1, 4]
    assert in_db[:, :20].mean() == pytest.approx(-14, abs=0.1) and in_db[:, 28:].mean() == pytest.approx(-8, abs=0.1)
    assert data.image_sensors[0].tolist().count(S1) == 0, "the first place has none: its images are missing"
    assert any("sentinel-1-rtc" in note and "image set" in note for note in data.spec.notes)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A field that has become a wood in 2023, beside a wood that stays."""
    folder = tmp_path_factory.mktemp("grown")
    tables = small_archive(folder / "store", grown="2023-01-01", clouded={(1, "2023-07-01")})
    return tables, land_use(folder, tables)


def test_a_pair_is_a_set_before_and_a_set_after(grown, tmp_path):
    tables, labels = grown
    data = read(asked(labels, {"images": 4, "sensors": [S2, L8]}, "detect_transitions"), tables, tmp_path)
    assert data.image_shape == (6, 4, 48, 48) and len(data.samples) == 6
    first = data.samples.index[data.samples["place"] == "p1"][0]
    # the pair of one season is labelled; beside each date what is nearer than half way to the other
    days = np.datetime_as_string(data.image_days[first].astype("datetime64[D]"))
    assert data.image_sensors[first].tolist() == [S2, "", "", S2, L8, S2]
    assert days.tolist() == ["2022-07-01"] * 3 + ["2023-07-01", "2023-07-05", "2023-01-10"]
    row = data.samples.loc[first]
    assert (row["day_before"], row["day"]) == (data.image_days[first][0], data.image_days[first][3])
    arrays = data.read(np.array([first]))
    assert not arrays.valid[0, 1:3].any() and not arrays.images[0, 1:3].any(), "missing images"
    west = arrays.images[0, :, 3][:, :, :20]
    seen = arrays.valid[0][:, :, :20]
    assert west[0][seen[0]].mean() == pytest.approx(FIELD, abs=0.01)
    assert [west[k][seen[k]].mean() for k in (3, 4, 5)] == pytest.approx([WOOD] * 3, abs=0.01)
    names, codes = np.array(data.spec.label_names), data.read_targets(np.array([first]))[0]
    assert set(names[codes[:, :23].ravel()]) == {"field → wood"} and set(names[codes[:, 25:].ravel()]) == {"wood stays"}
    assert not arrays.valid[0, 3, :24].any() and (codes[:24] != 255).all(), "another image of its set shows the ground"
    assert any("a pair of image sets, each of up to 4 images of all days" in note for note in data.spec.notes)


@pytest.mark.parametrize(("window", "after"), [("summer", {"2023-07-01"}), ("per year", {"2023-01-10", "2023-07-01"})])
def test_windows_of_pairs(grown, tmp_path, window, after):
    data = read(asked(grown[1], {"images": 6, "window": window}, "detect_transitions"), grown[0], tmp_path)
    half = data.image_shape[0] // 2
    for row in range(len(data.samples)):
        days = np.datetime_as_string(data.image_days[row].astype("datetime64[D]"))
        there = data.image_sensors[row] != ""
        assert set(days[:half][there[:half]]) == {"2022-07-01"} and set(days[half:][there[half:]]) == after


@given(st.lists(st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2030, 1, 1)), min_size=3, max_size=3, unique=True))
def test_law_no_image_is_of_both_dates(moments):
    first, second, image = moments
    gap = second - first
    assert not (nearer_than_halfway(image, first, gap) and nearer_than_halfway(image, second, gap))
    assert nearer_than_halfway(first, first, gap) and not nearer_than_halfway(second, first, gap)


@given(st.dates(dt.date(2000, 1, 1), dt.date(2030, 12, 31)), st.floats(-80, 80))
@settings(max_examples=50)
def test_law_every_day_is_of_one_season_and_the_south_has_the_opposite_one(day, lat):
    periods = {season: InputParameters(images=2, window=season).period(day, lat) for season in SEASONS}
    found = [season for season, period in periods.items() if period is not None]
    assert len(found) == 1
    opposite = SEASONS[(SEASONS.index(found[0]) + 2) % 4]
    if lat:
        assert InputParameters(images=2, window=opposite).period(day, -lat) is not None


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"images": 0}, r"images must lie between 1 \(no sets\) and 32, found 0"),
        ({"images": 6, "window": "sumer"}, "per year, found 'sumer': did you mean 'summer'"),
        ({"images": 6, "window": ["2023-01-01"]}, r"window must be \[first day, last day\] or one of winter"),
        (
            {"images": 6, "window": ["2023-12-31", "2023-01-01"]},
            r"window must not end \(2023-01-01\) before it starts \(2023-12-31\): swap them",
        ),
        (
            {"images": 1, "window": "per year"},
            "window choose the images of a set, and images is 1: set it to 2 or more",
        ),
        ({"images": 2, "sensors": [S2, S2]}, "sensors must be named once each"),
    ],
)
def test_inputs_that_cannot_be_are_refused(inputs, told):
    with pytest.raises(ValueError, match=told):
        TaskParameters.model_validate({"task": "segment", "data": {"archive": {"inputs": inputs}}})


@pytest.mark.parametrize(
    ("data", "images"), [({}, 2), ({"labels": "fields.gpkg"}, 6), ({"folder": "pairs"}, 1), ({"dataset": "OSCD"}, 1)]
)
def test_a_sample_is_what_its_own_cut_says(data, images):
    """The simulated default is one of sets; who names a folder has single images, and nothing of it to switch off."""
    data |= {"simulated": {"inputs": {"images": 2}}}
    if "folder" not in data and "dataset" not in data:  # which refuse it
        data |= {"archive": {"inputs": {"images": 6}}}
    found = TaskParameters.model_validate({"task": "segment", "data": data}).data.inputs
    assert (found.images, found.is_set) == (images, images > 1)


def test_inputs_of_a_task_are_told_where_they_are_now():
    with pytest.raises(ValueError, match=r"'inputs' is gone; set data\.archive\.inputs, or data\.simulated\.inputs"):
        TaskParameters.model_validate({"task": "segment", "inputs": {"images": 2}})


@pytest.mark.parametrize(
    ("inputs", "bands", "told"),
    [
        ({"sensors": [S2, "sentinel-9"]}, BANDS, "the image-set store has no sensor 'sentinel-9'; it has"),
        ({"sensors": [S2, S1]}, BANDS, "inputs.sensors: sentinel-1-rtc has none of the bands red, .*add bands of it"),
        ({"sensors": [S2]}, [*BANDS, "vv"], "none of sentinel-2-l2a has a band 'vv': leave it out"),
        (
            {"window": ["2019-01-01", "2019-12-31"]},
            BANDS,
            "segment: inputs.window: no image of sentinel-2-l2a is from 2019-01-01 to 2019-12-31, theirs are from"
            " 2022-07-01 to 2023-07-01: widen the window",
        ),
        ({"window": "autumn"}, BANDS, "no image of sentinel-2-l2a is of one autumn"),
    ],
)
def test_sets_that_the_archive_cannot_give_are_refused(archive, inputs, bands, told):
    tables, labels = archive
    with pytest.raises(TaskDataError, match=told):
        prepare(asked(labels, {"images": 6, **inputs}, bands=bands), tables, None)

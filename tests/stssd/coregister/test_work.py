"""What decides the content of a store: its fingerprints, and the version that stands for this program's own share."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import box

from a2mae.errors import InputError
from a2mae.raster.read import RasterReader
from a2mae.scenes import Scene, scenes_to_table
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.survey import Location, survey
from a2mae.stssd.coregister.work import BUILD_VERSION, Fingerprints
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore

from .small_scenes import LAT, LON, MARGIN, PIXELS, SENSORS, SQUARE, scene

RECIPES = {"pair": {"sources": [{"sensors": ["one"]}, {"sensors": ["two"]}]}}
PINNED = ("38a0573fd430ddfe", [("copied", "finer", 0.0, 0.0), ("moved", "finer", -20.0, 10.0)])


def ground(finer: int = 1) -> np.ndarray:
    """Integers of which nothing is rounded: they are copied, or four are averaged to one of the coarser ground."""
    row, column = np.indices((PIXELS + 2 * MARGIN,) * 2)
    coarse = 500 + 4 * ((37 * row + 101 * column + row * column // 7) % 800)
    fine = np.kron(coarse, np.ones((2, 2), int)) + np.tile([[8, -4], [0, -4]], coarse.shape)
    return (coarse if finer == 1 else fine).astype("uint16")


def world(folder: Path) -> list[Scene]:
    return [
        scene(folder, "copied", sensor="one", month=5, ground=ground(), cloudy=0.25),
        scene(folder, "moved", sensor="one", month=6, ground=ground(), moved_m=(20.0, -10.0), unseen=0.125),
        scene(folder, "finer", sensor="two", month=6, ground=ground(2)),
    ]


def test_another_content_has_another_version(tmp_path: Path) -> None:
    """Stores and surveys of an earlier version are kept where this number is the same: it must not be by mistake."""
    locations = gpd.GeoDataFrame(
        {
            "location_id": ["here"], "lon": [LON], "lat": [LAT], "crs": [SQUARE.crs], "x_m": [SQUARE.x_m],
            "y_m": [SQUARE.y_m], "footprint_m": [SQUARE.size_m],
        },
        geometry=[box(LON, LAT, LON + 0.009, LAT + 0.006)], crs=4326,
    )  # fmt: skip
    scenes = world(tmp_path)
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, registration={"enabled": False})
    url = str(tmp_path / "stssd.zarr")
    tables = build(scenes_to_table(scenes), locations, SENSORS, parameters, url)
    store, digest = ImageSetStore.open(url), hashlib.sha256()
    for sensor in store.sensors:
        pixels, valid = store.read(sensor, np.arange(store.count(sensor)))
        digest.update(pixels.tobytes() + valid.tobytes())
    looked = tables.images[["scene_id", "row", "cloud_fraction", "valid_fraction", "dark_value", "bright_value"]]
    digest.update(looked.round(6).to_csv(index=False).encode())
    # Registration computes with fractions, which the last digits of a machine's own may move: to a decimetre.
    with RasterReader() as reader:
        on = parameters.model_copy(update={"registration": CoregisterParameters(recipes=RECIPES).registration})
        (found,) = survey(reader, [Location(SQUARE, LON, LAT, tuple(scenes))], SENSORS, on)
    shifts = [(m.moving, m.fixed, round(m.match.shift_x_m, 1), round(m.match.shift_y_m, 1)) for m in found.matches]
    content = (digest.hexdigest()[:16], shifts)
    assert (BUILD_VERSION, content) == (8, PINNED), "raise BUILD_VERSION, then pin the new content here"


def prints(scenes: list[Scene], **changes: object) -> tuple[str, str, str]:
    """Fingerprints of the build, and of a shard of each of its two sensors."""
    made = Fingerprints({s.scene_id: s for s in scenes}, SENSORS, CoregisterParameters(recipes=RECIPES, **changes))
    shards = [
        made.of_images(sensor, [(s, SQUARE, (0.0, 0.0)) for s in scenes if s.sensor == sensor])
        for sensor in ("one", "two")
    ]
    return made.of_build([Location(SQUARE, LON, LAT, tuple(scenes))]), *shards


def test_fingerprints_follow_what_decides_the_content(tmp_path: Path) -> None:
    scenes = world(tmp_path)
    first = prints(scenes)
    assert len(set(first)) == 3 and prints(scenes) == first
    for how in ({"workers": 7}, {"locations_per_task": 1}, {"dask_scheduler": "local"}, {"fail_if_unreachable": True}):
        assert prints(scenes, **how) == first, how
    for what in ({"keep_nominal": False}, {"quality": {"max_cloud_fraction": 0.1}}, {"clouds": {"buffer_m": 0}}):
        assert not set(prints(scenes, **what)) & set(first), what
    # A scene concerns the build and the shards that it is in, no others.
    other = [*scenes[:2], dataclasses.replace(scenes[2], assets=scenes[2].assets[::-1])]
    assert [a == b for a, b in zip(prints(other), first, strict=True)] == [False, True, False]
    path = Path(scenes[0].assets[0].href)
    path.write_bytes(path.read_bytes() + b"\0")
    assert [a == b for a, b in zip(prints(scenes), first, strict=True)] == [False, False, True]


@pytest.mark.parametrize("change", [{"x_m": SQUARE.x_m + 10}, {"size_m": 320.0}, {"crs": "EPSG:32632"}])
def test_fingerprints_follow_the_square_and_the_shift(tmp_path: Path, change: dict[str, object]) -> None:
    made = Fingerprints({s.scene_id: s for s in world(tmp_path)}, SENSORS, CoregisterParameters(recipes=RECIPES))
    (one, *_), square = world(tmp_path), dataclasses.replace(SQUARE, **change)
    known = {made.of_images("one", [(one, where, shift)]) for where in (SQUARE, square) for shift in ((0, 0), (0, 1))}
    assert len(known) == 4


def test_values_that_the_store_cannot_hold_end_the_build_and_few_are_told(tmp_path: Path, caplog) -> None:
    """`scale: 1.0` on bytes: every pixel would be the greatest number, and the report clean."""
    locations = gpd.GeoDataFrame(
        {
            "location_id": ["here"], "lon": [LON], "lat": [LAT], "crs": [SQUARE.crs], "x_m": [SQUARE.x_m],
            "y_m": [SQUARE.y_m], "footprint_m": [SQUARE.size_m],
        },
        geometry=[box(LON, LAT, LON + 0.009, LAT + 0.006)], crs=4326,
    )  # fmt: skip
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, registration={"enabled": False})
    few = ground().copy()
    few[MARGIN : MARGIN + 4] = 40_000  # 1.6 % and more of what is seen
    dn = {"one": dataclasses.replace(SENSORS["one"].encoding, scale=1e-4 / 4), "two": SENSORS["two"].encoding}
    sensors = {name: dataclasses.replace(SENSORS[name], encoding=encoding) for name, encoding in dn.items()}
    scenes = [
        scene(tmp_path, "a", sensor="one", month=5, ground=few),
        scene(tmp_path, "b", sensor="two", month=5, ground=ground(2)),
    ]
    build(scenes_to_table(scenes), locations, sensors, parameters, str(tmp_path / "few.zarr"))
    assert "one: 6% of B1 is beyond 0 to" in caplog.text
    scenes[0] = dataclasses.replace(
        scenes[0], assets=(dataclasses.replace(scenes[0].assets[0], scale=1.0), *scenes[0].assets[1:])
    )
    with pytest.raises(InputError, match=r"one: 100% of B1 is beyond .* check scale and offset of the rule"):
        build(scenes_to_table(scenes), locations, sensors, parameters, str(tmp_path / "all.zarr"))

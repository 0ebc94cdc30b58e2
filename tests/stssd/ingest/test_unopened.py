"""What an item states of a file that ingest does not open is held against the file when it is read."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from a2mae.errors import ReadError, RejectedError
from a2mae.raster.read import RasterReader
from a2mae.scenes import Scene, assets_from_json, assets_to_json
from helpers.rasters import write_tif

from .test_sources_stac import read, s2_item

GRID = GeoBox((64, 64), from_origin(500_160, 4_649_280, 10, 10), "EPSG:32633")


def item(folder: Path, gsd: float = 10.0, **asset: object) -> Path:
    """An item of four bands in one file that states the file's grid, and of its numbers what is given."""
    found = s2_item(platform="gaofen-1")
    image = {
        "href": "./g.tif", "type": "image/tiff", "roles": ["data"], "bands": [{"name": f"B{i}"} for i in range(1, 5)],
        "proj:shape": [200, 200], "proj:transform": [gsd, 0, 500_160, 0, -gsd, 4_649_280], **asset,
    }  # fmt: skip
    found |= {"collection": "gaofen-1", "id": "gf1", "assets": {"image": image}}
    path = folder / "i.json"
    path.write_text(json.dumps(found))
    return path


def scene_of(path: Path, probe: str, **more: object) -> Scene:
    found = read(path, probe=probe, **more)
    if found.rejected:
        raise RejectedError(found.rejected[0].reason, found.rejected[0].detail)
    (scene,) = found.scenes
    return dataclasses.replace(scene, assets=assets_from_json(assets_to_json(scene.assets)))


def pixels(scene: Scene) -> np.ndarray:
    with RasterReader() as reader:
        return reader.read(scene.bands, GRID)


def tag(path: Path, scale: float, offset: float) -> None:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * 4, (offset,) * 4


TAGS = st.sampled_from([(1.0, 0.0), (1e-4, 0.0), (1e-4, -0.1), (2e-4, 0.0)])
NODATA = st.sampled_from([None, 0, 7])


@settings(max_examples=40, deadline=None)
@given(tags=TAGS, said=TAGS, declared=NODATA, stated=NODATA)
@example(tags=(1e-4, 0.0), said=(1.0, 0.0), declared=None, stated=None)
@example(tags=(1.0, 0.0), said=(1e-4, 0.0), declared=7, stated=None)
def test_law_an_unopened_file_gives_what_an_opened_one_gives_or_is_told(tags, said, declared, stated) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tag(write_tif(folder / "g.tif", bands=4, nodata=declared), *tags)
        asset = {"raster:scale": said[0], "raster:offset": said[1]} | ({} if stated is None else {"nodata": stated})
        path = item(folder, **asset)
        try:
            opened = pixels(scene_of(path, "all"))
        except RejectedError as rejection:
            assert rejection.reason in ("scale_tags", "no_scale")
            opened = None
        try:
            unopened = pixels(scene_of(path, "none"))
        except ReadError as error:
            assert error.reason in ("scale_tags", "nodata_tags") and "\n" not in str(error)
            assert tags not in ((1.0, 0.0), said) or None not in (declared, stated)
            return
        assert opened is None or np.array_equal(opened, unopened, equal_nan=True)
        assert opened is not None or tags == (1.0, 0.0), "a contradiction is not read"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gsd": 5.0}, r"g\.tif has pixels of 10 m on the ground, but its item says 5 m: set ingest\.probe: all"),
        (
            {"raster:scale": 2e-4},
            r"g\.tif is tagged with scale 0\.0001 and offset 0 \(band 1\), but its item says scale 0",
        ),
        ({"nodata": 5}, r"g\.tif declares nodata 0 \(band 1\), but its item says 5: set ingest\.probe: all"),
    ],
)
def test_both_sides_are_told(tmp_path: Path, wrong: dict[str, float], message: str) -> None:
    tag(write_tif(tmp_path / "g.tif", bands=4), 1e-4, 0.0)
    right = {"raster:scale": 1e-4, "raster:offset": 0.0, "nodata": 0}
    assert np.isfinite(pixels(scene_of(item(tmp_path, **right), "none"))).all()
    gsd = wrong.pop("gsd", 10.0)
    with pytest.raises(ReadError, match=message):
        pixels(scene_of(item(tmp_path, gsd, **(right | wrong)), "none"))


def test_what_was_opened_or_is_the_users_word_is_not_compared_again(tmp_path: Path) -> None:
    tag(write_tif(tmp_path / "g.tif", bands=4), 1e-4, 0.0)
    path = item(tmp_path, **{"raster:scale": 1e-4, "raster:offset": 0.0})
    assert {band.stated_by for band in scene_of(path, "all").bands} == {None}
    assert {band.stated_by for band in scene_of(path, "none").bands} == {"its item"}
    profile = {"name": "mine", "match": {"collection": "gaofen-1"}, "sensor": "gaofen-1", "scale": 3e-4, "offset": 0.0}
    mine = scene_of(path, "none", stac_profiles=[profile])
    assert {band.stated_by for band in mine.bands} == {None} and pixels(mine).max() > 0.05

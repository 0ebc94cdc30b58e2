"""Squares across the border of two scenes of one overpass."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from shapely import Point

from a2mae.raster.mosaics import prefer_single
from a2mae.scenes import BandAsset, Scene, scenes_from_table, sensors_from_json
from a2mae.sensors import Units
from a2mae.stssd.coregister.build import build
from a2mae.stssd.ingest.ingest import Ingested, ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore

LEFT, TOP, GSD, PIXELS, SEAM = 499_200.0, 5_760_000.0, 8.0, 480, 300  # the seam lies inside the right-hand squares
RULE = {
    "name": "gf", "files": "GF1_{date}_{tile}.tif", "sensor": "gaofen-1", "bands": ["B1", "B2", "B3", "B4"],
    "platform": "gaofen-1", "scale": 1e-4, "offset": 0.0, "nodata": 0, "units": "reflectance",
    "date_format": "%Y%m%dT%H%M%S",
}  # fmt: skip


def write(path: Path, pixels: np.ndarray, first: int) -> None:
    profile = {
        "driver": "GTiff", "count": 4, "dtype": "uint16", "height": pixels.shape[1], "width": pixels.shape[2],
        "crs": "EPSG:32633", "transform": from_origin(LEFT + first * GSD, TOP, GSD, GSD), "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels)


def scenery(folder: Path) -> np.ndarray:
    """Two dates of the same ground, 3840 m wide, cut in two frames that share 8 columns; frames 20 s apart."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.uniform(500, 4000, (4, 60, 60)), np.ones((8, 8)))
    pixels = (coarse + rng.normal(0, 20, coarse.shape)).astype("uint16")
    for date in ("20230610T100000", "20230801T100000"):
        write(folder / f"GF1_{date}_a.tif", pixels[:, :, : SEAM + 4], 0)
        write(folder / f"GF1_{date[:-2]}20_b.tif", pixels[:, :, SEAM - 4 :], SEAM - 4)
    return pixels


def ingested(folder: Path, **changes: object) -> Ingested:
    settings = {"folder": str(folder), "rules": [RULE], "locations": {"min_scenes": 2}, **changes}
    return ingest(IngestParameters(**settings))


def test_squares_across_two_frames_are_filled_from_both(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = scenery(tmp_path / "in")
    without = ingested(tmp_path / "in", mosaics=False)
    done = ingested(tmp_path / "in")
    assert len(without.locations) == 2 and len(done.locations) == 4  # the right-hand squares lie across the seam
    assert list(without.rejected["reason"]) == ["no_location"] * 2 and done.rejected.empty
    scenes = {scene.scene_id: scene for scene in scenes_from_table(done.scenes)}
    joined = {key: scene for key, scene in scenes.items() if len(scene.parts) == 2}
    assert sorted(joined) == ["GF1_20230610T100000_a+1", "GF1_20230801T100000_a+1"] and len(scenes) == 6
    assert all(len(scene.bands) == 4 and len(scene.assets) == 8 for scene in joined.values())

    recipe = {"single_source": True, "min_sources": 1, "min_images": 2}
    parameters = CoregisterParameters(recipes={"dates": recipe}, workers=1)
    url = str(tmp_path / "stssd.zarr")
    images = build(done.scenes, done.locations, sensors_from_json(done.sensors), parameters, url).images
    assert len(images) == 8
    by_place = images.groupby("location_id")["scene_id"].agg(lambda ids: {i.endswith("+1") for i in ids})
    whole = {row.location_id: row.x_m == LEFT for row in done.locations.itertuples()}
    # One frame where it covers the square, both only where they are needed.
    assert {place: kinds == {False} for place, kinds in by_place.items()} == whole
    stored, valid = ImageSetStore.open(url).read("gaofen-1", images["row"].to_numpy())
    assert valid.all()
    for row, image in zip(images.itertuples(), stored, strict=True):
        place = done.locations.set_index("location_id").loc[row.location_id]
        x, y = round((place.x_m - LEFT) / GSD), round((TOP - place.y_m) / GSD)
        if row.is_reference:  # unmoved: the very pixels of the ground, seam or not
            assert np.array_equal(image, pixels[:, y : y + 240, x : x + 240])


def test_other_passes_and_repeated_products_make_no_mosaic(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = scenery(tmp_path / "in")
    for path in (tmp_path / "in").glob("*_b.tif"):
        path.unlink()
    write(tmp_path / "in" / "GF1_20230610T120000_b.tif", pixels[:, :, SEAM - 4 :], SEAM - 4)  # another pass
    write(tmp_path / "in" / "GF1_20230801T100020_b.tif", pixels[:, :, : SEAM + 2], 0)  # the same ground again
    done = ingested(tmp_path / "in")
    assert all(len(scene.parts) == 1 for scene in scenes_from_table(done.scenes)) and len(done.locations) == 2


def test_mosaics_and_parts_are_weighed_per_place_whatever_the_order() -> None:
    """Three neighbours and two mosaics of them, at places that lie in one, across two, or nearly in one."""

    def scene(name: str, *parts: str) -> Scene:
        assets = tuple(
            BandAsset("B1", f"{part}.tif", 1, 1e-4, 0.0, 0.0, Units.REFLECTANCE, 8.0) for part in parts or (name,)
        )
        return Scene(
            name, "gaofen-1", dt.datetime(2023, 6, 1, tzinfo=dt.UTC), "", "EPSG:32633", 8.0, Point(0, 0), assets
        )

    scenes = [scene("a"), scene("a+1", "a", "b"), scene("b"), scene("c"), scene("c+1", "c", "b")]
    pairs = [  # place, scene, covered, kept
        (0, 0, 1.0, True), (0, 1, 1.0, False),  # a alone is enough
        (1, 0, 0.6, False), (1, 1, 1.0, True), (1, 2, 0.5, False),  # across a and b
        (2, 2, 0.999, True), (2, 1, 1.0, False), (2, 4, 1.0, False),  # b has nearly all of it
        (3, 3, 0.4, False), (3, 2, 0.7, False), (3, 4, 1.0, True),  # across c and b
        (4, 0, 0.9, True),  # no mosaic reaches it
    ]  # fmt: skip
    assert [len(one.parts) for one in scenes] == [1, 2, 1, 1, 2]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(pairs))
        place, of_scene, covered, kept = (np.array(column)[order] for column in zip(*pairs, strict=True))
        assert np.array_equal(prefer_single(place, of_scene, covered, scenes), kept)

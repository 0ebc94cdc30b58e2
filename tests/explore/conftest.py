"""Small maps and a small archive for the tests of this room."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from a2mae.explore.archive import Archive, embed_archive
from a2mae.tasks.parameters import EmbedParameters
from helpers.built_world import write_store
from helpers.task_models import pretrained_directory
from helpers.task_samples import SENTINEL2, seen

UTM = "EPSG:32633"
ORIGIN = (500_000, 5_200_000)
NAMES = {0: "water", 1: "forest", 2: "field & meadow"}
COLOURS = {0: (38, 92, 178), 1: (56, 142, 60), 2: (240, 214, 90)}


def write_map(folder, classes, confidence=None, *, crs=UTM, pixel=10.0, names=NAMES, colours=COLOURS):
    """A map as the segment stage writes it, and its confidence."""
    height, width = classes.shape
    shape = {"count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255, "driver": "GTiff"}
    place = {"crs": crs, "transform": Affine(pixel, 0, ORIGIN[0], 0, -pixel, ORIGIN[1])}
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(folder / "map.tif", "w", **shape, **place) as target:
        target.write(classes, 1)
        target.write_colormap(1, colours)
        target.update_tags(
            CLASS_NAMES=json.dumps(names),
            DATES='["early", "late"]',
            DATETIMES='["2021-06-01T10:00:00+00:00", "2024-06-01T10:00:00+00:00"]',
        )
    confidence = np.full(classes.shape, 200, np.uint8) if confidence is None else confidence
    with rasterio.open(folder / "confidence.tif", "w", **shape, **place) as target:
        target.write(np.where(classes == 255, 255, confidence).astype(np.uint8), 1)
        target.scales = (1 / 250,)
    return folder / "map.tif", folder / "confidence.tif"


def patchy(shape, seed=0, classes=3, hole=True):
    """Patches of classes with ragged borders, and ground that nobody saw."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, [side // 6 + 2 for side in shape])
    fine = np.kron(coarse, np.ones((6, 6), int))[: shape[0], : shape[1]]
    found = np.where(rng.random(shape) < 0.1, rng.integers(0, classes, shape), fine).astype(np.uint8)
    if hole:
        found[shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 255
    return found


@pytest.fixture
def classes():
    return patchy((70, 90))


@pytest.fixture
def mapped(tmp_path, classes):
    return write_map(tmp_path / "made", classes)


DATES = [dt.datetime(2022, 6, 1, 10, tzinfo=dt.UTC), dt.datetime(2023, 7, 1, 10, tzinfo=dt.UTC)]
SIDE_DEG = 0.01


@dataclass(frozen=True)
class Covers(Archive):
    """Places in a row, each of one cover at two dates."""

    locations: gpd.GeoDataFrame
    cover: dict[str, int]


def make_archive(folder, places=9, *, unseen=()):
    """Build one; images of the places `unseen` have no valid pixel."""
    rng = np.random.default_rng(0)
    rows, arrays, cover = [], [], {}
    for place in range(places):
        name = f"place-{place}"
        cover[name] = place % 3
        for number, moment in enumerate(DATES):
            pixels = np.zeros((len(SENTINEL2.bands), 32, 32), np.uint16)
            for band, values in zip(("B04", "B03", "B02"), seen(rng, np.full((32, 32), place % 3)), strict=True):
                pixels[SENTINEL2.band_index(band)] = values
            valid = np.full((32, 32), place not in unseen)
            arrays.append((pixels, valid))
            rows.append(
                {
                    "image_id": f"{name}-{number}", "set_id": name, "location_id": name, "sensor": SENTINEL2.id,
                    "row": len(arrays) - 1, "datetime": moment, "gsd_m": 10.0, "lon": 15 + SIDE_DEG * (place + 0.5),
                    "lat": 47 + SIDE_DEG / 2, "valid_fraction": float(valid.mean()), "dark_value": 0.0,
                    "bright_value": 1.0, "shift_x_m": 0.0, "shift_y_m": 0.0, "scene_id": f"scene-{number}",
                }
            )  # fmt: skip
    names = list(cover)
    squares = [box(15 + SIDE_DEG * i, 47, 15 + SIDE_DEG * (i + 1), 47 + SIDE_DEG) for i in range(places)]
    splits = ["test" if i % 3 == 2 else "train" for i in range(places)]
    sets = gpd.GeoDataFrame({"set_id": names, "split": splits}, geometry=squares, crs="EPSG:4326")
    locations = gpd.GeoDataFrame({"location_id": names}, geometry=squares, crs="EPSG:4326")
    store = write_store(folder / "store.zarr", {SENTINEL2.id: arrays})
    return Covers(store, pd.DataFrame(rows), sets, locations, cover)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("archive"), unseen=(8,))


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    return pretrained_directory(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def embedded(archive, pretrained, tmp_path_factory):
    """The archive's vectors."""
    return embed(archive, pretrained, tmp_path_factory.mktemp("vectors") / "store")


def embed(archive, pretrained, folder, **options):
    asked = {"device": "cpu", "threads": 1, "workers": 1, "precision": "32-true", **options}
    asked = EmbedParameters.model_validate(asked)
    return embed_archive(asked, pretrained, archive, folder)

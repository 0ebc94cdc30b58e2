"""Features as colours: like ground has like colours, whatever dimension tells it apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from threadpoolctl import threadpool_limits

from a2mae.report.pictures import INVALID_RGB, components_as_colours
from a2mae.report.previews import raster_picture


def fields(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four fields `(32, 32)`, and their 40 features: told apart by the last dimensions alone."""
    ground = np.kron(np.arange(4).reshape(2, 2), np.ones((16, 16), int))
    features = rng.normal(0, 0.1, (40, 32, 32)).astype(np.float32)
    features[-4:] += 5 * (ground == np.arange(4)[:, None, None])
    return ground, features


def test_what_tells_ground_apart_is_seen_and_the_unseen_is_grey() -> None:
    ground, features = fields(np.random.default_rng(0))
    valid = np.ones(ground.shape, bool)
    valid[:4] = False
    features[:, :4] = np.nan
    colours = components_as_colours(features, valid).astype(float)
    assert (colours[:4] == INVALID_RGB).all()
    means = np.array([colours[valid & (ground == field)].mean(axis=0) for field in range(4)])
    within = max(colours[valid & (ground == field)].std(axis=0).max() for field in range(4))
    apart = np.linalg.norm(means[:, None] - means, axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() > 100 > 4 * within
    first_three = features[:3]
    assert np.ptp([first_three[:, valid & (ground == field)].mean() for field in range(4)]) < 0.1, "the test is empty"


def test_the_bytes_do_not_depend_on_threads() -> None:
    _, features = fields(np.random.default_rng(1))
    valid = np.ones((32, 32), bool)
    with threadpool_limits(2):
        two = components_as_colours(features, valid)
    with threadpool_limits(1):
        assert np.array_equal(components_as_colours(features, valid), two)


def test_nothing_seen_and_one_ground_are_pictures_too() -> None:
    nothing = components_as_colours(np.zeros((5, 4, 6), np.float32), np.zeros((4, 6), bool))
    assert (nothing == INVALID_RGB).all()
    same = components_as_colours(np.ones((5, 4, 6), np.float32), np.ones((4, 6), bool))
    assert same.shape == (4, 6, 3) and len(np.unique(same)) == 1


def test_a_raster_of_quantised_embeddings_is_read_small_with_its_nodata(tmp_path: Path) -> None:
    _, features = fields(np.random.default_rng(2))
    stored = np.clip(np.round(features * 20), -127, 127).astype(np.int8)
    stored[:, -4:] = -128
    profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 40, "dtype": "int8", "nodata": -128}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, crs="EPSG:32632") as target:
        target.write(stored)
    picture = raster_picture(tmp_path / "a.tif", max_px=16)
    assert picture.shape == (16, 16, 3)
    assert (picture[-2:] == INVALID_RGB).all() and not (picture[:14] == INVALID_RGB).all(axis=-1).any()
    assert len({tuple(picture[y, x]) for y, x in ((4, 4), (4, 12), (11, 4), (11, 12))}) == 4

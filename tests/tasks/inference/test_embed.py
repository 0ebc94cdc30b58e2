"""Embeddings of whole rasters."""

from __future__ import annotations

import gc
import tracemalloc

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from affine import Affine

from a2mae.models import precision
from a2mae.tasks.inference.embed import embed_raster, write_block_vectors
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.rasters import RasterWindows
from a2mae.tasks.tiling import StripWriter, Windows
from helpers.task_samples import SENTINEL2, seen

from .conftest import CPU, RGB, stopped_at_the_third_strip, write_raster


def embed(encoder, plan, scene, path, **options):
    return embed_raster(encoder, plan, raster_from_file(scene, SENTINEL2, RGB), path, device=CPU, **options)


def test_embeddings_lie_where_the_raster_lies(encoder, plan, scene, tmp_path):
    path = embed(encoder, plan, scene, tmp_path / "out.tif", windows=Windows(32, 8, 3))
    with rasterio.open(path) as out, rasterio.open(scene) as source:
        assert out.crs == source.crs
        assert out.transform == source.transform @ Affine.scale(8)
        assert (out.count, out.height, out.width) == (64, 11, 15)
        values, seen_pixels = out.read(), source.read_masks(1) > 0
        assert out.tags()["PATCH_PX"] == "8"
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    padded = np.zeros((88, 120), bool)
    padded[:84, :117] = seen_pixels
    share = padded.reshape(11, 8, 15, 8).mean((1, 3))
    np.testing.assert_array_equal(np.isfinite(values).all(0), share >= 0.5)
    assert 0 < (share < 0.5).sum() < 30


def test_one_window_equals_the_encoder_itself(encoder, plan, scene, tmp_path):
    path = embed(encoder, plan, scene, tmp_path / "out.tif", windows=Windows(128, 0, 1))
    raster = raster_from_file(scene, SENTINEL2, RGB)
    with RasterWindows(raster) as windows:
        pixels, valid = windows.read(0, 0, 128, 128)
    images = torch.from_numpy(np.where(valid, (pixels - 0.05) / 0.03, 0)).float()[None]
    lonlat = torch.tensor([raster.lonlat_deg(0, 0, 128)], dtype=torch.float64)
    with torch.no_grad():
        tokens = encoder.forward_features(images, gsd_m=torch.tensor([10.0]), lonlat_deg=lonlat)[0, 1:]
    expected = tokens.T.reshape(64, 16, 16)[:, :11, :15].numpy()
    with rasterio.open(path) as out:
        found = out.read()
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4)


def test_a_stopped_run_goes_on_and_ends_the_same(encoder, plan, scene, tmp_path, monkeypatch):
    windows = Windows(32, 16, 2)
    whole = embed(encoder, plan, scene, tmp_path / "whole.tif", windows=windows).read_bytes()
    with stopped_at_the_third_strip() as calls:
        embed(encoder, plan, scene, tmp_path / "again.tif", windows=windows)
    assert not (tmp_path / "again.tif").exists()
    written = StripWriter.write
    resumed = []
    monkeypatch.setattr(StripWriter, "write", lambda self, row, s: (resumed.append(row), written(self, row, s))[1])
    again = embed(encoder, plan, scene, tmp_path / "again.tif", windows=windows)
    assert resumed[0] == calls[2]  # nothing before the stop is done twice
    assert again.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.tif", "scene.tif", "whole.tif"]


@pytest.mark.parametrize("begun", ["32-true", "bf16-mixed"])
def test_a_stopped_run_goes_on_in_its_precision_whatever_is_faster_here(encoder, plan, scene, tmp_path, begun):
    windows, other = Windows(32, 16, 2), "bf16-mixed" if begun == "32-true" else "32-true"
    whole = embed(encoder, plan, scene, tmp_path / "whole.tif", windows=windows, precision=begun).read_bytes()
    with stopped_at_the_third_strip():
        embed(encoder, plan, scene, tmp_path / "again.tif", windows=windows, precision=begun)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_decided", lambda device_type: other)
        again = embed(encoder, plan, scene, tmp_path / "again.tif", windows=windows, precision="auto").read_bytes()
        afresh = embed(encoder, plan, scene, tmp_path / "afresh.tif", windows=windows, precision="auto").read_bytes()
    assert again == whole
    assert afresh != whole, "one that begins takes what is faster"


def test_every_pixel_is_read_once(encoder, plan, scene, tmp_path, monkeypatch):
    read, real = np.zeros((96, 128), int), RasterWindows.read

    def counted(self, row, column, height, width):
        read[row : row + height, column : column + width] += 1
        return real(self, row, column, height, width)

    raster = raster_from_file(scene, SENTINEL2, RGB)  # it looks whether values are in the sensor's units
    monkeypatch.setattr(RasterWindows, "read", counted)
    embed_raster(encoder, plan, raster, tmp_path / "out.tif", Windows(32, 16, 2), device=CPU)
    assert read[:84, :117].min() == read.max() == 1


def test_quantised_embeddings_are_close_and_smaller(encoder, plan, scene, tmp_path):
    full = embed(encoder, plan, scene, tmp_path / "full.tif", windows=Windows(64, 16, 2))
    small = embed(encoder, plan, scene, tmp_path / "small.tif", windows=Windows(64, 16, 2), quantise=True)
    with rasterio.open(full) as a, rasterio.open(small) as b:
        assert b.dtypes[0] == "int8"
        values, stored = a.read(), b.read().astype(np.float32)
        decoded = stored * np.asarray(b.scales)[:, None, None]
        known = np.isfinite(values)
        np.testing.assert_array_equal(stored != b.nodata, known)
    np.testing.assert_allclose(decoded[known], np.clip(values[known], -8, 8), atol=8 / 127 / 2 + 1e-5)
    assert small.stat().st_size < 0.6 * full.stat().st_size  # of a file this small, a good part is headers


def test_block_vectors_are_means_on_the_map(encoder, plan, scene, tmp_path, monkeypatch):
    path = embed(encoder, plan, scene, tmp_path / "out.tif", windows=Windows(64, 0, 2))
    monkeypatch.setattr("a2mae.tasks.inference.embed.ROW_GROUP_BYTES", 64 * 4 * 5)
    assert write_block_vectors(path, 4, tmp_path / "blocks.parquet") == 12
    assert pq.ParquetFile(tmp_path / "blocks.parquet").num_row_groups == 2  # streamed, not gathered
    table = gpd.read_parquet(tmp_path / "blocks.parquet")
    with rasterio.open(path) as out:
        values = out.read()
    assert str(table.crs.to_epsg()) == "32633"
    assert len(table) == 3 * 4
    first = table.set_index(["row", "column"]).loc[(1, 1)]
    block = values[:, 4:8, 4:8].reshape(64, -1)
    known = np.isfinite(block[0])
    assert first["seen"] == known.mean() < 1
    np.testing.assert_allclose(first["vector"], block[:, known].mean(1), atol=1e-5)
    assert first["geometry"].bounds == (500_320, 5_199_360, 500_640, 5_199_680)


def test_memory_does_not_grow_with_the_raster(encoder, plan, tmp_path):
    """Eight times the rows, the same peak but for small change: a strip is held, never the raster."""

    peaks: dict[int, int] = {}
    # The first runs only fill caches; of two the smaller counts: other threads of the process allocate too.
    for rows in (64, 64, 128, 128, 1024, 1024):
        counts = seen(np.random.default_rng(0), np.zeros((rows, 256), np.uint8))
        raster = raster_from_file(write_raster(tmp_path / f"{rows}.tif", counts), SENTINEL2, RGB)
        gc.collect()
        tracemalloc.start()
        out = tmp_path / f"{rows}-{rows in peaks}.tif"
        embed_raster(encoder, plan, raster, out, Windows(32, 8, 2), device=CPU)
        peak = tracemalloc.get_traced_memory()[1]
        peaks[rows] = min(peak, peaks.get(rows, peak))
        tracemalloc.stop()
    held_if_whole = (1024 - 128) * 256 * len(RGB) * np.dtype(np.float32).itemsize
    assert peaks[1024] - peaks[128] < held_if_whole / 4

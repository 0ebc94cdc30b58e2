import contextlib
import dataclasses
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from affine import Affine
from scipy import ndimage

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.remote.fetch import RemoteAccess
from a2mae.scenes import MaskKind, Role
from a2mae.tasks.datasets.inputs import TaskBatch, TaskInputs, plan_bands, plan_inputs
from a2mae.tasks.datasets.task_data import IGNORE, Task, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import finetune
from a2mae.tasks.inference.class_map import map_raster
from a2mae.tasks.inference.embed import Windows, embed_raster, write_block_vectors
from a2mae.tasks.inference.rasters import RasterWindows, mosaic, raster_from_file
from a2mae.tasks.inference.survey import MapSource
from a2mae.tasks.palette import class_colour
from a2mae.tasks.parameters import FinetuneParameters, MapParameters
from a2mae.tasks.tiling import StripWriter
from helpers.task_samples import REFLECTANCE, SENTINEL2, make_samples, seen, spec_for

CPU = torch.device("cpu")
RGB = ("red", "green", "blue")
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
UTM = "EPSG:32633"
NAMES, ORIGIN = ("B04", "B03", "B02"), (500_000, 5_200_000)


def write_raster(
    path, counts, *, nodata=0, crs=UTM, names=("B04", "B03", "B02"), origin=(500_000, 5_200_000), **profile
):
    bands, height, width = counts.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": counts.dtype.name, "nodata": nodata}
    place = {"crs": crs, "transform": Affine(10, 0, origin[0], 0, -10, origin[1])} if crs else {}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **profile) as target:
        target.write(counts)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
    return path


@pytest.fixture
def cover():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 3, (11, 15)), np.ones((8, 8), int)).astype(np.uint8)[:84, :117]


@pytest.fixture
def scene(tmp_path, cover):
    """84 x 117 pixels: no multiple of anything, with a hole of nodata."""
    counts = seen(np.random.default_rng(1), cover)
    counts[:, 20:45, 30:60] = 0
    return write_raster(tmp_path / "scene.tif", counts)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32).encoder.eval()


@pytest.fixture
def plan():
    return plan_bands(SENTINEL2, RGB, STATISTICS, bands_per_view=3, location=True)


def embed(encoder, plan, scene, path, **options):
    return embed_raster(encoder, plan, raster_from_file(scene, SENTINEL2, RGB), path, device=CPU, **options)


@contextlib.contextmanager
def stopped_at_the_third_strip():
    """What is drawn inside is stopped there; the first rows of the strips that it came to."""
    rows, written = [], StripWriter.write

    def write(self, row, strip):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt
        written(self, row, strip)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StripWriter, "write", write)
        yield rows


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


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A segmenter and a change detector of three covers, trained briefly."""
    folder = tmp_path_factory.mktemp("maps")
    models = {}
    for task in (Task.SEGMENT, Task.DETECT_CHANGE):
        torch.manual_seed(0)
        encoder = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32).encoder
        write_task_data(folder / task, spec_for(task), make_samples(task, count=40, size=32))
        data = TaskData(folder / task)
        plan = plan_inputs(data, RGB, STATISTICS, bands_per_view=3, location=True)
        model = TaskModel(encoder, HeadConfig(task, "linear", len(data.spec.class_names)))
        recipe = FinetuneParameters(steps=60, batch_size=16, lr=4e-3, warmup_steps=5)
        finetune(model, TaskInputs(data, plan), data.rows("train"), recipe, seed=0, device=CPU)
        models[task] = Finetuned(model.eval(), plan, data.spec)
    return models


def test_a_class_map_agrees_with_the_ground_and_keeps_nodata(finetuned, scene, cover, tmp_path):
    raster = raster_from_file(scene, SENTINEL2, RGB)
    path = map_raster(finetuned[Task.SEGMENT], [raster], tmp_path / "map.tif", Windows(32, 8, 4), device=CPU)
    with rasterio.open(path) as out, rasterio.open(scene) as source:
        assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
        classes, seen_pixels = out.read(1), source.read_masks(1) > 0
        assert out.nodata == IGNORE
        assert json.loads(out.tags()["CLASS_NAMES"]) == {"0": "field", "1": "forest", "2": "water"}
        table = out.colormap(1)  # classes that bring no colours get ours
        assert [table[i][:3] for i in range(3)] == [class_colour(i) for i in range(3)]
    np.testing.assert_array_equal(classes == IGNORE, ~seen_pixels)
    assert np.mean(classes[seen_pixels] == cover[seen_pixels]) > 0.9


def test_one_window_map_equals_the_model_itself(finetuned, scene, tmp_path):
    raster = raster_from_file(scene, SENTINEL2, RGB)
    segmenter = finetuned[Task.SEGMENT]
    path = map_raster(segmenter, [raster], tmp_path / "map.tif", Windows(120, 0, 1), device=CPU)
    with RasterWindows(raster) as windows:
        pixels, valid = windows.read(0, 0, 120, 120)
    images = torch.from_numpy(np.where(valid, (pixels - 0.05) / 0.03, 0)).float()[None, None]
    lonlat = torch.tensor([raster.lonlat_deg(0, 0, 120)], dtype=torch.float64)
    batch = TaskBatch(images, torch.tensor([10.0]), lonlat, None, torch.zeros(3), torch.zeros(1))
    with torch.no_grad():
        expected = segmenter.model(batch).argmax(1)[0, :84, :117].numpy()
    with rasterio.open(path) as out:
        found = out.read(1)
    np.testing.assert_array_equal(found[found != IGNORE], expected[found != IGNORE])


def test_a_stopped_map_is_not_continued_by_a_model_that_answers_otherwise(finetuned, scene, tmp_path):
    """`symmetric` changes answers and no weight."""
    raster, windows = raster_from_file(scene, SENTINEL2, RGB), Windows(32, 8, 4)
    trained = finetuned[Task.SEGMENT]
    torch.manual_seed(1)
    # A new head is unsure: more looks change its answers.
    model = TaskModel(trained.model.encoder, trained.model.config)
    symmetric = TaskModel(model.encoder, dataclasses.replace(model.config, symmetric=True))
    symmetric.load_state_dict(model.state_dict())
    plain, other = (dataclasses.replace(trained, model=one.eval()) for one in (model, symmetric))
    whole = map_raster(other, [raster], tmp_path / "whole.tif", windows, device=CPU).read_bytes()
    with stopped_at_the_third_strip():
        map_raster(plain, [raster], tmp_path / "map.tif", windows, device=CPU)
    assert map_raster(other, [raster], tmp_path / "map.tif", windows, device=CPU).read_bytes() == whole


def test_probabilities_are_the_models_and_agree_with_the_classes(finetuned, scene, tmp_path):
    raster = raster_from_file(scene, SENTINEL2, RGB)
    chances = tmp_path / "map_probabilities.tif"
    windows = Windows(32, 8, 4)
    path = map_raster(
        finetuned[Task.SEGMENT], [raster], tmp_path / "map.tif", windows, device=CPU, probabilities=chances
    )
    with rasterio.open(path) as classes, rasterio.open(chances) as out:
        assert (out.descriptions, out.nodata, out.transform) == (("field", "forest", "water"), 255, classes.transform)
        named, stored = classes.read(1), out.read()
    known = named != IGNORE
    np.testing.assert_array_equal((stored != 255).all(0), known)
    assert np.abs(stored[:, known].astype(int).sum(0) - 250).max() <= 2  # rounding of three
    clear = known & (np.sort(stored, axis=0)[-1] > np.sort(stored, axis=0)[-2])
    np.testing.assert_array_equal(stored.argmax(0)[clear], named[clear])


def test_scenes_become_one_mosaic_the_first_on_top(scene, cover, tmp_path):
    counts = seen(np.random.default_rng(3), cover)
    east = write_raster(tmp_path / "east.tif", counts, origin=(500_000 + 80 * 10, 5_200_000 + 40 * 10))
    rasters = [raster_from_file(path, SENTINEL2, RGB) for path in (scene, east)]
    joined = mosaic(rasters)
    assert joined.shape == (84 + 40, 117 + 80)
    with RasterWindows(joined) as both, RasterWindows(rasters[0]) as first, RasterWindows(rasters[1]) as second:
        pixels, valid = both.read(0, 0, 124, 197)
        upper, seen_upper = first.read(0, 0, 84, 117)
        lower, _ = second.read(0, 0, 84, 117)
    np.testing.assert_allclose(pixels[:, 40:, :117][:, seen_upper], upper[:, seen_upper], atol=1e-6)
    np.testing.assert_allclose(pixels[:, :40, 80:], lower[:, :40], atol=1e-6)
    np.testing.assert_allclose(pixels[:, 40:84, 117:], lower[:, 40:, 37:], atol=1e-6)
    assert not valid[:40, :80].any()  # neither scene lies there
    assert not valid[60:85, 30:60].any()  # the first scene's hole, beside the second
    with pytest.raises(TaskDataError, match="a mosaic needs scenes of one sensor, found naip, sentinel-2-l2a"):
        mosaic([rasters[0], dataclasses.replace(rasters[1], sensor="naip")])


def test_what_a_mask_hides_is_not_seen_and_windows_agree_with_the_whole(scene, tmp_path):
    """Clouds widened by 25 m on a grid of 10 m; fill is fill; a cloud beyond a window's edge reaches in."""
    classes = np.full((42, 59), 4, np.uint8)  # vegetation, in pixels of 20 m
    classes[10, 20], classes[30, 5:9], classes[2, 50], classes[41] = 9, 3, 0, 8
    with rasterio.open(
        tmp_path / "scl.tif", "w", driver="GTiff", count=1, height=42, width=59, dtype="uint8",
        crs=UTM, transform=Affine(20, 0, ORIGIN[0], 0, -20, ORIGIN[1]),
    ) as target:  # fmt: skip
        target.write(classes, 1)
    plain = raster_from_file(scene, SENTINEL2, RGB)
    asset = dataclasses.replace(
        plain.layers[0].assets[0], href=str(tmp_path / "scl.tif"), band_index=1, scale=1.0, offset=0.0, nodata=None,
        gsd_m=20.0, role=Role.CLOUD_MASK, mask=MaskKind.SCL,
    )  # fmt: skip
    layer = dataclasses.replace(plain.layers[0], mask=asset, cloud_buffer_m=25.0)
    masked = dataclasses.replace(plain, layers=(layer,))
    rows, columns = plain.shape
    with RasterWindows(plain) as before, RasterWindows(masked) as after:
        pixels, clear = before.read(0, 0, rows, columns)
        kept, valid = after.read(0, 0, rows, columns)
        for row in range(0, rows, 13):
            for column in range(0, columns, 17):
                part, seen_part = after.read(row, column, 13, 17)
                inside = np.s_[row : min(row + 13, rows), column : min(column + 17, columns)]
                height, width = valid[inside].shape
                np.testing.assert_array_equal(seen_part[:height, :width], valid[inside])
                np.testing.assert_array_equal(part[:, :height, :width], kept[:, *inside])
    fine = np.kron(classes, np.ones((2, 2), int))[:rows, :columns]
    hidden = np.isin(fine, (3, 8, 9))
    near = ndimage.distance_transform_edt(~hidden) <= 2.5
    np.testing.assert_array_equal(valid, clear & ~near & (fine != 0))
    np.testing.assert_array_equal(kept, np.where(valid, pixels, 0))


def test_a_vrt_is_a_raster_like_any_other(scene, tmp_path):
    from rasterio.shutil import copy

    vrt = tmp_path / "scene.vrt"
    with rasterio.open(scene) as source:
        copy(source, vrt, driver="VRT")
    with (
        RasterWindows(raster_from_file(vrt, SENTINEL2, RGB)) as through,
        RasterWindows(raster_from_file(scene, SENTINEL2, RGB)) as direct,
    ):
        np.testing.assert_array_equal(through.read(3, 5, 64, 64)[0], direct.read(3, 5, 64, 64)[0])


def test_a_change_map_finds_what_changed_on_the_first_dates_grid(finetuned, scene, cover, tmp_path):
    after = cover.copy()
    after[48:80, 64:112] = (cover[48, 64] + 1) % 3
    counts = seen(np.random.default_rng(2), after)
    counts[:, :10, :10] = 0
    later = write_raster(tmp_path / "later.tif", counts)
    rasters = [raster_from_file(path, SENTINEL2, RGB) for path in (scene, later)]
    path = map_raster(finetuned[Task.DETECT_CHANGE], rasters, tmp_path / "change.tif", Windows(32, 8, 4), device=CPU)
    with rasterio.open(path) as out, rasterio.open(scene) as source:
        change, valid = out.read(1), source.read_masks(1) > 0
    valid[:10, :10] = False
    np.testing.assert_array_equal(change == IGNORE, ~valid)
    truth = (after != cover) & valid
    hit = ((change == 1) & truth).sum()
    assert 2 * hit / ((change == 1).sum() + truth.sum()) > 0.8


def test_maps_need_their_dates_and_known_sensors(finetuned, scene, tmp_path):
    raster = raster_from_file(scene, SENTINEL2, RGB)
    with pytest.raises(TaskDataError, match=r"detect_change maps need 2 raster\(s\), found 1"):
        map_raster(finetuned[Task.DETECT_CHANGE], [raster], tmp_path / "x.tif", Windows(32, 8, 4), device=CPU)
    strange = dataclasses.replace(raster, sensor="gaofen-2")
    with pytest.raises(TaskDataError, match="knows sentinel-2-l2a, not gaofen-2"):
        map_raster(finetuned[Task.SEGMENT], [strange], tmp_path / "x.tif", Windows(32, 8, 4), device=CPU)


@pytest.mark.parametrize("sensor_id", [SENTINEL2.id, "pictures"])
def test_a_raster_like_the_files_of_the_training_is_read_as_they_were(encoder, plan, scene, tmp_path, sensor_id):
    """No description of bands, their order and the offset are the user's own: what was said of the folder holds."""
    with rasterio.open(scene) as source:
        counts = source.read()
    torch.manual_seed(0)
    model = TaskModel(encoder, HeadConfig(Task.SEGMENT, "linear", 3)).eval()
    named = Finetuned(model, plan, spec_for(Task.SEGMENT))
    bands = SENTINEL2.subset(("B02", "B04", "B03")).bands
    encoding = dataclasses.replace(SENTINEL2.encoding, offset=0.0)
    spec = dataclasses.replace(named.spec, bands=bands, encoding=encoding)
    own = Finetuned(model, dataclasses.replace(plan, sensors=(sensor_id,)), spec)
    harmonised = np.where(counts > 0, counts - 1000 * (counts > 1000), 0)[[2, 0, 1]].astype(np.uint16)
    path = write_raster(tmp_path / "own.tif", harmonised, names=())
    options = MapParameters.model_validate({"raster": str(path), "tile_px": 32, "overlap_px": 8})
    MapSource(options, "cpu", 1, own, pd.DataFrame(), {}, RemoteAccess()).write(tmp_path / "own_map.tif")
    raster = raster_from_file(scene, SENTINEL2, RGB)
    map_raster(named, [raster], tmp_path / "map.tif", Windows(32, 8, 8), device=CPU)
    with rasterio.open(tmp_path / "own_map.tif") as found, rasterio.open(tmp_path / "map.tif") as expected:
        assert len(np.unique(expected.read(1))) > 2, "two classes and nodata"
        assert np.mean(found.read(1) == expected.read(1)) > 0.99  # below the sensor's offset counts were cut at zero


def test_bytes_taken_for_reflectance_are_warned_of(tmp_path, cover, caplog):
    counts = seen(np.random.default_rng(0), cover)
    raster_from_file(write_raster(tmp_path / "fine.tif", counts), SENTINEL2, RGB, offset=-0.1)
    assert not caplog.records
    in_bytes = (counts // 32).clip(0, 255).astype(np.uint8)
    path = write_raster(tmp_path / "bytes.tif", in_bytes)
    with rasterio.open(path, "r+") as target:
        target.scales = (1e-4,) * 3
    raster_from_file(path, SENTINEL2, RGB)
    (record,) = caplog.records
    assert "bytes.tif: values from 0" in record.getMessage() and "set embed.scale and" in record.getMessage()


def test_bad_rasters_are_refused_with_what_was_seen(tmp_path, cover):
    counts = seen(np.random.default_rng(0), cover)
    lost = write_raster(tmp_path / "lost.tif", counts, crs=None)
    with pytest.raises(TaskDataError, match=r"lost\.tif has no coordinate reference system"):
        raster_from_file(lost, SENTINEL2, RGB)
    degrees = write_raster(tmp_path / "degrees.tif", counts, crs="EPSG:4326")
    with pytest.raises(TaskDataError, match=r"EPSG:4326, not in metres"):
        raster_from_file(degrees, SENTINEL2, RGB)
    unnamed = write_raster(tmp_path / "unnamed.tif", counts, names=())
    with pytest.raises(TaskDataError, match=r"no band described as 'B04' or 'red'.*3 bands are not the 12"):
        raster_from_file(unnamed, SENTINEL2, RGB)
    physical = REFLECTANCE[cover].transpose(2, 0, 1).astype(np.float32)
    wrong = write_raster(tmp_path / "wrong.tif", physical * 1e4, nodata=None)
    with pytest.raises(TaskDataError, match=r"values are 200 to 900 with median .*reflectance is 0 to 1"):
        raster_from_file(wrong, SENTINEL2, RGB)
    (tmp_path / "torn.tif").write_bytes(lost.read_bytes()[:40])
    with pytest.raises(TaskDataError, match=r"torn\.tif cannot be opened"):
        raster_from_file(tmp_path / "torn.tif", SENTINEL2, RGB)
    with pytest.raises(TaskDataError, match="not pretrained on 'naip'"):
        plan_bands(
            SENTINEL2.__class__("naip", "", 1, SENTINEL2.bands, SENTINEL2.encoding), RGB, STATISTICS, bands_per_view=3
        )


def test_floats_with_nan_and_files_with_their_own_scale(tmp_path, cover):
    physical = REFLECTANCE[cover].transpose(2, 0, 1).astype(np.float32)
    physical[:, :5] = np.nan
    floats = raster_from_file(write_raster(tmp_path / "f.tif", physical, nodata=None), SENTINEL2, RGB)
    counts = np.round(np.nan_to_num(physical) / 2e-5).astype(np.uint16)
    path = write_raster(tmp_path / "s.tif", counts)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (2e-5,) * 3, (0.0,) * 3
    scaled = raster_from_file(path, SENTINEL2, RGB)
    for raster in (floats, scaled):
        with RasterWindows(raster) as windows:
            pixels, valid = windows.read(0, 0, 84, 117)
        assert not valid[:5].any()
        assert valid[5:].all()
        np.testing.assert_allclose(pixels[:, 5:], physical[:, 5:], atol=2e-5)


def test_memory_does_not_grow_with_the_raster(encoder, plan, tmp_path):
    """Eight times the rows, the same peak but for small change: a strip is held, never the raster."""
    import gc
    import tracemalloc

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


def test_a_strip_of_a_wide_raster_is_read_in_pieces(tmp_path):
    """Resampling takes a matrix of the window's width squared: 8,000 columns at once took 256 MB for it."""
    import tracemalloc

    counts = seen(np.random.default_rng(0), np.random.default_rng(1).integers(0, 3, (40, 8000)).astype(np.uint8))
    counts[:, :, 3000:3100] = 0
    raster = raster_from_file(write_raster(tmp_path / "wide.tif", counts), SENTINEL2, RGB)
    with RasterWindows(raster) as windows:
        tracemalloc.start()
        pixels, valid = windows.read(5, 100, 30, 8000)  # past the right edge
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        for column in (480, 2950, 7800):  # over the border of two pieces, into nodata, over the edge
            part, seen_there = windows.read(5, 100 + column, 30, 200)
            np.testing.assert_allclose(pixels[:, :, column : column + 200], part[:, :, : 8000 - column], atol=1e-6)
            np.testing.assert_array_equal(valid[:, column : column + 200], seen_there[:, : 8000 - column])
    assert not valid[:, 2900:3000].any() and not valid[:, 7900:].any() and valid.sum() == 30 * 7800
    assert peak_mb < 40


def test_saved_encoder_feeds_the_default_stage(encoder, tmp_path, scene):
    """`EmbeddingSource` on a named raster, as the stage runs it."""
    from a2mae.tasks.inference.survey import EmbeddingSource
    from a2mae.tasks.parameters import EmbedParameters

    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32)
    save_pretrained(model, tmp_path / "model", config={"normalization": STATISTICS})
    options = EmbedParameters(raster=str(scene), device="cpu", tile_px=64, overlap_px=16)
    EmbeddingSource(options, tmp_path / "model", gpd.GeoDataFrame(), {}, RemoteAccess()).write(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    assert (about["raster"], about["dimensions"], about["blocks"]) == (Path(scene).name, 64, 12)
    assert len(gpd.read_parquet(tmp_path / "out" / "embeddings.parquet")) == 12

"""Maps of classes, change and values of whole rasters, and the two dates of a change map on each other."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from scipy import ndimage

from a2mae.config import RegistrationParameters
from a2mae.models.registry import create_model
from a2mae.sensors import get_sensor
from a2mae.tasks.datasets.inputs import TaskBatch, TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import finetune, head_for
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.raster_map import aligned, map_raster
from a2mae.tasks.inference.rasters import RasterWindows
from a2mae.tasks.palette import class_colour
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.tiling import Windows
from helpers.task_samples import HEIGHTS_M, SENTINEL2, make_samples, seen, spec_for

from .conftest import CPU, RGB, STATISTICS, stopped_at_the_third_strip, write_raster


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A segmenter, a change detector and a model of heights of three covers, trained briefly."""
    folder = tmp_path_factory.mktemp("maps")
    models = {}
    for task in (Task.SEGMENT, Task.DETECT_CHANGE, Task.ESTIMATE):
        torch.manual_seed(0)
        encoder = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32).encoder
        write_task_data(folder / task, spec_for(task), make_samples(task, count=40, size=32))
        data = TaskData(folder / task)
        plan = plan_inputs(data, RGB, STATISTICS, bands_per_view=3, location=True)
        options = TaskParameters.model_validate({"task": task.value})
        model = TaskModel(encoder, head_for(data, plan, options, "linear"))
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


def test_a_map_of_values_is_float_with_units_and_keeps_nodata(finetuned, scene, cover, tmp_path):
    raster = raster_from_file(scene, SENTINEL2, RGB)
    path = map_raster(finetuned[Task.ESTIMATE], [raster], tmp_path / "map.tif", Windows(32, 8, 4), device=CPU)
    with rasterio.open(path) as out, rasterio.open(scene) as source:
        assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
        assert (out.dtypes, out.units, out.descriptions) == (("float32",), ("m",), ("tree height",))
        assert np.isnan(out.nodata) and "CLASS_NAMES" not in out.tags()
        heights, seen_pixels = out.read(1), source.read_masks(1) > 0
    np.testing.assert_array_equal(np.isfinite(heights), seen_pixels)
    errors = heights[seen_pixels] - HEIGHTS_M[cover[seen_pixels]]
    assert 1 - (errors**2).mean() / HEIGHTS_M[cover[seen_pixels]].var() > 0.7 and abs(errors.mean()) < 1


def test_a_stopped_map_of_values_goes_on_to_the_same_bytes(finetuned, scene, tmp_path):
    raster, model = raster_from_file(scene, SENTINEL2, RGB), finetuned[Task.ESTIMATE]
    whole = map_raster(model, [raster], tmp_path / "whole.tif", Windows(32, 8, 4), device=CPU)
    with stopped_at_the_third_strip():
        map_raster(model, [raster], tmp_path / "map.tif", Windows(32, 8, 4), device=CPU)
    again = map_raster(model, [raster], tmp_path / "map.tif", Windows(32, 8, 4), device=CPU)
    assert again.read_bytes() == whole.read_bytes()


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
    strange = dataclasses.replace(raster, sensor=get_sensor("gaofen-2"))
    with pytest.raises(TaskDataError, match="knows sentinel-2-l2a, not gaofen-2"):
        map_raster(finetuned[Task.SEGMENT], [strange], tmp_path / "x.tif", Windows(32, 8, 4), device=CPU)


FINE_M = 2.5
SETTINGS = RegistrationParameters()


def ground(seed, side_m=8000):
    """Fields with sharp edges on a grid of 2.5 m: reflectance times 10,000."""
    rng = np.random.default_rng(seed)
    side = int(side_m / FINE_M)
    seeds = rng.uniform(0, side, (400, 2))
    marks = np.zeros((side, side), bool)
    marks[tuple(seeds.astype(int).T)] = True
    nearest = ndimage.distance_transform_edt(~marks, return_distances=False, return_indices=True)
    return rng.uniform(300, 3000, (side, side))[tuple(nearest)]


def photograph(path, ground, *, gsd_m=10, moved_m=(0, 0), side_m=6000, seed=0, left_m=500_000):
    """The ground as a provider gives it: its content lies `moved_m` (east, north) of where its georeference says."""
    step, side = int(gsd_m / FINE_M), int(side_m / gsd_m)
    left, top = (int((1000 + move) / FINE_M) for move in (-moved_m[0], moved_m[1]))
    part = ground[top : top + side * step, left : left + side * step]
    pixels = part.reshape(side, step, side, step).mean((1, 3))
    noisy = pixels * np.array([1, 0.9, 0.8])[:, None, None] + np.random.default_rng(seed).normal(0, 20, (3, side, side))
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(gsd_m, 0, left_m, 0, -gsd_m, 5_200_000),
    ) as target:  # fmt: skip
        target.write(noisy.clip(1, 60_000).astype(np.uint16))
        for number, name in enumerate(("B04", "B03", "B02"), start=1):
            target.set_band_description(number, name)
    return raster_from_file(path, SENTINEL2, RGB)


@pytest.fixture(scope="module")
def land():
    return ground(0)


@pytest.mark.parametrize("gsd_m", [10, 20])
@pytest.mark.parametrize("moved_m", [(-10.0, 22.5), (17.5, -5.0)])
def test_a_displaced_date_is_moved_back(land, tmp_path, gsd_m, moved_m):
    """Sub-pixel, also where the dates have other pixels; what is then read lies on the first."""
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, gsd_m=gsd_m, moved_m=moved_m, seed=1)
    found = aligned(first, second, SETTINGS)
    assert np.hypot(found.shift_m[0] + moved_m[0], found.shift_m[1] + moved_m[1]) < 0.15 * gsd_m
    assert replace(found, shift_m=(0.0, 0.0)) == second
    box = first.grid[200:300, 200:300]
    with RasterWindows(first) as a, RasterWindows(second) as b, RasterWindows(found) as c:
        wanted, before, after = (windows.on(box)[0] for windows in (a, b, c))
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()


def test_a_date_that_lies_right_is_left_as_it_is(land, tmp_path, caplog):
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, seed=1)
    with caplog.at_level(logging.INFO):
        assert aligned(first, second, SETTINGS) == second
    assert "windows: left there" in caplog.text


def test_what_cannot_be_told_is_said_and_not_invented(land, tmp_path, caplog):
    first = photograph(tmp_path / "first.tif", land)
    other = photograph(tmp_path / "other.tif", ground(1), seed=1)
    with caplog.at_level(logging.WARNING):
        assert aligned(first, other, SETTINGS) == other
    assert "stays where its provider put it" in caplog.text
    plain = photograph(tmp_path / "plain.tif", np.full_like(land, 1500), seed=1)
    assert aligned(first, plain, SETTINGS) == plain
    elsewhere = photograph(tmp_path / "elsewhere.tif", land, left_m=600_000)
    with caplog.at_level(logging.WARNING):
        assert aligned(first, elsewhere, SETTINGS) == elsewhere
    assert "of 0 windows 0 tell" in caplog.text


def test_it_can_be_turned_off_and_has_a_reach(land, tmp_path):
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, moved_m=(60.0, 0.0), seed=1)
    assert aligned(first, second, RegistrationParameters(enabled=False)) == second
    assert aligned(first, second, SETTINGS) == second  # six pixels: beyond three and a half
    far = aligned(first, second, RegistrationParameters(max_shift_px=8))
    assert far.shift_m == pytest.approx((-60, 0), abs=1.5)


def test_a_raster_smaller_than_a_window_is_one_window(land, tmp_path):
    first = photograph(tmp_path / "first.tif", land, side_m=1600)
    second = photograph(tmp_path / "second.tif", land, side_m=1600, moved_m=(10.0, 5.0), seed=1)
    assert aligned(first, second, SETTINGS).shift_m == pytest.approx((-10, -5), abs=1.5)

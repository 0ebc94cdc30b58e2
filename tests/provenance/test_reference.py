"""Reference values: what another machine computed is told from what is another result."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from a2mae.provenance import lock
from a2mae.provenance.record import LineageError
from a2mae.provenance.reference import MOST_BYTES, compare, read_reference, write_reference
from a2mae.provenance.sketch import Sketch, sketch_of_json

SHIFTS = "data/03_primary/registered_images.parquet"
SCENES = "data/01_raw/simulated"
STORE = "data/03_primary/stssd.zarr"
MAP = "data/07_model_output/segment/map.tif"
MODEL = "data/06_models/pretrain"
SCORES = "data/08_reporting/scores.parquet"
METRICS = "data/08_reporting/segment_metrics.json"
PAGE = "data/08_reporting/report.html"
RECORD = "data/lineage/segment.score.json"
OUTPUTS = (SHIFTS, SCENES, STORE, MAP, MODEL, SCORES, METRICS, PAGE, RECORD)


def raster(path, values, *, classes=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": values.dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(path, "w", **profile, **place) as target:
        target.write(values, 1)
        if classes:
            target.write_colormap(1, {number: (number, 0, 0) for number in range(5)})


def table(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One output of every kind."""
    root, rng = tmp_path_factory.mktemp("project"), np.random.default_rng(0)
    names = [f"scene-{number}" for number in range(300)]
    table(root / SHIFTS, {"scene_id": names, "shift_x_m": rng.normal(0, 5, 300), "accepted": rng.random(300) < 0.9})
    for number in range(3):
        raster(root / SCENES / f"scene-{number}/B04.tif", rng.integers(800, 2500, (200, 220)).astype(np.uint16))
    group = zarr.open_group(root / STORE, mode="w", zarr_format=3)
    group.create_array("s2/pixels", data=rng.integers(0, 3000, (70, 3, 16, 16)).astype(np.uint16))
    raster(root / MAP, rng.integers(0, 5, (300, 300)).astype(np.uint8), classes=True)
    (root / MODEL).mkdir(parents=True)
    save_file({"a": rng.normal(size=(64, 64)).astype(np.float32)}, root / MODEL / "model.safetensors")
    value = rng.uniform(0.4, 0.8, 40)
    columns = {"task": ["segment"] * 40, "metric": [f"m{number}" for number in range(40)]}
    table(root / SCORES, {**columns, "value": value, "low": value - 0.03, "high": value + 0.03, "n": [200] * 40})
    (root / METRICS).write_text(json.dumps({"pretrained": {"miou": 0.55, "per_class": [0.4, 0.5]}, "task": "segment"}))
    (root / PAGE).write_text("<p>page</p>" * 1000)
    (root / RECORD).parent.mkdir()
    record = {
        "code": {"files": {"a.py": "12"}},
        "parameters": {"steps": 3},
        "outputs": {"x": "1"},
        "environment": {},
    }
    (root / RECORD).write_text(json.dumps(record))
    return root


@pytest.fixture
def reference(project, tmp_path):
    write_reference(tmp_path / "reference.json", project, OUTPUTS)
    return read_reference((tmp_path / "reference.json").read_text())


@pytest.fixture
def other(project, tmp_path):
    """What another machine made."""
    return shutil.copytree(project, tmp_path / "other")


def changed_table(root, output, column, rows, change):
    frame = pd.read_parquet(root / output)
    frame.loc[rows, column] += change
    frame.to_parquet(root / output)


def changed_raster(path, change):
    with rasterio.open(path, "r+") as target:
        target.write(change(target.read(1)), 1)


def test_the_same_values_are_the_same(other, reference):
    assert all(compare(other, output, reference[output]).told == "equal values in other bytes" for output in OUTPUTS)


def test_one_changed_pixel_is_found(other, reference):
    def changed(by):
        def change(pixels):
            pixels[50, 60] += by
            return pixels

        changed_raster(other / SCENES / "scene-1/B04.tif", change)
        return compare(other, SCENES, reference[SCENES])

    one = changed(1)
    assert one.within and "about 1 of 132,000 differ" in one.told, "a count is what rounding makes of a pixel"
    many = changed(300)
    assert not many.within and "band 1" in many.told, many.told


def test_many_pixels_by_one_count_are_what_another_processor_makes(other, reference):
    rng = np.random.default_rng(1)
    for path in sorted((other / SCENES).rglob("*.tif")):
        changed_raster(path, lambda pixels: pixels + (rng.random(pixels.shape) < 0.005).astype(pixels.dtype))
    found = compare(other, SCENES, reference[SCENES])
    assert found.within, found.told
    told = float(found.told.split("about ")[1].split(" of")[0].replace(",", ""))
    assert 0.4 < told / (132_000 * 0.005) < 2, found.told


def test_one_changed_pixel_of_the_store_is_found(other, reference):
    array = zarr.open_group(other / STORE, mode="r+")["s2/pixels"]
    array[69, 1, 3, 4] = array[69, 1, 3, 4] + 700
    found = compare(other, STORE, reference[STORE])
    assert not found.within and "s2/pixels" in found.told


def test_one_changed_shift_is_found(other, reference):
    changed_table(other, SHIFTS, "shift_x_m", [17], 1.0)
    found = compare(other, SHIFTS, reference[SHIFTS])
    assert not found.within and "shift_x_m: about 1 of 300 differ, by" in found.told, found.told


def test_shifts_that_round_otherwise_are_within_tolerance(other, reference):
    rng = np.random.default_rng(2)
    changed_table(other, SHIFTS, "shift_x_m", slice(None), rng.uniform(-0.045, 0.045, 300))
    found = compare(other, SHIFTS, reference[SHIFTS])
    assert found.within and "shift_x_m" in found.told, found.told


def test_a_scene_that_is_no_longer_accepted_is_another_result(other, reference):
    frame = pd.read_parquet(other / SHIFTS)
    frame.loc[3, "scene_id"] = "another"
    frame.to_parquet(other / SHIFTS)
    assert not compare(other, SHIFTS, reference[SHIFTS]).within
    frame.iloc[1:].to_parquet(other / SHIFTS)
    assert "299 values" in compare(other, SHIFTS, reference[SHIFTS]).told


@pytest.mark.parametrize(
    ("change", "rows", "within"),
    [
        (0.02, [11], True),
        (-0.0299, list(range(40)), True),
        (0.04, [11, 12], True),
        (0.04, [11, 12, 13], False),
        (-0.0899, [11], True),
        (-0.0901, [11], False),
    ],
)
def test_scores_stay_in_their_intervals_but_for_five_of_a_hundred_that_are_near(other, reference, change, rows, within):
    changed_table(other, SCORES, "value", rows, change)
    found = compare(other, SCORES, reference[SCORES])
    assert found.within == within and "score segment m" in found.told, found.told
    assert abs(change) < 0.03 or f"{len(rows)} of 40 scores lie outside" in found.told


def test_a_score_that_is_missing_is_named(other, reference):
    pd.read_parquet(other / SCORES).iloc[:-1].to_parquet(other / SCORES)
    found = compare(other, SCORES, reference[SCORES])
    assert not found.within and "m39" in found.told and "missing" in found.told


def test_a_map_may_have_some_other_pixels(other, reference):
    def change(share):
        rng = np.random.default_rng(3)
        changed_raster(other / MAP, lambda classes: np.where(rng.random(classes.shape) < share, 0, classes))
        return compare(other, MAP, reference[MAP])

    assert change(0.02).within
    assert change(0.2).within, "two trainings of this kind agree on most pixels"
    assert not change(1.0).within


@pytest.mark.parametrize(("times", "within"), [(1.0, True), (1.9, True), (0.55, True), (2.1, False), (0.0, False)])
def test_another_training_has_weights_as_many_and_as_large(other, reference, times, within):
    another = np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32) * np.float32(times)
    save_file({"a": another}, other / MODEL / "model.safetensors")
    found = compare(other, MODEL, reference[MODEL])
    assert found.within == within and "weights: about" in found.told and "of all; they are" in found.told, found.told


@pytest.mark.parametrize(("rows", "within"), [(64, True), (40, True), (30, False), (140, False)])
def test_what_is_counted_by_a_model_may_be_half_or_twice_as_much(other, reference, rows, within):
    another = np.random.default_rng(5).normal(size=(rows, 64)).astype(np.float32)
    save_file({"a": another}, other / MODEL / "model.safetensors")
    found = compare(other, MODEL, reference[MODEL])
    assert found.within == within, found.told
    assert rows == 64 or f"{rows * 64:,} values" in found.told


def test_names_of_what_a_model_found_are_told_alone_and_a_value_for_a_name_is_another_output(other, reference):
    (other / METRICS).write_text(json.dumps({"pretrained": {"miou": 0.5, "per_class": [0.4, 0.5]}, "task": "other"}))
    assert compare(other, METRICS, reference[METRICS]).within
    (other / METRICS).write_text(json.dumps({"pretrained": {"miou": "x", "per_class": ["y", "z"]}, "task": "segment"}))
    assert not compare(other, METRICS, reference[METRICS]).within


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 400), second=st.integers(0, 400), classes=st.booleans(), seed=st.integers(0, 1000))
def test_sketches_of_bands_add_up_to_the_sketch_of_all(first, second, classes, seed):
    values = np.random.default_rng(seed).integers(0, 9, first + second)
    both, one, two = Sketch(), Sketch(), Sketch()
    for sketch in (both, one):
        sketch.add(values[:first], "band 1", classes=classes)
    for sketch in (both, two):
        sketch.add(values[first:], "band 2", classes=classes)
    assert (one + two).to_json() == both.to_json()


def test_a_record_is_compared_by_code_and_parameters(other, reference):
    record = json.loads((other / RECORD).read_text())
    (other / RECORD).write_text(json.dumps(record | {"environment": {"a": 2}, "outputs": {"x": "9"}}))
    assert compare(other, RECORD, reference[RECORD]).within
    (other / RECORD).write_text(json.dumps(record | {"parameters": {"steps": 4}}))
    assert not compare(other, RECORD, reference[RECORD]).within


def test_what_cannot_be_read_is_another_output(other, reference):
    (other / SHIFTS).write_bytes(b"PAR1 torn")
    assert "cannot be read" in compare(other, SHIFTS, reference[SHIFTS]).told
    (other / PAGE).write_text("short")
    assert not compare(other, PAGE, reference[PAGE]).within


def test_the_file_is_small_and_of_a_version(project, tmp_path, monkeypatch):
    write_reference(tmp_path / "reference.json", project, OUTPUTS)
    assert (tmp_path / "reference.json").stat().st_size < MOST_BYTES / 10
    with pytest.raises(LineageError, match="of version 99"):
        read_reference('{"version": 99, "outputs": {}}')
    with pytest.raises(LineageError, match="make dvc-lock"):
        read_reference("[]")
    monkeypatch.setattr("a2mae.provenance.reference.MOST_BYTES", 1000)
    with pytest.raises(LineageError, match="1,000 at most"):
        write_reference(tmp_path / "reference.json", project, OUTPUTS)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 3000),
    changed=st.integers(1, 3000),
    by=st.floats(0.01, 100.0),
    seed=st.integers(0, 1000),
)
def test_a_sketch_tells_how_many_values_changed_and_by_how_much(count, changed, by, seed):
    rng, changed = np.random.default_rng(seed), min(changed, count)
    values = rng.normal(0, 10, count)
    moved = values.copy()
    moved[rng.permutation(count)[:changed]] += by
    before, after = Sketch(), Sketch()
    before.add(values, "a")
    after.add(moved, "a")
    found = after.difference(sketch_of_json(json.loads(json.dumps(before.to_json()))))
    assert found.count == count and math.isclose(found.scale, math.sqrt(np.square(values).mean()), rel_tol=1e-6)
    assert 0.15 < found.differing / changed < 4
    assert 0.3 < found.size / by < 3
    total = found.size * math.sqrt(max(found.differing, 1))
    assert 0.3 < total / (by * math.sqrt(changed)) < 2.5
    if changed == 1:
        assert math.isclose(total, by, rel_tol=1e-4), "one change is known to the digit"


def test_a_stage_has_three_verdicts_and_a_missing_table_is_none_of_the_good_ones(other, reference):
    outs = [{"path": path, "md5": lock._md5(other / path)} for path in OUTPUTS]
    stages = {"stages": {"all": {"deps": [], "outs": outs}}}
    (other / "dvc.yaml").write_text(yaml.safe_dump(stages))
    committed = yaml.safe_dump(stages)

    def told():
        (verdict,) = lock.verdicts(other, committed, reference)
        return verdict.holds, str(verdict)

    assert told() == (True, f"{'all':<14}ok: {len(OUTPUTS)} outputs")
    changed_table(other, SHIFTS, "shift_x_m", [17], 1e-4)
    holds, text = told()
    assert holds and f"ok: {len(OUTPUTS) - 1} outputs of the same bytes, 1 within tolerance" in text
    assert f"within   {SHIFTS}: shift_x_m: about 1 of 300 differ, by " in text
    changed_table(other, SCORES, "value", [3], 0.1)
    holds, text = told()
    assert not holds and f"CHANGED  {SCORES}: 1 of 40 scores lie outside their interval, most of all score" in text
    assert "segment m3" in text
    (other / SHIFTS).unlink()
    holds, text = told()
    assert not holds and f"MISSING  {SHIFTS}" in text

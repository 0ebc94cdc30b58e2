"""Maps of image sets: the scenes of one ground and period, joined; what none of them shows is nodata."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from shapely import box

from a2mae.models.registry import create_model
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import BandAsset, Scene, scenes_to_table
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import finetune, head_for
from a2mae.tasks.inference.read_map import open_class_map
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.sources import MapSource
from a2mae.tasks.parameters import FinetuneParameters, MapParameters, TaskParameters
from helpers.small_archive import FIELD, L8, S1, S2, UTM, WOOD, land_cover, land_use, small_archive

from .conftest import CPU

BANDS = ["red", "green", "blue", "nir", "vv", "vh"]
SIDE = 96
"""Pixels of 10 m of a scene; western half field, eastern half wood."""


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A segmenter of image sets of light and radar, trained briefly."""
    folder = tmp_path_factory.mktemp("maps")
    tables = small_archive(folder / "store")
    return trained("segment", tables, land_cover(folder, tables), folder, {"images": 4, "sensors": [S2, L8, S1]})


@pytest.fixture(scope="module")
def transitions(tmp_path_factory):
    """Semantic change between image sets of light, trained briefly."""
    folder = tmp_path_factory.mktemp("transitions")
    tables = small_archive(folder / "store", grown="2023-01-01")
    return trained("detect_transitions", tables, land_use(folder, tables), folder, {"images": 4, "sensors": [S2, L8]})


def trained(task, tables, labels, folder, inputs):
    bands = BANDS if S1 in inputs["sensors"] else BANDS[:3]
    data = {"labels": str(labels), "class_names": ["field", "wood"]}
    data["archive"] = {"sensors": [S2], "bands": bands, "chip_px": 48, "inputs": inputs}
    options = TaskParameters.model_validate({"task": task, "bands": bands, "data": data})
    write_source(folder / "data", prepare(options, tables, None))
    found = TaskData(folder / "data")
    torch.manual_seed(0)
    encoder = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32, encoding="own").encoder
    plan = plan_inputs(found, bands, {}, bands_per_view=3)
    model = TaskModel(encoder, head_for(found, plan, options, "conv"))
    steps = 30 if task == "segment" else 60
    recipe = FinetuneParameters(steps=steps, batch_size=4, lr=3e-3, warmup_steps=3, augment=False)
    finetune(model, TaskInputs(found, plan), found.rows("train"), recipe, seed=0, device=CPU)
    return Finetuned(model.eval(), plan, found.spec)


def scene(folder, name, sensor_id, day, *, unseen=None, cloud_pct=0.0, grown=False):
    """A scene of half field, half wood, or wood all over; rows `unseen` are nodata."""
    sensor = BUILTIN_SENSORS[sensor_id]
    side = round(SIDE * 10 / sensor.gsd_m)
    west, encoding, assets = (np.arange(side) < side // 2) & (not grown), sensor.encoding, []
    rng = np.random.default_rng(0)
    for number, band in enumerate(sensor.bands):
        level = np.where(west, FIELD, WOOD) / (1 if "nir" in band.common_name else 3)
        if sensor_id == S1:
            level = np.where(west, -14.0, -8.0) - 6 * number
        values = np.broadcast_to(level, (side, side)) + rng.normal(0, 0.002, (side, side))
        counts = np.round((values - encoding.offset) / encoding.scale).astype(encoding.dtype)
        if unseen is not None:
            counts[unseen] = encoding.nodata
        path = folder / f"{name}-{band.name}.tif"
        place = {"crs": UTM, "transform": Affine(sensor.gsd_m, 0, 500_000, 0, -sensor.gsd_m, 5_200_000)}
        shape = {"count": 1, "height": side, "width": side, "dtype": encoding.dtype, "nodata": encoding.nodata}
        with rasterio.open(path, "w", driver="GTiff", **shape, **place) as target:
            target.write(counts, 1)
        numbers = encoding.scale, encoding.offset, encoding.nodata
        assets.append(BandAsset(band.name, str(path), 1, *numbers, encoding.units, sensor.gsd_m))
    taken = dt.datetime.fromisoformat(f"{day}T10:00:00+00:00")
    outline = box(9.0, 46.93, 9.013, 46.95)
    return Scene(name, sensor_id, taken, "", UTM, sensor.gsd_m, outline, tuple(assets), cloud_cover_pct=cloud_pct)


@pytest.fixture
def scenes(tmp_path):
    """Two dates of light in one year, of which the later has a hole; one of the year before; Landsat; radar."""
    return [
        scene(tmp_path, "last", S2, "2023-07-01", unseen=np.s_[:40]),
        scene(tmp_path, "winter", S2, "2023-01-10", unseen=np.s_[:20], cloud_pct=30.0),
        scene(tmp_path, "before", S2, "2022-07-01", cloud_pct=40.0),
        scene(tmp_path, "landsat", L8, "2023-07-05", unseen=np.s_[:10]),
        scene(tmp_path, "radar", S1, "2023-07-03", unseen=np.s_[:20]),
    ]


@pytest.fixture
def dates(tmp_path):
    """Of two years, in the later of which all is wood: holes in every scene but one, which is of the year between."""
    return [
        scene(tmp_path, "old", S2, "2020-07-01", unseen=np.s_[:40]),
        scene(tmp_path, "old-2", S2, "2020-08-01", unseen=np.s_[60:], cloud_pct=5.0),
        scene(tmp_path, "new", S2, "2023-07-01", unseen=np.s_[:30], cloud_pct=1.0, grown=True),
        scene(tmp_path, "new-landsat", L8, "2023-07-05", unseen=np.s_[:10], grown=True),
        scene(tmp_path, "new-2", S2, "2023-06-01", unseen=np.s_[:20], cloud_pct=20.0, grown=True),
        scene(tmp_path, "between", S2, "2021-12-31", cloud_pct=60.0),
    ]


def draw(finetuned, scenes, path, inputs, **options):
    rasters = SceneRasters(scenes_to_table(scenes), {}, RemoteAccess(), None)
    asked = MapParameters.model_validate({"tile_px": 48, "overlap_px": 16, **options})
    sensors = [one.id for one in finetuned.spec.set_sensors]
    inputs = InputParameters.model_validate({"images": 4, "sensors": sensors, **inputs})
    MapSource(asked, "cpu", 1, finetuned, rasters, {}, inputs).write(path)
    with rasterio.open(path) as out:
        return out.read(1), json.loads(out.tags()["DATES"])


def test_the_scenes_of_a_ground_and_year_are_one_map(finetuned, scenes, tmp_path):
    found, names = draw(finetuned, scenes, tmp_path / "map.tif", {"window": "per year"})
    assert names[0] == "last" and set(names) == {"last", "winter", "landsat", "radar"}
    assert (found[:20] == IGNORE).all(), "no image shows it"
    assert (found[20:] != IGNORE).all(), "the earlier date fills what the last one does not show"
    assert (found[24:, :40] == 0).mean() > 0.9 and (found[24:, 56:] == 1).mean() > 0.9


@pytest.mark.parametrize("window", [None, "per year"])
def test_the_scenes_of_two_years_are_one_map_of_transitions(transitions, dates, tmp_path, window):
    registration = {"enabled": False}  # the two halves are all that a comparison would see
    found, names = draw(transitions, dates, tmp_path / "map.tif", {"window": window}, registration=registration)
    assert names[0] == "old" and set(names[:2]) == {"old", "old-2"}
    assert set(names[2:]) == {"new", "new-landsat", "new-2"} and "between" not in names
    assert (found[:20] == IGNORE).all(), "no image of the later year shows it"
    assert (found[20:] != IGNORE).all(), "of each date some image shows it"
    became = list(transitions.spec.label_names).index("field → wood")
    assert (found[24:, :40] == became).mean() > 0.9 and (found[24:, 56:] == 0).mean() > 0.9
    about = open_class_map(tmp_path / "map.tif")
    assert about.earlier == 2 and about.dates == tuple(names) and about.moved_m == (0, 0)


def test_scenes_that_are_named_are_the_sets_of_two_dates(transitions, dates, tmp_path):
    named = {"scene_ids_before": ["old-2"], "scene_ids": ["new-2", "new"], "registration": {"enabled": False}}
    found, names = draw(transitions, dates, tmp_path / "map.tif", {}, **named)
    assert names == ["old-2", "new-2", "new"] and (found[60:] == IGNORE).all() and (found[20:60] != IGNORE).all()
    with pytest.raises(TaskDataError, match="a change map needs two dates of one place: scene new"):
        draw(transitions, dates[2:5], tmp_path / "other.tif", {})


def test_a_map_of_one_set_has_no_later_date(finetuned, scenes, tmp_path):
    draw(finetuned, scenes, tmp_path / "map.tif", {})
    assert open_class_map(tmp_path / "map.tif").moved_m is None


def test_scenes_that_are_named_are_the_set_and_the_first_gives_the_grid(finetuned, scenes, tmp_path):
    found, names = draw(finetuned, scenes, tmp_path / "map.tif", {}, scene_ids=["winter", "before"])
    assert names == ["winter", "before"] and found.shape == (SIDE, SIDE) and (found != IGNORE).all()


@pytest.mark.parametrize(
    ("inputs", "options", "told"),
    [
        ({}, {"scene_ids": ["last", "lost"]}, "segment.map.scene_ids: lost is not of .* in the scene table"),
        ({}, {"scene_ids": ["last", "winter", "before", "landsat", "radar"]}, "5 are more than 4 scenes"),
        ({"window": ["2019-01-01", "2019-02-01"]}, {}, "segment.map: no accepted scene of .* from 2019-01-01"),
    ],
)
def test_sets_that_the_scene_table_cannot_give_are_refused(finetuned, scenes, inputs, options, told):
    with pytest.raises(TaskDataError, match=told):
        draw(finetuned, scenes, Path("not-written.tif"), inputs, **options)

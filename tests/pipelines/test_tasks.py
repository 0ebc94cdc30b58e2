"""The task template, `evaluate` and `embed` through Kedro, on a tiny simulated world."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import timm
import torch
import yaml
from affine import Affine
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from odc.geo.geobox import GeoBox
from pydantic import ValidationError
from safetensors.torch import save_file

from a2mae.explore.parameters import DeliverParameters, SearchParameters
from a2mae.models.checkpoint import load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.pipelines.deliver import create_pipeline as deliver
from a2mae.pipelines.embed import create_pipeline as embed
from a2mae.pipelines.evaluate import create_pipeline as evaluate
from a2mae.pipelines.search import create_pipeline as search
from a2mae.pipelines.tasks import create_pipeline as task
from a2mae.raster.read import RasterReader
from a2mae.report.inputs import ReportInputs, TaskOutputs
from a2mae.report.sections.maps import embeddings, scene_map
from a2mae.report.stage_pages import pages
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.inference.scenes import choose_scenes
from a2mae.tasks.metrics.scores import finetuned_rows, score_table
from a2mae.tasks.parameters import EmbedParameters, EvaluateParameters, TaskParameters
from helpers.built_world import build_world, shift
from helpers.class_pictures import two_classes
from helpers.task_samples import SENTINEL2
from helpers.wandb_runs import find_runs, read_run

CONF = Path(__file__).parents[2] / "conf" / "base"
TASKS = ("classify", "segment", "detect_change", "estimate", "detect_transitions")
MODELS = dict.fromkeys(TASKS, TaskParameters)
MODELS |= {"evaluate": EvaluateParameters, "embed": EmbedParameters, "deliver": DeliverParameters}
MODELS |= {"search": SearchParameters}


def group(name: str) -> dict:
    return yaml.safe_load((CONF / f"parameters_{name}.yml").read_text("utf-8"))[name]


def small(name: str):
    """The committed parameters, made quick and fit for four places."""
    asked = group(name) | {"device": "cpu", "threads": 1}
    if name in TASKS:
        asked["finetune"] |= {"steps": 6, "batch_size": 4, "warmup_steps": 1}
        asked["data"]["simulated"] |= {"min_valid": 0.3, "max_train": 24, "max_test": 24}
        asked |= {"bootstrap": 100, "pictures": 3}
    if name in ("deliver", "search"):
        asked = group(name)
    if name == "evaluate":
        asked |= {"bootstrap": 100, "shots": [1], "shot_seeds": 1}
    return MODELS[name](**asked)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_tiny_world(root / "simulated", seed=5)
    tables, found = build_world(root / "simulated", root / "store.zarr")
    torch.manual_seed(7)  # not the twins' seed
    names = {band: [0.1, 0.1] for band in SENTINEL2.band_names}
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    save_pretrained(model, root / "model", config={"normalization": {SENTINEL2.id: names}})
    return root, tables, found


def catalog_of(world, out: Path) -> DataCatalog:
    root, tables, found = world
    config = {}
    for name in ("tasks", "evaluate", "embed", "search", "deliver"):
        text = (CONF / f"catalog_{name}.yml").read_text("utf-8").replace("${globals:data_root}", out.as_posix())
        config |= yaml.safe_load(text)
    catalog = DataCatalog.from_config(config)
    inputs = {
        "image_sets": tables.store,
        "images": tables.images,
        "sets": tables.sets,
        "locations": tables.locations,
        "simulation": json.loads((root / "simulated" / "manifest.json").read_text()),
        "simulation_folder": root / "simulated",
        "pretrained_model": root / "model",
        "scenes": found.scenes,
        "sensors": found.sensors,
        "params:ingest": IngestParameters(**group("ingest")),
        "params:coregister": CoregisterParameters(**group("coregister")),
        **{f"params:{name}": small(name) for name in MODELS},
    }
    for name, value in inputs.items():
        catalog[name] = MemoryDataset(value, copy_mode="assign")
    return catalog


def run(pipeline: Pipeline, catalog: DataCatalog) -> None:
    SequentialRunner().run(pipeline, catalog)


@pytest.fixture(scope="module")
def outputs(world, tmp_path_factory):
    """All stages, in the chain's order."""
    out = tmp_path_factory.mktemp("data")
    wandb_dir = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(wandb_dir))
        catalog = catalog_of(world, out)
        for stage in TASKS:
            run(task(stage), catalog)
        for create in (embed, search, evaluate, deliver):
            run(create(), catalog)
    return out, wandb_dir


@pytest.mark.parametrize("task", ["segment", "detect_change"])
def test_a_map_has_its_confidence_and_its_deliverables(outputs, task):
    out, _ = outputs
    made, folder = out / "07_model_output" / task, out / "08_reporting" / "deliverables" / task
    with rasterio.open(made / "map.tif") as classes, rasterio.open(made / "confidence.tif") as confidence:
        assert (confidence.transform, confidence.shape) == (classes.transform, classes.shape)
        named, stored = classes.read(1), confidence.read(1)
        least = 250 / len(json.loads(classes.tags()["CLASS_NAMES"]))
    np.testing.assert_array_equal(stored == 255, named == 255)
    assert (stored[named != 255] >= np.floor(least)).all()
    polygons, areas = gpd.read_file(folder / "polygons.gpkg"), pd.read_csv(folder / "areas.csv")
    assert polygons["mean_probability"].between(1 / len(areas), 1).all()
    assert polygons["area_ha"].sum() == pytest.approx(areas["mapped_ha"].sum(), rel=1e-3)
    assert set(areas["design"]) == {"test places, no probability sample of this map"}
    assert areas["estimated_ha"].sum() == pytest.approx(areas["mapped_ha"].sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "main"),
    [("classify", "top1"), ("segment", "miou"), ("detect_change", "f1"), ("detect_transitions", "f_scd")],
)
def test_a_task_leaves_models_scores_and_pictures(outputs, task, main):
    out, _ = outputs
    metrics = json.loads((out / "08_reporting" / f"{task}_metrics.json").read_text())
    for start in ("pretrained", "random"):
        found = metrics[start]
        assert 0 <= found[f"{main}_low"] <= found[main] <= found[f"{main}_high"] <= 1
        assert found["n"] > 0
    gain = metrics["gain"]
    assert gain[main] == pytest.approx(metrics["pretrained"][main] - metrics["random"][main])
    assert -1 <= gain[f"{main}_low"] <= gain[f"{main}_high"] <= 1
    assert metrics["data"] == "simulated"
    if task != "classify":  # a label per pixel: a linear head on random convolution features beside both
        over = metrics["gain_over_rcf"]
        assert over[main] == pytest.approx(metrics["pretrained"][main] - metrics["rcf"][main])
    assert ("rcf" in metrics) == (task != "classify")
    pretrained, twin = (load_encoder(out / "06_models" / name) for name in (task, f"{task}_random"))
    assert pretrained.config == twin.config
    assert not torch.equal(pretrained.patch_embed.proj.weight, twin.patch_embed.proj.weight)
    recipes = [
        json.loads((out / "06_models" / name / "config.json").read_text())["task"] for name in (task, f"{task}_random")
    ]
    assert [recipe.pop("start") for recipe in recipes] == ["pretrained", "random"]
    assert recipes[0] == recipes[1]  # everything but the start is the same
    with np.load(out / "07_model_output" / task / "pictures.npz", allow_pickle=False) as pictures:
        names = ["image_before", "image_after"] if "detect" in task else ["image"]
        assert set(pictures.files) == {*names, "truth", "prediction", "class_names", "class_colours", "sample_id"}
        assert all(pictures[name].dtype == np.uint8 and pictures[name].shape[-1] == 3 for name in names)
        assert pictures["truth"].shape == pictures["prediction"].shape
        assert 1 <= len(pictures["truth"]) <= 3
    confusion = json.loads((out / "08_reporting" / f"{task}_confusion.json").read_text())
    assert confusion["multi_label"] is False
    assert len(confusion["pretrained"]) == len(confusion["class_names"])


def test_a_task_from_a_file_of_timms_scores_and_maps_as_any_other(world, tmp_path):
    """No model of ours is there: labels and a file of weights are enough."""
    weights = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), weights)
    catalog = catalog_of(world, tmp_path / "data")
    catalog["pretrained_model"] = MemoryDataset(tmp_path / "none", copy_mode="assign")
    asked = small("segment").model_dump() | {"start": {"model": "test_resnet", "weights": str(weights)}}
    asked["map"] |= {"tile_px": 104}
    catalog["params:segment"] = MemoryDataset(TaskParameters.model_validate(asked), copy_mode="assign")
    run(task("segment", started=True), catalog)
    metrics = json.loads((tmp_path / "data/08_reporting/segment_metrics.json").read_text())
    assert metrics["start"]["weights"] == "resnet.safetensors" and metrics["start"]["licence"] is None
    config = json.loads((tmp_path / "data/06_models/segment/config.json").read_text())
    assert config["kwargs"]["in_chans"] == 6  # all bands at once
    assert any(part["detail"].startswith("bands by nearest") for part in config["task"]["origin"]["parts"])
    with rasterio.open(tmp_path / "data/07_model_output/segment/map.tif") as found:
        classes, names = found.read(1), json.loads(found.tags()["CLASS_NAMES"])
    assert set(np.unique(classes)) - {255} <= set(range(len(names))) and (classes != 255).any()


@pytest.mark.parametrize("task", ["segment", "detect_change", "detect_transitions"])
def test_maps_cover_the_scene(outputs, world, task):
    out, _ = outputs
    with rasterio.open(out / "07_model_output" / task / "map.tif") as found:
        classes = found.read(1)
        assert found.crs.to_epsg() == 32633
        assert found.res == (10.0, 10.0)
        assert found.colormap(1)
        assert set(np.unique(classes)) - {255} <= set(range(len(json.loads(found.tags()["CLASS_NAMES"]))))


@pytest.mark.parametrize(
    ("stage", "main"), [("segment", "miou"), ("detect_change", "f1"), ("detect_transitions", "f_scd")]
)
def test_a_map_is_drawn_after_its_scores_and_carries_them(outputs, stage, main):
    """One that fails would leave a new model beside the scores of the one before."""
    pipeline = task(stage)
    assert {node.namespace for node in pipeline.nodes} == {stage}
    before = pipeline.node_dependencies
    (draw,) = (node for node in pipeline.nodes if node.name == f"{stage}.draw_map")
    assert f"{stage}.score" in {node.name for node in before[draw]}
    out, _ = outputs
    metrics = json.loads((out / "08_reporting" / f"{stage}_metrics.json").read_text())["pretrained"]
    with rasterio.open(out / "07_model_output" / stage / "map.tif") as found:
        scores = json.loads(found.tags()["TEST_SCORES"])
    assert scores[main] == metrics[main]
    assert scores == {key: value for key, value in metrics.items() if not isinstance(value, dict)}


@pytest.mark.parametrize(
    ("raster", "message"),
    [
        (("EPSG:4326", 6, None), r"mine\.tif is in EPSG:4326, not in metres"),
        (("EPSG:32633", 5, None), r"no band described as 'B04' or 'red'.* or set segment\.map\.sensor"),
        (("EPSG:32633", 6, "naip"), r"segment\.map\.sensor: the segment data of 'simulated' is of sentinel-2-l2a, not"),
    ],
)
def test_a_raster_that_cannot_be_mapped_is_refused_before_the_training(world, tmp_path, raster, message):
    """It was after both finetunings, hours later."""
    crs, bands, sensor = raster
    shape = {"count": bands, "height": 32, "width": 32, "dtype": "uint16", "crs": crs}
    step = 10 if crs != "EPSG:4326" else 1e-4
    with rasterio.open(
        tmp_path / "mine.tif", "w", driver="GTiff", **shape, transform=Affine(step, 0, 11, 0, -step, 47)
    ) as target:
        target.write(np.full((bands, 32, 32), 2000, np.uint16))
    catalog = catalog_of(world, tmp_path / "data")
    asked = small("segment").model_dump()
    asked["map"] |= {"raster": str(tmp_path / "mine.tif"), "sensor": sensor}
    catalog["params:segment"] = MemoryDataset(TaskParameters(**asked))
    with pytest.raises(TaskDataError, match=message):
        run(task("segment").only_nodes("segment.prepare_data"), catalog)
    assert not (tmp_path / "data").exists()


def test_a_change_map_shows_the_ground_not_its_displacement_or_clouds(outputs, world):
    """As the training pairs: the later date on the earlier one, and no pixel that either date's mask calls cloud."""
    out, _ = outputs
    root, _, found = world
    chosen = choose_scenes(found.scenes, SENTINEL2.id)
    truth = pd.read_parquet(root / "simulated" / "truth" / "scenes.parquet").set_index("scene_id")
    before, after = (np.array(shift(truth, scene.scene_id)) for scene in (chosen.before, chosen.after))
    assert np.abs(before - after).max() > 1.2  # metres: something to find
    with rasterio.open(out / "07_model_output" / "detect_change" / "map.tif") as found_map:
        moved = json.loads(found_map.tags()["LATER_DATE_MOVED_M"])
        grid = GeoBox(found_map.shape, found_map.transform, found_map.crs.to_wkt())
        unknown = found_map.read(1) == 255
    np.testing.assert_allclose(moved, before - after, atol=0.6)
    with RasterReader() as reader:
        classes = [
            reader.read([scene.mask], grid, shift_m=by, categorical=True)[0]
            for scene, by in ((chosen.before, (0.0, 0.0)), (chosen.after, tuple(moved)))
        ]
    hidden = np.isin(classes, (3, 8, 9, 10)).any(axis=0)  # shadow, cloud, cirrus
    assert hidden.mean() > 0.02
    assert unknown[hidden].all()
    assert unknown.mean() < 3 * hidden.mean() + 0.2


@pytest.mark.parametrize("task", ["segment", "detect_change"])
def test_the_report_shows_the_map_beside_its_scenes(outputs, world, task):
    out, _ = outputs
    _, tables, found = world
    path = out / "07_model_output" / task / "map.tif"
    shown = ReportInputs("", (), scenes=found.scenes, store=tables.store, tasks=(TaskOutputs(task, {}, map=path),))
    section = scene_map(shown, task)
    gallery, table = section.blocks
    pair = task == "detect_change"
    *scenes, answer = gallery.strips[0].pictures
    chosen = choose_scenes(found.scenes, SENTINEL2.id)
    assert [picture.lines[0] for picture in scenes] == [
        f"{scene.datetime:%Y-%m-%d}" for scene in ((chosen.before, chosen.after) if pair else (chosen.after,))
    ]
    assert answer.lines == ("map",) and chosen.after.scene_id in answer.alt
    assert ("was moved by" in gallery.caption) == pair
    assert "is nodata, cloud or shadow" in gallery.caption
    with rasterio.open(path) as source:
        classes, names = source.read(1), json.loads(source.tags()["CLASS_NAMES"])
    for name, area_km2, _ in table.rows:
        (value,) = (int(key) for key, word in names.items() if word == name)
        assert float(area_km2) == pytest.approx((classes == value).sum() * 1e-4, abs=0.006)
    assert [swatch.label for swatch in gallery.legend] == [*(row[0] for row in table.rows), "invalid"]
    assert scene_map(replace(shown, tasks=(TaskOutputs(task, {}),)), task) is None
    alone = scene_map(replace(shown, scenes=None), task)  # of a raster of one's own, too
    assert len(alone.blocks[0].strips[0].pictures) == 1


def test_values_leave_errors_in_metres_pairs_and_pictures(outputs):
    out, _ = outputs
    metrics = json.loads((out / "08_reporting" / "estimate_metrics.json").read_text())
    assert (metrics["quantity"], metrics["units"], metrics["data"]) == ("tree height", "m", "simulated")
    for start in ("pretrained", "random", "rcf"):
        found = metrics[start]
        assert found["r2_low"] <= found["r2"] <= found["r2_high"] <= 1
        assert 0 < found["mae"] <= found["rmse"] < 30 and abs(found["bias"]) <= found["mae"]
        assert found["rmse_low"] <= found["rmse"] <= found["rmse_high"]
    for metric in ("r2", "rmse"):
        assert metrics["gain"][metric] == pytest.approx(metrics["pretrained"][metric] - metrics["random"][metric])
    pairs = json.loads((out / "08_reporting" / "estimate_confusion.json").read_text())
    assert len(pairs["truth"]) == len(pairs["prediction"]) == 2_000 < pairs["labels"]
    assert 0 <= min(pairs["truth"]) and 10 < max(pairs["truth"]) <= 25.2
    errors = np.array(pairs["prediction"]) - np.array(pairs["truth"])
    assert np.abs(errors).mean() == pytest.approx(metrics["pretrained"]["mae"], rel=0.2)  # a sample of the same labels
    with np.load(out / "07_model_output" / "estimate" / "pictures.npz", allow_pickle=False) as pictures:
        assert set(pictures.files) == {"image", "truth", "prediction", "quantity", "sample_id"}
        assert pictures["truth"].dtype == pictures["prediction"].dtype == np.float32
        assert pictures["quantity"].tolist() == ["tree height", "m"]


def test_a_map_of_values_has_units_and_is_shown(outputs, world):
    out, _ = outputs
    _, tables, found = world
    path = out / "07_model_output" / "estimate" / "map.tif"
    with rasterio.open(path) as source, rasterio.open(out / "07_model_output" / "segment" / "map.tif") as classes:
        heights, seen = source.read(1), classes.read(1) != 255
        assert (source.dtypes, source.units, source.descriptions) == (("float32",), ("m",), ("tree height",))
        assert source.shape == classes.shape and np.isnan(source.nodata) and "CLASS_NAMES" not in source.tags()
        assert "r2" in json.loads(source.tags()["TEST_SCORES"])
    assert (np.isfinite(heights) == seen).all(), "the same scene and clouds"
    shown = ReportInputs(
        "", (), scenes=found.scenes, store=tables.store, tasks=(TaskOutputs("estimate", {}, map=path),)
    )
    section = scene_map(shown, "estimate")
    gallery, table = section.blocks
    _, answer = gallery.strips[0].pictures
    assert answer.lines == ("map",) and "tree height" in answer.alt
    assert [swatch.label.endswith(" m") for swatch in gallery.legend] == [True] * 5 + [False]
    assert "is nodata, cloud or shadow" in gallery.caption
    cells = dict(table.rows)
    assert float(cells["mean"].removesuffix(" m")) == pytest.approx(np.nanmean(heights), abs=0.05)
    assert float(cells["median"].removesuffix(" m")) == pytest.approx(np.nanmedian(heights), abs=0.05)


def test_a_map_of_transitions_has_its_legend_and_square_kilometres(outputs, world):
    out, _ = outputs
    _, tables, found = world
    path = out / "07_model_output" / "detect_transitions" / "map.tif"
    counts = json.loads((out / "08_reporting" / "detect_transitions_confusion.json").read_text())
    with rasterio.open(path) as source, rasterio.open(path.with_name("confidence.tif")) as confidence:
        codes, sure, names = source.read(1), confidence.read(1), json.loads(source.tags()["CLASS_NAMES"])
        colours = source.colormap(1)
    assert list(names.values()) == counts["class_names"] and len(names) == len(counts["classes"]) ** 2 + 1
    shown = set(np.unique(codes).tolist()) - {255}
    assert not any(names[str(code)].endswith(" stays") for code in shown), "unchanged ground is one"
    assert (sure[codes != 255] <= 250).all() and (sure[codes == 0] > 124).all()
    assert colours[0][:3] == (235, 235, 235)
    inputs = ReportInputs(
        "", (), scenes=found.scenes, store=tables.store, tasks=(TaskOutputs("detect_transitions", {}, map=path),)
    )
    gallery, table = scene_map(inputs, "detect_transitions").blocks
    assert [picture.lines for picture in gallery.strips[0].pictures][-1] == ("map",)
    assert {row[0] for row in table.rows} == {names[str(code)] for code in shown}
    km2 = sum(float(row[1]) for row in table.rows)
    assert km2 == pytest.approx((codes != 255).sum() * 1e-4, abs=0.01 * len(table.rows))


def test_who_wants_the_model_only_trains_no_twin(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    catalog = catalog_of(world, tmp_path)
    catalog["params:classify"] = MemoryDataset(TaskParameters(**small("classify").model_dump() | {"twin": False}))
    pipeline = task("classify", twin=False)
    assert "classify.finetune_random" not in {node.name for node in pipeline.nodes}
    run(pipeline, catalog)
    metrics = json.loads((tmp_path / "08_reporting" / "classify_metrics.json").read_text())
    assert "pretrained" in metrics and not {"random", "gain"} & metrics.keys()
    assert not (tmp_path / "06_models" / "classify_random").exists()
    table = score_table(finetuned_rows(metrics, seed=0))
    assert set(table["model"]) == {"pretrained"}
    shown = ReportInputs("", (), tasks=(TaskOutputs("classify", metrics),), scores=table)
    (found,) = (page for page in pages(shown) if page.name == "classify")
    assert found.finding == (
        f"Not compared with a random initialisation. top-1 {metrics['pretrained']['top1']:.3f} (simulated)."
    )


def test_a_value_per_image_is_estimated_without_a_map(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    catalog = catalog_of(world, tmp_path)
    asked = small("estimate").model_dump() | {"head": "mean"}
    catalog["params:estimate"] = MemoryDataset(TaskParameters(**asked))
    run(task("estimate", draws_map=False), catalog)
    metrics = json.loads((tmp_path / "08_reporting" / "estimate_metrics.json").read_text())
    assert "rcf" not in metrics and metrics["pretrained"]["n"] == len(
        json.loads((tmp_path / "08_reporting" / "estimate_confusion.json").read_text())["truth"]
    )
    assert not (tmp_path / "07_model_output" / "estimate" / "map.tif").exists()


def test_embeddings_are_shown_beside_their_scene(outputs, world):
    out, _ = outputs
    _, tables, found = world
    shown = ReportInputs(
        "", (), scenes=found.scenes, store=tables.store, embeddings=out / "07_model_output" / "embeddings"
    )
    scene, answer = embeddings(shown).blocks[0].strips[0].pictures
    chosen = choose_scenes(found.scenes, SENTINEL2.id).after
    assert chosen.scene_id in scene.alt and scene.lines == (f"{chosen.datetime:%Y-%m-%d}",)
    assert "three principal components of 64 dimensions" in answer.alt
    assert len(embeddings(replace(shown, scenes=None)).blocks[0].strips[0].pictures) == 1


def test_embeddings_and_scores(outputs):
    out, _ = outputs
    with rasterio.open(out / "07_model_output" / "embeddings" / "embeddings.tif") as found:
        assert (found.count, found.res) == (64, (80.0, 80.0))
    hits = gpd.read_parquet(out / "07_model_output" / "search" / "hits.parquet")
    assert len(hits) and hits["rank"].tolist() == list(range(1, len(hits) + 1))
    table = pd.read_parquet(out / "08_reporting" / "scores.parquet")
    assert set(table["task"]) == set(TASKS)
    frozen = {"knn", "knn_standardised", "linear_probe", "few_shot", "search"}
    assert set(table[table["over"] == ""]["mode"]) == {"finetuned", *frozen}
    gains = table[table["over"] != ""]
    assert set(gains["mode"]) == {"gain", *(f"{mode}_gain" for mode in frozen)}
    assert set(gains["over"]) == {"random", "rcf"} and set(gains["model"]) == {"pretrained"}
    summary = json.loads((out / "08_reporting" / "scores_summary.json").read_text())
    finetuned = table[
        (table["task"] == "segment") & (table["metric"] == "miou") & (table["model"] == "random")
    ]  # has no gain
    assert summary["segment"]["simulated"]["finetuned"]["miou"]["random"] == pytest.approx(
        finetuned["value"].item(), abs=1e-6
    )


def test_one_offline_wandb_run_per_task(outputs):
    _, wandb_dir = outputs
    runs = [read_run(path) for path in find_runs(wandb_dir)]
    assert sorted(found.run.display_name for found in runs) == sorted(TASKS)
    for found in runs:
        assert {"pretrained/loss", "random/loss"} <= {key for row in found.history for key in row}
        assert found.config["finetune"]["steps"] == 6


def test_a_folder_alone_is_evaluated_where_the_chain_has_no_task(world, tmp_path):
    two_classes(tmp_path / "set", 20)
    catalog = catalog_of(world, tmp_path / "data")
    asked = small("evaluate").model_dump() | {"encoders": ("pretrained", "pixels"), "relative_gsd": (1.0,)}
    catalog["params:evaluate"] = MemoryDataset(EvaluateParameters(**asked | {"folder": str(tmp_path / "set")}))
    run(evaluate({"scenes", "pretrained_model"}), catalog)
    table = pd.read_parquet(tmp_path / "data" / "08_reporting" / "scores.parquet")
    assert set(table["data"]) == {"set"} and set(table["model"]) == {"pretrained", "pixels"}


def test_two_runs_write_the_same_bytes(outputs, world, tmp_path, monkeypatch):
    out, _ = outputs
    monkeypatch.setenv("WANDB_MODE", "disabled")
    catalog = catalog_of(world, tmp_path)
    run(task("segment"), catalog)
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".json", ".safetensors", ".npz", ".parquet", ".tif"}
    differing = [path for path in written if digest(tmp_path / path) != digest(out / path)]
    assert differing == []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_replaces_the_simulation(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    two_classes(tmp_path / "set", 30)
    catalog = catalog_of(world, tmp_path / "data")
    asked = small("classify").model_dump()
    asked["data"]["folder"] = str(tmp_path / "set")
    asked["bands"] = ("red", "green", "blue")  # what pictures have
    catalog["params:classify"] = MemoryDataset(TaskParameters(**asked))
    run(task("classify"), catalog)
    metrics = json.loads((tmp_path / "data" / "08_reporting" / "classify_metrics.json").read_text())
    assert metrics["data"] == "set"
    assert metrics["pretrained"]["top1"] == 1.0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("classify", {"heaad": "mean"}, "unknown parameter 'heaad': did you mean 'head'"),
        ("classify", {"head": "upernet"}, "head must be one of linear, mean, attentive, rcf, found 'upernet'"),
        (
            "segment",
            {"finetune": {"loss": "mse"}},
            "segment: finetune.loss must be one of cross_entropy, .*, found 'mse'",
        ),
        ("segment", {"finetune": {"log_targets": True}}, "segment: labels are classes, and finetune.log_targets is of"),
        ("estimate", {"finetune": {"loss": "dice"}}, "estimate: finetune.loss must be one of huber, mse, found 'dice'"),
        (
            "estimate",
            {"data": {"class_names": ["a", "b"]}},
            "labels are values, and data.class_names is of classes: le",
        ),
        ("segment", {"finetune": {"steps": 0}}, "greater than or equal to 1"),
        ("segment", {"data": {"simulated": {"chip": 3}}}, "unknown parameter 'chip': did you mean 'chip_px'"),
        ("evaluate", {"relative_gsd": [0.5]}, "hold 1.0"),
        ("evaluate", {"encoders": ["vgg"]}, "encoders"),
        ("embed", {"tile_px": 4}, "greater than or equal to 16"),
    ],
)
def test_wrong_parameters_are_named(name, change, message):
    with pytest.raises(ValidationError, match=message):
        MODELS[name](**{**group(name), **change})


def test_committed_parameters_name_every_field():
    """What a user can set is in the file, with a comment; only rarely used fields are left to their defaults."""
    for name, model in MODELS.items():
        model(**group(name))
    for name in TASKS:
        assert set(group(name)["finetune"]) >= {"mode", "steps", "batch_size", "lr", "layer_decay", "loss"}


def test_stages_do_not_import_torch_until_they_run(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from a2mae.pipelines import embed, evaluate, tasks\n"
        "embed.create_pipeline(), evaluate.create_pipeline()\n"
        f"[tasks.create_pipeline(stage) for stage in {TASKS}]\n"
        "print(sorted({'torch', 'rasterio', 'sklearn', 'wandb', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.splitlines()[-1] == "[]", "Kedro's warning of dots in names comes before"


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(CONF.parents[1] / "src")}

"""`a2mae check`: what will be made, how long it takes, and what looks wrong, before anything is made."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import yaml

from a2mae.commands import main
from a2mae.commands.check import measure_steps, page, wrong
from a2mae.scenes import scenes_from_table, sensors_from_json
from a2mae.stssd.forecast import forecast
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.training.parameters import PretrainParameters
from helpers.checkout import ROOT
from helpers.deliveries import write

RULE = {
    "name": "s2", "files": "S2_{date}.tif", "sensor": "sentinel-2-l2a", "bands": ["B02", "B03", "B04", "B08"],
    "scale": 1e-4, "offset": 0.0, "nodata": 0, "units": "reflectance",
}  # fmt: skip
INGEST = {
    "rules": [RULE],
    "bands": {"sentinel-2-l2a": ["B02", "B03", "B04", "B08"]},
    "locations": {"footprint_m": 480, "min_scenes": 2},
}
DATES = {"dates": {"single_source": True, "min_sources": 1, "images_per_source": 6, "min_images": 2}}
BASE = yaml.safe_load((ROOT / "conf/base/parameters_pretrain.yml").read_text("utf-8"))["pretrain"]
SMALL = {"embed_dim": 64, "depth": 1, "decoder_dim": 32, "decoder_num_heads": 4, "decoder_depth": 1}
PRETRAIN = {
    **BASE,
    "model": {**BASE["model"], "options": SMALL},
    "sampling": {**BASE["sampling"], "image_size": 32},
    "optimizer": {**BASE["optimizer"], "steps": 10, "batch_size": 2},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for date in ("20210601", "20210611", "20210621"):
        write(folder / f"S2_{date}.tif", bands=4, low=300, high=4000, side_m=2400)
    return ingest(IngestParameters(**INGEST, folder=str(folder)))


def found_for(tables, recipes):
    sensors = sensors_from_json(json.loads(json.dumps(tables.sensors)))
    parameters = CoregisterParameters(recipes=recipes)
    return forecast(tables.scenes, tables.locations, sensors, parameters), parameters, sensors


def test_sets_images_and_bytes_are_those_that_a_build_makes_of_clear_scenes(tables):
    found, parameters, _ = found_for(tables, DATES)
    places = len(tables.locations)
    assert found.locations == places and found.sets == {"dates": places}
    assert found.images == {"sentinel-2-l2a": 3 * places} and found.bytes == 3 * places * 48 * 48 * (4 * 2 + 1)
    assert found.kept == found.tried == 3 * found.surveyed and found.surveyed == min(6, places)
    pretrain = PretrainParameters(**PRETRAIN)
    lines = dict(
        line.split(maxsplit=1)
        for line in page(found, parameters, pretrain, weights=1_000_000, seconds=720.0, free_bytes=2**30)
    )
    assert lines["sets"] == f"at most {places} ({places} dates)   [coregister.recipes]"
    assert lines["time"].startswith("720.00 s per step on this machine, 2.0 hours")
    assert lines["model"].startswith("a2mae_vit_tiny_patch8: 1.0 M weights, 15 MiB")
    assert f"10 steps of 2 samples of 3 images, {20 / places:.1f} times every set" in lines["training"]


def test_what_looks_wrong_is_said_with_its_key(tables):
    scenes = scenes_from_table(tables.scenes)
    found, _, sensors = found_for(tables, DATES)
    said = "\n".join(wrong(found, scenes, sensors))
    assert "sets are few to learn from" in said and "nobody looks for clouds in sentinel-2-l2a: cloud_test" in said
    found, _, sensors = found_for(tables, {"any": {"min_sources": 2}})
    said = "\n".join(wrong(found, scenes, sensors))
    assert (
        "no place has what a recipe asks for" in said and "sentinel-2-l2a is in no set and is never trained on" in said
    )
    found, _, sensors = found_for(tables, DATES)
    dark = dataclasses.replace(found, looked=found.looked.assign(dark_value=-0.09, bright_value=0.02), kept=0)
    said = "\n".join(wrong(dark, scenes, sensors))
    assert "an offset of 0.1 applied twice" in said and "reflectance is 0 to 1" in said
    assert "no image of the sample passes the quality gate" in said


@pytest.mark.parametrize("method", ["a2mae", "scale_mae", "mae", "satmae"])
def test_steps_of_every_method_are_measured(method):
    weights, seconds = measure_steps(PretrainParameters(**{**PRETRAIN, "method": method}), 4)
    assert weights > 10_000 and 0 < seconds < 60


def test_the_command_reads_an_environment(tables, tmp_path, monkeypatch, capsys):
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (tmp_path / "pyproject.toml").write_text(text.replace('source_dir = "src"', 'source_dir = "."'))
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=lambda _, names: set(names) & {"local", "mine"})
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--env", "real_samples"]) == 1
    assert "has no scenes.parquet: find the scenes first, kedro run --env=real_samples" in capsys.readouterr().err
    assert main(["check", "--env", "real_sample"]) == 1
    assert "no environment 'real_sample': did you mean 'real_samples'" in capsys.readouterr().err
    out = tmp_path / "data/real_samples/02_intermediate"
    out.mkdir(parents=True)
    tables.scenes.to_parquet(out / "scenes.parquet")
    tables.locations.to_parquet(out / "locations.parquet")
    (out / "sensors.json").write_text(json.dumps(tables.sensors))
    assert main(["check", "--env", "real_samples"]) == 0
    said = capsys.readouterr().out
    assert "3 sentinel-2-l2a   [ingest.rules]" in said and "looks wrong:" in said
    assert said.endswith("next: kedro run --env=real_samples\n")

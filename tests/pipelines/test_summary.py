"""A run's last lines: what was made, where, how long it took, what was kept out and why, what is next."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

from a2mae.pipelines.uncaught import Once, sentence_of
from helpers.checkout import ROOT
from helpers.deliveries import write

RULE = """ingest:
  folder: {folder}
  source: {{kind: folder}}
  locations: {{footprint_m: 480, min_scenes: 1}}
  rules:
    - {{name: s2, files: "S2_{{date}}.tif", sensor: sentinel-2-l2a, bands: [B02, B03, B04, B08], scale: 1.0e-4,
       offset: 0.0, nodata: 0, units: reflectance}}
  bands: {{sentinel-2-l2a: [B02, B03, B04, B08]}}
"""


@pytest.fixture
def env(tmp_path):
    """An environment of two scenes, one without a CRS."""
    write(tmp_path / "in/S2_20210601.tif", bands=4, low=300, high=4000)
    write(tmp_path / "in/S2_20210611.tif", bands=4, low=300, high=4000, crs=None)
    conf = tmp_path / "conf"
    (conf / "mine").mkdir(parents=True)
    for name in ("base", "logging.yml", "no_simulation.json"):
        (conf / name).symlink_to(ROOT / "conf" / name)
    (conf / "mine/globals.yml").write_text(f"data_root: {tmp_path}/data\n")
    (conf / "mine/catalog_ingest.yml").write_text("simulation:\n  filepath: conf/no_simulation.json\n")
    (conf / "mine/parameters_chain.yml").write_text("chain: [ingest, coregister, tag, report]\n")
    (conf / "mine/parameters_ingest.yml").write_text(RULE.format(folder=tmp_path / "in"))
    return conf


def run(conf, *words):
    command = [
        sys.executable,
        "-m",
        "kedro",
        "run",
        f"--conf-source={conf}",
        "--env=mine",
        "--pipelines=ingest",
        *words,
    ]
    quiet = {**os.environ, "WANDB_MODE": "disabled", "COLUMNS": "300"}
    return subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)


def test_a_run_ends_with_its_summary(env):
    done = run(env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.rstrip().splitlines()
    assert re.fullmatch(r"ingest: \d+\.\d s; .*02_intermediate/scenes\.parquet, .* and 1 more", lines[-3]), lines[-3:]
    assert lines[-2].startswith("kept out: 1 scene (1 no_crs); the first: ") and "refused_scenes.parquet" in lines[-2]
    assert lines[-1] == "next: kedro run --env=mine --pipelines=coregister,tag,report"


def test_a_wrong_parameter_is_a_sentence_with_nothing_before_it(env):
    done = run(env, "--params=ingest.max_cloud=3")
    assert done.returncode == 1 and done.stdout.strip() == ""
    assert re.match(r"\s*ParameterValidationError: ingest:\s+unknown parameter 'max_cloud': did you mean", done.stderr)
    assert "input_type" not in done.stderr and done.stderr.count("did you mean") == 1


def test_a_library_warns_once_in_a_line_and_we_say_all():
    once = Once()

    def shown(name, text, level=logging.WARNING):
        record = logging.LogRecord(name, level, "", 0, text, None, None)
        return record.getMessage() if once.filter(record) else None

    assert (
        shown("rasterio._env", "CPLE in a_1.tif: odd\nbands") == "rasterio._env: CPLE in a_1.tif: odd bands (told once)"
    )
    assert shown("rasterio._env", "CPLE in b_2.tif: odd\nbands") is None
    assert shown("rasterio._env", "CPLE in b_2.tif: other") is not None
    assert shown("a2mae.x", "ours") == shown("a2mae.x", "ours") == "ours"
    assert shown("kedro.pipeline.node", "calls", logging.ERROR) is None, "the sentence comes at the end"
    running = "Running node: tag: tag([images;sets]) -> [tags]"
    assert shown("kedro.pipeline.node", running, logging.INFO) == "Running node: tag"
    assert shown("distributed.worker", "broken", logging.ERROR) == "broken"


def test_what_pydantic_adds_is_left_out():
    error = ValueError(
        "Parameter validation failed:\n- Parameter 'segment': Failed to instantiate TaskParameters for parameter"
        " 'segment': 1 validation error for TaskParameters\ndata\n  Value error, still to be stated [type=value_error,"
        " input_value={'a': [1]}, input_type=dict]\n    For further information visit https://errors.pydantic.dev/x"
    )
    assert sentence_of(error) == "segment:\ndata\n  still to be stated"

"""The project as a user's shell meets it: what is refused before anything runs, and what is never sent anywhere."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.validation.exceptions import ParameterValidationError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def project():
    bootstrap_project(ROOT)


def context(env: str | None = None, **runtime_params: object):
    with KedroSession.create(project_path=ROOT, env=env, runtime_params=runtime_params, save_on_close=False) as session:
        return session.load_context()


def test_telemetry_and_analytics_are_off_by_files_in_the_repository():
    assert yaml.safe_load((ROOT / ".telemetry").read_text()) == {"consent": False}
    dvc = configparser.ConfigParser()
    dvc.read(ROOT / ".dvc" / "config")
    assert dvc["core"]["analytics"] == "false" and dvc["core"]["check_update"] == "false"
    assert "KEDRO_DISABLE_TELEMETRY := 1" in (ROOT / "Makefile").read_text()


def test_mistyped_group_names_its_neighbour():
    with pytest.raises(ParameterValidationError, match=r"'pretrian'.*did you mean 'pretrain'"):
        context(pretrian={"method": "mae"})


def test_mistyped_key_names_the_key_and_its_neighbours():
    with pytest.raises(ParameterValidationError, match=r"'metod'.*did you mean 'method'"):
        context(pretrain={"metod": "mae"}).params  # noqa: B018 (reading the property validates)


def test_value_out_of_range_names_the_parameter():
    with pytest.raises(ParameterValidationError, match=r"(?s)report.*picture_px"):
        context(report={"picture_px": -1}).params  # noqa: B018


def test_known_parameters_pass():
    assert context(report={"title": "Mine"}).params["report"].title == "Mine"


def kedro(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "kedro", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_mistyped_parameter_fails_the_command_before_any_node_runs():
    done = kedro("run", "--pipelines=pretrain", "--params=pretrain.metod=mae")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "metod" in said and "did you mean 'method'" in said
    assert "Running node" not in said

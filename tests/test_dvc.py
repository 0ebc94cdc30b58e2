"""DVC and Kedro are one graph: dvc.yaml is what the registry, the catalog and the imports say."""

import os
import subprocess
import sys

import pytest
import yaml

from a2mae import dvc as generator
from a2mae.pipeline_registry import module_of
from helpers.checkout import ROOT, changes, checkout, run
from helpers.configuration import DEMO


@pytest.fixture(scope="module")
def written() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))


def paths(stage: dict, key: str) -> set[str]:
    return {item if isinstance(item, str) else next(iter(item)) for item in stage.get(key, [])}


def produced(stage: dict) -> set[str]:
    return paths(stage, "outs") | paths(stage, "metrics") | paths(stage, "plots")


def test_is_current():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "a2mae.dvc", "--check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_out_of_date_says_how_to_write_it(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setattr(generator, "dvc_yaml", lambda root: "stages: {a: {}}\n")
    with pytest.raises(generator.StaleDvcError, match="make dvc"):
        generator.check(tmp_path)


def test_has_a_stage_for_every_pipeline_of_the_chain(written):
    assert tuple(written["stages"]) == DEMO


def test_every_stage_makes_something_and_depends_on_its_code(written):
    for name, stage in written["stages"].items():
        assert produced(stage), name
        assert f"src/{module_of(name).replace('.', '/')}.py" in stage["deps"], name
        assert stage["cmd"] == f"kedro run --env=base --pipelines={name}"


def test_every_dependency_is_made_by_an_earlier_stage_or_tracked_by_git(written):
    made: set[str] = set()
    for name, stage in written["stages"].items():
        for path in stage["deps"]:
            if path.startswith("src/"):
                assert (ROOT / path).exists(), path
            else:
                assert any(path == out or path.startswith(f"{out}/") for out in made), f"{name}: nobody makes {path}"
        made |= produced(stage)


def test_no_output_lies_in_another(written):
    outs = sorted(out for stage in written["stages"].values() for out in produced(stage))
    assert len(outs) == len(set(outs))
    assert not [(a, b) for a in outs for b in outs if b.startswith(f"{a}/")]


def test_parameters_come_from_base_and_no_stage_depends_on_another_ones(written):
    for name, stage in written["stages"].items():
        files = {file for item in stage.get("params", []) for file in item}
        assert files, name
        assert all((ROOT / file).is_file() and file.startswith("conf/base/") for file in files)
    pretrain = written["stages"]["pretrain"]["params"]
    assert {"conf/base/parameters_pretrain.yml"} == {file for item in pretrain for file in item}


def test_parameter_files_are_plain():
    for path in sorted((ROOT / "conf").glob("*/parameters_*.yml")):
        assert "${" not in path.read_text("utf-8"), f"{path.name}: dvc exp run -S cannot write to resolvers"


def test_dvc_reads_it_in_a_fresh_clone(tmp_path):
    clone = checkout(tmp_path / "clone")
    listed = run(clone, "dvc", "stage", "list", "--name-only", timeout=120)
    assert listed.returncode == 0, listed.stderr
    assert tuple(listed.stdout.split()) == DEMO
    assert changes(clone) == ""

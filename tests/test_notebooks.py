"""The notebooks: clean as committed, and each runs from its first cell to its last on a small simulated Earth."""

import ast
import importlib
import json
import shutil

import pandas as pd
import pytest
import rasterio
import yaml

from helpers.checkout import ROOT, changes, checkout, run

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNNER = ROOT / "tests/helpers/run_notebook.py"


def cells(notebook, kind="code") -> list[str]:
    found = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def code(notebook) -> str:
    return "\n".join(line for cell in cells(notebook) for line in cell.splitlines() if not line.startswith("%"))


def test_there_are_three():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(notebook):
    document = json.loads(notebook.read_text("utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert set(document["metadata"]) == {"kernelspec", "language_info"}, "metadata of somebody's editor"
    for cell in document["cells"]:
        assert cell["id"] and cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    assert notebook.read_text("utf-8") == json.dumps(document, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_imports_exists_and_is_used(notebook):
    tree = ast.parse(code(notebook))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert {(alias.asname or alias.name).split(".")[0] for alias in node.names} <= used


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_says_what_it_is_and_what_it_needs(notebook):
    first = cells(notebook, "markdown")[0]
    assert first.startswith("# ") and "make demo" in first and "kedro run --pipelines=" in first


def small() -> dict:
    """The tests' small chain, smaller: two sensors, two dates each."""
    parameters = yaml.safe_load((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8"))
    parameters["simulate"]["acquisitions"] |= {
        "sentinel-2-l2a": [{"period": "before", "season": "growing"}, {"period": "after", "season": "growing"}],
        "landsat-oli-c2-l2": [{"period": "before", "season": "growing"}],
        "gaofen-1": [],
    }
    parameters["pretrain"]["logging"] |= {"wandb_project": None}
    return parameters


@pytest.mark.timeout(3000)  # a minute and a half of one core; a busy machine may take long
def test_each_runs_to_its_end(tmp_path):
    clone = checkout(tmp_path / "clone")
    (clone / "conf/local/parameters_small.yml").write_text(yaml.safe_dump(small()))
    log = tmp_path / "sockets.log"
    built = run(clone, "kedro", "run", "--pipelines=simulate,ingest,coregister,tag,prune", socket_log=log, timeout=1500)
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    for notebook in NOTEBOOKS:
        copy = clone / "notebooks" / notebook.name
        done = run(clone, "python", str(RUNNER), str(copy), socket_log=log, timeout=1500)
        assert done.returncode == 0, f"{notebook.name}: {(done.stdout + done.stderr)[-3000:]}"
        told = json.loads(done.stdout.splitlines()[-1])
        assert told == {"cells": len(cells(notebook)), "pictures": code(notebook).count("plt.show()")}
        if notebook.name.startswith("02"):  # the third starts from what the second trained
            model = clone / "data/06_models/notebook_run/model"
            assert len(pd.read_csv(model / "run/metrics.csv")) == 3, "rows of six steps, one for every two"
            shutil.copytree(model, clone / "data/06_models/pretrain")
    with rasterio.open(clone / "data/05_model_input/notebook/map.tif") as mapped:
        assert mapped.crs.to_epsg() == 32633 or mapped.crs.to_epsg() == 32734
        classes = json.loads(mapped.tags()["CLASS_NAMES"])
        assert set(mapped.read(1).ravel().tolist()) <= {*map(int, classes), 255}
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
    assert changes(clone) == ""

"""The reviewer's page, line by line, on a small copy of the project: experiments, queue, metrics, plots, a remote."""

import csv
import io
import json
import os
import re
import shlex

import pandas as pd
import pytest
import yaml

from a2mae.report.previews import draw_curves
from helpers.checkout import ROOT, changes, checkout, run

PAGE = (ROOT / "docs/reproduction.md").read_text("utf-8")
CHAIN = ("simulate", "ingest", "coregister", "tag", "prune", "report")
"""The report last: its nodes alone are given every parameter group, and its page shows them."""
REPORT = "data/04_feature/prune_report.json"
LIMIT = "prune.max_per_cluster"


def page_commands() -> list[list[str]]:
    """The commands of the page's tested blocks, comments dropped."""
    blocks = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 5
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkout whose chain trains nothing, on four places with two sensors."""
    clone = checkout(tmp_path_factory.mktemp("dvc") / "clone")
    base = clone / "conf/base"
    tiny = yaml.safe_load((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8"))["simulate"]
    path = base / "parameters_simulate.yml"
    simulate = yaml.safe_load(path.read_text("utf-8"))["simulate"] | {"workers": 1, "regions": tiny["regions"][1:]}
    simulate["acquisitions"] = {sensor: [] for sensor in simulate["acquisitions"]} | {
        "sentinel-2-l2a": [{"period": "before", "season": "growing"}, {"period": "after", "season": "growing"}],
        "landsat-oli-c2-l2": [{"period": "before", "season": "growing"}],
    }
    path.write_text(yaml.safe_dump({"simulate": simulate}, sort_keys=False))
    (base / "parameters_chain.yml").write_text(f"chain: [{', '.join(CHAIN)}]\n")
    (clone / "dvc.lock").unlink(missing_ok=True)  # it is of the whole chain
    written = run(clone, "python", "-m", "a2mae.dvc")
    assert written.returncode == 0, written.stderr
    git(clone, "config", "user.name", "t")
    git(clone, "config", "user.email", "t@t")
    git(clone, "commit", "-qam", "a small chain")
    return clone


def git(clone, *words: str) -> str:
    import subprocess

    return subprocess.run(["git", *words], cwd=clone, check=True, capture_output=True, text=True).stdout


def dvc(clone, *words: str) -> str:
    done = run(clone, "dvc", *words, wandb="disabled", timeout=1500)
    assert done.returncode == 0, f"dvc {shlex.join(words)}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout


def outputs(clone) -> dict[str, bytes]:
    """Every file that DVC tracks, by what `dvc.lock` lists."""
    locked = yaml.safe_load((clone / "dvc.lock").read_text("utf-8"))["stages"]
    tracked = [clone / out["path"] for stage in locked.values() for out in stage["outs"]]
    files = [file for path in tracked for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {file: file.read_bytes() for file in files if file.is_file()}


def kept(clone) -> int:
    return json.loads((clone / REPORT).read_text("utf-8"))["after"]["training_sets"]


@pytest.mark.timeout(3000)  # a minute of one core; a busy machine may take long
def test_every_line_of_the_reviewers_page(small):
    said: dict[str, str] = {}
    for words in page_commands():
        if words[:2] == ["dvc", "plots"]:  # the small chain trains nothing: curves of a run of two intervals
            curves = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "effective_rank": [3.0, 4.0], "lr": [0.1, 0.1]})
            (small / words[3]).write_bytes(draw_curves(curves))
        if words[:2] == ["dvc", "pull"]:
            before = outputs(small)
            for path in before:
                path.unlink()
            for folder in ("files", "runs"):
                os.rename(small / ".dvc/cache" / folder, small.parent / folder)
        if words[0] == "git":
            git(small, *words[1:])
            continue
        if words[0] == "python":
            done = run(small, *words)
            assert done.returncode == 0, done.stdout + done.stderr
            assert re.findall(r"^(\w+) +ok", done.stdout, re.M) == [*CHAIN], "the committed lock has these bytes"
            continue
        told = dvc(small, *words[1:])
        name = words[1] if words[1] != "exp" else f"exp {words[-1].split('=')[-1]}"
        said[name + (" diff" if "diff" in words else "")] = told
        if name == "exp 1":
            assert kept(small) == 1, "one cluster, one set of it"
        if words[1] == "checkout":
            assert kept(small) > 1
        if words[1] == "repro":
            assert [line for line in told.splitlines() if line.startswith("Running stage")] == [
                f"Running stage '{stage}':" for stage in CHAIN
            ]
            assert "is up to date" in dvc(small, "repro") or "up to date" in dvc(small, "status")
    assert re.search(rf"{LIMIT}\s+-\s+1", said["params diff"]), said["params diff"]
    assert re.search(r"after\.training_sets\s+\d+\s+1\s+-\d+", said["metrics diff"]), said["metrics diff"]
    plots = (small / "dvc_plots/index.html").read_text("utf-8")
    assert "<img src=" in plots and "http" not in plots and "<script" not in plots
    assert len(before) > 50 and outputs(small) == before, "the remote has every byte"
    assert "in sync" in said["status"]
    rows = list(csv.DictReader(io.StringIO(dvc(small, "exp", "show", "--csv"))))
    done = {row[LIMIT]: row["after.training_sets"] for row in rows if row["typ"].startswith("branch")}
    assert done["1"] == "1" and {"2", "3"} <= set(done) and int(done["2"]) == 2
    assert changes(small) == ""


@pytest.mark.timeout(3000)  # fifteen seconds of one core; a busy machine may take long
def test_a_fresh_clone_writes_the_bytes_of_the_lock(small, tmp_path):
    """Nothing of the first checkout is there: no output, no cache; and it is the other door that runs the stages."""
    if not (small / "dvc.lock").exists():  # the page's test has committed it, where that ran before
        dvc(small, "repro")
        git(small, "add", "dvc.lock")
        git(small, "commit", "-qm", "lock")
    clone = tmp_path / "somewhere/else"
    git(small, "clone", "--quiet", str(small), str(clone))
    assert run(clone, "python", "-m", "a2mae.dvc_lock").returncode == 1, "nothing is there yet"
    done = run(clone, "kedro", "run", "--env=base", timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    said = run(clone, "python", "-m", "a2mae.dvc_lock").stdout
    assert re.findall(r"^(\w+) +ok", said, re.M) == [*CHAIN], said
    assert changes(clone) == ""


def test_metrics_and_parameters_are_wired():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    metrics = {name: stage["metrics"] for name, stage in stages.items() if "metrics" in stage}
    assert {"tag", "prune", "pretrain", "classify", "segment", "detect_change", "evaluate"} == set(metrics)
    assert all(path.endswith(".json") for paths in metrics.values() for path in paths)
    assert stages["report"]["plots"] == ["data/08_reporting/pretrain_curves.png"]
    for name in metrics:
        keys = [key for item in stages[name]["params"] for key in next(iter(item.values()))]
        assert name in keys


def test_curves_are_the_same_bytes_and_show_every_measure():
    curves = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "held_out_loss": [None, 0.6], "lr": [0.1, 0.2]})
    first = draw_curves(curves.assign(effective_rank=[3.0, 4.0]))
    assert first == draw_curves(curves.assign(effective_rank=[3.0, 4.0])) and first.startswith(b"\x89PNG")
    assert first != draw_curves(curves.assign(effective_rank=[3.0, 5.0])) and b"Matplotlib" not in first

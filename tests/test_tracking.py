"""W&B offline: no process of it looks for a network, runs link without a server, and nothing personal is written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from a2mae import tracking
from a2mae.tracking import Piece
from helpers.wandb_runs import find_runs, read_run

SCRIPT = """
import os, sys
import numpy as np
from a2mae import tracking
from a2mae.tracking import Piece
folder = sys.argv[1]
os.environ["WANDB_DIR"] = folder
run = tracking.start_stage("tag", {"tag": {"folder": folder, "seed": 3}})
other = tracking.start_stage("prune", {})
run.link(used=[Piece("image_sets", "store", "1" * 64)], made=[Piece("sets", "data", "2" * 64)])
other.link(used=[Piece("sets", "data", "2" * 64)], made=[])
run.log({"loss": 1.0, "absent": None}, step=1)
with tracking.stage_run("tag", {}) as found:
    assert found is run
    found.summarize({"n": 3, "deep": {"share": 0.5, "name": "x", "sure": True}, "absent": None}, "tags")
with tracking.stage_run("segment", {}) as own:
    own.log_pictures("image", np.eye(6, dtype=np.uint8).reshape(2, 2, 3, 3), ["a", "b"])
tracking.finish_stage("tag")
tracking.finish_stage("prune")
assert tracking.running("tag") is None
"""


def environment(folder: Path) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    source = str(Path(tracking.__file__).parents[1])
    places = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    return own | places | {"PYTHONPATH": source, "WANDB_RUN_GROUP": "chain-abc", "HOME": str(folder)}


def watched(folder: Path, *under: str) -> subprocess.CompletedProcess[str]:
    """Write two linked runs in a process of its own."""
    command = [*under, sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=200, check=False)


def test_a_run_holds_numbers_by_their_place_and_pictures(tmp_path):
    pytest.importorskip("wandb")
    done = watched(tmp_path)
    assert done.returncode == 0, done.stderr
    runs = {found.run.job_type: found for found in (read_run(path) for path in find_runs(tmp_path))}
    assert set(runs) == {"tag", "prune", "segment"} and all(found.ended for found in runs.values())
    summary = {key: value for key, value in runs["tag"].summary.items() if key.startswith("tags")}
    assert summary == {"tags/n": 3, "tags/deep.share": 0.5}
    assert [row["loss"] for row in runs["tag"].history] == [1.0] and "absent" not in runs["tag"].history[0]
    assert len(list(tmp_path.rglob("media/images/image_*.png"))) == 2


def traceable() -> bool:
    strace = shutil.which("strace")
    return bool(strace) and subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not traceable(), reason="no strace here, or it may not trace")
def test_no_process_of_wandb_looks_for_a_network(tmp_path):
    """Also not its Go process, which Python's socket guard does not reach; and there is no account and no key."""
    log = tmp_path / "calls.txt"
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    done = watched(tmp_path, "strace", "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", str(log))
    assert done.returncode == 0, done.stderr
    text = log.read_text("utf-8", "replace")
    assert "AF_UNIX" in text  # it saw the two processes speak
    beyond = [
        line
        for line in text.splitlines()
        if re.search(r"AF_INET6?\b", line) and not re.search(r"127\.0\.0\.1|\"::1\"", line)
    ]
    assert beyond == []
    runs = {found.run.job_type: found for found in (read_run(path) for path in find_runs(tmp_path))}
    assert {found.run.run_group for found in runs.values()} == {"chain-abc"}
    assert runs["tag"].made["sets"] == runs["prune"].used["sets"] != runs["tag"].used["image_sets"]
    assert runs["tag"].config["tag"] == {"folder": f"…/{tmp_path.name}", "seed": 3}
    assert all(str(tmp_path) not in found.everything for found in runs.values())
    staged = {Path(place) for found in runs.values() for place in found.staged}
    assert staged and all(place.is_relative_to(tmp_path / "data") for place in staged), "nowhere but WANDB_DATA_DIR"


KEPT = """
import logging, sys
from pathlib import Path
from a2mae import tracking
from a2mae.tracking import Piece
logging.basicConfig(level=logging.WARNING, format="%(message)s")
tracking.keep_in(Path(sys.argv[1]))
run = tracking.open_run("tag", {})
run.log({"loss": 1.0}, step=1)
run.link(made=[Piece("sets", "data", "2" * 64)])
run.summarize({"n": 3})
run.finish()
"""


@pytest.mark.parametrize("can_write", [True, False])
def test_a_home_that_cannot_be_written_ends_no_run_nor_does_anything_of_wandb(tmp_path: Path, can_write: bool) -> None:
    pytest.importorskip("wandb")
    place = tmp_path if can_write else Path("/proc/nowhere")
    own = {
        name: value for name, value in environment(tmp_path).items() if not re.fullmatch("WANDB_.*_DIR|XDG_.*", name)
    }
    command = [sys.executable, "-c", KEPT, str(place)]
    own |= {"HOME": "/proc/nonexistent"}
    done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert ("not tracked any further, and goes on" in done.stderr) != can_write
    if can_write:
        (found,) = [read_run(path) for path in find_runs(tmp_path)]
        assert found.summary["n"] == 3 and {path.name for path in tmp_path.iterdir()} == {"wandb"}
        assert found.staged and all(Path(place).is_relative_to(tmp_path / "wandb") for place in found.staged)


def test_a_chain_is_named_by_what_is_ingested_not_by_where_it_lies():
    first = tracking.group_of({"folder": "/home/me/scenes", "cloud": 0.2})
    assert first == tracking.group_of({"folder": "/mnt/you/scenes", "cloud": 0.2}) and first.startswith("chain-")
    assert first != tracking.group_of({"folder": "/home/me/scenes", "cloud": 0.3})


def test_disabled_or_absent_nothing_is_opened(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not tracking.available()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    assert not tracking.available()
    assert tracking.running("tag") is None
    tracking.finish_stage("tag")


def test_equal_content_is_one_version(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    one, same, other = (tracking._artifact(Piece("sets", "data", digit * 64)) for digit in "112")
    assert one.digest == same.digest != other.digest
    assert [(name, entry.size) for name, entry in one.manifest.entries.items()] == [("sha256.txt", 65)]  # no copy

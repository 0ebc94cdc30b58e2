"""The parts of `benchmarks/faults.py` that decide what is counted: what a power cut tears, and what is a sentence."""

from __future__ import annotations

import os
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "faults.py"))
WRITES = """
import os, sys
from pathlib import Path
from a2mae.files import whole_file
folder = Path(sys.argv[1])
for name in ("a", "b", "c"):
    with whole_file(folder / name) as path:
        path.write_bytes(b"x" * 100)
    (folder / f"loose_{name}").write_bytes(b"x" * 100)
"""


def watched(tmp_path: Path, **watch: str) -> tuple[int, Path]:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(FAULTS["WATCH"])
    (tmp_path / "data").mkdir()
    path = os.pathsep.join([str(tmp_path / "watch"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "FAULTS_LOG": str(tmp_path / "log"), **watch}
    done = subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / "data")], env=environment, check=False)
    return done.returncode, tmp_path / "data"


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    code, data = watched(tmp_path)
    assert code == 0
    assert FAULTS["_tear"](data, tmp_path / "log", {}, random.Random(0)) == 3
    sizes = {path.name: path.stat().st_size for path in data.iterdir()}
    assert {name: sizes[name] for name in "abc"} == dict.fromkeys("abc", 100)
    assert all(sizes[f"loose_{name}"] < 100 for name in "abc")
    before = FAULTS["_states"](data)
    assert FAULTS["_tear"](data, tmp_path / "no_log", before, random.Random(0)) == 0, "what was there stays"


@pytest.mark.parametrize(("before", "there"), [("1", {"a", "loose_a"}), ("", {"a", "b", "loose_a"})])
def test_a_run_is_killed_on_either_side_of_a_publish(tmp_path: Path, before: str, there: set[str]) -> None:
    code, data = watched(tmp_path, FAULTS_AT="2", FAULTS_BEFORE=before)
    assert code == -9
    assert {path.name for path in data.iterdir() if not path.name.endswith(".part")} == there


def test_a_trial_is_counted_by_what_its_runs_ended_in() -> None:
    count = FAULTS["Count"]()
    count.add("full disk", "told", "same")
    count.add("kill", "same")
    count.add("flip", "silent")
    count.add("two", "unclear Traceback", "same")
    assert (count.tried, count.same, count.told) == (4, 3, 1)
    assert count.silent == ["flip"] and count.unclear == ["two: unclear Traceback"]


def test_a_flipped_file_is_whole_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(100)))
    with FAULTS["flipped"](file, random.Random(0)) as place:
        changed = file.read_bytes()
        assert [i for i in range(100) if changed[i] != i] == [place] and (changed[place] ^ place).bit_count() == 1
    assert file.read_bytes() == bytes(range(100))

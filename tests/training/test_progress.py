"""Records grow by whole lines and go on where a run was stopped; the bar behaves in a pipe."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from a2mae.training.monitor import Progress, Record, read_record

COLUMNS = ("step", "loss", "rank")


def test_a_resumed_record_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    rows = [{"step": step, "loss": 1 / step, "rank": None if step % 2 else 0.1 + 0.2} for step in range(1, 7)]
    record = Record(whole, COLUMNS, resume_at=0)
    for row in rows:
        record.append(row)
    record = Record(broken, COLUMNS, resume_at=0)
    for row in rows[:5]:
        record.append(row)
    with broken.open("a") as file:
        file.write("6,0.1")  # killed while it wrote
    record = Record(broken, COLUMNS, resume_at=3)
    for row in rows[3:]:
        record.append(row)
    assert broken.read_bytes() == whole.read_bytes()
    assert float(read_record(whole)[1]["rank"]) == 0.1 + 0.2


def test_a_fresh_start_drops_old_rows(tmp_path: Path) -> None:
    Record(tmp_path / "a.csv", COLUMNS, resume_at=0).append({"step": 1, "loss": 1.0})
    Record(tmp_path / "a.csv", COLUMNS, resume_at=0)
    assert read_record(tmp_path / "a.csv") == []


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no column lss"):
        Record(tmp_path / "a.csv", COLUMNS, resume_at=0).append({"step": 1, "lss": 1.0})


def test_in_a_pipe_there_are_ten_lines_not_a_thousand(caplog, capsys) -> None:
    with caplog.at_level(logging.INFO):
        progress = Progress(1000, 0, shown=True)
        for step in range(1, 1001):
            progress.update(step, 0.5)
        progress.close()
    assert len(caplog.records) == 10
    assert "step 1000 of 1000, loss 0.5000" in caplog.text
    assert "\r" not in capsys.readouterr().err

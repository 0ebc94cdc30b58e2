"""One run at a time: the second says who the first is; the lock of a killed run is recognised."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from a2mae.locks import LOCK, LockedError, locked

HOLD = "import sys, time; from pathlib import Path; from a2mae.locks import locked\nwith locked(Path(sys.argv[1])):\n"


def hold(folder: Path) -> subprocess.Popen[str]:
    code = HOLD + "    print('held', flush=True)\n    sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_of_the_first_and_a_third_finds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with hold(folder) as first:
        with pytest.raises(LockedError, match=rf"process {first.pid} on {socket.gethostname()}, since 20\d\d-.*Wait"):
            with locked(folder):
                pass
        first.communicate("", timeout=30)
    with locked(folder):
        assert str(os.getpid()) in (folder / LOCK).read_text()
    assert not list(folder.iterdir())


def test_a_killed_run_holds_nothing_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hold(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    with caplog.at_level("INFO"), locked(tmp_path):
        pass
    assert f"the run of process {first.pid} on" in caplog.text and "was killed" in caplog.text
    (tmp_path / LOCK).write_bytes(b"")  # of a power cut
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_many_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """Whoever has it is alone, however often it is taken and let go."""
    code = (
        "import sys; from pathlib import Path; from a2mae.locks import LockedError, locked\n"
        "folder, won = Path(sys.argv[1]), 0\n"
        "while won < 20:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            alone = folder / 'alone'\n"
        "            alone.touch(exist_ok=False)\n"
        "            alone.unlink()\n"
        "            won += 1\n"
        "    except LockedError:\n"
        "        pass\n"
    )
    several = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in several] == [0, 0, 0]

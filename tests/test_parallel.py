"""Workers end when whoever started them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a2mae.parallel import SPIN, SPIN_VARIABLE, end_with_parent, share_cores

PROGRAM = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from a2mae.parallel import end_with_parent

def stay(_):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        list(pool.map(stay, [0]))
"""


def test_a_worker_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_process_without_a_parent_is_refused() -> None:
    with pytest.raises(RuntimeError, match="worker processes"):
        end_with_parent()


def test_threads_share_cores_unless_the_user_knows_better(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for chosen, found in ((None, SPIN), ("77", "77")):
        monkeypatch.delenv(SPIN_VARIABLE, raising=False)
        if chosen:
            monkeypatch.setenv(SPIN_VARIABLE, chosen)
        share_cores()
        assert os.environ[SPIN_VARIABLE] == found
    monkeypatch.delenv(SPIN_VARIABLE)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_cores()
    assert SPIN_VARIABLE not in os.environ


@pytest.mark.parametrize(
    "door", ["import a2mae.settings", "from a2mae.training.__main__ import main; main(['absent'])"]
)
def test_every_door_says_so_before_torch_is_there(door):
    program = f"import os, sys\n{door}\nassert 'torch' not in sys.modules\nprint(os.environ['{SPIN_VARIABLE}'])"
    own = {k: v for k, v in os.environ.items() if k not in (SPIN_VARIABLE, "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == SPIN


@pytest.mark.parametrize("context", ["SpawnWithoutMain", "ForkServerWithoutMain"])
def test_workers_do_not_import_the_program_that_started_them(tmp_path: Path, context: str) -> None:
    # Without `if __name__ == "__main__"`: a program that its workers imported would start workers of its own.
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        f"from a2mae.parallel import {context}\n"
        "open(sys.argv[1], 'a').write('imported ')\n"
        f"with ProcessPoolExecutor(2, mp_context={context}()) as pool:\n"
        "    print(list(pool.map(abs, [-1, -2, -3])))\n"
        "assert sys.modules['__main__'].__file__ == __file__\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, tmp_path / "program.py", log]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout == "[1, 2, 3]\n" and log.read_text() == "imported "

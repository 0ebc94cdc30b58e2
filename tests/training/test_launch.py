"""Training as its own process: without the data room's libraries, through kills, with its errors told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import make_spec

from a2mae.training.launch import StopRequest, TrainingFailedError, TrainingStoppedError, launch
from a2mae.training.loop import train
from a2mae.training.results import is_finished

BARE_MACHINE = """
import sys
for name in ("kedro", "kedro_datasets", "pandas", "pyarrow", "rasterio", "geopandas", "dask", "wandb",
             "shapely", "skimage", "sklearn", "torchgeo", "kornia"):
    sys.modules[name] = None  # importing it fails, as where it is not installed
from a2mae.training.__main__ import main
sys.exit(main([sys.argv[1]]))
"""


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"the training ended with {process.returncode}"
        assert time.monotonic() < deadline, f"no {path.name} after {seconds} s"
        time.sleep(0.02)


def test_killed_at_any_moment_it_ends_bit_for_bit_the_same_on_a_bare_machine(
    tmp_path: Path, store, child_environment
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run_dir in (whole, killed):
        make_spec(run_dir, store, steps=120, checkpoint_interval=20, interval=7)
    command = [sys.executable, "-c", BARE_MACHINE]
    with subprocess.Popen([*command, str(killed)], env=child_environment, stderr=subprocess.DEVNULL) as process:
        wait_for(killed / "checkpoints" / "step-000000040", process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (killed / "model").exists()
    for run_dir in (killed, whole):
        done = subprocess.run(
            [*command, str(run_dir)], env=child_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for name in ("model/model.safetensors", "model/metrics.json", "metrics.csv", "reconstructions.npz"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


KILLED_IN = """
import os, signal, sys
from a2mae.training import results
from a2mae.training.__main__ import main
whole = results.{name}
def killed(*arguments, **options):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)
results.{name} = killed
sys.exit(main([sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("name", "when"),
    [("save_pretrained", "True"), ("write_json", "arguments[0].name == results.FINISHED_FILE")],
    ids=["before-the-model", "before-its-mark"],
)
def test_killed_between_the_last_checkpoint_and_the_finished_model_it_ends_with_all_metrics(
    tmp_path: Path, store, child_environment, name: str, when: str
) -> None:
    run_dir = tmp_path / "killed"
    spec = make_spec(run_dir, store, steps=6, warmup_steps=0)
    for code, status in ((KILLED_IN.format(name=name, when=when), -signal.SIGKILL), (BARE_MACHINE, 0)):
        done = subprocess.run([sys.executable, "-c", code, str(run_dir)], env=child_environment, check=False)
        assert done.returncode == status
    whole = tmp_path / "whole"
    assert train(whole, make_spec(whole, store, steps=6, warmup_steps=0), StopRequest())
    written = [path.relative_to(whole) for path in (whole / "model").rglob("*") if path.is_file()]
    assert len(written) >= 6 and is_finished(run_dir, spec)
    for file in written:
        if file.name != "spec.json":
            assert (run_dir / file).read_bytes() == (whole / file).read_bytes(), file


def test_ctrl_c_leaves_a_checkpoint_and_says_so(tmp_path: Path, store, monkeypatch, child_environment) -> None:
    make_spec(tmp_path, store, steps=100_000, checkpoint_interval=0, interval=5)
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    # A shell starts background commands with SIGINT ignored, and children inherit that; a terminal does not.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from pathlib import Path;"
        " from a2mae.training.launch import launch; launch(Path(sys.argv[1]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as node:
        wait_for(tmp_path / "metrics.csv", node)
        time.sleep(0.3)
        os.killpg(node.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the whole group
        _, errors = node.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors and "start it again to go on" in errors
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_text())["step"] > 0


def test_a_scheduler_s_signal_is_told_from_a_failure(tmp_path: Path, store, monkeypatch, child_environment) -> None:
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    fake = tmp_path / "python"  # stands for an interpreter whose process a scheduler stops
    fake.write_text("#!/bin/sh\nexit 143\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(TrainingStoppedError, match="signal 15 and left a checkpoint"):
        launch(tmp_path)
    fake.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(TrainingFailedError, match=r"SIGKILL .the system may be out of memory"):
        launch(tmp_path)
    fake.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(TrainingFailedError, match="exit status 3, see its output above"):
        launch(tmp_path)


def test_a_wrong_specification_is_told_before_torch_is_imported(tmp_path: Path, monkeypatch, child_environment) -> None:
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "spec.json").write_text('{"methd": "mae"}')
    with pytest.raises(
        TrainingFailedError, match=r"SpecificationError: .*unknown parameter 'methd': did you mean 'method'"
    ):
        launch(tmp_path)


def test_a_training_whose_starter_is_gone_stops(tmp_path: Path, store, child_environment) -> None:
    make_spec(tmp_path, store, steps=100_000, checkpoint_interval=0)
    starter = (
        "import subprocess, sys; from a2mae.training.launch import launch; from pathlib import Path;"
        " launch(Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", starter, str(tmp_path)], env=child_environment) as node:
        wait_for(tmp_path / "metrics.csv", node)
        node.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "checkpoints").glob("step-*/state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""Two processes on this machine (gloo) give the same curve, also when one dies; FLOPs are counted, peaks measured."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_runs import make_spec

from a2mae.training.engine import flop_counter, peak_flops, step_flops
from a2mae.training.launch import StopRequest
from a2mae.training.loop import train
from a2mae.training.monitor import read_metrics

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}


def run(run_dir: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "a2mae.training", str(run_dir), *options]
    return subprocess.run(
        command, env={**environment, **LOOPBACK}, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, store) -> Path:
    run_dir = tmp_path_factory.mktemp("alone")
    train(run_dir, make_spec(run_dir, store, interval=1), StopRequest())
    return run_dir


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_follow_one(tmp_path: Path, store, alone: Path, child_environment, strategy: str) -> None:
    make_spec(tmp_path, store, interval=1, devices=2, strategy=strategy)
    done = run(tmp_path, child_environment)
    assert done.returncode == 0, done.stderr
    one, two = read_metrics(alone / "metrics.csv"), read_metrics(tmp_path / "metrics.csv")
    assert len(one) == len(two) == 12
    for expected, found in zip(one, two, strict=True):
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert float(found["grad_norm"]) == pytest.approx(float(expected["grad_norm"]), rel=1e-3)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["run_identity"] == json.loads((alone / "model" / "config.json").read_text())["run_identity"]


def test_two_processes_contrast_their_crops(tmp_path: Path, store, child_environment) -> None:
    """Each draws its own, so the losses are near those of one process, and not the same."""
    losses = []
    for name, processes in (("one", {}), ("two", {"devices": 2, "strategy": "ddp"})):
        plain = make_spec(tmp_path / name, store, interval=1, **processes)
        spec = plain.replace(model=plain.model.replace(options={**plain.model.options, "contrast_weight": 1.0}))
        spec.write(tmp_path / name)
        done = run(tmp_path / name, child_environment)
        assert done.returncode == 0, done.stderr
        losses.append([float(row["loss"]) for row in read_metrics(tmp_path / name / "metrics.csv")])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, store, alone: Path, child_environment) -> None:
    spec = make_spec(tmp_path, store, interval=1, checkpoint_interval=4, keep_checkpoints=9)
    train(tmp_path, spec, StopRequest())
    for path in (tmp_path / "finished.json", *(tmp_path / "checkpoints").glob("step-0000000[01][8-9012]")):
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000004"]
    done = run(tmp_path, child_environment, "--devices", "2", "--strategy", "ddp")
    assert done.returncode == 0, done.stderr
    assert "going on from the checkpoint of step 4 of 12" in done.stderr
    one, two = read_metrics(alone / "metrics.csv"), read_metrics(tmp_path / "metrics.csv")
    for expected, found in zip(one, two, strict=True):
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_when_a_process_dies_the_others_end_with_an_error_within_a_minute(
    tmp_path: Path, store, child_environment
) -> None:
    make_spec(tmp_path, store, steps=100_000, interval=1, devices=2, strategy="ddp", checkpoint_interval=0)
    with subprocess.Popen(
        [sys.executable, "-m", "a2mae.training", str(tmp_path)],
        env={**child_environment, **LOOPBACK},
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        deadline = time.monotonic() + 120
        while len(read_metrics(tmp_path / "metrics.csv")) < 2:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        ranks = [pid for pid in children if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()]
        assert len(ranks) == 1
        killed = time.monotonic()
        import os

        os.kill(int(ranks[0]), signal.SIGKILL)
        first.communicate(timeout=75)
    assert time.monotonic() - killed < 60
    assert first.returncode != 0


def test_flops_are_those_of_the_matrix_products(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    width, depth, narrow, patches, kept = 64, 2, 32, 48, 12
    patch_values = 8 * 8 * 3
    encoder = depth * 2 * (kept + 1) * 12 * width**2 + depth * 4 * (kept + 1) ** 2 * width
    decoder = 2 * (patches + 1) * 12 * narrow**2 + 4 * (patches + 1) ** 2 * narrow
    ends = 2 * patch_values * (kept * width + patches * narrow) + 2 * (kept + 1) * width * narrow
    # Backward costs twice the forward pass, but no gradient flows into the pixels.
    expected = 3 * (encoder + decoder + ends) - 2 * kept * patch_values * width
    assert abs(step_flops(spec) / (4 * expected) - 1) < 0.05


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_each_gradient_of_a_convolution_counts_as_the_convolution(groups: int) -> None:
    with torch.device("meta"):
        layer = torch.nn.Conv2d(6, 12, 3, padding=1, groups=groups, bias=False)
        images = torch.zeros(2, 6, 8, 8, requires_grad=True)
    with flop_counter() as forward:
        out = layer(images)
    with flop_counter() as backward:
        out.sum().backward()
    expected = 2 * (2 * 8 * 8) * 12 * (6 // groups) * 9
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's memory is left alone")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    code = (
        "import resource, torch\n"
        "from a2mae.training.engine import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "found = [faults()]\n"
        "for turn in range(8):\n"
        "    torch.ones(64 * 2**20 // 4)\n"
        "    found.append(faults())\n"
        "print(min(after - before for before, after in zip(found, found[1:])))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(ran.stdout) < 1000, "a block of 64 MiB from the system is 16,384 pages"


def test_the_cpu_s_peak_is_measured() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), "32-true") < 1e14

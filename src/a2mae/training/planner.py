"""Tell what a run will cost before anything is spent: `python -m a2mae.training RUN_DIR --dry-run`."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

from a2mae.training.data.loader import make_loader
from a2mae.training.engine import make_fabric, peak_flops, process_counts, step_flops
from a2mae.training.launch import StopRequest
from a2mae.training.loop import Trainer
from a2mae.training.spec import RunSpec

_MEASURED_STEPS = 3


def plan(run_dir: Path, spec: RunSpec) -> list[str]:
    """Measure a few real steps and extrapolate. Nothing is written, and checkpoints are not touched.

    Args:
        run_dir: The run directory.
        spec: Its specification.

    Returns:
        Lines to print.
    """
    fabric = make_fabric(spec)
    trainer = Trainer(fabric, run_dir, spec, resume=False)
    seconds = _measure(trainer)
    flops = step_flops(spec)
    peak = peak_flops(fabric.device, spec.numerics.precision)
    devices, nodes = process_counts(spec.hardware)
    optimizer = spec.optimizer
    parameters, encoder = trainer.parameter_counts()
    patches = (spec.sampled_size // trainer.pixels_per_token) ** 2
    tokens = optimizer.steps * optimizer.batch_size * spec.sampling.images * patches
    weights_bytes = parameters * 4 * (4 if optimizer.ema_decay is None else 5)
    if fabric.device.type == "cuda":
        peak_bytes = torch.cuda.max_memory_allocated(fabric.device)
    else:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rate = flops / fabric.world_size / seconds
    mfu = "" if peak is None else f", {rate / peak:.1%} of the {peak / 1e12:.2f} TFLOP/s of this device (MFU)"
    return [
        f"run            {run_dir} ({spec.method}, {spec.model.name}), identity {spec.identity[:12]}",
        f"device         {fabric.device}, {devices} processes on each of {nodes} machines, {spec.numerics.precision}",
        f"parameters     {parameters / 1e6:.2f} M, of which the encoder {encoder / 1e6:.2f} M",
        f"memory         {weights_bytes / 2**20:.0f} MiB for weights, gradients and optimiser;"
        f" {peak_bytes / 2**20:.0f} MiB at the peak of a process",
        f"data           {trainer.train_sets} image sets, {optimizer.batch_size} per step,"
        f" {optimizer.steps * optimizer.batch_size / trainer.train_sets:.1f} epochs",
        f"steps          {optimizer.steps}, {optimizer.steps * optimizer.batch_size} samples, {tokens} tokens",
        f"compute        {flops / 1e12:.4f} TFLOP per step, {flops * optimizer.steps / 1e15:.3f} PFLOP in all{mfu}",
        f"measured       {seconds:.3f} s per step, {optimizer.batch_size / seconds:.1f} image sets per second"
        f" (median of {_MEASURED_STEPS})",
        f"expected       {seconds * optimizer.steps / 3600:.2f} hours",
    ]


def _measure(trainer: Trainer) -> float:
    """Measure the median seconds of a step, reading included, after one to warm up."""
    loader = iter(make_loader(trainer.dataset, 0, 1 + _MEASURED_STEPS, workers=0, pin_memory=False))
    seconds = []
    for _ in range(1 + _MEASURED_STEPS):
        before = time.perf_counter()
        totals, _ = trainer.train_step(next(loader), StopRequest())
        totals.cpu()  # waits for the device
        seconds.append(time.perf_counter() - before)
    return sorted(seconds[1:])[_MEASURED_STEPS // 2]

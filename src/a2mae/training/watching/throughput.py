"""How much work a step is and how much the machine can do: FLOPs, peak rates, and their ratio (MFU)."""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from a2mae.models import ImageSetBatch, create_model
from a2mae.training.spec import RunSpec

GPU_PEAK_BF16 = {
    # Dense tensor-core bfloat16, from the makers' data sheets; longer names first where one is part of another.
    "H200": 989.4e12,
    "H100 PCIe": 756.0e12,
    "H100 NVL": 835.0e12,
    "H100": 989.4e12,
    "A100": 312.0e12,
    "L40S": 362.0e12,
    "L4": 121.0e12,
    "A10G": 70.0e12,
    "A10": 125.0e12,
    "RTX 4090": 165.2e12,
    "V100": 125.0e12,
}
"""FLOP/s by a part of the device's name."""


def step_flops(spec: RunSpec) -> int:
    """FLOPs of forward and backward of one global batch, counted operator by operator on the meta device.

    Args:
        spec: The run. Recomputed activations are not counted: they are no progress.
    """
    with torch.device("meta"):
        model = create_model(spec.model.name, **model_options(spec))
        batch = meta_batch(spec, samples=1)
    counter = FlopCounterMode(display=False)
    with counter:
        model(batch, fully_valid=True).loss.backward()
    return int(counter.get_total_flops()) * spec.optimizer.batch_size


def model_options(spec: RunSpec) -> dict[str, object]:
    """Keyword arguments of `create_model` for a run: its options and the number of bands it will see."""
    return {"in_chans": spec.channels, **spec.model.options}


def meta_batch(spec: RunSpec, samples: int) -> ImageSetBatch:
    """A batch of the run's shapes; its tensors take the default device (`torch.device` as a context)."""
    images, size, channels = spec.sampling.images, spec.sampled_size, spec.channels
    return ImageSetBatch(
        pixels=torch.zeros(samples, images, channels, size, size),
        gsd_m=torch.ones(samples, images),
        geosot_bits=torch.zeros(samples, images, 256),
        sensor_id=torch.zeros(samples, images, dtype=torch.int64),
        day=torch.zeros(samples, images),
        same_source_as_anchor=torch.ones(samples, images, dtype=torch.bool),
        valid=torch.ones(samples, images, size, size, dtype=torch.bool),
        wavelength_nm=torch.ones(samples, images, channels),
        lonlat_deg=torch.zeros(samples, images, 2, dtype=torch.float64),
        index=torch.zeros(samples, dtype=torch.int64),
    )


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device can do at best.

    Args:
        device: A GPU is looked up by name; a CPU is measured with a large matrix product in the run's precision.
        precision: `32-true` or `bf16-mixed`.

    Returns:
        None for a GPU that is not in the table, or for fp32 on a GPU (which unit it uses is not ours to know).
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [peak for part, peak in GPU_PEAK_BF16.items() if part in name]
        return known[0] if known and precision == "bf16-mixed" else None
    side = 1024
    matrix = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    matrix = matrix.to(torch.bfloat16) if precision == "bf16-mixed" else matrix
    seconds = []
    for _ in range(6):
        before = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - before)
    return 2 * side**3 / statistics.median(seconds[1:])

"""Set up Lightning Fabric (processes, devices, precision, sharding) for a run, and count the FLOPs of its steps.

Fabric and not Lightning's Trainer: the loop is our own (`loop.py`), so that a resumed run repeats an uninterrupted one
bit by bit and a checkpoint holds no pickle.
"""

from __future__ import annotations

import ctypes
import datetime
import logging
import os
import platform
import statistics
import time
from functools import partial
from typing import cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from lightning.fabric.strategies.strategy import Strategy
from torch import nn
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from a2mae.errors import A2maeError
from a2mae.models import ImageSetBatch, Pretrainer, create_model
from a2mae.parallel import cores
from a2mae.training.parameters import HardwareParameters
from a2mae.training.spec import RunSpec, SpecificationError
from a2mae.training.step import TrainStep

_LOG = logging.getLogger(__name__)

_START_TIMEOUT_S = 600
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# Public since torch 2.14 at the latest; our lowest version has it under its private name alone.
_set_timeout = getattr(distributed_c10d, "set_timeout", distributed_c10d._set_pg_timeout)


class PortInUseError(A2maeError, RuntimeError):
    """The port at which the processes of a run meet is taken."""


def make_fabric(spec: RunSpec) -> Fabric:
    """Set up Fabric for a run, and start the other processes of this machine that the specification asks for.

    Args:
        spec: The run. Under `torchrun` and SLURM the environment's number of processes wins over it.

    Raises:
        SpecificationError: If there is no such accelerator.
        PortInUseError: If the processes cannot meet.
    """
    hardware = spec.hardware
    if hardware.accelerator == "cuda" and not torch.cuda.is_available():
        raise SpecificationError(
            "'hardware.accelerator' is 'cuda', but torch finds no GPU here: use 'auto' or 'cpu', or look at nvidia-smi"
        )
    devices, nodes = process_counts(hardware)
    on_cpu = hardware.accelerator == "cpu" or not torch.cuda.is_available()
    fabric = Fabric(
        accelerator="cpu" if on_cpu else "cuda",
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(hardware, devices * nodes),
        precision=spec.numerics.precision,
    )
    torch.set_num_threads(hardware.threads or max(1, cores() // devices))
    if on_cpu:
        keep_freed_memory()
    try:
        fabric.launch()
    except torch.distributed.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        port = os.environ.get("MASTER_PORT", "?")
        raise PortInUseError(
            f"port {port} of this machine is in use, so the processes cannot meet there: set MASTER_PORT to a free one"
            " (torchrun: --master-port), or end what listens on it"
        ) from error
    if torch.distributed.is_initialized():
        _set_timeout(datetime.timedelta(seconds=hardware.timeout_s))  # all have started: a silent one is dead
    if not on_cpu:
        torch.set_float32_matmul_precision("high")
    return fabric


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, where there is glibc.

    By itself it gives large blocks back to the system, which hands them out anew page by page, zeroed: 4 to 14 % of a
    step on a CPU (benchmarks/README.md).
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def process_counts(hardware: HardwareParameters) -> tuple[int, int]:
    """Count processes per machine and machines: the launcher's where one started us, else the specification's."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    if hardware.devices:
        return hardware.devices, hardware.nodes
    gpus = 0 if hardware.accelerator == "cpu" else torch.cuda.device_count()
    return max(1, gpus), hardware.nodes


def recompute_activations(model: Pretrainer) -> None:
    """Keep only the inputs of the encoder's blocks, and compute the rest again in the backward pass.

    Args:
        model: Changed in place; its weights keep their names.
    """
    for block in model.encoder.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _strategy(hardware: HardwareParameters, world_size: int) -> Strategy | str:
    # Processes may start minutes apart, on a loaded machine or from a slow disk.
    timeout = datetime.timedelta(seconds=max(hardware.timeout_s, _START_TIMEOUT_S))
    if hardware.strategy == "fsdp":
        # Lightning's default would split the tensors of a layer within a machine; here the data are split.
        return ModelParallelStrategy(
            parallelize_fn=_shard, data_parallel_size=world_size, tensor_parallel_size=1, timeout=timeout
        )
    if hardware.strategy == "ddp" or world_size > 1:
        return DDPStrategy(timeout=timeout)
    return "auto"


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard with FSDP2 over the transformer blocks, then over what is left of the model."""
    assert isinstance(module, TrainStep)
    data_mesh = mesh["data_parallel"]
    for child in module.modules():
        if isinstance(child, nn.ModuleList):
            for block in child:
                fully_shard(block, mesh=data_mesh)
    fully_shard(module.model, mesh=data_mesh)
    if data_mesh.device_type == "cpu":  # gloo of torch 2.8 gives the sum where the mean is wanted: divide it
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_force_sum_reduction_for_comms(enable=True)
    # Features are computed outside of `forward`, which has to gather the weights too.
    register_fsdp_forward_method(module.model, "forward_features")
    return module


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
    """Count the FLOPs of forward and backward of one global batch, operator by operator on the meta device.

    Args:
        spec: The run. Recomputed activations are not counted.
    """
    with torch.device("meta"):
        model = create_model(spec.model.name, **spec.model_options)
        batch = meta_batch(spec, samples=spec.optimizer.batch_size)
    with flop_counter() as counter:
        model(batch, fully_valid=True).loss.backward()
    return int(counter.get_total_flops())


def flop_counter() -> FlopCounterMode:
    """Make a counter of the FLOPs of what runs in its context.

    torch's own (2.14) counts the weight gradient of a convolution in groups as that of a dense one.
    """
    counted = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    return FlopCounterMode(display=False, custom_mapping=counted)


def _convolution_backward_flops(
    grad_out: list[int], images: list[int], weight: list[int], *rest: object, out_shape: object
) -> int:
    """Count each wanted gradient, of images and of weights, as the convolution itself."""
    transposed, wanted = bool(rest[4]), cast("list[bool]", rest[7])
    return conv_flop_count(images, weight, grad_out, transposed) * sum(wanted[:2])


def meta_batch(spec: RunSpec, samples: int) -> ImageSetBatch:
    """Make a batch of the run's shapes on the default device (`torch.device` as a context)."""
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
    """Give the FLOP/s that a device can reach.

    Args:
        device: A GPU is looked up by name; a CPU is measured with a large matrix product in the run's precision.
        precision: `32-true` or `bf16-mixed`.

    Returns:
        None for a GPU that is not in the table, and for fp32 on a GPU, whose unit is not known.
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

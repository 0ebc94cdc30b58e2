"""How fast is a training step? Samples/s, MFU and peak memory at the sizes of the publications, ours and as released.

    a2mae       A²-MAE ViT-L/16, sets of 3 x 224 px          scale_mae   Scale-MAE ViT-L/16, 448 -> 224 px
    mae         MAE ViT-B/16, 224 px

Each model runs two sides in turn, on the same weights and the same batch; a step is forward, backward, clipping and
AdamW. The loss of both is checked to be the same.

    ours        what training runs: fused attention, fused AdamW, encodings of the whole batch; bf16 autocast on a GPU
    released    OUR RE-STATEMENT of how the released code computes (its repository is not here): fp32, attention as two
                products and a softmax, AdamW tensor by tensor, encodings sample by sample, torch's convolutions on
                maps with bands first. Same architecture and losses

--small measures the size of the demo instead: ViT-T/8, 16 sets of 3 images of 64 px (for all methods), and with --bf16
ours computes under bfloat16 autocast on a CPU, too, as `precision: auto` chooses where the CPU has it. FLOPs are those
of the published layers on both sides, whatever ours saves of them.

On a GPU with --compile a third side is ours under torch.compile. MFU is of the device's dense bf16 peak on a GPU, and
of this machine's own large matrix product (in ours' precision, same threads) on a CPU; recomputation is not counted.
--processes measures two gloo processes of one thread each against one, at the same global batch. Needs torch, timm,
Lightning, NumPy.

Usage: python benchmarks/train_step.py [--quick] [--small] [--bf16] [--models a2mae,scale_mae,mae] [--batch N]
                                       [--steps N] [--compile] [--processes]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from a2mae.models import ImageSetBatch, Pretrainer, create_model
from a2mae.models.laplacian import GroupSums, Pointwise, Upsample
from a2mae.models.layers import encodings
from a2mae.models.precision import fit_attention
from a2mae.training.engine import flop_counter, keep_freed_memory, peak_flops

NAMES = {"a2mae": "a2mae_vit_large_patch16", "scale_mae": "scale_mae_vit_large_patch16", "mae": "mae_vit_base_patch16"}
TINY = {name: f"{name}_vit_tiny_patch8" for name in NAMES}
QUICK = {"embed_dim": 192, "depth": 4, "decoder_dim": 128, "decoder_depth": 2}


def main() -> None:
    """Time every model, print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="narrow models, two steps: under a minute, says little")
    parser.add_argument("--small", action="store_true", help="ViT-T/8, 16 sets of 3 images of 64 px")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16 on a CPU, too")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--batch", type=int, help="samples per step; 4 on a CPU, 64 on a GPU")
    parser.add_argument("--steps", type=int, help="measured steps of each side; 5 on a CPU, 20 on a GPU")
    parser.add_argument("--compile", action="store_true", help="also ours under torch.compile")
    parser.add_argument("--processes", action="store_true", help="only: two gloo processes against one")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    keep_freed_memory()
    name = torch.cuda.get_device_name() if on_gpu else platform.machine()
    print(
        f"{name}, {torch.get_num_threads()} threads of {len(os.sched_getaffinity(0))} cores,"
        f" torch {torch.__version__}, timm {timm.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    if arguments.processes:
        measure_processes(steps=2 if arguments.quick else 8)
        return
    batch_size = arguments.batch or (16 if arguments.small else 64 if on_gpu else 4)
    steps = arguments.steps or (2 if arguments.quick else 20 if on_gpu else 5)
    peak, peak_cpu = (
        (peak_flops(device, "bf16-mixed"), None)
        if on_gpu
        else cpu_peak(1024 if arguments.quick else 3072, torch.bfloat16 if arguments.bf16 else torch.float32)
    )
    print("peak: " + ("unknown for this device" if peak is None else f"{peak / 1e9:.1f} GFLOP/s"))
    if peak_cpu:
        print(f"      {peak_cpu / 1e9:.1f} GFLOP per CPU second")
    results = {}
    for model_name in arguments.models.split(","):
        found = time_model(model_name, device, (batch_size, steps), (peak, peak_cpu), arguments)
        results |= {f"{model_name}_{key}": value for key, value in found.items()}
    print("RESULT " + " ".join(f"{key}={value:.4g}" for key, value in results.items()))


# -- what is timed -------------------------------------------------------------------------------------------------


def time_model(
    name: str,
    device: torch.device,
    size: tuple[int, int],
    peaks: tuple[float | None, float | None],
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Seconds of both sides' steps in turn, on one set of weights and one optimiser state."""
    (batch_size, steps), (peak, peak_cpu) = size, peaks
    options = QUICK if arguments.quick else {}
    full_name = (TINY if arguments.small else NAMES)[name]
    bf16 = arguments.bf16 or device.type == "cuda"
    torch.manual_seed(0)
    model = create_model(full_name, **options).to(device)
    fit_attention(model, "bf16-mixed" if bf16 else "32-true", device, training=True)
    batch = make_batch(name, batch_size, device, small=arguments.small)
    # At rate 0 AdamW computes what it always does, and both sides keep seeing the same weights.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    flops = count_flops(create_model(full_name, **options).to("meta"), batch.to("meta"))
    sides: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: step(model, model, batch, optimizer, bf16=bf16),
        "released": lambda: as_released(model, batch, optimizer),
    }
    if arguments.compile:
        compiled = torch.compile(model)
        sides["compiled"] = lambda: step(model, compiled, batch, optimizer, bf16=bf16)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    cpu_seconds: dict[str, list[float]] = {side: [] for side in sides}
    memory: dict[str, float] = {}
    losses: dict[str, float] = {}
    for turn in range(steps + 1):
        for side, run in sides.items():
            reset_peak_memory(device)
            before = time.perf_counter(), time.process_time()
            losses.setdefault(side, float(run()))
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first allocates, and compiles
                seconds[side].append(time.perf_counter() - before[0])
                cpu_seconds[side].append(time.process_time() - before[1])
                memory[side] = peak_memory(device)
    tolerance = 0.02 if bf16 else 1e-3
    assert all(abs(loss / losses["ours"] - 1) < tolerance for loss in losses.values()), losses
    precision = "bf16" if bf16 else "fp32"
    print(f"\n{full_name}, {precision}, {batch_size} per step, {flops / batch_size / 1e9:.0f} GFLOP per sample")
    found = {}
    for side in sides:
        median = statistics.median(seconds[side])
        mfu = flops / median / peak if peak else float("nan")
        core = statistics.median(cpu_seconds[side])
        print(
            f"  {side:9s} {batch_size / median:8.3f}/s  {median:7.3f} s per step ({core:7.3f} CPU s)"
            f"  {flops / median / 1e12:7.3f} TFLOP/s  {mfu:6.1%} of peak  {memory[side]:7.2f} GiB"
        )
        found |= {f"{side}_per_s": batch_size / median, f"{side}_of_peak": mfu, f"{side}_gib": memory[side]}
        if peak_cpu:  # where others use the machine too, time on the clock says little
            found[f"{side}_of_peak_cpu"] = flops / core / peak_cpu
            print(f"            {flops / core / peak_cpu:.1%} of the FLOP per CPU second of the large product")
    found["speedup"] = statistics.median(seconds["released"]) / statistics.median(seconds["ours"])
    found["speedup_cpu"] = statistics.median(cpu_seconds["released"]) / statistics.median(cpu_seconds["ours"])
    print(f"  ours over released: {found['speedup']:.2f}x by the clock, {found['speedup_cpu']:.2f}x by CPU time")
    return found


def step(
    model: Pretrainer, forward: nn.Module, batch: ImageSetBatch, optimizer: torch.optim.Optimizer, *, bf16: bool
) -> Tensor:
    """Forward, backward, clipping, AdamW."""
    device = batch.pixels.device
    masks = torch.Generator(device).manual_seed(0)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss: Tensor = forward(batch, generator=masks, fully_valid=True).loss
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def as_released(model: Pretrainer, batch: ImageSetBatch, optimizer: torch.optim.Optimizer) -> Tensor:
    """The same step as the released code computes it."""
    with attention_by_hand(model), convolutions_by_torch(model), encodings_one_by_one():
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = False, False
        try:
            return step(model, model, batch, optimizer, bf16=False)
        finally:
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = True, None


@contextlib.contextmanager
def attention_by_hand(model: nn.Module) -> Iterator[None]:
    """Attention as two matrix products and a softmax, as timm 0.3.2 has it."""
    changed = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in changed:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in changed:
            module.fused_attn = True


@contextlib.contextmanager
def convolutions_by_torch(model: nn.Module) -> Iterator[None]:
    """The decoder's convolutions as the layers they derive from compute them."""
    changed = [module for module in model.modules() if isinstance(module, (Pointwise, Upsample, GroupSums))]
    for module in changed:
        module.forward = functools.partial(by_torch, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def by_torch(module: nn.Module, maps: Tensor, then: nn.Module | None = None) -> Tensor:
    """One of the decoder's convolutions as torch has it, bands first, and a next one after it."""
    out = type(module).__base__.forward(module, maps.movedim(-1, 1).contiguous()).movedim(1, -1)
    return out if then is None else then(out)


@contextlib.contextmanager
def encodings_one_by_one() -> Iterator[None]:
    """Encodings sample by sample in a Python loop."""
    batched = encodings.sincos_1d

    def one_by_one(position: Tensor, width: int) -> Tensor:
        rows = position.reshape(-1, position.shape[-1])
        return torch.stack([batched(row, width) for row in rows]).reshape(*position.shape, width)

    encodings.sincos_1d = one_by_one
    try:
        yield
    finally:
        encodings.sincos_1d = batched


def make_batch(name: str, samples: int, device: torch.device, *, small: bool = False) -> ImageSetBatch:
    """Random pixels of the publication's size, or of the demo's."""
    images, size = (3 if name == "a2mae" else 1), (448 if name == "scale_mae" else 224)
    if small:
        images, size = 3, 64
    with torch.device(device):
        return ImageSetBatch(
            pixels=torch.randn(samples, images, 3, size, size),
            gsd_m=torch.full((samples, images), 3.0),
            geosot_bits=torch.zeros(samples, images, 256),
            sensor_id=torch.zeros(samples, images, dtype=torch.int64),
            day=torch.zeros(samples, images),
            same_source_as_anchor=torch.ones(samples, images, dtype=torch.bool),
            valid=torch.ones(samples, images, size, size, dtype=torch.bool),
            wavelength_nm=torch.full((samples, images, 3), 560.0),
            lonlat_deg=torch.zeros(samples, images, 2, dtype=torch.float64),
            index=torch.arange(samples),
        )


# -- counting and measuring ----------------------------------------------------------------------------------------


def count_flops(model: Pretrainer, batch: ImageSetBatch) -> int:
    """FLOPs of forward and backward with the published layers, counted on the meta device."""
    with convolutions_by_torch(model), flop_counter() as counter:
        model(batch, fully_valid=True).loss.backward()
    return int(counter.get_total_flops())


def cpu_peak(side: int, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP per second and per CPU second of the best of three products of two large matrices."""
    a, b, out = (torch.randn(side, side).to(dtype) for _ in range(3))
    seconds = []
    for _ in range(4):
        before = time.perf_counter(), time.process_time()
        torch.mm(a, b, out=out)
        seconds.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    return tuple(2 * side**3 / min(found) for found in zip(*seconds[1:], strict=True))  # type: ignore[return-value]


def reset_peak_memory(device: torch.device) -> None:
    """Forget the largest use so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """GiB at the peak since the reset: tensors on a GPU, the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


# -- two processes -------------------------------------------------------------------------------------------------


def measure_processes(steps: int) -> None:
    """Two processes of one thread each (DDP over gloo) against one of one thread: samples/s at one global batch."""
    rates = []
    for world in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
        torch.multiprocessing.spawn(one_of_several, (world, port, steps, queue), nprocs=world)
        rates.append(queue.get())
        print(f"{world} process{'es' if world > 1 else ''}: {rates[-1]:.3f} sets/s")
    print(f"RESULT one_per_s={rates[0]:.4g} two_per_s={rates[1]:.4g} ratio={rates[1] / rates[0]:.4g}")


def one_of_several(rank: int, world: int, port: int, steps: int, queue: object) -> None:
    """One process: its share of a global batch of 8 sets, A²-MAE ViT-S/16 on 3 x 112 px."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    model = create_model("a2mae_vit_small_patch16")
    forward = (
        nn.parallel.DistributedDataParallel(LossOnly(model), gradient_as_bucket_view=True)
        if world > 1
        else LossOnly(model)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = make_batch("a2mae", 8 // world, torch.device("cpu"))
    seconds = []
    for _ in range(steps + 1):
        before = time.perf_counter()
        forward(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - before)
    if rank == 0:
        queue.put(8 / statistics.median(seconds[1:]))
    torch.distributed.destroy_process_group()


class LossOnly(nn.Module):
    """A module whose output is the loss: what DDP wraps."""

    def __init__(self, model: Pretrainer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageSetBatch) -> Tensor:
        """The loss."""
        return self.model(batch, fully_valid=True).loss


if __name__ == "__main__":
    main()

"""What does an hour of one core buy in pretraining? Steps, images and FLOPs of the demo's model, by recipe.

Every row trains the same encoder (ViT-T/8 of 6 blocks, 16 sets of 3 images of 64 px, `own` encoding) with one thread.
All rows take a step in turn, so that whatever else the machine does meets all of them; a step is forward, backward,
clipping and AdamW. Seconds are of this process's CPU: another program's share of the core does not count.

    pixels        the decoder predicts pixels alone, 128 wide, 2 blocks
    contrast      the demo's: the same with the contrast of crops
    target        as pixels, but it also predicts random convolution features (`rcf_weight`)
    thin          the same with a decoder of one block, 96 wide
    stem          the same with random convolution features in the stem, too
    heads         thin with 12 heads of 16 in place of 3 of 64
    bf16, fused   thin under bfloat16 autocast with torch's fused attention
    bf16, plain   thin under bfloat16 autocast with two products and a softmax: what training takes on a CPU

Rows in bfloat16 are left out where the CPU has no instructions for it (--all measures them all the same).

Usage: python benchmarks/pretrain_hour.py [--quick] [--steps N] [--all]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from a2mae.models import ImageSetBatch, Pretrainer, create_model
from a2mae.models.precision import fit_attention
from a2mae.training.engine import flop_counter
from a2mae.training.parameters import RECIPES

SETS, IMAGES, SIDE = 16, 3, 64
SIZE = {"depth": 6, "gsd_reference_m": 10.0}
WIDE = {"decoder_dim": 128, "decoder_depth": 2, "decoder_num_heads": 4}
TARGET = {"rcf_weight": 1.0, "pixel_weight": 0.3}
THIN = {**TARGET, "decoder_dim": 96, "decoder_depth": 1, "decoder_num_heads": 3}


@dataclass
class Row:
    """A way to train, and the CPU seconds of its steps."""

    name: str
    options: dict[str, object]
    bf16: bool = False
    plain: bool = False
    seconds: list[float] = field(default_factory=list)


def rows() -> list[Row]:
    """List what is measured."""
    demo = {**RECIPES["ours"]["a2mae"], **SIZE}
    ours = {**demo, "contrast_weight": 0.0}
    return [
        Row("pixels", {**ours, **WIDE}),
        Row("contrast", {**demo, **WIDE}),
        Row("target", {**ours, **WIDE, **TARGET}),
        Row("thin", {**ours, **THIN}),
        Row("stem", {**ours, **THIN, "stem": "rcf"}),
        Row("heads", {**ours, **THIN, "num_heads": 12}),
        Row("bf16, fused", {**ours, **THIN}, bf16=True),
        Row("bf16, plain", {**ours, **THIN}, bf16=True, plain=True),
    ]


def main() -> None:
    """Measure, print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two steps of each: under a minute, says little")
    parser.add_argument("--steps", type=int, default=15, help="measured steps of each row")
    parser.add_argument("--all", action="store_true", help="bfloat16 also where the CPU computes it in float32")
    arguments = parser.parse_args()
    steps = 2 if arguments.quick else arguments.steps
    torch.set_num_threads(1)
    native = has_bf16()
    print(f"{cpu_name()}, one thread, torch {torch.__version__}, bfloat16 {'native' if native else 'not native'}")
    measured = [row for row in rows() if native or arguments.all or not row.bf16]
    batch = make_batch(SETS)
    models = [prepared(row, batch) for row in measured]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.0, fused=True) for model in models]
    for turn in range(steps + 1):
        for row, model, optimizer in zip(measured, models, optimizers, strict=True):
            before = time.process_time()
            step(model, batch, optimizer, bf16=row.bf16)
            if turn:  # the first allocates
                row.seconds.append(time.process_time() - before)
    print("\n| | ms per step | to pixels | steps per core-hour | images per core-hour | PFLOP per core-hour |")
    print("|---|---|---|---|---|---|")
    first = statistics.median(measured[0].seconds)
    results = []
    for row, model in zip(measured, models, strict=True):
        seconds = statistics.median(row.seconds)
        count = 3600 / seconds
        flops = step_flops(model) * SETS
        print(
            f"| {row.name} | {seconds * 1e3:.0f} | {seconds / first:.2f} | {count:,.0f} |"
            f" {count * SETS * IMAGES:,.0f} | {count * flops / 1e15:.3f} |"
        )
        results.append(f"{row.name.replace(', ', '_')}_ms={seconds * 1e3:.1f}")
    print("\nRESULT " + " ".join(results))


def prepared(row: Row, batch: ImageSetBatch) -> Pretrainer:
    """Build a row's model, filters drawn."""
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", **row.options)
    model.fit_features(batch, seed=0)
    if row.plain:
        fit_attention(model, "bf16-mixed", torch.device("cpu"), training=True)
    return model


def step(model: Pretrainer, batch: ImageSetBatch, optimizer: torch.optim.Optimizer, *, bf16: bool) -> None:
    """Take one step as training does; at rate 0 AdamW computes what it always does."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(batch, fully_valid=True).loss
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def step_flops(model: Pretrainer) -> int:
    """Count the FLOPs of forward and backward of one set."""
    with flop_counter() as counter:
        model(make_batch(1), fully_valid=True).loss.backward()
    return int(counter.get_total_flops())


def make_batch(sets: int) -> ImageSetBatch:
    """Make a batch of smooth noise with the metadata of two sensors."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(sets * IMAGES, 3, SIDE, SIDE, generator=generator)
    pixels = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1) * 3
    shape = (sets, IMAGES)
    sensor_id = torch.tensor([0, 0, 1]).expand(shape).clone()
    return ImageSetBatch(
        pixels=pixels.view(*shape, 3, SIDE, SIDE),
        gsd_m=torch.where(sensor_id == 0, 10.0, 30.0),
        geosot_bits=(torch.rand(*shape, 256, generator=generator) > 0.5).float(),
        sensor_id=sensor_id,
        day=18000 + 500 * torch.rand(shape, generator=generator),
        same_source_as_anchor=sensor_id == 0,
        valid=torch.ones(*shape, SIDE, SIDE, dtype=torch.bool),
        wavelength_nm=torch.tensor([492.0, 560.0, 665.0]).expand(*shape, 3).clone(),
        lonlat_deg=torch.zeros(*shape, 2, dtype=torch.float64),
        index=torch.arange(sets),
    )


def has_bf16() -> bool:
    """Tell whether the CPU multiplies in bfloat16 (AVX512-BF16 or AMX), as Linux tells it."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_name() -> str:
    """Name the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

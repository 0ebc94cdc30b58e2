"""The loop and its rates; and that the configuration, not the shell, says how many threads compute."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from a2mae.models import create_model
from a2mae.models.checkpoint import save_pretrained
from a2mae.parallel import cores
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.model import Symmetry, flipped
from a2mae.tasks.finetune.train import NotFiniteError, computing, finetune
from a2mae.tasks.parameters import FinetuneParameters
from a2mae.tasks.registry import Task
from a2mae.training.step import warmup_cosine
from helpers.checkout import ROOT
from helpers.task_models import CPU, LEARNED, STATISTICS, build
from helpers.task_samples import make_samples, spec_for


def test_same_seed_same_weights(pretrained, data):
    runs = []
    for _ in range(2):
        model, inputs, _ = build(pretrained, data, Task.SEGMENT, "linear")
        finetune(model, inputs, data[Task.SEGMENT].rows("train"), FinetuneParameters(steps=3), seed=5, device=CPU)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("task", list(Task))
def test_half_precision_learns_as_well_and_keeps_whole_weights(pretrained, data, task):
    head, _ = LEARNED[task]
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        model, inputs, _ = build(pretrained, data, task, head)
        recipe = FinetuneParameters(steps=20, batch_size=16, lr=3e-3, warmup_steps=5, precision=precision)
        history = finetune(model, inputs, data[task].rows("train"), recipe, seed=0, device=CPU)
        losses[precision] = np.array([moment.loss for moment in history])
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    whole, half = losses.values()
    assert not np.array_equal(whole, half), "the option changed nothing"
    np.testing.assert_allclose(half, whole, atol=0.1 * whole[0])


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_modes_change_what_they_may(pretrained, data, mode):
    model, inputs, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    recipe = FinetuneParameters(steps=4, mode=mode, lora_rank=2, lr=1e-2)
    finetune(model, inputs, data[Task.CLASSIFY].rows("train"), recipe, seed=0, device=CPU)
    after = model.encoder.state_dict()
    assert after.keys() == before.keys()  # LoRA is merged: the architecture is plain again
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if mode == "frozen":
        assert changed == set()
    else:
        assert changed == {f"blocks.{i}.attn.{layer}.weight" for i in range(4) for layer in ("qkv", "proj")}
        delta = after["blocks.0.attn.qkv.weight"] - before["blocks.0.attn.qkv.weight"]
        assert torch.linalg.matrix_rank(delta.double(), rtol=1e-3) <= 2


def test_learning_rate_falls_towards_the_input(pretrained, data):
    from timm.optim._param_groups import param_groups_layer_decay

    model, _, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    named = {name: scale[id(p)] for name, p in model.named_parameters()}
    blocks = [named[f"encoder.blocks.{i}.attn.qkv.weight"] for i in range(4)]
    ladder = [
        named["encoder.patch_embed.proj.weight"],
        *blocks,
        named["encoder.norm.weight"],
        named["head.linear.weight"],
    ]
    assert ladder[-1] == 1.0
    assert all(b >= 2 * a for a, b in itertools.pairwise(ladder[:5]))
    assert ladder[4] == ladder[5] == 0.5


@pytest.mark.parametrize("mode", ["full", "frozen", "lora"])
def test_a_new_head_learns_at_a_rate_of_its_own(pretrained, data, monkeypatch, mode):
    """The first step of AdamW is as long as its rate: ten times as long for the head, and the encoder's stays."""
    moved = {}
    for scale in (1.0, 10.0):
        model, inputs, _ = build(pretrained, data, Task.DETECT_CHANGE, "linear")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        recipe = FinetuneParameters(
            mode=mode, steps=1, batch_size=4, lr=1e-4, weight_decay=0.0, warmup_steps=0, augment=False,
            head_lr_scale=scale, layer_decay=1.0,
        )  # fmt: skip
        finetune(model, inputs, data[Task.DETECT_CHANGE].rows("train"), recipe, seed=0, device=CPU)
        after = model.state_dict()
        names = ("head.linear.weight", "fusion.project.0.weight", "encoder.blocks.3.attn.qkv.weight")
        moved[scale] = [float((after[name] - before[name]).abs().max()) for name in names]
    head, fusion, encoder = (big / small if small else 1.0 for big, small in zip(moved[10.0], moved[1.0], strict=True))
    assert head == pytest.approx(10, rel=0.01) and fusion == pytest.approx(10, rel=0.01)
    assert encoder == pytest.approx(1, rel=0.01)


def test_flips_move_image_and_target_together(pretrained, data):
    _, inputs, _ = build(pretrained, data, Task.SEGMENT, "linear")
    batch = inputs.batch(np.arange(2))
    tagged = dataclasses.replace(batch, images=batch.targets[:, None, None].float())
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(64):
        moved = flipped(tagged, Symmetry(int(rng.integers(4)), bool(rng.integers(2))), pixels=True)
        assert torch.equal(moved.images[:, 0, 0].long(), moved.targets)
        seen.add(tuple(moved.targets[0].flatten().tolist()))
    assert len(seen) == 8
    tall = dataclasses.replace(batch, images=batch.images[..., :16], targets=batch.targets[..., :16])
    every = [Symmetry(turns, mirror) for turns in range(4) for mirror in (False, True)]
    assert {flipped(tall, symmetry, pixels=True).images.shape for symmetry in every} == {tall.images.shape}


def test_answers_that_the_last_step_throws_out_of_the_numbers_are_told(pretrained, data):
    model, inputs, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    recipe = FinetuneParameters(steps=1, warmup_steps=0, batch_size=2, lr=1e30)
    with pytest.raises(NotFiniteError, match=r"after step 1 \(lr 1e\+30\) the model's answers are no finite numbers"):
        finetune(model, inputs, data[Task.CLASSIFY].rows("train"), recipe, seed=0, device=CPU)


@pytest.mark.parametrize(("lr", "told"), [(1e3, True), (1e-2, False)])
def test_a_loss_that_explodes_is_told(pretrained, data, caplog, lr, told):
    model, inputs, _ = build(pretrained, data, Task.ESTIMATE, "conv")
    recipe = FinetuneParameters(steps=1, warmup_steps=0, batch_size=2, lr=lr)
    with caplog.at_level("WARNING"):
        finetune(model, inputs, data[Task.ESTIMATE].rows("train"), recipe, seed=0, device=CPU)
    assert ("the loss rose" in caplog.text) == told


def test_a_loss_that_leaves_the_numbers_names_the_samples(pretrained, data):
    model, inputs, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    with torch.no_grad():
        model.head.linear.bias.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=r"loss is nan at step 1, samples place-0"):
        finetune(model, inputs, data[Task.CLASSIFY].rows("train"), FinetuneParameters(steps=2), seed=0, device=CPU)


@given(warmup=st.integers(0, 40), steps=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_the_schedule_is_the_same_to_the_bit_as_it_was(warmup, steps, seed):
    """The last bit of a rate decides a model's bytes."""
    for step in np.random.default_rng(seed).integers(0, steps, 20).tolist():
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
        assert warmup_cosine(step, warmup, steps, divide_first=False) == expected
        assert warmup_cosine(step, warmup, steps) == pytest.approx(expected, abs=1e-15)


FINETUNE = """
import sys
from pathlib import Path
from a2mae.files import file_digest
from a2mae.tasks.finetune.finetuned import save_task_model
from a2mae.tasks.finetune.finetuned import finetune_start
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.datasets.task_data import TaskData

folder = Path(sys.argv[1])
for threads in (1, 2):
    recipe = {"steps": 2, "batch_size": 4, "warmup_steps": 1}
    options = TaskParameters(task="segment", head="detail", device="cpu", threads=threads, finetune=recipe)
    out = folder / sys.argv[2] / str(threads)
    save_task_model(out, finetune_start(options, TaskData(folder / "data"), folder / "model", "pretrained"))
    sys.stdout.write(file_digest(out / "model.safetensors") + "\\n")
"""


@pytest.mark.timeout(1500)  # fifteen seconds of one core; a busy machine may take long
def test_the_callers_variable_does_not_decide_the_bytes(tmp_path):
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", depth=1, decoder_dim=32, decoder_depth=1)
    save_pretrained(model, tmp_path / "model", config={"normalization": STATISTICS})
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), make_samples(Task.SEGMENT, count=8, size=64))
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", FINETUNE, str(tmp_path), said],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": said},
            stdout=subprocess.PIPE,
            text=True,
        )
        for said in ("1", "2")
    ]
    digests = [job.communicate(timeout=1400)[0].split() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert digests[0] == digests[1]
    one, two = digests[0]
    assert one != two, "the number of threads decides bytes: were it otherwise, this test would show nothing"


def threads() -> set[int]:
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return {torch.get_num_threads(), *blas}


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_as_many_threads_as_asked_for_and_afterwards_as_before(asked):
    before = threads()
    with computing("cpu", asked) as device:
        assert device == torch.device("cpu") and threads() == {asked or cores()}
    assert threads() == before


def test_they_are_given_back_when_the_work_fails():
    before = threads()
    with pytest.raises(ZeroDivisionError), computing("auto", 3):
        raise ZeroDivisionError
    assert threads() == before

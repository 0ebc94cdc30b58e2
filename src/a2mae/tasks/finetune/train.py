"""Finetuning: one loop for all tasks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor
from tqdm import tqdm

from a2mae.errors import A2maeError, InputError
from a2mae.models.precision import fit_attention, precision_of
from a2mae.parallel import cores
from a2mae.tasks.datasets.inputs import InputPlan, TaskBatch, TaskInputs
from a2mae.tasks.datasets.task_data import Targets, TaskData
from a2mae.tasks.finetune.checkpoints import FinetuneCheckpoint, FinetuneState, Progress
from a2mae.tasks.finetune.lora import add_lora, merge_lora
from a2mae.tasks.finetune.losses import loss_for
from a2mae.tasks.finetune.model import HeadConfig, Symmetry, TaskModel, flipped
from a2mae.tasks.finetune.remembered import remember
from a2mae.tasks.finetune.values import fitted_scaling
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.training.step import warmup_cosine

logger = logging.getLogger(__name__)

_EXPLODED = 10.0
"""Times what knowing nothing costs: every loss begins around 1, and none that learns ends this far above."""


@contextmanager
def computing(name: str, threads: int) -> Iterator[torch.device]:
    """Yield the device that a parameter names, and compute with the number of threads that the parameters say.

    That number decides bytes: the sum of two halves is rounded otherwise than one sum. Otherwise it would be the
    caller's `OMP_NUM_THREADS`. It is put back at the end.

    Args:
        name: See `device_named`.
        threads: Of torch and of the BLAS; 0: as many as there are cores.
    """
    before, count = torch.get_num_threads(), threads or cores()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield device_named(name)
        finally:
            torch.set_num_threads(before)


def device_named(name: str) -> torch.device:
    """Return the device that a parameter names; `auto` takes an accelerator where there is one.

    Raises:
        InputError: If this machine has none of the name.
    """
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(auto if name == "auto" else name)
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch was built, and for meta
        told = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} cannot be used here ({told:.200}): set it to auto or cpu") from error
    return device


def head_for(data: TaskData, plan: InputPlan, options: TaskParameters, head: str) -> HeadConfig:
    """Describe a head for a data set; that of values learns them scaled as those of the training split are.

    Args:
        data: The task data.
        plan: What its encoder is given.
        options: The task's parameters.
        head: One of the task's heads.

    Raises:
        TaskDataError: If values are to be learnt by their logarithm and some are negative.
    """
    spec = data.spec
    scaling = None
    if spec.quantity is not None:
        targets = data.read_targets(data.rows("train"))
        scaling = fitted_scaling(targets, spec, log=options.finetune.log_targets)
    return HeadConfig(
        spec.task,
        head,
        len(spec.class_names) or 1,
        plan.views,
        plan.bands_per_view,
        options.fusion,
        multi_label=spec.multi_label,
        scaling=scaling,
        images=data.image_shape[0] // spec.task.kind.dates if spec.set_sensors else None,
        join=options.data.inputs.join,
    )


class NotFiniteError(A2maeError, RuntimeError):
    """Raised where the loss or the answers are not finite; the message names the step."""


def finetune(
    model: TaskModel,
    inputs: TaskInputs,
    rows: npt.NDArray[np.int64],
    recipe: FinetuneParameters,
    *,
    seed: int,
    device: torch.device,
    name: str = "finetune",
    validate: Callable[[TaskModel], float] | None = None,
    checkpoint: FinetuneCheckpoint | None = None,
) -> list[Progress]:
    """Train a task model in place for a fixed number of steps.

    Args:
        model: Its encoder is trained, or frozen by the recipe.
        inputs: Where batches come from.
        rows: Training rows.
        recipe: Optimiser, schedule, loss, augmentation.
        seed: Decides order and augmentation; the same for a model and its random_init baseline.
        device: Where to train.
        name: For the progress bar.
        validate: Scores the model on the validation split, higher is better; called `recipe.val_checks` times, and the
            model is left with its best weights.
        checkpoint: Written from time to time; what a stopped finetuning left there is gone on with.

    Returns:
        The loss over the steps.

    Raises:
        NotFiniteError: If the loss, or what the model answers after a step, is not finite.
        CheckpointWriteError: If a checkpoint cannot be written.
    """
    torch.manual_seed(seed)  # LoRA's initial weights, stochastic depth
    if recipe.mode == "lora":
        add_lora(model.encoder, recipe.lora_rank)
    else:
        model.encoder.requires_grad_(recipe.mode == "full")
    model.on(device, precision_of(recipe.precision, device))
    fit_attention(model, model.precision, device, training=True)
    _training(model, recipe)
    groups = _parameter_groups(model, recipe)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.999), fused=True)
    loss_of = loss_for(model.config, recipe, inputs.data, rows).to(device)
    state = checkpoint.resume(model, optimizer) if checkpoint is not None else FinetuneState()
    if state.step:
        logger.info("%s: going on from step %d of %d", name, state.step, recipe.steps)
    look_every = -(-recipe.steps // recipe.val_checks) if recipe.val_checks and validate is not None else 0
    log_every = max(recipe.steps // 50, 1)
    remembered = remember(model, inputs, rows, recipe, device)
    running: list[Tensor] = []
    begun: Tensor | None = None
    drawn = islice(_drawn(rows, recipe.batch_size, np.random.default_rng(seed), recipe.augment), state.step, None)
    for step in tqdm(range(state.step, recipe.steps), desc=name, unit="step", leave=False):
        scale = warmup_cosine(step, recipe.warmup_steps, recipe.steps, divide_first=False)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * scale * group["lr_scale"]
        chosen, symmetry = next(drawn)
        batch = inputs.batch(chosen).to(device)
        if symmetry is not None:
            batch = flipped(batch, symmetry, pixels=model.config.per_pixel)
        encoded = None if remembered is None else remembered.encoded(chosen, symmetry)
        loss = loss_of(model(batch, encoded), batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], recipe.clip_grad)
        running.append(loss.detach())
        begun = running[0] if begun is None else begun
        state.step, last = step + 1, step + 1 == recipe.steps
        logged = last or state.step % log_every == 0
        if logged:
            mean = float(torch.stack(running).mean())  # the only synchronisation with the device
            if not math.isfinite(mean):
                names = inputs.data.samples["sample_id"].iloc[chosen].tolist()
                raise NotFiniteError(f"{name}: loss is {mean} at step {step + 1}, samples {', '.join(names[:8])} …")
            state.history.append(Progress(state.step, mean, recipe.lr * scale))
            running.clear()
        optimizer.step()
        looks = look_every > 0 and (last or state.step % look_every == 0)
        if last or looks:
            ended = _check_answers(model, batch, loss_of, f"{name}: after step {state.step} (lr {recipe.lr:g})")
            _training(model, recipe)
            if last:
                _warn_if_exploded(name, min(float(begun), state.history[0].loss), ended, recipe.lr)
        if looks and validate is not None:
            state.keep_if_best(model, validate(model))
            _training(model, recipe)
        if checkpoint is not None and logged and checkpoint.due(last=last):
            checkpoint.save(state, model, optimizer)
    state.restore_best(model)
    merge_lora(model.encoder)
    fit_attention(model, model.precision, device, training=False)
    history = state.history
    logger.info("%s: %d steps, loss %.4f -> %.4f", name, recipe.steps, history[0].loss, history[-1].loss)
    return history


@torch.no_grad()
def _check_answers(model: TaskModel, batch: TaskBatch, loss_of: Callable[[Tensor, Tensor], Tensor], when: str) -> float:
    """Reject a model that its last step has thrown out of the numbers, and compute its loss, known only before that."""
    answers = model.eval()(batch)
    if not torch.isfinite(answers).all():
        raise NotFiniteError(f"{when} the model's answers are no finite numbers: lower finetune.lr, or clip_grad")
    return float(loss_of(answers, batch.targets))


def _warn_if_exploded(name: str, begun: float, ended: float, lr: float) -> None:
    """Warn of a model that answers worse, by far, than before its first step: its scores are finite, and nonsense."""
    if not ended <= _EXPLODED * max(begun, 1.0):
        logger.warning(
            "%s: the loss rose, %.4g -> %.4g (lr %g), and such a model has learnt nothing: lower finetune.lr, or"
            " clip_grad",
            name,
            begun,
            ended,
            lr,
        )


def _training(model: TaskModel, recipe: FinetuneParameters) -> None:
    """Put a model into training mode; of an encoder that is not trained, the statistics stay, too (BatchNorm)."""
    model.train()
    model.encoder.train(recipe.mode == "full")


def _parameter_groups(model: TaskModel, recipe: FinetuneParameters) -> list[dict[str, Any]]:
    """Group parameters by decay and depth, the encoder's apart from the rest; some encoders have none."""
    groups: list[dict[str, Any]]
    if any(True for _ in model.encoder.parameters()):
        groups = param_groups_layer_decay(model, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
    else:
        groups = [{**group, "lr_scale": 1.0} for group in param_groups_weight_decay(model, recipe.weight_decay)]
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    for group in groups:
        if not encoder & {id(parameter) for parameter in group["params"]}:
            group["lr_scale"] *= recipe.head_lr_scale
    return groups


def predict(
    model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
) -> Targets:
    """Predict samples: classes or values, `(N,)` or `(N, H, W)`; with several labels `(N, K)` of 0 and 1."""
    outputs = outputs_of(model, inputs, rows, batch_size=batch_size, device=device)
    return np.concatenate([model.config.answers(found).cpu().numpy() for _, found in outputs])


@torch.no_grad()
def outputs_of(
    model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """Yield the rows of each batch, and what the model gives for them: `(B, outputs, ...)` on the device.

    A batch has `batch_size` images: of image sets fewer samples.
    """
    model.to(device).eval()
    batch_size = max(batch_size // (model.config.images or 1), 1)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield batch, model(inputs.batch(batch).to(device))


def _drawn(
    rows: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator, augment: bool
) -> Iterator[tuple[npt.NDArray[np.int64], Symmetry | None]]:
    """Draw the samples of each step, and how they are flipped and turned."""
    for chosen in _endless(rows, batch_size, rng):
        yield chosen, Symmetry(int(rng.integers(4)), bool(rng.integers(2))) if augment else None


def _endless(rows: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of exactly `batch_size`, epoch after epoch, each epoch in a new order."""
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(rows)])
        yield left[:batch_size]
        left = left[batch_size:]

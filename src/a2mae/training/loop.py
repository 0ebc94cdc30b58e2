"""The training loop: read, step, measure, save. A run that was killed and started again repeats it bit by bit."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from a2mae.models import MASK_GROUPS
from a2mae.models.precision import fit_attention
from a2mae.tracking import Run
from a2mae.training import results
from a2mae.training.checkpoints import Checkpoint, Checkpoints, capture, full, restore
from a2mae.training.data.loader import BatchDataset, SampleReader, dead_loaders_told, make_loader, next_batch
from a2mae.training.data.prepare import RawBatch, prepare
from a2mae.training.engine import make_fabric, peak_flops, recompute_activations, step_flops
from a2mae.training.launch import StopRequest
from a2mae.training.monitor import (
    HELD_OUT_LOSS,
    METRICS_FILE,
    TIMING_FILE,
    HeldOut,
    MetricsFile,
    ProgressBar,
    feature_statistics,
    read_metrics,
)
from a2mae.training.spec import RunSpec, SpecificationError
from a2mae.training.start import started_model
from a2mae.training.step import (
    MovingAverage,
    NonFiniteLossError,
    StepTotals,
    TrainStep,
    batch_tensors,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    step_generator,
)
from a2mae.training.teacher import write_teacher_features

_LOG = logging.getLogger(__name__)

_HELD_OUT_SETS, _HELD_OUT_IMAGES = 32, 48
_TIMING_COLUMNS = ("step", "seconds", "samples_per_s", "data_wait_share", "tflops_per_s", "mfu")
Row = dict[str, float | int | None]


@dataclass
class _Pending:
    """What the steps since the last row of metrics have left on the device."""

    totals: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    waited_s: float = 0.0
    since: float = field(default_factory=time.monotonic)


def train(run_dir: Path, spec: RunSpec, stop: StopRequest) -> bool:
    """Train from the newest checkpoint of this specification, or from the start; a finished model stays as it is.

    Args:
        run_dir: The run directory.
        spec: Its specification.
        stop: Read between two steps.

    Returns:
        True if the run is finished, False if it was stopped (with a checkpoint).

    Raises:
        StoreError: If the store cannot be read.
        DataMismatchError: If the data are not those of the specification.
        NonFiniteLossError: If the loss becomes NaN or infinite; names the step and its sets.
        LoaderDiedError: If a loader process is killed.
        CheckpointWriteError: If a checkpoint cannot be written.
    """
    if results.is_finished(run_dir, spec):
        _LOG.info("%s holds the finished model of this specification and code: nothing to train", run_dir)
        return True
    fabric = make_fabric(spec)
    trainer = Trainer(fabric, run_dir, spec)
    try:
        with dead_loaders_told():
            finished = trainer.fit(stop)
    except BaseException:
        trainer.tracker.finish(failed=True)
        raise
    results.finish_tracking(trainer.tracker, run_dir, spec, trainer.summary)
    return finished


class Trainer:
    """One run in this process.

    Attributes:
        summary: The numbers of `metrics.json`, once finished.
        tracker: W&B's run, which gets numbers and pictures besides our own files.
    """

    def __init__(self, fabric: Fabric, run_dir: Path, spec: RunSpec, *, resume: bool = True) -> None:
        """Build the model and pick up where a run of the same specification was stopped.

        Args:
            fabric: Launched.
            run_dir: The run directory.
            spec: Its specification.
            resume: False leaves the run directory alone, for a dry run.
        """
        self._fabric, self._run_dir, self._spec = fabric, run_dir, spec
        self.summary: Row = {}
        self.tracker = Run()
        self._reader = SampleReader(run_dir, spec)
        self._tables = self._reader.tables().to(fabric.device)
        self.dataset = BatchDataset(run_dir, spec, rank=fabric.global_rank, world_size=fabric.world_size)

        if fabric.is_global_zero:
            write_teacher_features(run_dir, spec, self._reader, fabric.device)
        fabric.barrier()
        # A checkpoint, where there is one, is restored over it.
        self._model, self._start = started_model(run_dir, spec, self._reader)
        if self._model.config.contrast_weight and spec.numerics.micro_batch_size:
            raise SpecificationError(
                "contrast_weight compares the crops of a whole batch, found micro_batch_size"
                f" {spec.numerics.micro_batch_size}: set micro_batch_size to null"
                " (activation_checkpointing saves memory, too), or contrast_weight to 0"
            )
        if self._start is not None and fabric.is_global_zero:
            _LOG.info("start: %s is %s\n%s", self._start.weights.path, self._start.weights.kind, self._start.table())
        fit_attention(self._model, spec.numerics.precision, fabric.device, training=True)
        self._plain_module = TrainStep(self._model, len(spec.data.sensors))
        if spec.numerics.activation_checkpointing:
            recompute_activations(self._model)
        compiled = torch.compile(self._plain_module) if spec.numerics.compile else self._plain_module
        self._module = fabric.setup_module(cast(torch.nn.Module, compiled))
        self._optimizer = make_optimizer(self._model, spec.optimizer)
        self._stepper = cast(torch.optim.Optimizer, fabric.setup_optimizers(self._optimizer))
        decay = spec.optimizer.ema_decay
        self._average = None if decay is None else MovingAverage(self._model, decay)

        self._checkpoints = Checkpoints(run_dir / "checkpoints", keep=spec.logging.keep_checkpoints)
        self._resumed = _Pending()
        self._step = self._resume() if resume else 0
        self._held_out = HeldOut(self._reader, self._tables, sets=_HELD_OUT_SETS, images=_HELD_OUT_IMAGES)
        self._score: float | None = None
        self._flops = step_flops(spec)
        self._peak = peak_flops(fabric.device, spec.numerics.precision)

    def fit(self, stop: StopRequest) -> bool:
        """Run to the end or until asked to stop; see `train`."""
        spec, first = self._spec, self._fabric.is_global_zero
        if first:
            self.tracker = results.open_tracking(spec, self._run_dir)
            self._metrics = MetricsFile(self._run_dir / METRICS_FILE, self._columns(), resume_at=self._step)
            self._timing = MetricsFile(self._run_dir / TIMING_FILE, _TIMING_COLUMNS, resume_at=self._step)
            if self._step == spec.optimizer.steps:  # killed before the model was written
                self.summary = self._metrics.last()
        loader = iter(
            make_loader(
                self.dataset,
                self._step,
                spec.optimizer.steps,
                workers=spec.hardware.workers,
                pin_memory=self._fabric.device.type == "cuda",
            )
        )
        progress = ProgressBar(spec.optimizer.steps, self._step, shown=first)
        pending = self._resumed
        loss: float | None = None
        while self._step < spec.optimizer.steps:
            before = time.monotonic()
            raw = next_batch(loader)
            pending.waited_s += time.monotonic() - before
            totals, norm = self.train_step(raw, stop)
            pending.totals.append(totals)
            pending.norms.append(norm)
            self._step += 1
            last = self._step == spec.optimizer.steps
            stopping = self._agreed_to_stop(totals)
            if self._step % spec.logging.interval == 0 or last:
                loss = self._log(pending, measure=last or self._due(spec.logging.monitor_interval))
                pending = _Pending()
            if last or stopping or self._due(spec.logging.checkpoint_interval):
                self._save(pending)
            progress.update(self._step, loss)
            if stopping and not last:
                progress.close()
                _LOG.warning("stopped at step %d of %d; start it again to go on", self._step, spec.optimizer.steps)
                return False
        progress.close()
        self._finish()
        return True

    # -- one step ------------------------------------------------------------------------------------------------

    def train_step(self, raw: RawBatch, stop: StopRequest) -> tuple[Tensor, Tensor]:
        """Take one step: forward, backward and update on this process's share of the batch.

        Each micro-batch adds the gradient of its sum of errors, which is divided by the number of scored values of the
        global batch at the end. So accumulation and several processes give the gradient of one large batch exactly,
        also where pixels are invalid.

        Args:
            raw: This process's share of the batch.
            stop: Whether the process was asked to stop is added up over all processes with the totals.

        Returns:
            Totals of the global batch, `StepTotals.flat` and last the number of processes that were asked to stop, and
            the gradient's norm.
        """
        spec, fabric = self._spec, self._fabric
        set_learning_rate(self._optimizer, learning_rate(spec.optimizer, self._step))
        samples, images = raw.sensor_id.shape
        patches = (spec.sampled_size // self._model.pixels_per_token) ** 2
        masks = step_generator(spec.seed, self._step, fabric.device, (fabric.global_rank * samples, images, patches))
        nominal = spec.optimizer.batch_size * images * spec.channels * spec.sampled_size**2
        size = spec.numerics.micro_batch_size or samples
        totals: StepTotals | None = None
        for start in range(0, samples, size):
            part = raw[start : start + size] if size < samples else raw
            part = part.to(fabric.device, non_blocking=True)
            batch = prepare(part, self._tables, spec.sampled_size)
            with fabric.no_backward_sync(self._module, enabled=start + size < samples):
                loss, weight, group_loss, group_weight = self._module(
                    *batch_tensors(batch), generator=masks, fully_valid=part.fully_valid, teacher=part.teacher
                )
                fabric.backward(loss * (weight / nominal))
            found = StepTotals(weight, loss.detach() * weight, group_loss, group_weight)
            totals = found if totals is None else totals + found
        assert totals is not None
        asked = torch.full((1,), float(stop.requested), device=fabric.device)
        vector = cast(Tensor, fabric.all_reduce(torch.cat([totals.flat(), asked]), reduce_op="sum"))
        # DDP and FSDP average gradients over processes; the sum is wanted.
        factor = fabric.world_size * nominal / vector[0].clamp(min=1)
        gradients = [p.grad for p in self._module.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
        limit = spec.optimizer.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self._module.parameters(), limit)
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        return vector, norm

    @property
    def train_sets(self) -> int:
        """Number of image sets trained on."""
        return len(self._reader.positions)

    @property
    def pixels_per_token(self) -> int:
        """Side of what one token covers, pixels of the sampled image."""
        return self._model.pixels_per_token

    def parameter_counts(self) -> tuple[int, int]:
        """Count the parameters of the model, and of its encoder."""
        return sum(p.numel() for p in self._model.parameters()), sum(
            p.numel() for p in self._model.encoder.parameters()
        )

    def _agreed_to_stop(self, totals: Tensor) -> bool:
        """Tell whether any process was asked to stop; on a GPU only when the host waits for the device anyway."""
        if totals.device.type == "cuda" and self._step % self._spec.logging.interval:
            return False
        return bool(totals[-1] > 0)

    def _due(self, interval: int) -> bool:
        return interval > 0 and self._step % interval == 0

    # -- measuring -----------------------------------------------------------------------------------------------

    def _columns(self) -> tuple[str, ...]:
        groups = [f"loss/{sensor.id}/{group}" for sensor in self._spec.data.sensors for group in MASK_GROUPS]
        features, loss, same_place = ("effective_rank", "feature_std"), self._held_out.loss_name, "same_place_accuracy"
        return ("step", "epoch", "samples", "loss", "lr", "grad_norm", *features, loss, same_place, *groups)

    def _log(self, pending: _Pending, *, measure: bool) -> float:
        """Write one row of metrics and one of timing; only here the host waits for the device."""
        spec = self._spec
        vectors = torch.stack(pending.totals).cpu()
        self._check_finite(vectors)
        seconds = time.monotonic() - pending.since
        totals = StepTotals.from_flat(vectors.sum(0)[:-1], len(spec.data.sensors))
        samples = self._step * spec.optimizer.batch_size
        row: Row = {
            "step": self._step,
            "epoch": samples / len(self._reader.positions),
            "samples": samples,
            "loss": float(totals.loss / totals.weight),
            "lr": learning_rate(spec.optimizer, self._step - 1),
            "grad_norm": float(full(pending.norms[-1])),
            **self._measure(full_measure=measure),
        }
        for i, sensor in enumerate(spec.data.sensors):
            for j, group in enumerate(MASK_GROUPS):
                if totals.group_weight[i, j] > 0:
                    row[f"loss/{sensor.id}/{group}"] = float(totals.group_loss[i, j] / totals.group_weight[i, j])
        timing: Row = {
            "step": self._step,
            "seconds": seconds,
            "samples_per_s": len(pending.totals) * spec.optimizer.batch_size / max(seconds, 1e-9),
            "data_wait_share": pending.waited_s / max(seconds, 1e-9),
            "tflops_per_s": self._flops * len(pending.totals) / max(seconds, 1e-9) / 1e12,
        }
        if self._peak is not None:
            timing["mfu"] = (
                self._flops * len(pending.totals) / max(seconds, 1e-9) / (self._peak * self._fabric.world_size)
            )
        if self._fabric.is_global_zero:
            self._metrics.append(row)
            self._timing.append(timing)
            self.tracker.log({**row, **timing}, self._step)
        self.summary = row
        return float(totals.loss / totals.weight)

    def _measure(self, *, full_measure: bool) -> Row:
        """Measure the features of the fixed images; with `full_measure` also the loss and the kNN on them."""
        self._model.eval()
        with self._fabric.autocast():
            features = self._held_out.features(self._model)
            statistics = feature_statistics(features)
            row: Row = {"effective_rank": statistics.effective_rank, "feature_std": statistics.feature_std}
            if full_measure:
                row[self._held_out.loss_name] = self._score = self._held_out.loss(self._model, self._spec.seed)
                row["same_place_accuracy"] = self._held_out.same_place_accuracy(features)
        if isinstance(self._model, FSDPModule):
            self._model.reshard()  # no backward pass follows that would do it
        self._model.train()
        return row

    def _check_finite(self, vectors: Tensor) -> None:
        bad = (~torch.isfinite(vectors[:, 1])).nonzero()
        if len(bad):
            step = self._step - len(vectors) + int(bad[0])
            size = self._spec.optimizer.batch_size
            names = [
                self._reader.index.name(position) for _, position in self._reader.keys(step * size, (step + 1) * size)
            ]
            raise NonFiniteLossError(
                f"the loss of step {step + 1} is not finite. Its samples are of the sets"
                f" {', '.join(sorted(set(names)))}."
                " Look at their pixels and statistics, or lower 'optimizer.learning_rate' or set 'optimizer.clip_norm';"
                " the newest checkpoint is from before"
            )

    # -- keeping -------------------------------------------------------------------------------------------------

    def _resume(self) -> int:
        """Load the newest checkpoint of this specification, and remove what belongs to another run.

        Returns:
            Steps already taken.
        """
        spec = self._spec
        if results.finished_identity(self._run_dir) == spec.identity:
            _LOG.info("%s holds a run of this specification by other code: training it afresh", self._run_dir)
            checkpoint = None
        else:
            checkpoint = self._checkpoints.latest()
        logged = 0 if checkpoint is None else checkpoint.step - len(checkpoint.tensors["pending"]["totals"])
        has_rows = not logged or any(int(row["step"]) == logged for row in read_metrics(self._run_dir / METRICS_FILE))
        self._fabric.barrier()
        if checkpoint is not None and checkpoint.facts.get("identity") == spec.identity and not has_rows:
            _LOG.warning("%s has lost the row of step %d: starting afresh", self._run_dir / METRICS_FILE, logged)
        elif checkpoint is not None and checkpoint.facts.get("identity") == spec.identity:
            rows = checkpoint.tensors["pending"]["totals"].to(self._fabric.device)
            self._resumed = _Pending(totals=list(rows), norms=[torch.zeros(()) for _ in rows])
            restore(checkpoint.tensors, self._plain_module, self._optimizer, self._average)
            _LOG.info("going on from the checkpoint of step %d of %d", checkpoint.step, spec.optimizer.steps)
            return checkpoint.step
        elif checkpoint is not None:
            _LOG.info(
                "the checkpoints in %s are of another specification or other data: starting afresh", self._run_dir
            )
        if self._fabric.is_global_zero:
            self._checkpoints.clear()
            (self._run_dir / results.FINISHED_FILE).unlink(missing_ok=True)
        self._fabric.barrier()
        return 0

    def _save(self, pending: _Pending) -> None:
        """Write a checkpoint with what the next row of metrics needs, unless a loss is not finite."""
        if pending.totals:
            self._check_finite(torch.stack(pending.totals).cpu())
        tensors = capture(self._plain_module, self._optimizer, self._average)
        waiting = torch.stack(pending.totals).cpu() if pending.totals else torch.zeros(0, 0)
        tensors["pending"] = {"totals": waiting}
        if self._fabric.is_global_zero:
            self._metrics.flush()  # a checkpoint without the rows before it could not be gone on with
            facts = {"identity": self._spec.identity, "score": self._score}
            self._checkpoints.save(Checkpoint(self._step, tensors, facts))
        self._fabric.barrier()

    def _finish(self) -> None:
        """Write the model directory and the reconstructions."""
        spec = self._spec
        state = capture(self._plain_module, self._optimizer, self._average)
        metrics = {
            HELD_OUT_LOSS: None,  # as it stays where no places are held out
            **{key: value for key, value in self.summary.items() if "/" not in key},
            "method": spec.method,
            "model": spec.model.name,
            "parameters": self.parameter_counts()[0],
            "train_sets": self.train_sets,
            "held_out_sets": 0 if self._held_out.from_training else len(self._held_out.positions),
        }
        if self._fabric.is_global_zero:
            model = results.trained_model(spec, state, self._fabric.device)
            if spec.logging.reconstructions:
                panels, captions = results.write_reconstructions(
                    self._run_dir, spec, model, self._reader, self._held_out
                )
                self.tracker.log_pictures("reconstructions", panels, captions, self._step)
            results.write_results(self._run_dir, spec, model, metrics, start=self._start)
        self._fabric.barrier()

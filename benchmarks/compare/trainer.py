"""Pretraining of the comparison's contenders by the `pretrain` stage's own means: same size, data, tokens, steps."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from a2mae.files import write_json
from a2mae.pipelines.pretrain import build_spec
from a2mae.training.launch import launch
from a2mae.training.parameters import PretrainParameters
from a2mae.training.results import finished_identity
from a2mae.training.spec import MODEL_DIR
from benchmarks.compare.comparison import steps_within
from benchmarks.compare.judges import Contender
from benchmarks.compare.settings import MIN_STEPS, CompareParameters, ContenderParameters
from benchmarks.compare.sources import Source

logger = logging.getLogger(__name__)

TRIAL_STEPS = 12
START_S = 15.0
"""What starting and finishing one training costs besides its steps: imports, the last checkpoint, held-out measures."""


class Trainer:
    """Pretrains contenders.

    Attributes:
        entries: `(name, contender, source)` of all that are trained, in order.
        steps: Of every training.
    """

    def __init__(
        self, options: CompareParameters, pretrain: PretrainParameters, sources: Sequence[Source], folder: Path
    ) -> None:
        self._pretrain = pretrain
        self._folder = folder
        self.entries: list[tuple[str, ContenderParameters, Source]] = [
            (f"{entry.name}{source.suffix}", entry, source)
            for source in sources
            for entry in (options.folder_contenders if source.single_images else options.contenders)
        ]
        self._by_name = {name: (entry, source) for name, entry, source in self.entries}
        self.steps = options.steps or self._planned_steps(options)

    def contender(self, name: str, seed: int) -> Contender:
        """Give one of `entries` a seed."""
        entry, source = self._by_name[name]
        shared = self._pretrain.model_dump_json(exclude={"hardware", "logging", "seed", "method"})
        settings = [entry.model_dump(mode="json"), json.loads(shared), self.steps, source.store.manifest_hash]
        base = self._pretrain.model_copy(update={"method": entry.method})
        stem = {**base.model_options, **entry.options}.get("stem", "linear")
        twin = "random" if stem == "linear" else f"random_{stem}"
        return Contender(name, "trained", seed, json.dumps(settings, sort_keys=True), twin=twin)

    def architecture(self, name: str) -> str:
        """JSON of the architecture of one of `entries`."""
        entry, _ = self._by_name[name]
        return json.dumps([entry.model_dump(mode="json"), self._pretrain.model.model_dump(mode="json")])

    def train(self, contender: Contender) -> Path:
        """Pretrain, go on with a stopped pretraining, or find it finished.

        Returns:
            The model directory.
        """
        key = hashlib.sha256(f"{contender.settings}{contender.seed}".encode()).hexdigest()[:8]
        run_dir = self._folder / "models" / f"{contender.name.replace(' ', '_')}-seed{contender.seed}-{key}"
        entry, source = self._by_name[contender.name]
        return self._launch(run_dir, entry, source, seed=contender.seed, steps=self.steps)

    def described(self) -> str:
        """Describe in a sentence what the trainings have in common."""
        optimizer, model = self._pretrain.optimizer, self._pretrain.model
        depth = model.options.get("depth", "all")
        images = self._pretrain.sampling.images
        return (
            f"Every encoder: ViT-{model.size} with patches of {model.patch_size} px and {depth} blocks,"
            f" {self.steps} steps of {optimizer.batch_size * images} images of {self._pretrain.sampling.image_size} px"
            f" ({optimizer.batch_size} sets of {images} where the data has sets)."
        )

    def _launch(self, run_dir: Path, entry: ContenderParameters, source: Source, *, seed: int, steps: int) -> Path:
        parameters = self._parameters(entry, source, seed=seed, steps=steps)
        run_dir.mkdir(parents=True, exist_ok=True)
        spec = build_spec(
            source.sensors,
            source.index,
            band_statistics=source.statistics,
            store=source.store,
            run_dir=run_dir,
            parameters=parameters,
        )
        if finished_identity(run_dir) == spec.identity:
            return run_dir / MODEL_DIR
        spec.write(run_dir)
        logger.info("pretraining %s, seed %d, %d steps", run_dir.name, seed, steps)
        model = launch(run_dir)
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)  # finished: only the model is needed
        return model

    def _parameters(self, entry: ContenderParameters, source: Source, *, seed: int, steps: int) -> PretrainParameters:
        """Lay what makes the contender over the group `pretrain`."""
        base = self._pretrain
        methods = {**base.model.method_options}
        methods[entry.method] = {**methods.get(entry.method, {}), **entry.options}
        sampling, batch, rate = base.sampling, base.optimizer.batch_size, base.optimizer.base_learning_rate
        if source.single_images:  # K times as many sets of one: as many images, at the same rate
            batch, rate = batch * sampling.images, None if rate is None else rate / sampling.images
            sampling = sampling.replace(images=1, bands="rgb")
        logging_ = base.logging.replace(wandb_project=None, reconstructions=0, keep_checkpoints=1)
        if steps == TRIAL_STEPS:
            logging_ = logging_.replace(interval=TRIAL_STEPS // 3, monitor_interval=0)
        optimizer = base.optimizer.model_copy(
            update={"steps": steps, "epochs": None, "batch_size": batch, "base_learning_rate": rate}
        )
        return base.model_copy(
            update={
                "method": entry.method,
                "seed": seed,
                "model": base.model.model_copy(update={"method_options": methods}),
                "sampling": sampling,
                "optimizer": optimizer,
                "logging": logging_,
            }
        )

    def _planned_steps(self, options: CompareParameters) -> int:
        """Compute the steps that the budget gives, once: a later start finds them in `plan.json`."""
        plan = self._folder / "plan.json"
        asked = json.dumps(
            [
                self._pretrain.model_dump(mode="json"),
                options.model_dump(mode="json", exclude={"budget_h", "document", "steps"}),
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(asked.encode()).hexdigest()
        if plan.is_file() and (known := json.loads(plan.read_text()))["asked"] == digest:
            return int(known["steps"])
        per_step: dict[str, float] = {}
        runs = Counter(self._cost_key(entry, source) for _, entry, source in self.entries)
        for _, entry, source in self.entries:
            key = self._cost_key(entry, source)
            if key not in per_step:
                trial = self._folder / "trials" / key
                self._launch(trial, entry, source, seed=0, steps=TRIAL_STEPS)
                batch = self._parameters(entry, source, seed=0, steps=TRIAL_STEPS).optimizer.batch_size
                per_step[key] = _seconds_per_step(trial, batch)
        every = {key: count * len(options.seeds) for key, count in runs.items()}
        steps = steps_within(options.budget_h * 3600 * options.pretrain_share, per_step, every, START_S)
        if steps < MIN_STEPS:
            logger.warning("the budget gives %d steps: %d are made, and it will not suffice", steps, MIN_STEPS)
        steps = max(steps, MIN_STEPS)
        logger.info("%d steps for each of %d trainings (%s s per step)", steps, sum(every.values()), per_step)
        write_json(plan, {"asked": digest, "steps": steps, "seconds_per_step": per_step})
        return steps

    @staticmethod
    def _cost_key(entry: ContenderParameters, source: Source) -> str:
        return f"{entry.method}{'-single' if source.single_images else ''}"


def _seconds_per_step(run_dir: Path, batch_size: int) -> float:
    """Read the run's own timing without its first interval (caches, lazy imports)."""
    rates = pd.read_csv(run_dir / "timing.csv")["samples_per_s"]
    return batch_size / float(rates.iloc[1:].median())

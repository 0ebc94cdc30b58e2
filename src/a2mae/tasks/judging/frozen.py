"""Frozen encoders judged: kNN over relative GSDs in both readings, linear probe, few-shot probes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from a2mae.tasks.judging.features import FeatureExtractor, extract
from a2mae.tasks.judging.knn import knn_predict
from a2mae.tasks.judging.probe import linear_probe
from a2mae.tasks.judging.units import Row
from a2mae.tasks.parameters import EvaluateParameters
from a2mae.tasks.samples.inputs import TaskInputs
from a2mae.tasks.samples.task_data import Task, TaskData, TaskDataError
from a2mae.tasks.scoring.metrics import ConfusionCounts, Score, accuracy
from a2mae.tasks.scoring.scores import score_row

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """An encoder or baseline under evaluation.

    Attributes:
        name: Of the score table's column `model`.
        extractor: Images to vectors.
        patch: Image sides must be a multiple of it; 1 for baselines.
    """

    name: str
    extractor: FeatureExtractor
    patch: int = 1


@dataclass(frozen=True)
class _Features:
    train: torch.Tensor
    val: torch.Tensor
    test: torch.Tensor


def evaluate_frozen(
    candidate: Candidate, inputs: TaskInputs, options: EvaluateParameters, device: torch.device
) -> list[Row]:
    """Judge one candidate on one classification data set.

    Args:
        candidate: What is judged.
        inputs: The data, normalised for the candidate.
        options: Protocols.
        device: Where features are computed.

    Returns:
        Rows of the score table.

    Raises:
        TaskDataError: If the data is not for classification.
    """
    data = inputs.data
    if data.spec.task is not Task.CLASSIFY:
        raise TaskDataError(f"evaluate needs classification data, found {data.spec.task} ({data.spec.source})")
    if data.spec.multi_label:
        raise TaskDataError(
            f"kNN and probes need one class per image; {data.spec.source!r} has several: finetune, or judge on a folder"
            " per class (evaluate.folder)"
        )
    judge = _Judge(candidate, data, options)
    splits = {split: data.rows(split) for split in ("train", "val", "test")}
    native: _Features | None = None
    for scale in tqdm(sorted(options.relative_gsd, reverse=True), desc=f"kNN {candidate.name}", leave=False):
        parts = {
            split: extract(
                candidate.extractor,
                inputs,
                rows,
                relative_gsd=scale,
                multiple=candidate.patch,
                batch_size=options.batch_size,
                device=device,
            )
            if len(rows)
            else torch.zeros(0, 1)
            for split, rows in splits.items()
        }
        features = _Features(**parts)
        native = native or features  # scales start at 1
        judge.knn("knn_query_coarse", native.train, features.test, scale)
        judge.knn("knn_both_coarse", features.train, features.test, scale)
        if options.standardised:
            judge.knn("knn_query_coarse", *standardised(native.train, features.test), scale, mode="knn_standardised")
            judge.knn("knn_both_coarse", *standardised(features.train, features.test), scale, mode="knn_standardised")
    assert native is not None
    judge.probe(native)
    judge.few_shot(native)
    return judge.rows


def standardised(bank: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both by the bank's mean and deviation per dimension.

    The vectors of a ViT share a large constant part: then all cosines are near 1, and the vote hears little of what
    differs.
    """
    deviation, mean = torch.std_mean(bank, dim=0)
    scale = deviation.clamp(min=1e-6)
    return (bank - mean) / scale, (query - mean) / scale


class _Judge:
    """Collects rows of one candidate on one data set."""

    def __init__(self, candidate: Candidate, data: TaskData, options: EvaluateParameters) -> None:
        self.rows: list[Row] = []
        self._name = candidate.name
        self._data = data
        self._options = options
        self._classes = len(data.spec.class_names)
        self._labels = {split: data.read_targets(data.rows(split)).astype(np.int64) for split in _SPLITS}
        self._places = data.samples["place"].to_numpy()[data.rows("test")]

    def knn(self, metric: str, bank: torch.Tensor, query: torch.Tensor, scale: float, *, mode: str = "knn") -> None:
        labels = torch.from_numpy(self._labels["train"])
        prediction = knn_predict(bank, labels, query, self._classes, k=self._options.k)
        self._add(mode, metric, self._score(prediction.numpy()), gsd_m=self._data.spec.gsd_m / scale)

    def probe(self, features: _Features) -> None:
        result = linear_probe(
            features.train.numpy(),
            self._labels["train"],
            features.val.numpy(),
            self._labels["val"],
            features.test.numpy(),
            c_grid=self._options.c_grid,
        )
        self._add("linear_probe", "top1", self._score(result.prediction))
        logger.info(
            "%s on %s: linear probe %.3f (C = %g)",
            self._name,
            self._data.spec.source,
            float(np.mean(result.prediction == self._labels["test"])),
            result.c,
        )

    def few_shot(self, features: _Features) -> None:
        """Probes on a few labels per class; the same draws for every candidate."""
        for shots in self._options.shots:
            for seed in range(self._options.shot_seeds):
                rows = np.concatenate(list(self._drawn(shots, self._options.seed + seed)))
                result = linear_probe(
                    features.train.numpy()[rows],
                    self._labels["train"][rows],
                    features.train.numpy()[:0],
                    self._labels["train"][:0],
                    features.test.numpy(),
                    c_grid=(1.0,),
                )
                self._add("few_shot", f"top1_{shots}_shot", self._score(result.prediction), seed=seed)

    def _drawn(self, shots: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        for label in range(self._classes):
            rows = np.flatnonzero(self._labels["train"] == label)
            yield rng.permutation(rows)[:shots]

    def _score(self, prediction: npt.NDArray[np.int64]) -> Score:
        counts = ConfusionCounts(self._labels["test"], prediction, self._places, self._classes)
        return counts.score(accuracy, self._options.bootstrap, self._options.seed)

    def _add(
        self, mode: str, metric: str, score: Score, *, gsd_m: float | None = None, seed: int | None = None
    ) -> None:
        seed = self._options.seed if seed is None else seed
        self.rows.append(score_row(self._data.spec, self._name, mode, metric, score, seed=seed, gsd_m=gsd_m))


_SPLITS = ("train", "val", "test")

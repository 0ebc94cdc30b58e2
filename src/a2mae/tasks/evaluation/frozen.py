"""Scores of frozen encoders: kNN over relative GSDs in both readings, linear probe, few-shot probes, search.

kNN is the protocol of Scale-MAE (arXiv 2212.14532): cosine, k = 20, weights exp(similarity / 0.07), top-1. The linear
probe is a logistic regression by L-BFGS on frozen features, its regularisation chosen on validation.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.evaluation.features import FeatureExtractor, extract
from a2mae.tasks.metrics.confusion import ConfusionCounts, Floats, GroupedCounts, accuracy, score_of
from a2mae.tasks.metrics.scores import score_row
from a2mae.tasks.parameters import EvaluateParameters
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)

Row = Mapping[str, object]
"""Of the score table."""
TEMPERATURE = 0.07
SEARCHED = 10
"""Hits of a search that are looked at."""
_SPLITS = ("train", "val", "test")


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    classes: int,
    *,
    k: int = 20,
    temperature: float = TEMPERATURE,
    chunk: int = 1024,
) -> Tensor:
    """Classify by a vote of the k nearest training samples.

    Args:
        train_features: `(M, D)`, any scale; normalised here.
        train_labels: `(M,)` int64.
        features: `(N, D)`.
        classes: K.
        k: Neighbours; at most M are used.
        temperature: Of the weights exp(similarity / temperature).
        chunk: Queries at a time: bounds the memory at `chunk * M` similarities.

    Returns:
        `(N,)` int64 classes.
    """
    bank = torch.nn.functional.normalize(train_features.float(), dim=1).T.contiguous()
    k = min(k, bank.shape[1])
    votes = []
    for query in torch.split(features, chunk):
        similarity = torch.nn.functional.normalize(query.float(), dim=1) @ bank
        top, index = similarity.topk(k, dim=1)
        weight = ((top - top[:, :1]) / temperature).exp()  # relative to the nearest: same vote, no overflow
        score = torch.zeros(len(query), classes, dtype=weight.dtype, device=weight.device)
        score.scatter_add_(1, train_labels[index], weight)
        votes.append(score.argmax(dim=1))
    return torch.cat(votes)


def alike(
    query: Tensor,
    bank: Tensor,
    *,
    labels: tuple[Tensor, Tensor],
    places: tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]],
    k: int = SEARCHED,
    chunk: int = 1024,
) -> Tensor:
    """Count how many of the k nearest images of other places have the class of the image that is searched with.

    Args:
        query: `(N, D)` features, standardised.
        bank: `(M, D)` features of the images that are searched.
        labels: `(N,)` and `(M,)` classes.
        places: `(N,)` and `(M,)`: images of the same place are never hits.
        k: Hits that are looked at; fewer where there are fewer images.
        chunk: Queries at a time.

    Returns:
        `(N,)` counts.
    """
    found = torch.nn.functional.normalize(bank.float(), dim=1).T.contiguous()
    k = min(k, found.shape[1])
    _, numbers = np.unique(np.concatenate(places).astype(str), return_inverse=True)
    own, others = torch.from_numpy(numbers[: len(query)]), torch.from_numpy(numbers[len(query) :])
    counts = []
    for start in range(0, len(query), chunk):
        part = slice(start, start + chunk)
        similarity = torch.nn.functional.normalize(query[part].float(), dim=1) @ found
        similarity[own[part, None] == others] = -torch.inf
        top, index = similarity.topk(k, dim=1)
        counts.append(((labels[1][index] == labels[0][part, None]) & torch.isfinite(top)).sum(dim=1))
    return torch.cat(counts)


@dataclass(frozen=True)
class ProbeResult:
    """Predictions of a linear probe.

    Attributes:
        prediction: `(N,)` classes of the test features.
        c: The inverse regularisation that scored best on validation.
        validation_accuracy: With it.
    """

    prediction: npt.NDArray[np.int64]
    c: float
    validation_accuracy: float


def linear_probe(
    train: npt.NDArray[np.float32],
    train_labels: npt.NDArray[np.int64],
    validation: npt.NDArray[np.float32],
    validation_labels: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
    *,
    c_grid: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
    max_iter: int = 200,
) -> ProbeResult:
    """Fit a linear probe on train, choose C on validation, predict test.

    Args:
        train: `(M, D)` features; standardised by their own mean and deviation.
        train_labels: `(M,)`.
        validation: `(V, D)`; with none, the middle of `c_grid` is used.
        validation_labels: `(V,)`.
        test: `(N, D)`.
        c_grid: Inverse strengths of the L2 penalty to try.
        max_iter: Of L-BFGS, per value.
    """
    scaler = StandardScaler().fit(train)
    candidates = list(c_grid) if len(validation) else [sorted(c_grid)[len(c_grid) // 2]]
    best: tuple[float, float, LogisticRegression] | None = None
    inputs = scaler.transform(train)
    for c in candidates:
        model = LogisticRegression(C=c, max_iter=max_iter)
        with warnings.catch_warnings():
            # A probe stopped by max_iter is still a probe: validation decides whether it is the best one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs, train_labels)
        accuracy = float(model.score(scaler.transform(validation), validation_labels)) if len(validation) else 0.0
        if best is None or accuracy > best[0]:
            best = (accuracy, c, model)
    assert best is not None
    accuracy, c, model = best
    return ProbeResult(model.predict(scaler.transform(test)).astype(np.int64), float(c), accuracy)


@dataclass(frozen=True)
class Candidate:
    """An encoder or baseline under evaluation.

    Attributes:
        name: Of the score table's column `model`.
        extractor: Images to vectors.
        patch: Image sides must be a multiple of it; 1 for baselines.
        parts: Equally long parts that its vectors consist of.
        readouts: Ways to read it: which of the parts. The one by which kNN is best on validation images is scored.
    """

    name: str
    extractor: FeatureExtractor
    patch: int = 1
    parts: int = 1
    readouts: Mapping[str, slice] = field(default_factory=lambda: {"all": slice(None)})


def evaluate_frozen(
    candidate: Candidate, inputs: TaskInputs, options: EvaluateParameters, device: torch.device
) -> list[Row]:
    """Score one candidate on one classification data set.

    Args:
        candidate: An encoder or baseline.
        inputs: The data, normalised for the candidate.
        options: Protocols.
        device: Where features are computed.

    Returns:
        Rows of the score table with what `paired_rows` compares candidates by.

    Raises:
        TaskDataError: If the data is not for classification.
    """
    data = inputs.data
    if data.spec.task is not Task.CLASSIFY:
        raise TaskDataError(f"evaluate needs classification data, found {data.spec.task} ({data.spec.source})")
    if data.spec.multi_label:
        raise TaskDataError(
            f"kNN and probes need one class per image; {data.spec.source!r} has several: finetune, or score on a folder"
            " per class (evaluate.folder)"
        )
    scorer = _Scorer(candidate, data, options)
    splits = {split: data.rows(split) for split in _SPLITS}
    native: dict[str, Tensor] = {}
    readout = ""
    for scale in tqdm(sorted(options.relative_gsd, reverse=True), desc=f"kNN {candidate.name}", leave=False):
        features = {
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
        if not native:  # scales start at 1
            readout = scorer.best_readout(features)
        features = {split: _read(candidate, readout, found) for split, found in features.items()}
        native = native or features
        for metric, bank in (("knn_query_coarse", native["train"]), ("knn_both_coarse", features["train"])):
            scorer.knn(metric, bank, features["test"], scale)
            if options.standardised:
                scorer.knn(metric, *standardised(bank, features["test"]), scale, mode="knn_standardised")
    scorer.probe(native)
    scorer.few_shot(native)
    scorer.search(native)
    return scorer.rows


def _read(candidate: Candidate, readout: str, features: Tensor) -> Tensor:
    """Take the parts of `(N, D)` features that a way to read the candidate consists of."""
    if candidate.parts == 1:
        return features
    return torch.unflatten(features, 1, (candidate.parts, -1))[:, candidate.readouts[readout]].flatten(1)


def standardised(bank: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise both by the bank's mean and deviation per dimension.

    The vectors of a ViT share a large constant part, which brings all cosines near 1 and drowns what differs.

    Args:
        bank: `(M, D)` training features.
        query: `(N, D)` features.
    """
    deviation, mean = torch.std_mean(bank, dim=0)
    scale = deviation.clamp(min=1e-6)
    return (bank - mean) / scale, (query - mean) / scale


class _Scorer:
    """Collects the rows of one candidate on one data set."""

    def __init__(self, candidate: Candidate, data: TaskData, options: EvaluateParameters) -> None:
        self.rows: list[Row] = []
        self._candidate = candidate
        self._name = candidate.name
        self._data = data
        self._options = options
        self._classes = len(data.spec.class_names)
        self._labels = {split: data.read_targets(data.rows(split)).astype(np.int64) for split in _SPLITS}
        self._places = data.samples["place"].to_numpy()[data.rows("test")]

    def best_readout(self, features: Mapping[str, Tensor]) -> str:
        """Choose the way to read the candidate by which kNN is best on validation images; the first of equals."""
        readouts = self._candidate.readouts
        if len(readouts) == 1 or not len(self._labels["val"]):
            return next(iter(readouts))
        labels = torch.from_numpy(self._labels["train"])
        found = {}
        for name in readouts:
            bank, query = (_read(self._candidate, name, features[split]) for split in ("train", "val"))
            if self._options.standardised:
                bank, query = standardised(bank, query)
            prediction = knn_predict(bank, labels, query, self._classes, k=self._options.k)
            found[name] = float(np.mean(prediction.numpy() == self._labels["val"]))
        best = max(found, key=lambda name: found[name])
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        logger.info("%s on %s: read %s (kNN on validation: %s)", self._name, self._data.spec.source, best, told)
        return best

    def knn(self, metric: str, bank: Tensor, query: Tensor, scale: float, *, mode: str = "knn") -> None:
        labels = torch.from_numpy(self._labels["train"])
        prediction = knn_predict(bank, labels, query, self._classes, k=self._options.k)
        self._add(mode, metric, prediction.numpy(), gsd_m=self._data.spec.gsd_m / scale)

    def probe(self, features: Mapping[str, Tensor]) -> None:
        result = linear_probe(
            features["train"].numpy(),
            self._labels["train"],
            features["val"].numpy(),
            self._labels["val"],
            features["test"].numpy(),
            c_grid=self._options.c_grid,
        )
        self._add("linear_probe", "top1", result.prediction)
        logger.info(
            "%s on %s: linear probe %.3f (C = %g)",
            self._name,
            self._data.spec.source,
            float(np.mean(result.prediction == self._labels["test"])),
            result.c,
        )

    def few_shot(self, features: Mapping[str, Tensor]) -> None:
        """Probe on a few labels per class; the draws are the same for every candidate."""
        train, labels = features["train"].numpy(), self._labels["train"]
        for shots in self._options.shots:
            for seed in range(self._options.shot_seeds):
                rows = np.concatenate(list(self._drawn(shots, self._options.seed + seed)))
                result = linear_probe(
                    train[rows], labels[rows], train[:0], labels[:0], features["test"].numpy(), c_grid=(1.0,)
                )
                self._add("few_shot", f"top1_{shots}_shot", result.prediction, seed=seed)

    def search(self, features: Mapping[str, Tensor]) -> None:
        """Search with every test image among all images of other places, as the stage `search` ranks them."""
        rows = np.concatenate([self._data.rows(split) for split in _SPLITS])
        places = self._data.samples["place"].to_numpy()[rows]
        labels = torch.from_numpy(np.concatenate([self._labels[split] for split in _SPLITS]))
        everything = torch.cat([features[split] for split in _SPLITS if len(self._labels[split])])
        bank, query = standardised(everything, features["test"])
        test = torch.from_numpy(self._labels["test"])
        hits = alike(query, bank, labels=(test, labels), places=(self._places, places))
        looked = min(SEARCHED, len(bank))
        names, group = np.unique(self._places.astype(str), return_inverse=True)
        per_place = np.stack([np.bincount(group, hits.numpy(), len(names)), np.bincount(group) * looked], axis=1)
        counts = GroupedCounts(sparse.csr_matrix(per_place.astype(np.float64)), (2,), len(hits))
        self._score("search", f"precision_at_{SEARCHED}", counts, lambda found: found[..., 0] / found[..., 1])

    def _drawn(self, shots: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        for label in range(self._classes):
            rows = np.flatnonzero(self._labels["train"] == label)
            yield rng.permutation(rows)[:shots]

    def _add(
        self,
        mode: str,
        metric: str,
        prediction: npt.NDArray[np.int64],
        *,
        gsd_m: float | None = None,
        seed: int | None = None,
    ) -> None:
        counts = ConfusionCounts(self._labels["test"], prediction, self._places, self._classes)
        self._score(mode, metric, counts, accuracy, gsd_m=gsd_m, seed=seed)

    def _score(
        self,
        mode: str,
        metric: str,
        counts: GroupedCounts,
        measure: Callable[[Floats], Floats],
        *,
        gsd_m: float | None = None,
        seed: int | None = None,
    ) -> None:
        seed = self._options.seed if seed is None else seed
        drawn = measure(counts.resampled(self._options.bootstrap, self._options.seed))
        score = score_of(float(measure(counts.matrix)), drawn, counts.n, counts.groups)
        spec = self._data.spec
        self.rows.append(score_row(spec, self._name, mode, metric, score, seed=seed, gsd_m=gsd_m, drawn=drawn))

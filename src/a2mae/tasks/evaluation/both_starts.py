"""Score a task's models from both starts beside random convolution features; its test samples as pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from a2mae.models.precision import precision_of
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import Quantity, Targets, TaskData, TaskSpec, is_labelled
from a2mae.tasks.finetune.baseline import convolution_baseline
from a2mae.tasks.finetune.calibration import calibrate
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import computing, outputs_of, predict
from a2mae.tasks.metrics.groups import scores_by_group
from a2mae.tasks.metrics.probabilities import ProbabilityCounts
from a2mae.tasks.metrics.scores import TaskScores, flat_scores, gain, probability_classes, score_task
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.transitions import changes_alone, is_changed

logger = logging.getLogger(__name__)

MOST_PAIRS = 2_000
PictureArrays = dict[str, npt.NDArray[np.generic]]


def display_bands(data: TaskData) -> list[int]:
    """Choose red, green and blue where the data has them, else its first three bands (or one, thrice)."""
    common = [band.common_name for band in data.spec.bands]
    if {"red", "green", "blue"} <= set(common):
        return [common.index(name) for name in ("red", "green", "blue")]
    return [min(i, len(common) - 1) for i in range(3)]


def pictures(
    data: TaskData, rows: npt.NDArray[np.int64], prediction: Targets, *, count: int, seed: int
) -> PictureArrays:
    """Make the arrays of `pictures.npz`.

    Args:
        data: The task data.
        rows: `(N,)` test rows.
        prediction: `(N,)`, `(N, K)` or `(N, H, W)` of the pretrained model.
        count: How many to show; drawn at random, for change only among those where something changed.
        seed: Of the draw.

    Returns:
        `image (n, H, W, 3)` uint8, or `image_before` and `image_after`; `truth` and `prediction`, `(n,)`, `(n, H, W)`
        or, with any number of classes per image, `(n, K)` of 0 and 1; `class_names`, `class_colours` `(K, 3)` uint8,
        or of values `quantity` (name, units); `sample_id`.
    """
    spec, truth = data.spec, data.read_targets(rows)
    if spec.task.kind.transitions:
        truth = changes_alone(truth.astype(np.uint8), len(spec.class_names))
    eligible = np.arange(len(rows))
    if spec.task.kind.dates == 2:
        changed = _changed(spec, truth.astype(np.uint8)).reshape(len(rows), -1).mean(axis=1)
        eligible = np.flatnonzero(changed > 0.01) if (changed > 0.01).any() else eligible
    chosen = np.sort(np.random.default_rng(seed).permutation(eligible)[:count])
    images = data.read(rows[chosen], display_bands(data))
    arrays: PictureArrays = {}
    names = ("image_before", "image_after") if data.spec.task.kind.dates == 2 else ("image",)
    for date, name in enumerate(names):
        first = date * (images.images.shape[1] // len(names))  # of image sets the labelled one
        arrays[name] = np.stack(
            [
                _stretched(image, valid)
                for image, valid in zip(images.images[:, first], images.valid[:, first], strict=True)
            ]
        )
    arrays["truth"] = truth[chosen]
    arrays["prediction"] = prediction[chosen]
    if spec.quantity is not None:
        arrays["quantity"] = np.array([spec.quantity.name, spec.quantity.units])
    else:
        arrays["class_names"] = np.array(spec.label_names)
        arrays["class_colours"] = np.array(spec.label_colors, np.uint8)
    arrays["sample_id"] = np.array(data.samples["sample_id"].to_numpy()[rows[chosen]].tolist())
    return arrays


def _changed(spec: TaskSpec, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell where labels of two dates say that something changed."""
    return is_changed(labels, len(spec.class_names)) if spec.task.kind.transitions else np.asarray(labels == 1)


def _stretched(image: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Stretch `(3, H, W)` to `(H, W, 3)` bytes, 2 to 98 % of the valid values, one stretch for the three bands."""
    seen = image[:, valid]
    low, high = np.percentile(seen, (2, 98)) if seen.size else (0.0, 1.0)
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * valid
    return np.ascontiguousarray((scaled * 255).round().astype(np.uint8).transpose(1, 2, 0))


ORIGIN = ("weights", "kind", "sha256", "licence")
"""What metrics say of weights that a task started from and this run did not pretrain."""


def value_pairs(quantity: Quantity | None, truth: Targets, prediction: Targets, *, seed: int) -> dict[str, object]:
    """Draw at most `MOST_PAIRS` labels with what was estimated there, for a scatter plot.

    Args:
        quantity: What the values are; None: labels are classes, of which there are no pairs.
        truth: `(N, ...)` values, NaN where not known.
        prediction: Likewise.
        seed: Of the draw.

    Returns:
        `quantity` and `units`, `labels` (how many there are), and `truth` and `prediction` of those drawn; or nothing.
    """
    if quantity is None:
        return {}
    known = np.flatnonzero(is_labelled(truth))
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:MOST_PAIRS])
    drawn = {
        name: [round(float(v), 4) for v in of.flat[chosen]]
        for name, of in (("truth", truth), ("prediction", prediction))
    }
    return {"quantity": quantity.name, "units": quantity.units, "labels": len(known), **drawn}


@torch.no_grad()
def answered(
    model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], device: torch.device
) -> tuple[Targets, ProbabilityCounts | None]:
    """Predict samples, and count how probable what is true was said to be.

    Args:
        model: Calibrated or not.
        inputs: The data.
        rows: `(N,)`.
        device: Where to run.

    Returns:
        Predictions as `predict` has them, and the counts; None of values.
    """
    config, spec, parts = model.config, inputs.data.spec, []
    if spec.quantity is not None:
        return predict(model, inputs, rows, batch_size=64, device=device), None
    counts = ProbabilityCounts(inputs.data.samples["place"].to_numpy()[rows], len(probability_classes(spec)))
    start = 0
    for numbers, found in outputs_of(model, inputs, rows, batch_size=64, device=device):
        probabilities = config.probabilities(found)
        answers, sure = (one.cpu().numpy() for one in config.decided(probabilities))
        samples = slice(start, start := start + len(numbers))
        truth = inputs.data.read_targets(numbers).astype(np.uint8)
        known = np.asarray(is_labelled(truth))
        scored = probabilities.cpu().numpy()
        if spec.multi_label:
            yes, known = truth == 1, np.ones(len(truth), bool)
        elif spec.task.kind.dates == 2:
            yes, scored = _changed(spec, truth)[:, None], scored[:, -1:]
        else:
            yes = truth[:, None] == np.arange(len(spec.class_names)).reshape(-1, *[1] * (truth.ndim - 1))
        if spec.task.kind.transitions:
            truth = changes_alone(truth, len(spec.class_names))
        counts.add(samples, yes, scored, known)
        counts.add_answers(samples, answers == truth, sure, np.ones(truth.shape, bool) if spec.multi_label else known)
        parts.append(answers)
    return np.concatenate(parts), counts


@dataclass(frozen=True)
class TaskResult:
    """Scores of a task's two models.

    Attributes:
        metrics: JSON-ready: what was scored, then `pretrained` and `random` with flat scores, and the `gain` of the
            first over the second, paired over places (both absent without a twin). Where labels are per pixel, also
            `rcf`, a linear head on random convolution features, and `gain_over_rcf`. `by_group` has the main metric of
            the pretrained one by year and by what `data.groups` names, the worst first; `calibration` what
            validation made of its probabilities, which classes have. `start` says which weights the
            pretrained one started from, where this run did not pretrain them.
        pictures: Test samples with the pretrained model's prediction.
        confusion: Truth against prediction, JSON-ready: counts of classes (of semantic change of transitions, and
            `classes`), truth by rows, of the pretrained one also
            `by_place`, where labels are per pixel: number of a test place, truth, prediction and count, without zeros;
            or pairs of values, see `value_pairs`.
    """

    metrics: dict[str, object]
    pictures: PictureArrays
    confusion: dict[str, object]


def score_both(options: TaskParameters, data: TaskData, models: Mapping[str, Finetuned]) -> TaskResult:
    """Score both models on the test split, as they were saved, and train and score the baseline without an encoder.

    Args:
        options: The task's parameters.
        data: Its samples.
        models: By start; random_init may be absent.
    """
    with computing(options.device, options.threads) as device:
        return _score_both(options, data, models, device)


def _score_both(
    options: TaskParameters, data: TaskData, models: Mapping[str, Finetuned], device: torch.device
) -> TaskResult:
    spec = data.spec
    rows = data.rows("test")
    scores: dict[str, TaskScores] = {}
    shown: PictureArrays = {}
    pairs: dict[str, object] = {}
    by_group: dict[str, list[dict[str, object]]] = {}
    for start, finetuned in models.items():
        finetuned.model.on(device, precision_of(options.finetune.precision, device))
        prediction, probable = answered(finetuned.model, TaskInputs(data, finetuned.plan), rows, device)
        scores[start] = score_task(
            data, rows, prediction, resamples=options.bootstrap, seed=options.seed, probable=probable
        )
        if start == "pretrained":
            by_group = scores_by_group(data, rows, prediction, resamples=options.bootstrap, seed=options.seed)
            pairs = value_pairs(spec.quantity, data.read_targets(rows), prediction, seed=options.seed)
            shown = pictures(data, rows, prediction, count=options.pictures, seed=options.seed)
    if spec.per_pixel:
        baseline, inputs = convolution_baseline(options, data, models["pretrained"].model.encoder.patch_size, device)
        calibrate(baseline, inputs, data.rows("val"), seed=options.seed, device=device)
        prediction, probable = answered(baseline, inputs, rows, device)
        scores["rcf"] = score_task(
            data, rows, prediction, resamples=options.bootstrap, seed=options.seed, probable=probable
        )
    main = next(iter(scores["pretrained"].scores))
    first = scores["pretrained"].scores[main]
    logger.info(
        "%s: %s %.3f (%.3f-%.3f) from pretrained, %d test samples of %d places",
        spec.task, main, first.value, first.low, first.high, first.n, first.groups,
    )  # fmt: skip
    origin, config = models["pretrained"].origin, models["pretrained"].model.config
    calibration = {"temperature": config.temperature, "thresholds": list(config.thresholds)}
    gains = {
        key: gain(scores["pretrained"], scores[over])
        for key, over in (("gain", "random"), ("gain_over_rcf", "rcf"))
        if over in scores
    }
    for key, over in (("gain", "random init"), ("gain_over_rcf", "a linear head on random convolution features")):
        if key in gains:
            found, other = gains[key][main], first.value - gains[key][main].value
            logger.info(
                "%s: %s %.3f of %s, difference %+.3f (%+.3f to %+.3f)",
                spec.task, main, other, over, found.value, found.low, found.high,
            )  # fmt: skip
    metrics: dict[str, object] = {
        "task": spec.task.value,
        "data": spec.source,
        "gsd_m": spec.gsd_m,
        "train_samples": len(data.rows("train")),
        "rules": list(spec.notes),
        **({} if origin is None else {"start": {key: origin[key] for key in ORIGIN}}),
        **({} if spec.quantity is None else {"quantity": spec.quantity.name, "units": spec.quantity.units}),
        **{name: found.to_dict() for name, found in scores.items()},
        **{key: flat_scores(found) for key, found in gains.items()},
        **({"by_group": by_group} if by_group else {}),
        **({} if spec.quantity is not None else {"calibration": calibration}),
    }
    confusion = pairs or {
        "class_names": list(spec.label_names),
        **({"classes": list(spec.class_names)} if spec.task.kind.transitions else {}),
        "multi_label": spec.multi_label,
        **{start: scores[start].confusion.tolist() for start in models},
    }
    if scores["pretrained"].by_place:
        confusion["by_place"] = [list(row) for row in scores["pretrained"].by_place]
    return TaskResult(metrics, shown, confusion)

"""Test samples as pictures: image, truth and prediction, for the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from a2mae.tasks.palette import class_colours
from a2mae.tasks.samples.task_data import Task, TaskData

PictureArrays = dict[str, npt.NDArray[np.generic]]


def display_bands(data: TaskData) -> list[int]:
    """Red, green and blue where the data has them, else its first three bands (or one, thrice)."""
    common = [band.common_name for band in data.spec.bands]
    if {"red", "green", "blue"} <= set(common):
        return [common.index(name) for name in ("red", "green", "blue")]
    return [min(i, len(common) - 1) for i in range(3)]


def pictures(
    data: TaskData, rows: npt.NDArray[np.int64], prediction: npt.NDArray[np.uint8], *, count: int, seed: int
) -> PictureArrays:
    """Arrays of `pictures.npz`.

    Args:
        data: The task data.
        rows: `(N,)` test rows.
        prediction: `(N,)`, `(N, K)` or `(N, H, W)` of the pretrained model.
        count: How many to show; drawn at random, for change only among those where something changed.
        seed: Of the draw.

    Returns:
        `image (n, H, W, 3)` uint8, or `image_before` and `image_after`; `truth` and `prediction`, `(n,)`, `(n, H, W)`
        or, with any number of classes per image, `(n, K)` of 0 and 1; `class_names`, `class_colours` `(K, 3)` uint8,
        `sample_id`.
    """
    truth = data.read_targets(rows)
    eligible = np.arange(len(rows))
    if data.spec.task is Task.DETECT_CHANGE:
        changed = (truth == 1).reshape(len(rows), -1).mean(axis=1)
        eligible = np.flatnonzero(changed > 0.01) if (changed > 0.01).any() else eligible
    chosen = np.sort(np.random.default_rng(seed).permutation(eligible)[:count])
    images = data.read(rows[chosen], display_bands(data))
    arrays: PictureArrays = {}
    names = ("image_before", "image_after") if data.image_shape[0] == 2 else ("image",)
    for time, name in enumerate(names):
        arrays[name] = np.stack(
            [
                _stretched(image, valid)
                for image, valid in zip(images.images[:, time], images.valid[:, time], strict=True)
            ]
        )
    arrays["truth"] = truth[chosen]
    arrays["prediction"] = prediction[chosen]
    arrays["class_names"] = np.array(data.spec.class_names)
    arrays["class_colours"] = np.array(class_colours(data.spec.colors, len(data.spec.class_names)), np.uint8)
    arrays["sample_id"] = np.array(data.samples["sample_id"].to_numpy()[rows[chosen]].tolist())
    return arrays


def _stretched(image: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """`(3, H, W)` physical → `(H, W, 3)` bytes, 2 to 98 % of the valid values, one stretch for the three bands."""
    seen = image[:, valid]
    low, high = np.percentile(seen, (2, 98)) if seen.size else (0.0, 1.0)
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * valid
    return np.ascontiguousarray((scaled * 255).round().astype(np.uint8).transpose(1, 2, 0))

"""Options, statistics and batches for the tests of frozen encoders."""

from __future__ import annotations

import torch

from a2mae.tasks.datasets.inputs import TaskBatch
from a2mae.tasks.parameters import EvaluateParameters
from helpers.task_samples import SENTINEL2

CPU = torch.device("cpu")
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
CONFIG = {"normalization": STATISTICS}
OPTIONS = EvaluateParameters(
    device="cpu", threads=1, bootstrap=100, shots=(1, 5), shot_seeds=2, relative_gsd=(0.25, 1.0)
)


def batch_of(images, gsd_m=10.0):
    count = len(images)
    return TaskBatch(images[:, None], torch.full((count,), gsd_m), None, None, torch.zeros(3), torch.zeros(count))

"""Small real task data for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.task_data import Quantity, Sample, TaskSpec
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import encode

TREES = Quantity("tree height", "m")
SENTINEL2 = BUILTIN_SENSORS["sentinel-2-l2a"]
EUROSAT_RGB = Path(__file__).parents[3] / "shared" / "data" / "eurosat_rgb"
EUROSAT_MS = Path(__file__).parents[3] / "shared" / "data" / "eurosat_ms"


def make_spec(task=Task.CLASSIFY, bands=("B04", "B03", "B02"), classes=("field", "forest", "water")):
    return TaskSpec(
        task=task,
        source="test",
        class_names=tuple(classes),
        colors=(),
        bands=SENTINEL2.subset(bands).bands,
        encoding=SENTINEL2.encoding,
        gsd_m=10.0,
        quantity=TREES if task.kind.values else None,
    )


def make_row(name, split, **values):
    row = {
        "sample_id": name,
        "split": split,
        "place": name,
        "sensor": SENTINEL2.id,
        "sensor_before": "",
        "gsd_m": 10.0,
        "lon": 11.0,
        "lat": 47.0,
        "day": 19000.0,
        "day_before": float("nan"),
        "label": -1,
    }
    return {**row, **values}


HEIGHTS_M = np.array([0.5, 18.0, 0.0], np.float32)
"""Of the plants on each of the three covers."""
REFLECTANCE = np.array([[0.09, 0.08, 0.05], [0.03, 0.05, 0.03], [0.02, 0.04, 0.06]])


def landscape(rng, size, classes=3):
    """Blocks of three covers with their own red, green and blue; stored integers and the classes."""
    cover = np.kron(rng.integers(0, classes, (size // 8, size // 8)), np.ones((8, 8), int)).astype(np.uint8)
    return seen(rng, cover), cover


def seen(rng, cover):
    physical = REFLECTANCE[cover].transpose(2, 0, 1) + rng.normal(0, 0.004, (3, *cover.shape))
    encoding = SENTINEL2.encoding
    return np.clip(np.round((physical - encoding.offset) / encoding.scale), 1, 65535).astype(np.uint16)


def split_at(index, count):
    return "train" if index < 0.6 * count else "val" if index < 0.8 * count else "test"


def make_samples(task, count=30, size=32, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        name, split = f"place-{index:03d}", split_at(index, count)
        if task is Task.CLASSIFY:
            cover = np.full((size, size), index % 3, np.uint8)
            yield Sample(
                seen(rng, cover)[None],
                np.ones((1, size, size), bool),
                np.array(index % 3, np.uint8),
                make_row(name, split, label=index % 3),
            )
        elif task is Task.SEGMENT:
            pixels, cover = landscape(rng, size)
            yield Sample(pixels[None], np.ones((1, size, size), bool), cover, make_row(name, split))
        elif task is Task.ESTIMATE:
            pixels, cover = landscape(rng, size)
            yield Sample(pixels[None], np.ones((1, size, size), bool), HEIGHTS_M[cover], make_row(name, split))
        else:
            _, cover = landscape(rng, size)
            after = cover.copy()
            row, col = rng.integers(0, size // 2, 2)
            after[row : row + size // 2, col : col + size // 2] = (cover[row, col] + 1) % 3
            pixels = np.stack([seen(rng, cover), seen(rng, after)])
            yield Sample(
                pixels,
                np.ones((2, size, size), bool),
                encode(cover, after, 3) if task.kind.transitions else (cover != after).astype(np.uint8),
                make_row(name, split, sensor_before=SENTINEL2.id, day_before=18000.0),
            )


def spec_for(task):
    if task.kind.values:
        return make_spec(task, classes=())
    return make_spec(
        task, classes=("stable", "changed") if task is Task.DETECT_CHANGE else ("field", "forest", "water")
    )

"""How a frozen encoder's tokens are best read: kNN and linear probe of one model by block and pooling.

Usage: python benchmarks/pooling.py TASK_DATA MODEL [--images 6000] [--random] [--quick]

TASK_DATA is prepared classification data (`data/05_model_input/classify`), MODEL a model directory. At native GSD, on a
drawn part of the images: so many for training, a quarter of them for test, an eighth for choosing the probe's C.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from a2mae.models.encoder import Encoder
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.evaluation.features import pooled
from a2mae.tasks.evaluation.frozen import knn_predict, linear_probe, standardised
from a2mae.tasks.finetune.encoders import load_start, pretrained_here, random_init
from a2mae.tasks.parameters import POOLS

Key = tuple[int, str]


@torch.no_grad()
def features(encoder: Encoder, inputs: TaskInputs, rows: npt.NDArray[np.int64]) -> dict[Key, torch.Tensor]:
    """Vectors of the images by block and pooling."""
    depth = len(encoder.feature_info)
    found: dict[Key, list[torch.Tensor]] = {}
    for start in range(0, len(rows), 128):
        batch = inputs.batch(rows[start : start + 128])
        seen = {"gsd_m": batch.gsd_m, "wavelength_nm": batch.wavelength_nm[:3]}
        images = batch.images[:, 0, :3]
        maps = encoder.forward_intermediates(images, [depth // 2 - 1], norm=True, **seen)
        last = encoder.forward_features(images, **seen)
        middle = maps[0].flatten(2).transpose(1, 2)
        for pool in POOLS:
            found.setdefault((depth, pool), []).append(pooled(last, pool))
            if pool != "cls":  # CLS of an inner block is not offered
                tokens = torch.cat([middle[:, :1], middle], dim=1)
                found.setdefault((depth // 2, pool), []).append(pooled(tokens, pool))
    return {key: torch.cat(parts).float() for key, parts in found.items()}


def main() -> None:
    """Print one line per block and pooling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--random", action="store_true", help="the random_init baseline instead")
    parser.add_argument("--quick", action="store_true", help="300 images at most: under a minute")
    arguments = parser.parse_args()
    images = min(arguments.images, 300) if arguments.quick else arguments.images
    data = TaskData(arguments.data)
    loaded = load_start(pretrained_here(arguments.model), data, ("red", "green", "blue"))
    encoder = random_init(loaded.encoder, 0).eval() if arguments.random else loaded.encoder
    inputs, rng = TaskInputs(data, loaded.plan), np.random.default_rng(0)
    rows = {
        split: np.sort(rng.permutation(data.rows(split))[: images // share])
        for split, share in (("train", 1), ("test", 4), ("val", 8))
    }
    truth = {split: data.read_targets(chosen).astype(np.int64) for split, chosen in rows.items()}
    vectors = {split: features(encoder, inputs, chosen) for split, chosen in rows.items()}
    labels, classes = torch.from_numpy(truth["train"]), len(data.spec.class_names)
    print(f"{data.spec.source}: {len(labels)} images to learn from, {len(truth['test'])} scored")
    best: dict[str, tuple[float, str]] = {}
    for key in vectors["train"]:
        train, test = vectors["train"][key], vectors["test"][key]
        plain = knn_predict(train, labels, test, classes).numpy()
        even = knn_predict(*_between(standardised(train, test), labels), classes).numpy()
        probe = linear_probe(
            train.numpy(),
            truth["train"],
            vectors["val"][key].numpy(),
            truth["val"],
            test.numpy(),
            c_grid=(0.01, 0.1, 1.0),
        )
        knn, knn_even, linear = (np.mean(found == truth["test"]) for found in (plain, even, probe.prediction))
        for name, accuracy in (("knn", knn), ("knn_standardised", knn_even), ("linear_probe", linear)):
            best[name] = max(best.get(name, (0.0, "")), (float(accuracy), f"{key[1]}-{key[0]}"))
        print(f"block {key[0]:2d} {key[1]:9s} kNN {knn:.3f}  standardised {knn_even:.3f}  linear probe {linear:.3f}")
    print("RESULT", " ".join(f"{name}={accuracy:.3f} {name}_by={by}" for name, (accuracy, by) in best.items()))


def _between(
    pair: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return pair[0], labels, pair[1]


if __name__ == "__main__":
    main()

"""How long the kNN protocol takes on 27,000 images: features of an encoder at every relative GSD, then the vote.

Features are timed on a sample of images and extrapolated to all of them; the vote is run at full size on features
of the right width. What is measured and what is extrapolated is said in the output.

Usage: python benchmarks/knn.py [--quick] [--size small] [--precision bf16-mixed] [--patch 8] [--images 27000]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import torch

from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskBatch
from a2mae.tasks.evaluation.features import EncoderFeatures, coarser
from a2mae.tasks.evaluation.frozen import knn_predict

SCALES = (0.125, 0.25, 0.5, 1.0)
SIDE, CLASSES, TRAIN_SHARE, VAL_SHARE = 64, 10, 0.7, 0.1


def main() -> None:
    """Time features per scale in turn, time the votes, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three batches per scale instead of ten")
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--images", type=int, default=27_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 10
    encoder = create_model(f"mae_vit_{arguments.size}_patch{arguments.patch}").encoder.eval()
    features = EncoderFeatures(encoder, pool="mean_std", bands_per_view=3, precision=arguments.precision)
    threads = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{platform.machine()} cpu torch {torch.__version__}, {threads}")
    print(f"ViT-{arguments.size}/{arguments.patch}, {arguments.images} images of {SIDE} px, {arguments.precision}")
    batch = TaskBatch(
        torch.randn(arguments.batch, 1, 3, SIDE, SIDE),
        torch.full((arguments.batch,), 10.0),
        None,
        None,
        torch.tensor([665.0, 560.0, 492.0]),
        torch.zeros(arguments.batch, dtype=torch.int64),
    )
    seconds: dict[float, list[float]] = {scale: [] for scale in SCALES}
    for scale in SCALES:
        features(coarser(batch, scale, arguments.patch))  # not timed: the first call allocates
    for _ in range(rounds):
        for scale in SCALES:
            started = time.perf_counter()
            features(coarser(batch, scale, arguments.patch))
            seconds[scale].append(time.perf_counter() - started)
    rates = {scale: arguments.batch / statistics.median(times) for scale, times in seconds.items()}
    for scale, rate in rates.items():
        print(f"features at {scale:5.3f}: {rate:7.1f} images/s")
    train, test = int(arguments.images * TRAIN_SHARE), int(arguments.images * (1 - TRAIN_SHARE - VAL_SHARE))
    bank, labels = torch.randn(train, 2 * encoder.num_features), torch.randint(0, CLASSES, (train,))
    started = time.perf_counter()
    knn_predict(bank, labels, torch.randn(test, 2 * encoder.num_features), CLASSES)
    vote = time.perf_counter() - started
    total = sum(arguments.images / rate for rate in rates.values()) + 2 * len(SCALES) * vote
    print(f"one vote of {test} against {train}: {vote:.1f} s, measured; {2 * len(SCALES)} are cast")
    print(
        f"all scales, both readings: {total / 60:.1f} min, features extrapolated from {rounds * arguments.batch} images"
    )
    print(
        f"RESULT total_min={total / 60:.2f} vote_s={vote:.2f} "
        + " ".join(f"images_per_s_{scale:g}={rate:.1f}" for scale, rate in rates.items())
    )


if __name__ == "__main__":
    main()

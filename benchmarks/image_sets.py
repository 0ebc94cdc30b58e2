"""Does an image set beat a single image? The same encoder, labels, head and recipe, other `inputs`.

Samples are windows of the simulated Earth with their land cover (segment), height of trees (estimate), and land cover
of two years (detect_transitions). Three models are finetuned from the pretrained encoder of an environment for each
task and seed:

- single: the labelled image alone, or the labelled pair;
- every: single images, too, but the other images of a training set are samples of their own with the same label;
- set: the labelled image (of a pair each) with up to five others of its year, in one sequence, joined by attention.

All are scored on the labelled images' pixels of the same test windows; differences are paired over test places.

DATA is what an environment has left: `kedro run --env=image_sets` (16 regions, six images of every place in each year).

Usage: python benchmarks/image_sets.py DATA [--quick] [--labels N] [--steps N] [--seeds N] [--join attention mean]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import torch
import yaml

from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.datasets.cuts import Truth
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.simulated import cut_simulated
from a2mae.tasks.datasets.store_samples import StoreSamples, Tables
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.finetuned import finetune_start
from a2mae.tasks.finetune.train import predict
from a2mae.tasks.metrics.scores import TaskScores, gain, score_task
from a2mae.tasks.parameters import TaskParameters

CONF = Path(__file__).parents[1] / "conf" / "base"
SENSORS = ["sentinel-2-l2a", "landsat-oli-c2-l2"]
TASKS = ("segment", "estimate", "detect_transitions")
CPU = torch.device("cpu")


def main() -> None:
    """Cut, finetune, score, and print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data_root of an environment with simulate to pretrain")
    parser.add_argument("--quick", action="store_true", help="8 steps on 32 labels: under a minute, says nothing")
    parser.add_argument("--labels", type=int, default=128, help="labelled windows to train on")
    parser.add_argument("--steps", type=int, default=120, help="of each finetuning, 8 samples each")
    parser.add_argument("--seeds", type=int, default=1, help="draws of labels and heads")
    parser.add_argument("--images", type=int, default=6, help="of a set")
    parser.add_argument("--chip-px", type=int, default=32, help="side of a window, pixels of 10 m")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--join", nargs="+", default=["attention"], choices=("attention", "mean"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.labels, arguments.steps = 32, 8
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}")
    print(f"{arguments.labels} labels, {arguments.steps} steps, sets of {arguments.images} of {', '.join(SENSORS)}\n")
    print("| task | seed | model | main metric | paired difference over single | test places | CPU s |")
    print("|---|---|---|---|---|---|---|")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in arguments.tasks:
            for seed in range(arguments.seeds):
                for name, value in Comparison(arguments, task, seed, Path(folder) / f"{task}-{seed}").run().items():
                    results[f"{task}_{name}_{seed}"] = value
    print("\nRESULT " + " ".join(f"{name}={value:.4f}" for name, value in results.items()))


class Comparison:
    """The models of one task and seed."""

    def __init__(self, arguments: argparse.Namespace, task: str, seed: int, folder: Path) -> None:
        self.arguments, self.task, self.seed = arguments, task, seed
        self.folder = folder
        root = arguments.data
        features = root / "04_feature"
        self.tables = Tables(
            ImageSetStore.open(str(root / "03_primary" / "stssd.zarr")),
            pd.read_parquet(features / "images.parquet"),
            gpd.read_parquet(features / "sets.parquet"),
            gpd.read_parquet(root / "02_intermediate" / "locations.parquet"),
        )
        self.truth = Truth(root / "01_raw" / "simulated")
        self.encoder = root / "06_models" / "pretrain"

    def options(self, images: int, join: str = "attention") -> TaskParameters:
        """The task's parameters in `conf/base`, with the labels, steps and inputs that are compared."""
        asked = yaml.safe_load((CONF / f"parameters_{self.task}.yml").read_text())[self.task]
        asked |= {"seed": self.seed, "device": "cpu", "threads": 1, "head": "rcf"}
        of_sets = {"sensors": SENSORS, "window": "per year"} if images > 1 else {}
        asked["data"]["simulated"] |= {
            "inputs": {"images": images, "join": join, **of_sets},
            "chip_px": self.arguments.chip_px, "max_train": self.arguments.labels, "max_test": 400,
            "sensors": SENSORS[:1],
        }  # fmt: skip
        asked["finetune"] |= {"mode": "full", "steps": self.arguments.steps, "batch_size": 8, "head_lr_scale": 10.0}
        asked["finetune"]["warmup_steps"] = max(self.arguments.steps // 10, 1)
        return TaskParameters.model_validate(asked)

    def run(self) -> dict[str, float]:
        """Print a row for each model.

        Returns:
            The main metric of each, and the difference of a set over a single image with its interval.
        """
        options = self.options(self.arguments.images)
        sets = cut_simulated(
            options.task, self.tables, self.truth, options.data.simulated,
            seed=self.seed, per_pixel=True,
        )  # fmt: skip
        sets = replace(sets, cuts=tuple(cut for cut in sets.cuts if cut.split != "val"))  # nothing is chosen by it
        data = {
            "single": self.written("single", singles(sets, every=False)),
            "every": self.written("every", singles(sets, every=True)),
            "set": self.written("set", sets),
        }
        models = {"single": (1, "")} | {f"set_{join}": (2, join) for join in self.arguments.join} | {"every": (1, "")}
        tested, results, single = data["single"], dict[str, float](), None
        for name, (images, join) in models.items():
            started = time.process_time()
            scores = self.scored(data["set" if images > 1 else name], self.options(images, join or "mean"), tested)
            single = single or scores
            main = next(iter(scores.scores))
            difference = gain(scores, single)[main]
            print(
                f"| {self.task} | {self.seed} | {name} | {main} {scores.scores[main].value:.3f} |"
                f" {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] |"
                f" {difference.groups} | {time.process_time() - started:.0f} |",
                flush=True,
            )
            results |= {name: scores.scores[main].value, f"{name}_gain_low": difference.low}
        return results

    def scored(self, data: TaskData, options: TaskParameters, tested: TaskData) -> TaskScores:
        """Finetune, and score the test windows by the labels of the single images."""
        run = finetune_start(options, data, self.encoder, "pretrained")
        rows, of_test = data.rows("test"), tested.rows("test")
        found = predict(
            run.finetuned.model, TaskInputs(data, run.finetuned.plan), rows, batch_size=64, device=CPU
        )  # fmt: skip
        assert len(rows) == len(of_test), "the same windows"
        return score_task(tested, of_test, found, resamples=1000, seed=0)

    def written(self, name: str, source: StoreSamples) -> TaskData:
        """Write samples with labels where the labelled image (both of a pair) shows the ground, and open them."""
        unknown, dates = source.spec.unlabelled, source.spec.task.kind.dates
        samples = (
            replace(
                sample, target=np.where(sample.valid[:: len(sample.valid) // dates].all(axis=0), sample.target, unknown)
            )
            for sample in source.samples()
        )
        write_task_data(self.folder / name, source.spec, samples)
        return TaskData(self.folder / name)


def singles(sets: StoreSamples, *, every: bool) -> StoreSamples:
    """Make single images of sets, or pairs: the labelled ones, or in training every image with the set's label."""
    cuts = [
        replace(cut, images=images, others=())
        for cut in sets.cuts
        for images in (zip(*cut.sets, strict=False) if every and cut.split == "train" else (cut.images,))
    ]
    return replace(sets, spec=replace(sets.spec, set_sensors=()), cuts=tuple(cuts))


if __name__ == "__main__":
    main()

"""What does a longer run of ours on other regions give a new one, as its start or as its teacher?

The regions of an environment's image sets are dealt in two: a longer run is trained on one half. On the other half two
runs of equal length follow, by the same recipe and on the same samples in the same order: one from random weights, one
from the longer run (`pretrain.start`, decoder included). Both are measured on held-out places of the second half. The
bar is the fresh run's loss at its end: the started run should have it in at most half the steps.

With `--teacher` a third run follows, from random weights with the longer run's features of the anchor as an added
target (`pretrain.teacher`). It is judged by the same held-out loss, which is of the pixels alone, and all of them by
the land cover of places that nobody has seen (`classify`'s data in DATA): kNN and a linear probe on frozen features.

DATA is what `tag` and `prune` of an environment have left, for example of `kedro run --env=many_places
--pipelines=simulate,ingest,coregister,tag,prune` (at least two regions, one with places held out).

Usage: python benchmarks/started.py DATA WORK [--quick] [--teacher] [--longer N] [--steps N] [--sets N] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import geopandas as gpd
import pandas as pd
import torch
import yaml

from a2mae.pipelines.pretrain import bands_by_sensor, build_run_index, build_spec
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.evaluation.evaluate import frozen_rows
from a2mae.tasks.parameters import EvaluateParameters
from a2mae.training.launch import launch
from a2mae.training.monitor import HELD_OUT_LOSS, METRICS_FILE
from a2mae.training.parameters import PretrainParameters

CONF = Path(__file__).parents[1] / "conf" / "base"
POINTS = 10
"""Measurements of the held-out loss in a run: steps are told to 1 in so many."""


def main() -> None:
    """Train, print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data_root of an environment, tagged and pruned")
    parser.add_argument("work", type=Path, help="folder of the runs; a finished one is not trained again")
    parser.add_argument("--quick", action="store_true", help="60 steps, then 20 each: under a minute, says little")
    parser.add_argument(
        "--teacher", action="store_true", help="also learn from the longer run, and judge by land cover"
    )
    parser.add_argument("--longer", type=int, default=2000, help="steps of the longer run")
    parser.add_argument("--steps", type=int, default=500, help="steps of the fresh and of the started run")
    parser.add_argument("--sets", type=int, default=16, help="image sets per step")
    parser.add_argument("--seeds", type=int, default=1, help="pairs of a fresh and a started run")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the training processes
    longer, steps = (60, 20) if arguments.quick else (arguments.longer, arguments.steps)
    data = Data(arguments.data)
    elsewhere, here = data.halves()
    print(
        f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}; {len(elsewhere)} sets of"
        f" other regions, {len(here)} here ({(here['split'] == 'val').sum()} held out), {arguments.sets} per step"
    )
    size = arguments.sets
    first = data.run(arguments.work / "longer", elsewhere, steps=longer, sets_per_step=size, seed=0, measured=0)
    arms: dict[str, dict[str, Path]] = {"fresh": {}, "started": {"start": first}}
    if arguments.teacher:
        arms["taught"] = {"teacher": first}
    print(f"longer run: {longer} steps\n\n| seed | run of {steps} steps | held-out loss | steps to fresh's |", end="")
    print(" kNN | probe |\n|---|---|---|---|---|---|" if arguments.teacher else "\n|---|---|---|---|")
    shares: dict[str, list[float]] = {name: [] for name in arms}
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for seed in range(1, arguments.seeds + 1):
        bar = float("inf")
        for name, given in arms.items():
            model = data.run(
                arguments.work / f"{name}-{seed}", here, steps=steps, sets_per_step=size, seed=seed,
                measured=max(steps // POINTS, 1), **given,
            )  # fmt: skip
            found = losses(model)
            bar = found.iloc[-1] if name == "fresh" else bar
            reached = found[found <= bar]
            needed = int(reached.index[0]) if len(reached) else None
            shares[name].append(float("inf") if needed is None else needed / steps)
            line = f"| {seed} | {name} | {found.iloc[-1]:.4f} | {'not reached' if needed is None else needed} |"
            if arguments.teacher:
                scores[name].append(data.land_cover(model))
                line += " {:.3f} | {:.3f} |".format(*scores[name][-1])
            print(line, flush=True)
    if arguments.teacher:
        print("| | longer run | | | {:.3f} | {:.3f} |".format(*data.land_cover(first)))
    result = {f"share_of_steps_{name}": max(shares[name]) for name in arms if name != "fresh"}
    for number, judge in enumerate(("knn", "probe")):
        if arguments.teacher:
            gain = pd.Series([t[number] - f[number] for t, f in zip(scores["taught"], scores["fresh"], strict=True)])
            result |= {f"taught_{judge}_gain": gain.mean(), f"taught_{judge}_least": gain.min()}
    print(f"\nRESULT longer={longer} steps={steps} " + " ".join(f"{key}={value:.3f}" for key, value in result.items()))


def losses(model: Path) -> pd.Series:
    """Read the held-out loss of a run over its steps."""
    rows = pd.read_csv(model / "run" / METRICS_FILE).set_index("step")[HELD_OUT_LOSS].dropna()
    return rows


class Data:
    """What the stages before `pretrain` have left."""

    def __init__(self, root: Path) -> None:
        features = root / "04_feature"
        self.images = pd.read_parquet(features / "images.parquet")
        self.sets = gpd.read_parquet(features / "pruned_sets.parquet")
        self.statistics = json.loads((features / "band_statistics.json").read_text())
        self.store = ImageSetStore.open(str(root / "03_primary" / "stssd.zarr"))
        self.classify = root / "05_model_input" / "classify"

    def halves(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Deal the regions (places within a degree or so) in turn, those with places held out first."""
        region = (
            self.sets["lon"].round().astype(int).astype(str) + "," + self.sets["lat"].round().astype(int).astype(str)
        )
        kept = self.sets[self.sets["kept"] & self.sets["split"].isin(["train", "val"])]
        held_out = (kept["split"] == "val").groupby(region).any()
        order = sorted(held_out.index, key=lambda name: (not held_out[name], name))
        here = set(order[::2])
        chosen = region.loc[kept.index].isin(here)
        return kept[~chosen], kept[chosen]

    def run(
        self, folder: Path, sets: pd.DataFrame, *, steps: int, sets_per_step: int, seed: int, measured: int,
        start: Path | None = None, teacher: Path | None = None,
    ) -> Path:  # fmt: skip
        """Train on some sets by the demo's recipe, or find it done.

        Returns:
            The model directory.
        """
        base = yaml.safe_load((CONF / "parameters_pretrain.yml").read_text())["pretrain"]
        base |= {"seed": seed, "start": None if start is None else {"weights": str(start), "decoder": "same"}}
        if teacher is not None:
            base["teacher"] = {"file": str(teacher)}
        base["optimizer"] |= {"steps": steps, "epochs": None, "batch_size": sets_per_step}
        base["hardware"] |= {"threads": 1, "accelerator": "cpu"}
        base["logging"] |= {
            "interval": measured or 50, "monitor_interval": measured, "reconstructions": 0, "wandb_project": None,
        }  # fmt: skip
        parameters = PretrainParameters.model_validate(base)
        folder.mkdir(parents=True, exist_ok=True)
        sensors, index = build_run_index(self.images, sets, bands_by_sensor(self.store))
        spec = build_spec(
            sensors, index, band_statistics=self.statistics, store=self.store, run_dir=folder, parameters=parameters
        )
        spec.write(folder)
        return launch(folder)

    def land_cover(self, model: Path) -> tuple[float, float]:
        """Score frozen features on `classify`'s test places: kNN at the native GSD, and a linear probe."""
        base = yaml.safe_load((CONF / "parameters_evaluate.yml").read_text())["evaluate"]
        changed = {"threads": 1, "device": "cpu", "relative_gsd": [1.0], "shots": [], "bootstrap": 100}
        options = EvaluateParameters.model_validate(base | changed)
        rows = pd.DataFrame(frozen_rows("model", "", model, TaskData(self.classify), options))
        knn, probe = (float(rows.loc[rows["mode"] == mode, "value"].iloc[0]) for mode in ("knn", "linear_probe"))
        return knn, probe


if __name__ == "__main__":
    main()

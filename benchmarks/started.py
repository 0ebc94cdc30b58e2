"""How many steps does a start save? Steps to a loss from a longer run of ours on other regions, and from nothing.

The regions of an environment's image sets are dealt in two: a longer run is trained on one half. On the other half two
runs of equal length follow, by the same recipe and on the same samples in the same order: one from random weights, one
from the longer run (`pretrain.start`, decoder included). Both are measured on held-out places of the second half. The
bar is the fresh run's loss at its end: the started run should have it in at most half the steps.

DATA is what `tag` and `prune` of an environment have left, for example of `kedro run --env=many_places
--pipelines=simulate,ingest,coregister,tag,prune` (at least two regions, one with places held out).

Usage: python benchmarks/started.py DATA WORK [--quick] [--longer N] [--steps N] [--sets N] [--seeds N]
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
from a2mae.training.launch import launch
from a2mae.training.monitor import HELD_OUT_LOSS, METRICS_FILE
from a2mae.training.parameters import PretrainParameters

CONF = Path(__file__).parents[1] / "conf" / "base" / "parameters_pretrain.yml"
POINTS = 10
"""Measurements of the held-out loss in a run: steps are told to 1 in so many."""


def main() -> None:
    """Train, print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data_root of an environment, tagged and pruned")
    parser.add_argument("work", type=Path, help="folder of the runs; a finished one is not trained again")
    parser.add_argument("--quick", action="store_true", help="60 steps, then 20 each: under a minute, says little")
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
    print(f"longer run: {longer} steps\n\n| seed | fresh, {steps} steps | started, as many | steps to fresh's loss |")
    print("|---|---|---|---|")
    shares = []
    for seed in range(1, arguments.seeds + 1):
        fresh, started = (
            data.run(
                arguments.work / f"{name}-{seed}", here, steps=steps, sets_per_step=size, seed=seed,
                measured=max(steps // POINTS, 1), start=start,
            )
            for name, start in (("fresh", None), ("started", first))
        )  # fmt: skip
        before, after = losses(fresh), losses(started)
        bar = before.iloc[-1]
        reached = after[after <= bar]
        needed = int(reached.index[0]) if len(reached) else None
        shares.append(float("inf") if needed is None else needed / steps)
        print(f"| {seed} | {bar:.4f} | {after.iloc[-1]:.4f} | {'not reached' if needed is None else needed} |")
    print(f"\nRESULT longer={longer} steps={steps} share_of_steps={max(shares):.3f}")


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
        start: Path | None = None,
    ) -> Path:  # fmt: skip
        """Train on some sets by the demo's recipe, or find it done.

        Returns:
            The model directory.
        """
        base = yaml.safe_load(CONF.read_text())["pretrain"]
        base |= {"seed": seed, "start": None if start is None else {"weights": str(start), "decoder": "same"}}
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


if __name__ == "__main__":
    main()

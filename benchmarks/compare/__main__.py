"""Pretraining methods on the same data, encoder size, tokens and steps, within a budget of hours.

Pretrains MAE, Scale-MAE and A²-MAE (masking rules, encodings) with several seeds, scores each by kNN over GSDs, linear
probe, segmentation and change, and writes the table. Stopped, it goes on where it was; with a larger budget, too.

Usage, from the root of a checkout:

    python -m benchmarks.compare benchmarks/compare/simulated.yml --params=compare.budget_h=4
    python -m benchmarks.compare benchmarks/compare/eurosat.yml --params=compare.folder=PATH
    python -m benchmarks.compare --quick

A settings file names a Kedro environment, whose image sets and task data are made where they are missing, and holds the
group `compare` and what differs from the environment's other groups. `--quick` compares on pictures that it makes.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io.core import CatalogProtocol
from omegaconf import OmegaConf
from PIL import Image

from benchmarks.compare.run import compare
from benchmarks.compare.settings import Settings
from benchmarks.compare.sources import Built

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TASKS = ("classify", "segment", "detect_change")
STAGES = ("simulate", "ingest", "coregister", "tag", "prune", *TASKS)
TABLES = ("images", "pruned_sets", "band_statistics", "image_sets")


def main() -> None:
    """Read the settings, make what is missing, compare, and print one line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="?", type=Path, default=HERE / "simulated.yml", help="a YAML file")
    parser.add_argument("--params", default="", help="KEY=VALUE,... over the settings, as `kedro run` takes them")
    parser.add_argument("--out", type=Path, help="where the work is kept; default: data/comparison/<settings>")
    parser.add_argument("--quick", action="store_true", help="one small MAE on made-up pictures: under a minute")
    arguments = parser.parse_args()
    changes = [change for change in arguments.params.split(",") if change]
    print(f"{platform.machine()} {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    if arguments.quick:
        with tempfile.TemporaryDirectory() as scratch:
            pictures = two_classes(Path(scratch) / "pictures")
            run(HERE / "quick.yml", [f"compare.folder={pictures}", *changes], Path(scratch) / "work")
    else:
        run(arguments.settings, changes, arguments.out or ROOT / "data" / "comparison" / arguments.settings.stem)


def run(path: Path, changes: Sequence[str], folder: Path) -> None:
    """Compare as a settings file says.

    Args:
        path: The file.
        changes: `group.key=value` over it.
        folder: Where the work is kept.
    """
    shown: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(changes))))
    environment, own = shown.pop("environment"), shown.pop("compare")
    bootstrap_project(ROOT)
    with KedroSession.create(project_path=ROOT, env=environment, runtime_params=shown, save_on_close=False) as session:
        assert isinstance(session, KedroSession)
        context = session.load_context()
        settings = Settings.from_groups({**context.config_loader["parameters"], "compare": own})
        built = made(session, context.catalog) if settings.compare.contenders else None
        found = compare(settings, built, folder)
    print((folder / "comparison.md").read_text("utf-8"))
    print(f"RESULT judgements={found.done} planned={found.planned} spent_h={found.spent_h:.3f} rows={len(found.table)}")


def made(session: KedroSession, catalog: CatalogProtocol[Any, Any]) -> Built:
    """Run the stages whose outputs are missing, and read what a comparison needs of them.

    Args:
        session: Of the environment; it is used up.
        catalog: Its datasets.
    """
    data = {task: f"{task}.data" for task in TASKS}
    session.run(pipeline_names=list(STAGES), to_outputs=[*TABLES, *data.values()], only_missing_outputs=True)
    images, pruned_sets, band_statistics, store = (catalog[name].load() for name in TABLES)
    return Built(
        images, pruned_sets, band_statistics, store, {task: catalog[name].load() for task, name in data.items()}
    )


def two_classes(folder: Path, count: int = 60) -> Path:
    """Write noisy dark and light pictures of 16 x 16 pixels that anything can tell apart.

    Args:
        folder: Gets `dark/` and `light/`.
        count: Of each.
    """
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 10, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number}.png")
    return folder


if __name__ == "__main__":
    main()

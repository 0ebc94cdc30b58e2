"""The work of a comparison: judgements in a fixed order, within a budget of hours, continued at any time.

A judgement scores one contender with one seed by one judge; its contender is pretrained first. What was found is kept,
so a second start does only what is missing, and a changed option is judged anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from a2mae.files import digest_of, json_text, write_json
from a2mae.remote.storage import Parts
from a2mae.tasks.metrics.scores import paired_rows, score_table
from benchmarks.compare.judges import Contender, Judge

logger = logging.getLogger(__name__)


class Budget:
    """Hours that may be spent, over every start; what was spent stands in a file."""

    def __init__(self, path: Path, hours: float) -> None:
        self._path = path
        self._seconds = hours * 3600
        self.spent_s: float = json.loads(path.read_text())["spent_s"] if path.is_file() else 0.0

    @property
    def exhausted(self) -> bool:
        """Tell whether nothing is left."""
        return self.spent_s >= self._seconds

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside, also that of work which failed or was stopped."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent_s += time.monotonic() - started
            write_json(self._path, {"spent_s": round(self.spent_s, 1)})


@dataclass(frozen=True)
class Comparison:
    """What was found so far.

    Attributes:
        table: Scores in the form of the score table.
        done: Judgements made.
        planned: Judgements in all.
        other_code: How many of those made stem from code that is not this one.
        spent_h: Hours, over every start.
    """

    table: pd.DataFrame
    done: int
    planned: int
    other_code: int
    spent_h: float


def run_comparison(
    kept: Parts,
    contenders: Sequence[Contender],
    judges: Sequence[Judge],
    train: Callable[[Contender], Path],
    budget: Budget,
) -> Comparison:
    """Do what is missing until all is done or the budget is spent.

    Args:
        kept: Judgements made before, and room for more.
        contenders: In the order of work; an untrained one names the trained one that it is like.
        judges: In the order of work.
        train: Pretrains a contender, or finds it pretrained, and returns its model directory.
        budget: Checked before every unit; a unit once begun is finished.
    """
    units = [(contender, judge) for contender in contenders for judge in judges if judge.judges(contender)]
    models: dict[Contender, Path] = {}
    trained: dict[str, Contender] = {}
    for contender in contenders:
        if contender.kind == "trained":
            trained.setdefault(contender.name, contender)
    for number, (contender, judge) in enumerate(units, start=1):
        if _is_made(kept, contender, judge):
            continue
        if budget.exhausted:
            logger.warning(
                "the budget is spent (%.2f h): %d of %d judgements are made; raise compare.budget_h to go on",
                budget.spent_s / 3600,
                sum(_is_made(kept, *unit) for unit in units),
                len(units),
            )
            break
        with budget.spending():
            like = contender if contender.kind == "trained" else trained[contender.like]
            if like not in models:
                models[like] = train(like)
            logger.info("%d of %d: %s, seed %d, %s", number, len(units), contender.name, contender.seed, judge.name)
            rows = [
                {**row, "model": contender.name, "seed": contender.seed} for row in judge.score(contender, models[like])
            ]
            kept.put(_key(contender, judge), json_text(rows).encode())
    made = [_key(*unit) for unit in units if _is_made(kept, *unit)]
    other = sum(kept.get(key) is None for key in made)
    if other:
        logger.warning(
            "%d of %d judgements were made by other code; delete %s to make all anew", other, len(made), kept.folder.url
        )
    rows = [row for key in made for row in json.loads(kept.get(key, of_any=True) or b"[]")]
    for name, contender in trained.items():
        for over in dict.fromkeys((contender.twin, "rcf", next(iter(trained)))):
            rows += paired_rows(rows, name, over) if over != name else []
    table = score_table(rows)
    return Comparison(table, len(made), len(units), other, budget.spent_s / 3600)


def _is_made(kept: Parts, contender: Contender, judge: Judge) -> bool:
    """Tell whether a judgement is kept, by whatever code it was made."""
    return kept.get(_key(contender, judge), of_any=True) is not None


def _key(contender: Contender, judge: Judge) -> str:
    return digest_of([contender.name, contender.kind, contender.seed, contender.settings, judge.settings])


def steps_within(
    budget_s: float, seconds_per_step: Mapping[str, float], runs: Mapping[str, int], start_s: float
) -> int:
    """Steps that every run may take so that all of them together keep a budget.

    Args:
        budget_s: For all runs, seconds.
        seconds_per_step: By method.
        runs: How many runs of each method.
        start_s: What every run costs besides its steps, seconds.
    """
    left = budget_s - start_s * sum(runs.values())
    return max(int(left / sum(runs[method] * seconds_per_step[method] for method in runs)), 0)

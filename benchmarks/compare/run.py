"""A comparison from its settings to its table: contenders and judges are put together, and what is missing is done."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from a2mae.files import write_bytes, write_json
from a2mae.provenance.code import code_digest
from a2mae.remote.storage import Folder, Parts
from a2mae.tasks.datasets.class_folders import class_folder
from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.evaluation.evaluate import summarise
from benchmarks.compare.comparison import Budget, Comparison, run_comparison
from benchmarks.compare.findings import comparison_markdown, draw_scale_curves, write_between_marks
from benchmarks.compare.judges import Contender, FinetuneJudge, FrozenJudge, FrozenTaskJudge, Judge
from benchmarks.compare.settings import CompareParameters, Settings
from benchmarks.compare.sources import Built, Source, source_of_pictures, source_of_sets
from benchmarks.compare.trainer import Trainer

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent


def compare(settings: Settings, built: Built | None, folder: Path) -> Comparison:
    """Pretrain every contender on the image sets and on the folder of pictures, and judge all of them alike.

    The scores go to `scores.parquet`, the tables to `comparison.md` and, once all judgements are made, also between the
    marks of the document that the settings name.

    Args:
        settings: What meets what, and all recipes.
        built: What the environment's stages have made; None where the settings have no contender for image sets.
        folder: Where the comparison keeps its work; a stopped one goes on.

    Returns:
        What was found so far.
    """
    options = settings.compare
    budget = Budget(folder / "budget.json", options.budget_h)
    with budget.spending():
        sources, judges = _sources_and_judges(settings, built, folder)
        trainer = Trainer(options, settings.pretrain, sources, folder)
    contenders: list[Contender] = []
    for number, seed in enumerate(options.seeds):  # all of them at one seed before the next: a stop leaves whole rows
        trained = [trainer.contender(name, seed) for name, _, _ in trainer.entries]
        contenders += trained
        twins = {one.twin: one.name for one in reversed(trained)}  # like the first that has it
        contenders += [
            Contender(twin, "random", seed, trainer.architecture(like), like=like) for twin, like in twins.items()
        ]
        if number == 0:
            contenders += [Contender(name, name, seed, like=trained[0].name) for name in options.baselines]
    found = run_comparison(Parts(Folder(str(folder / "units")), _code()), contenders, judges, trainer.train, budget)
    facts = [f"{trainer.described()} The budget was {options.budget_h:g} h."]
    _write(found, list(dict.fromkeys(contender.name for contender in contenders)), facts, options, folder)
    write_json(folder / "summary.json", _summary(found, trainer.steps, options))
    logger.info("comparison: %d of %d judgements, %.2f h spent", found.done, found.planned, found.spent_h)
    return found


def _sources_and_judges(settings: Settings, built: Built | None, folder: Path) -> tuple[list[Source], list[Judge]]:
    options = settings.compare
    sources: list[Source] = []
    judges: list[Judge] = []
    if built is not None:
        sources.append(source_of_sets(built))
        judges.append(FrozenJudge(built.tasks["classify"], settings.evaluate))
        recipes = {"segment": settings.segment, "detect_change": settings.detect_change}
        judges += [FinetuneJudge(built.tasks[task], recipes[task], folder / task) for task in options.tasks]
        judges += [
            FrozenTaskJudge(built.tasks[task], recipes[task], folder / task, head)
            for head in options.frozen
            for task in options.tasks
        ]
    if options.folder is not None:
        data = _folder_data(options, folder)
        sources.append(source_of_pictures(options, data.spec.source, folder / "data" / f"{data.spec.source}.zarr"))
        judges.insert(len(judges) and 1, FrozenJudge(data, settings.evaluate))
        if options.finetune_folder:
            judges.append(FinetuneJudge(data, settings.classify, folder / "classify"))
    return sources, judges


def _folder_data(options: CompareParameters, folder: Path) -> TaskData:
    """The folder's samples as task data, written once."""
    source = class_folder(
        Path(str(options.folder)), layout_named(options.format, group="compare"), max_files=options.folder_samples
    )
    path = folder / "data" / f"{source.spec.source}-{options.folder_samples or 'all'}"
    if not (path / "task.json").is_file():
        write_source(path, source)
    return TaskData(path)


def _code() -> str:
    """Digest of the code that pretrains and judges."""
    digest = hashlib.sha256()
    for module in ("a2mae.pipelines.pretrain", "a2mae.tasks.evaluation.evaluate", "a2mae.tasks.finetune.train"):
        digest.update(code_digest(module).encode())
    for file in sorted(_HERE.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _write(found: Comparison, order: list[str], facts: list[str], options: CompareParameters, folder: Path) -> None:
    found.table.to_parquet(folder / "scores.parquet")
    curves = draw_scale_curves(found.table, order) if len(found.table) else None
    markdown = comparison_markdown(found, order, facts, curves=_figure(options) if curves else None)
    write_bytes(folder / "comparison.md", markdown.encode())
    if curves is not None:
        write_bytes(folder / _figure(options), curves)
    if options.document is not None and found.done == found.planned:
        if curves is not None:
            write_bytes(Path(options.document).parent / _figure(options), curves)
        write_between_marks(Path(options.document), markdown, options.mark)


def _figure(options: CompareParameters) -> str:
    """Path of kNN over GSD, from the folder of the document that shows it."""
    return f"figures/{options.mark}_gsd.svg"


def _summary(found: Comparison, steps: int, options: CompareParameters) -> dict[str, object]:
    return {
        "judgements": found.done,
        "judgements_planned": found.planned,
        "steps": steps,
        "seeds": list(options.seeds),
        "scores": summarise(found.table) if len(found.table) else {},
    }

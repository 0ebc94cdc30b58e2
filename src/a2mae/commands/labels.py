"""`a2mae labels PATH`: from labels of one's own to the parameters of a task, and what each split gets of them."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2mae.commands.project import check_pipeline, local_path
from a2mae.config import TO_STATE
from a2mae.errors import InputError, plural
from a2mae.files import make_folder, whole_file
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    from kedro.config import OmegaConfigLoader
    from kedro.io import DataCatalog

    from a2mae.stssd.recognise.facts import Fact
    from a2mae.tasks.parameters import TaskParameters
    from a2mae.tasks.recognise.facts import Archive
    from a2mae.tasks.recognise.look import Look

_EXAMPLES = """\
for example:
  a2mae labels ~/fields.gpkg --env lake
  a2mae labels ~/trees.csv --env lake --task classify"""
_LISTS = ("bands", "data.class_names", "data.file_bands", "data.archive.sensors", "data.archive.bands")
_NUMBERS = ("data.buffer_m", "data.gsd_m", "data.offset")
_BUILT = ("image_sets", "images", "sets", "locations")
_READ = ("scenes", "sensors", *_BUILT)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `labels` to the commands of `a2mae`."""
    about = "look at labels, lay them on the archive, and write the parameters of the task that learns them"
    parser = commands.add_parser(
        "labels",
        help=about,
        description=about,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", type=local_path, help="vector file, .csv of points, raster of classes or values, or a folder"
    )
    parser.add_argument("--env", default="mine", help="the environment that they belong to (%(default)s)")
    parser.add_argument("--task", choices=[str(task) for task in Task], help="what is learned; else as the labels say")
    parser.add_argument(
        "--yes", action="store_true", help=f"ask nothing: what the labels do not say is marked {TO_STATE}"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_pipeline()
    if not options.yes and not sys.stdin.isatty():
        raise InputError("there is no terminal to ask at: add --yes, and what the labels do not say is marked")
    from a2mae.commands.dialogue import say, show_facts  # noqa: PLC0415 (GDAL takes a second to import)
    from a2mae.commands.environment import differences  # noqa: PLC0415
    from a2mae.commands.project import configuration, find_project  # noqa: PLC0415
    from a2mae.tasks.recognise.facts import holds, propose_facts  # noqa: PLC0415
    from a2mae.tasks.recognise.look import look_at  # noqa: PLC0415

    project = find_project(Path.cwd())
    if project is None:
        raise InputError(f"{Path.cwd()} lies in no project: a2mae init PATH, with a folder of scenes, makes one")
    folder = project / "conf" / options.env
    loader, catalog = configuration(project, options.env, _READ)
    look = look_at(options.path)
    say(f"{look.path}: {' of '.join(filter(None, (look.kind.value, look.geometry)))}, {_counted(look)}")
    if look.kind.on_archive and not look.days:
        look = dataclasses.replace(
            look, days="nothing says when they hold (columns start, end): they count at every date"
        )
    folders = holds(look.columns["folders"]) if "folders" in look.columns else ""
    for line in filter(None, (folders, look.crs, look.days, *look.notes)):
        say(f"  {line}")
    if look.kind.on_archive:
        say(f"  {_overlap(look, catalog, options.env)}")
    archive = _archive(loader["parameters"], catalog)
    stated: dict[str, object] = {} if options.task is None else {"task": options.task}
    stated = _stated_before(look, stated, archive, folder)
    say()
    show_facts(propose_facts(look, stated, archive))
    if not options.yes:
        stated = _ask(look, stated, archive)
    facts = propose_facts(look, stated, archive)
    if not facts["task"].known:
        raise InputError(f"{facts['task'].evidence}: say which, --task {facts['task'].suggestion} for example")
    task = Task(str(facts["task"].value))
    name = f"parameters_{task}.yml"
    text = _text(look, task, facts)
    to_state = [key for key, fact in facts.items() if not fact.known]
    there, run = (folder / name).is_file(), f"kedro run --env={options.env} --pipelines="
    completes = there and _completes(text, folder / name, task)
    if there and not completes:
        _compare(differences({name: text}, folder), folder / name)
    else:
        make_folder(folder)
        with whole_file(folder / name) as partial_file:
            partial_file.write_text(text, encoding="utf-8")
        say(f"\n{'completed' if completes else 'wrote'} {(folder / name).relative_to(project).as_posix()}")
    command = f"{run}{task}"
    if look.kind.on_archive and not catalog.exists("locations"):
        others = ", ".join(key for key in to_state if not key.startswith("data.archive."))
        say(f"next: {f'state {others} in place of {TO_STATE}; ' if others else ''}make the archive,")
        say(f"  {run}ingest,coregister,tag,prune")
        say("  then give this command again: it says where the labels lie, completes the file and counts the samples")
        return
    if to_state:
        say(f"{plural(len(to_state), 'line')} of it to be stated in place of {TO_STATE}: {', '.join(to_state)}")
        again = f"a2mae labels {shlex.quote(str(options.path))} --env {options.env}"
        say(f"next: state them; {again} then counts the samples;\n  {command}")
        return
    _count(task, *configuration(project, options.env, _READ), on_archive=look.kind.on_archive)
    say(f"next: {command}")
    say(f"  for its page in the report put {task} into the chain of conf/{options.env}/parameters_chain.yml")


def _counted(look: Look) -> str:
    noun = {"raster": "pixel", "features": "feature"}.get(look.kind.value, "picture")
    return plural(look.count, noun)


def _overlap(look: Look, catalog: DataCatalog, env: str) -> str:
    from a2mae.tasks.recognise.overlap import on_places  # noqa: PLC0415

    if not catalog.exists("locations"):
        return f"environment {env} has no archive yet: where they lie on it, and what each split gets, is not known"
    return on_places(look, catalog.load("locations"))


def _archive(groups: Mapping[str, Any], catalog: DataCatalog) -> Archive:
    """What the environment has seen: its images where the sets are built, else its scenes."""
    from a2mae.scenes import sensors_from_json  # noqa: PLC0415
    from a2mae.tasks.recognise.facts import Archive  # noqa: PLC0415

    sampling = groups["pretrain"]["sampling"]
    at_once = {"rgb": 3, "draw": sampling.get("bands_drawn", 3)}.get(sampling.get("bands", "draw"))
    if groups["pretrain"].get("model", {}).get("options", {}).get("bands") == "wavelength":
        at_once = None
    if not (catalog.exists("scenes") and catalog.exists("sensors")):
        return Archive(bands_at_once=at_once)
    sensors = sensors_from_json(catalog.load("sensors"))
    if catalog.exists("images"):
        counts = catalog.load("images").drop_duplicates(["location_id", "sensor", "scene_id"])["sensor"].value_counts()
    else:
        scenes = catalog.load("scenes")
        counts = scenes[scenes["status"] == "accepted"]["sensor"].value_counts()
    seen = tuple((sensors[name], int(count)) for name, count in counts.items() if name in sensors)
    return Archive(seen, float(groups["ingest"]["locations"]["footprint_m"]), at_once)


def _stated_before(look: Look, stated: dict[str, object], archive: Archive, folder: Path) -> dict[str, object]:
    """Fill what the labels do not say with what the environment's file of the task says of these labels."""
    from a2mae.commands.environment import read_group  # noqa: PLC0415
    from a2mae.tasks.recognise.facts import numbers_to_name, propose_facts  # noqa: PLC0415

    wanted = [stated["task"]] if "task" in stated else list(Task)
    for task in wanted:
        path = folder / f"parameters_{task}.yml"
        group = read_group(path).get(str(task)) if path.is_file() else None
        flat = dict(_flat(group)) if isinstance(group, Mapping) else {}
        if str(look.path.resolve()) not in (flat.get("data.labels"), flat.get("data.folder")):
            continue
        stated = {"task": str(task), **stated}
        while True:
            unknown = [key for key, fact in propose_facts(look, stated, archive).items() if not fact.known]
            told = {key: flat[key] for key in unknown if flat.get(key) not in (None, TO_STATE)}
            numbers = flat.get("data.class_values")
            if "data.class_names" in told and "pixels" in look.columns and isinstance(numbers, list):
                names = dict(zip(numbers, told["data.class_names"], strict=False))
                told["data.class_names"] = [names.get(number) for number in numbers_to_name(look.columns["pixels"])]
            if not told:
                return stated
            stated |= told
    return stated


def _flat(group: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in group.items()
        for pair in (_flat(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)])
    ]


def _ask(look: Look, stated: dict[str, object], archive: Archive) -> dict[str, object]:
    from a2mae.commands.dialogue import LATER, ask_one, say  # noqa: PLC0415
    from a2mae.tasks.recognise.facts import propose_facts  # noqa: PLC0415

    later: set[str] = set()
    try:
        while True:
            facts = propose_facts(look, stated, archive)
            key = next((key for key, fact in facts.items() if not fact.known and key not in later), None)
            if key is None:
                return stated
            say(f"\n{key}: {facts[key].evidence}")
            answer = ask_one(key, facts[key], partial(_parsed, key, look=look), input)
            if answer == LATER:
                later.add(key)
            else:
                stated = {**stated, key: answer}
    except (EOFError, KeyboardInterrupt) as error:
        raise InputError("the questions were broken off: nothing was written") from error


def _parsed(key: str, typed: str, *, look: Look) -> object:
    """Read an answer."""
    from a2mae.tasks.recognise.facts import numbers_to_name  # noqa: PLC0415

    if key == "task":
        if typed not in set(Task):
            raise InputError(f"{typed!r} is no task: {', '.join(Task)}")
        return typed
    if key in ("data.class_property", "data.value_property") and "pixels" not in look.columns:
        if typed not in look.columns:
            raise InputError(f"{typed!r} is no attribute: {', '.join(look.columns)}")
        return typed
    if key in _NUMBERS:
        try:
            return float(typed)
        except ValueError as error:
            raise InputError(f"{typed!r} is no number") from error
    if key not in _LISTS:
        return typed
    names = [None if one.strip() == "-" else one.strip() for one in typed.strip("[]").split(",")]
    if key == "data.class_names" and "pixels" in look.columns:
        wanted = numbers_to_name(look.columns["pixels"])
        if len(names) != len(wanted):
            shown = ", ".join(map(str, wanted))
            raise InputError(f"{plural(len(names), 'name')} for the {len(wanted)} numbers {shown}: - is no class")
        if sum(name is not None for name in names) < 2:
            raise InputError("name at least two classes")
    return names


def _text(look: Look, task: Task, facts: Mapping[str, Fact]) -> str:
    """The file of the task's parameters, each line with its evidence."""
    from a2mae.commands.environment import flow  # noqa: PLC0415

    name = re.sub(r"[^ -~]", "?", look.path.name)
    lines = [
        f"# What the labels of {name} are, as `a2mae labels` read them; yours to change.",
        f"# {TO_STATE} is what they do not say: a run refuses it by name until it is stated.",
        f"{task}:",
    ]
    opened: list[str] = []
    for key, fact in facts.items():
        if key == "task":
            continue
        *groups, last = key.split(".")
        for depth, group in enumerate(groups):
            if opened[depth : depth + 1] != [group]:
                opened = [*opened[:depth], group]
                lines.append(f"{'  ' * (depth + 1)}{group}:")
        value = flow(fact.value) if fact.known else TO_STATE
        hint = "" if fact.known or fact.suggestion is None else f"; perhaps {flow(fact.suggestion)}"
        evidence = re.sub(r"[^ -~]", "?", f"{fact.evidence}{hint}")
        lines.append(f"{'  ' * (len(groups) + 1)}{last}: {value}   # {evidence}")
    return "\n".join(lines) + "\n"


def _completes(text: str, path: Path, task: Task) -> bool:
    """Whether a proposal only fills what stands as ??? in a file that is there, and keeps all that is stated in it."""
    import yaml  # noqa: PLC0415

    from a2mae.commands.environment import read_group  # noqa: PLC0415

    group, proposed = read_group(path).get(str(task)), yaml.safe_load(text)[str(task)]
    there, new = (dict(_flat(one)) if isinstance(one, Mapping) else {} for one in (group, proposed))
    marked = [key for key, value in there.items() if value == TO_STATE]
    kept = all(new.get(key) == value for key, value in there.items() if value != TO_STATE)
    return kept and any(new.get(key) != TO_STATE for key in marked)


def _compare(lines: list[str], path: Path) -> None:
    from a2mae.commands.dialogue import say  # noqa: PLC0415

    if not lines:
        say(f"\n{path} is there already, and says what would be written")
        return
    say("\n" + "\n".join(lines))
    raise InputError(f"{path} is there already and is left as it is; above is what labels would change")


def _count(task: Task, loader: OmegaConfigLoader, catalog: DataCatalog, *, on_archive: bool) -> None:
    """Read the samples as the task will, and say what each split gets."""
    from a2mae.commands.dialogue import say  # noqa: PLC0415
    from a2mae.config import validated  # noqa: PLC0415
    from a2mae.tasks.datasets.sources import prepare  # noqa: PLC0415
    from a2mae.tasks.datasets.store_samples import Tables  # noqa: PLC0415
    from a2mae.tasks.parameters import TaskParameters  # noqa: PLC0415
    from a2mae.tasks.recognise.overlap import by_split  # noqa: PLC0415

    parameters: TaskParameters = validated(TaskParameters, loader["parameters"], task)
    built = all(catalog.exists(name) for name in _BUILT)
    if on_archive and not built:
        say("what each split gets is known once the image sets are built: kedro run --pipelines=coregister,tag,prune")
        return
    load: Callable[[str], Any] = catalog.load
    source = prepare(parameters, Tables(*(load(name) for name in _BUILT)) if built else None, None)
    for name in parameters.bands:
        source.spec.band_index(name, parameters.task)
    census = by_split(source)
    say(f"\nsamples of {source.spec.source}, in splits by place:")
    for line in census.lines():
        say(f"  {line}")
    for note in (*source.spec.notes, *source.late_notes()):
        say(f"  {note}")

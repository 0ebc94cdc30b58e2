"""`a2mae init PATH`: from a folder of scenes to an environment of its own, its scene table and a first picture."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from a2mae.errors import InputError, plural
from a2mae.files import whole_file, whole_folder

if TYPE_CHECKING:
    from a2mae.commands.environment import Environment
    from a2mae.stssd.recognise.facts import Recognition

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("base", "local")
_LONGEST_SENTENCE = 2000
_EXAMPLE = "for example: a2mae init ~/scenes --name lake"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `init` to the commands of `a2mae`."""
    about = "look at a folder of scenes, write an environment for it, ingest it and draw a contact sheet"
    parser = commands.add_parser("init", help=about, description=about, epilog=_EXAMPLE)
    parser.add_argument("path", type=Path, help="folder of GeoTIFFs, .SAFE products, Landsat bundles, …")
    parser.add_argument("--name", default="mine", help="of the environment: conf/NAME is written (%(default)s)")
    parser.add_argument(
        "--yes", action="store_true", help="ask nothing: what the files do not say is marked ??? in the environment"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if importlib.util.find_spec("kedro") is None or importlib.util.find_spec("rasterio") is None:
        raise InputError("a2mae is installed for inference alone: install its extra 'pipeline', a2mae[pipeline]")
    if _NAME.fullmatch(options.name) is None or options.name in _TAKEN:
        raise InputError(
            f"--name {options.name}: an environment's name is small letters, digits and _, and none of base, local"
        )
    if not options.yes and not sys.stdin.isatty():
        raise InputError(
            "there is no terminal to ask at: add --yes, and what the files do not say is marked in the environment"
        )
    began = time.monotonic()
    # GDAL and pydantic take a second to import: `--help` does without.
    from a2mae.commands.dialogue import ask, say, show  # noqa: PLC0415
    from a2mae.commands.environment import differences, propose, stated_before  # noqa: PLC0415
    from a2mae.commands.project import find_project, make_project  # noqa: PLC0415
    from a2mae.stssd.recognise.recognise import recognise  # noqa: PLC0415

    scenes = options.path.expanduser()
    found = find_project(Path.cwd())
    project = found or Path.cwd()
    folder = project / "conf" / options.name
    recognition = recognise(scenes)
    products = stated_before(recognition.products, folder)
    show(recognition, products)
    if not products:
        raise InputError(_why_nothing(recognition))
    if folder.exists():
        _compare(differences(propose(recognition, options.name, products).files, folder), folder)
        return
    if not options.yes:
        products = ask(products, input)
        if not products:
            raise InputError("every product was left out: nothing was written")
    environment = propose(recognition, options.name, products)
    if found is None:
        say(f"{project} lies in no project; one is made here: {', '.join(make_project(project, scenes))}")
    with whole_folder(folder) as partial:
        partial.mkdir()
        for name, text in environment.files.items():
            (partial / name).write_text(text, encoding="utf-8")
    say(f"wrote {_shown(folder, project)}/: {', '.join(environment.files)}")
    for sentence in environment.layout.why:
        say(f"  {sentence}")
    if environment.to_state:
        say(
            f"\n{plural(len(environment.to_state), 'line')} of {_shown(folder, project)}/parameters_ingest.yml to be"
            " stated in place of ???, which the files do not say:"
        )
        for line in environment.to_state:
            say(f"  {line}")
        say(f"\nnext: state them, then\n  kedro run --env={options.name} --pipelines=ingest")
        return
    _first_run(project, options.name, environment)
    say(f"\n{time.monotonic() - began:.0f} seconds. Next, the image sets:")
    say(f"  kedro run --env={options.name} --pipelines=coregister,tag,prune")
    say(f"and everything, to a pretrained model and its report:\n  kedro run --env={options.name}")


def _why_nothing(recognition: Recognition) -> str:
    if recognition.unusable:
        path, why = recognition.unusable[0]
        count = plural(len(recognition.unusable), "file")
        return f"no scene in {recognition.root}: {count} cannot be used, the first {path} {why}"
    return f"no scene in {recognition.root}: what is there is listed above with the reason; nothing was written"


def _compare(lines: list[str], folder: Path) -> None:
    from a2mae.commands.dialogue import say  # noqa: PLC0415

    if not lines:
        say(f"{folder} is there already, and says what would be written: nothing to do")
        return
    say("\n".join(lines))
    raise InputError(
        f"{folder} is there already and is left as it is; above is what init would change (--name for another)"
    )


def _shown(path: Path, project: Path) -> str:
    return path.relative_to(project).as_posix()


def _first_run(project: Path, name: str, environment: Environment) -> None:
    """Run `ingest`, say what came of it, and draw the contact sheet."""
    from a2mae.commands.dialogue import say  # noqa: PLC0415

    say(f"\nkedro run --env={name} --pipelines=ingest")
    command = [sys.executable, "-m", "kedro", "run", f"--env={name}", "--pipelines=ingest"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=project, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"ingest ended: {_sentence(done.stderr)}")
    import geopandas as gpd  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    from a2mae.report.scene_sheet import scene_sheet  # noqa: PLC0415
    from a2mae.scenes import scenes_from_table, sensors_from_json  # noqa: PLC0415

    data = project / "data" / name
    tables = data / "02_intermediate"
    scenes = scenes_from_table(gpd.read_parquet(tables / "scenes.parquet"))
    locations = gpd.read_parquet(tables / "locations.parquet")
    refused = pd.read_parquet(tables / "refused_scenes.parquet")
    refused = refused[refused["reason"] != "excluded"]
    side_m = environment.layout.footprint_m
    say(f"  {plural(len(scenes), 'scene')} accepted, {plural(len(locations), 'place')} of {side_m:g} m")
    for reason, rows in refused.groupby("reason"):
        say(f"  {len(rows)} rejected as {reason}, the first {rows['scene_id'].iloc[0]}: {rows['detail'].iloc[0]}")
    sensors = sensors_from_json(json.loads((tables / "sensors.json").read_text("utf-8")))
    sheet = scene_sheet(scenes, sensors, locations)
    picture = data / "08_reporting" / "scenes.png"
    with whole_file(picture) as partial:
        partial.write_bytes(sheet.png)
    for scene, why in sheet.unread.items():
        say(f"  not drawn: {scene}: {why}")
    say(f"  {_shown(picture, project)}: {sheet.rows} of {plural(sheet.of, 'scene')} in true and false colour")
    say("  look at it: in false colour vegetation is red; if it is not, the order of the bands is wrong")


def _sentence(text: str) -> str:
    """The sentence that a run ended with."""
    found = re.findall(r"^\w*Error: (.+?)(?=^\(from |^\s*$|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join((found[-1] if found else text[-_LONGEST_SENTENCE:]).split())

"""`a2mae init PATH`: from a folder of scenes to an environment of its own, its scene table and a first picture."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from a2mae.commands.project import check_pipeline, local_path
from a2mae.errors import InputError, plural
from a2mae.files import whole_file, whole_folder

if TYPE_CHECKING:
    from a2mae.commands.environment import Environment
    from a2mae.stssd.recognise.facts import Product, Recognition

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("base", "local")
_LONGEST_SENTENCE = 2000
_LEFT = "{} is there already and is left as it is; above is what init would change (--name for another)"
_PICTURES = 20
"""So many rasters, none of which says where it lies, are pictures; fewer are scenes that lack their place."""
_EXAMPLES = """\
for example:
  a2mae init ~/scenes --name lake
  a2mae init ~/downloads --name lake --unpack
  a2mae init https://earth-search.aws.element84.com/v1 --bbox 13.1 53.8 13.3 54 --datetime 2023-05-01/2023-09-30"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `init` to the commands of `a2mae`."""
    about = "look at a folder of scenes, write an environment for it, ingest it and draw a contact sheet"
    parser = commands.add_parser(
        "init",
        help=about,
        description=about,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path",
        help="folder of GeoTIFFs, .SAFE products, Landsat bundles, …; or a STAC API's or catalog's address or file",
    )
    parser.add_argument("--name", default="mine", help="of the environment: conf/NAME is written (%(default)s)")
    parser.add_argument(
        "--yes", action="store_true", help="ask nothing: what the files do not say is marked ??? in the environment"
    )
    parser.add_argument(
        "--unpack", action="store_true", help="unpack the folder's .tar and .zip into data/NAME/01_raw, and use those"
    )
    stac = parser.add_argument_group("of a STAC API or catalog")
    stac.add_argument(
        "--bbox", type=float, nargs=4, metavar=("W", "S", "E", "N"), help="degrees; W > E across the date line"
    )
    stac.add_argument("--aoi", type=local_path, metavar="FILE", help="polygons of the place, instead of --bbox")
    stac.add_argument("--datetime", help="instant or interval, as 2023-05-01/2023-09-30")
    stac.add_argument("--collections", nargs="+", default=(), help="else those that are recognised")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_pipeline()
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
    from a2mae.commands.environment import answered, differences, propose, stated_before  # noqa: PLC0415
    from a2mae.commands.project import find_project  # noqa: PLC0415
    from a2mae.stssd.recognise.recognise import recognise  # noqa: PLC0415

    found = find_project(Path.cwd())
    project = found or Path.cwd()
    folder = project / "conf" / options.name
    scenes = Path(options.path) if "://" in options.path else local_path(options.path)
    if "://" in options.path or scenes.suffix.lower() == ".json":
        recognition, propose_of = _catalog(options)
    else:
        if stated := [name for name in ("bbox", "aoi", "datetime", "collections") if getattr(options, name)]:
            raise InputError(f"--{stated[0]} is of a STAC API or catalog, and {options.path} is a folder of files")
        if options.unpack:
            scenes = _unpacked(scenes, project, options.name)
        recognition = recognise(scenes)
        propose_of = partial(propose, recognition, options.name)
    if not recognition.products and len(recognition.unplaced) >= _PICTURES:
        _of_pictures(recognition, project, options.name)
        return
    products = stated_before(recognition.products, folder)
    show(recognition, products)
    if not products:
        raise InputError(_why_nothing(recognition))
    again = folder.exists()
    lines: list[str] = []
    if again:
        after = propose_of(products)
        lines = differences(after.files, folder)
        if lines and not answered(propose_of(recognition.products).files, after.files, folder):
            say("\n".join(lines))
            raise InputError(_LEFT.format(folder))
        if lines:
            say("what was ??? is stated now: the environment is completed by what follows from it")
        elif (project / "data" / options.name / "02_intermediate/scenes.parquet").is_file():
            say(f"{folder} is there already, and says what would be written: nothing to do")
            return
        else:
            say(f"{folder} is there already, and says what would be written")
    elif not options.yes:
        products = ask(products, input)
        if not products:
            raise InputError("every product was left out: nothing was written")
    environment = propose_of(products)
    if found is None:
        _make_project(project, scenes)
    if not again or lines:
        _write(environment.files, folder)
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
        say("\nnext: state them, then give this command again: it completes the environment and goes on from there")
        return
    _first_run(project, options.name, environment)
    say(f"\n{time.monotonic() - began:.0f} seconds. Next, the image sets:")
    say(f"  kedro run --env={options.name} --pipelines=coregister,tag,prune")
    say(f"and everything, to a pretrained model and its report:\n  kedro run --env={options.name}")


def _make_project(project: Path, scenes: Path) -> None:
    """Make a project where there is none, and say so."""
    from a2mae.commands.dialogue import say  # noqa: PLC0415
    from a2mae.commands.project import make_project  # noqa: PLC0415

    say(f"{project} lies in no project; one is made here: {', '.join(make_project(project, scenes))}")


def _of_pictures(recognition: Recognition, project: Path, name: str) -> None:
    """Write an environment that pretrains on pictures, and say what is next."""
    from a2mae.commands.dialogue import say, show_facts  # noqa: PLC0415
    from a2mae.commands.environment import differences  # noqa: PLC0415
    from a2mae.commands.pictures import propose_pictures  # noqa: PLC0415
    from a2mae.commands.project import find_project  # noqa: PLC0415

    proposed = propose_pictures(recognition, name)
    count = plural(len(recognition.unplaced), "picture")
    say(f"{recognition.root}: {count} without a place: no scenes, but a model can be pretrained on them")
    show_facts(proposed.facts)
    folder = project / "conf" / name
    if folder.exists():
        lines = differences(proposed.files, folder)
        if lines:
            say("\n".join(lines))
            raise InputError(_LEFT.format(folder))
        say(f"{folder} is there already, and says what would be written: nothing to do")
        return
    if find_project(project) is None:
        _make_project(project, recognition.root)
    _write(proposed.files, folder)
    say(f"\nwrote {_shown(folder, project)}/: {', '.join(proposed.files)}")
    if unknown := [key for key, fact in proposed.facts.items() if not fact.known]:
        say(f"to be stated in its parameters_pictures.yml in place of ???: {', '.join(unknown)}")
    say(f"next, a pretrained model and its report:\n  kedro run --env={name}")
    if proposed.classes:
        say(f"and what it is worth finetuned for the {proposed.classes} classes of the folders:")
        say(f"  a2mae labels {shlex.quote(str(recognition.root))} --env {name}")


def _unpacked(scenes: Path, project: Path, name: str) -> Path:
    """Unpack the archives of a folder among the environment's data."""
    from a2mae.commands.dialogue import say  # noqa: PLC0415
    from a2mae.stssd.recognise.archives import archives_in, unpack  # noqa: PLC0415

    try:
        if not scenes.exists():
            raise InputError(f"{scenes} is not there: name a folder of scenes")
        archives = archives_in(scenes)
    except OSError as error:
        raise InputError(f"{scenes} cannot be read ({error.strerror}): change its access") from error
    if not archives:
        raise InputError(f"--unpack: {scenes} holds no .tar and no .zip: leave it out")
    into = project / "data" / name / "01_raw" / "unpacked"
    for line in unpack(archives, into):
        say(line)
    return into


def _catalog(options: argparse.Namespace) -> tuple[Recognition, Callable[[Sequence[Product]], Environment]]:
    """What a STAC API or catalog holds of a place, and what makes an environment of its products."""
    import geopandas as gpd  # noqa: PLC0415

    from a2mae.commands.environment import Area, propose_catalog  # noqa: PLC0415
    from a2mae.raster.footprints import area_lonlat, bounds_lonlat, box_lonlat  # noqa: PLC0415
    from a2mae.stssd.ingest.parameters import check_bbox  # noqa: PLC0415
    from a2mae.stssd.recognise.catalog import Wanted, recognise_catalog  # noqa: PLC0415
    from a2mae.tasks.datasets.vector_files import read_features  # noqa: PLC0415

    if options.bbox and options.aoi:
        raise InputError("--bbox and --aoi both say the place: give one of them")
    area, bbox = None, None if options.bbox is None else tuple(options.bbox)
    if options.aoi is not None:
        try:
            features = read_features(options.aoi).geometry
        except OSError as error:
            raise InputError(f"--aoi {options.aoi} cannot be read as polygons: {error}") from error
        outlines = features.union_all()
        if outlines.geom_type not in ("Polygon", "MultiPolygon"):
            raise InputError(f"--aoi {options.aoi} holds a {outlines.geom_type}: the place is said by polygons")
        ground = area_lonlat(outlines, features.crs.to_wkt())
        bbox = bounds_lonlat(ground)
    elif bbox is not None:
        try:
            check_bbox(bbox)
        except InputError as error:
            raise InputError(f"--{error}") from error
        ground = box_lonlat(*bbox)
    if bbox is not None:
        area = Area(bbox, gpd.GeoSeries([ground], crs="EPSG:4326").to_json())
    found = recognise_catalog(Wanted(options.path, bbox, options.datetime, tuple(options.collections)))
    return found.recognition, partial(propose_catalog, found, options.name, area)


def _why_nothing(recognition: Recognition) -> str:
    if recognition.unusable:
        path, why = recognition.unusable[0]
        count = plural(len(recognition.unusable), "file")
        return f"no scene in {recognition.root}: {count} cannot be used, the first {path} {why}"
    return f"no scene in {recognition.root}: what is there is listed above with the reason; nothing was written"


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write an environment, whole where it is new; files of one that is there are replaced one by one."""
    if folder.exists():
        for name, text in files.items():
            with whole_file(folder / name) as path:
                path.write_text(text, encoding="utf-8")
        return
    with whole_folder(folder) as path:
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")


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

    from a2mae.commands.project import configuration  # noqa: PLC0415
    from a2mae.config import validated  # noqa: PLC0415
    from a2mae.report.scene_sheet import scene_sheet  # noqa: PLC0415
    from a2mae.scenes import scenes_from_table, sensors_from_json  # noqa: PLC0415
    from a2mae.stssd.ingest.parameters import IngestParameters  # noqa: PLC0415

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
    loader, _ = configuration(project, name)
    sheet = scene_sheet(
        scenes, sensors, locations, validated(IngestParameters, loader["parameters"], "ingest").access()
    )
    picture = data / "08_reporting" / "scenes.png"
    with whole_file(picture) as path:
        path.write_bytes(sheet.png)
    for scene, why in sheet.unread.items():
        say(f"  not drawn: {scene}: {why}")
    say(f"  {_shown(picture, project)}: {sheet.rows} of {plural(sheet.of, 'scene')} in true and false colour")
    if sheet.rows:
        say("  look at it: in false colour vegetation is red; if it is not, the order of the bands is wrong")


def _sentence(text: str) -> str:
    """The sentence that a run ended with."""
    found = re.findall(r"^\w*Error: (.+?)(?=^\(from |^\s*$|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join((found[-1] if found else text[-_LONGEST_SENTENCE:]).split())

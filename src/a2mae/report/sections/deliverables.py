"""What can be taken away from the maps: files to open, and hectares with what is known of their errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Block, File, Files, Section, Table
from a2mae.report.inputs import ReportInputs
from a2mae.tasks.registry import Task

_ABOUT = "deliverables.json"
_FILES = {
    "map.tif": "the classes, in their colours",
    "confidence.tif": "how probable the class of each pixel is",
    "polygons.gpkg": "the same as polygons, with hectares and probability",
    "polygons.parquet": "the polygons as GeoParquet",
    "areas.csv": "the table of areas",
    "zones.gpkg": "the classes within your own polygons",
}
_COLUMNS = ("class", "mapped, ha", "corrected, ha", "95 % interval, ha", "user's accuracy", "producer's accuracy")


def delivered(inputs: ReportInputs) -> Mapping[str, Mapping[str, Any]]:
    """Read what `deliver` has written, by task; empty where it has not."""
    if inputs.deliverables is None or not (inputs.deliverables / _ABOUT).is_file():
        return {}
    found: Mapping[str, Mapping[str, Any]] = json.loads((inputs.deliverables / _ABOUT).read_text("utf-8"))
    return found


def deliverables(inputs: ReportInputs) -> Section | None:
    """Show the files of every map and its areas; None where none were made."""
    found = delivered(inputs)
    if not found or inputs.deliverables is None:
        return None
    blocks: list[Block] = []
    for task, about in found.items():
        title, folder = Task(task).kind.title, inputs.deliverables / task
        links = tuple(
            File(f"{inputs.deliverables.name}/{task}/{name}", f"{title}: {name}", words)
            for name, words in _FILES.items()
            if (folder / name).is_file()
        )
        blocks += [Files(f"Files of {title}", links), _areas(title, about)]
    return Section(
        "deliverables",
        "Maps, polygons and areas to take away",
        "The folder deliverables lies beside this page and can be passed on as it is: QGIS opens its files in the"
        " colours of the classes, and catalog.json is a STAC catalog of them.",
        tuple(blocks),
    )


def _areas(title: str, about: Mapping[str, Any]) -> Table:
    design = about["areas"][0]["design"] if about["areas"] else ""
    sources = {
        "stratified random sample": "corrected by your random reference points (Olofsson et al. 2014)",
        "test places, no probability sample of this map": (
            "corrected by the test places, which were not drawn at random from this map: a hint, no estimate to be"
            " reported; name random points in deliver.references for one"
        ),
    }
    said = sources.get(design, "as mapped; nothing is known of the errors of this map")
    return Table(f"{title}: area by class, {said}", _COLUMNS, tuple(_rows(about)), numeric=(1, 2, 3, 4, 5))


def _rows(about: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in about["areas"]:
        low, high = row["estimated_low_ha"], row["estimated_high_ha"]
        interval = text.ABSENT if low is None or high is None else f"{low:,.1f} to {high:,.1f}"
        yield (
            str(row["class"]),
            text.number(row["mapped_ha"], 1),
            text.number(row["estimated_ha"], 1),
            interval,
            text.number(row["users_accuracy"], 2),
            text.number(row["producers_accuracy"], 2),
        )


def polygons_in_words(inputs: ReportInputs) -> str:
    """Say how many polygons there are of which map."""
    parts = [
        f"{plural(int(about['polygons']), 'polygon')} of {Task(task).kind.title.lower()}"
        for task, about in delivered(inputs).items()
    ]
    return f"{text.listed(parts)}." if parts else "What this stage wrote."

"""What an office takes away from a map: a folder per map with rasters, polygons, areas, styles and a STAC item."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pystac
from scipy import sparse

from a2mae.errors import InputError, plural
from a2mae.explore.areas import PLACES, area_table
from a2mae.explore.parameters import DeliverParameters
from a2mae.explore.stac_items import add_file, raster_item, write_items
from a2mae.explore.styles import write_class_style, write_polygon_style, write_probability_style
from a2mae.explore.vectors import append_to_geopackage, write_polygons
from a2mae.explore.zones import reference_counts, zonal_statistics
from a2mae.files import whole_folder, write_json
from a2mae.tasks.inference.read_map import ClassMap, class_pixels_m2, open_class_map
from a2mae.tasks.metrics.confusion import GroupedCounts
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

ABOUT = "deliverables.json"
"""What was written, for the report."""
_TITLES = {
    "map.tif": "Classes",
    "confidence.tif": "Probability of the mapped class",
    "polygons.gpkg": "Polygons of the classes",
    "polygons.parquet": "Polygons of the classes",
    "areas.csv": "Area by class",
    "zones.gpkg": "Classes within your polygons",
    "zones.parquet": "Classes within your polygons",
}
_MAP, _CONFIDENCE, _POLYGONS, _ZONES = "map", "confidence", "polygons", "zones"


@dataclass(frozen=True)
class MapOutputs:
    """What the stages say of one map.

    Attributes:
        task: The task that drew it.
        title: For people.
        map: The raster of classes.
        confidence: The raster of their probability.
        confusion: Contents of `<task>_confusion.json`: what the model made of its test places.
    """

    task: str
    title: str
    map: Path
    confidence: Path
    confusion: Mapping[str, object]


def deliver(options: DeliverParameters, maps: Sequence[MapOutputs], folder: Path) -> None:
    """Write the deliverables of maps; the folder is replaced when all of it is whole.

    Each map gets a folder of its task's name: `map.tif` and `confidence.tif`, `polygons.gpkg` and `.parquet`,
    `areas.csv` (of transitions those that the map or a reference shows), where zones are named `zones.gpkg` and
    `.parquet`, a `.qml` beside each raster and the polygons, and a STAC item. `catalog.json` leads to the items.

    Args:
        options: The `deliver` group.
        maps: At least one.
        folder: Where.

    Raises:
        InputError: If there is no map, or zones or reference points are not what is needed.
    """
    if not maps:
        raise InputError(
            "deliver has no map to make deliverables of: put segment or detect_change into 'chain' in"
            " conf/<env>/parameters_chain.yml, or take deliver out of it"
        )
    found = [open_class_map(outputs.map, outputs.confidence) for outputs in maps]
    with whole_folder(folder) as partial:
        about, items = {}, {}
        for outputs, mapped in zip(maps, found, strict=True):
            place = partial / outputs.task
            place.mkdir(parents=True)
            about[outputs.task] = _deliver_map(options, outputs, mapped, place)
            items[outputs.task] = _item(outputs, mapped, place)
        write_items(partial, "Maps, polygons and areas", items)
        write_json(partial / ABOUT, about)


def _deliver_map(options: DeliverParameters, outputs: MapOutputs, found: ClassMap, place: Path) -> dict[str, object]:
    shutil.copyfile(outputs.map, place / f"{_MAP}.tif")
    shutil.copyfile(outputs.confidence, place / f"{_CONFIDENCE}.tif")
    _, m2 = class_pixels_m2(found)
    transitions = Task(outputs.task).kind.transitions
    # Of classes squared most occur nowhere: they are no part of a legend or a table.
    shown = {value: name for value, name in found.names.items() if m2[value] or not transitions}
    write_class_style(place / f"{_MAP}.qml", shown, found.colours)
    write_probability_style(place / f"{_CONFIDENCE}.qml")
    polygons = write_polygons(
        found,
        place / f"{_POLYGONS}.gpkg",
        place / f"{_POLYGONS}.parquet",
        layer=outputs.task,
        smallest_m2=options.smallest_m2,
        simplify_m=options.simplify_m,
    )
    write_polygon_style(place / f"{_POLYGONS}.qml", shown, found.colours)
    areas = _areas(options, outputs, found, np.array([m2[value] for value in found.names]))
    if transitions:
        areas = areas[(areas["mapped_ha"] > 0) | (areas["estimated_ha"] > 0) | (areas["samples"] > 0)]
    areas.to_csv(place / "areas.csv", index=False, lineterminator="\n", float_format="%.6g")
    about: dict[str, object] = {"polygons": polygons, "zones": 0, "areas": json.loads(areas.to_json(orient="records"))}
    if options.zones is not None:
        zones = zonal_statistics(found, Path(options.zones))
        _write_zones(zones, place)
        about["zones"] = len(zones)
    return about


def _write_zones(zones: gpd.GeoDataFrame, place: Path) -> None:
    kinds = set(zones.geom_type)
    append_to_geopackage(
        zones, place / f"{_ZONES}.gpkg", _ZONES, first=True, kind=kinds.pop() if len(kinds) == 1 else "Unknown"
    )
    zones.to_parquet(place / f"{_ZONES}.parquet", index=False)


def _areas(options: DeliverParameters, outputs: MapOutputs, found: ClassMap, mapped: Floats) -> pd.DataFrame:
    """Make the table of areas, corrected by reference points or by the test places."""
    names = list(found.names.values())
    points = next((entry for entry in options.references if entry.task == outputs.task), None)
    if points is not None:
        counts = reference_counts(found, Path(str(points.points)), points.class_property)
        return area_table(names, mapped, reference=counts)
    if outputs.confusion.get("class_names") != names or not outputs.confusion.get("by_place"):
        return area_table(names, mapped)
    by_place = _by_place(outputs.confusion, len(names))
    drawn = by_place.resampled(options.bootstrap, options.seed) if by_place.groups > 1 else None
    logger.info(
        "%s: areas are corrected by %s of the test split: %s",
        outputs.task,
        plural(by_place.groups, "place"),
        PLACES,
    )
    transposed = None if drawn is None else drawn.transpose(0, 2, 1)
    return area_table(names, mapped, tested=by_place.matrix.T, drawn=transposed)


def _by_place(confusion: Mapping[str, object], classes: int) -> GroupedCounts:
    """The counts of the test places, truth by rows."""
    rows = np.array(cast("list[list[int]]", confusion["by_place"]), np.int64)
    places = int(rows[:, 0].max()) + 1
    counts = sparse.coo_matrix(
        (rows[:, 3].astype(np.float64), (rows[:, 0], rows[:, 1] * classes + rows[:, 2])),
        shape=(places, classes * classes),
    )
    return GroupedCounts(counts.tocsr(), (classes, classes), places)


def _item(outputs: MapOutputs, found: ClassMap, place: Path) -> pystac.Item:
    """Describe a map's folder; every file in it is an asset."""
    item = raster_item(outputs.task, outputs.title, place / f"{_MAP}.tif", found.datetimes)
    for path in sorted(place.iterdir()):
        title = _TITLES.get(path.name, f"QGIS style of {path.stem}")
        classes = found if path.name in (f"{_MAP}.tif", f"{_POLYGONS}.gpkg", f"{_POLYGONS}.parquet") else None
        add_file(item, path, f"./{path.name}", title, classes)
    return item

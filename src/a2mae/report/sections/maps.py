"""Maps and embeddings of whole scenes, beside the scenes that they were made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from a2mae.report import text
from a2mae.report.blocks import Block, Gallery, Picture, Section, Strip, Swatch, Table
from a2mae.report.inputs import ReportInputs
from a2mae.report.pictures import INVALID_RGB, LARGEST_PX, Ramp, scene_picture, to_data_uri
from a2mae.report.previews import raster_picture
from a2mae.report.sections.tasks import IN_LEGEND
from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.inference.read_map import ClassMap, open_class_map
from a2mae.tasks.palette import hex_colour
from a2mae.tasks.registry import Task


@dataclass(frozen=True)
class _Map:
    """A map file, reduced.

    Attributes:
        about: What it says of itself.
        classes: `(H, W)` uint8, reduced.
        grid: Of the reduced picture.
        pixel_km2: Area of one pixel of it.
    """

    about: ClassMap
    classes: NDArray[np.uint8]
    grid: GeoBox
    pixel_km2: float


def scene_map(inputs: ReportInputs, name: str) -> Section | None:
    """Show the map of a whole scene that a task's model has drawn; None where there is none."""
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.map is None or not task.map.is_file():
        return None
    if Task(name).kind.values:
        return _value_map(inputs, name, task.map)
    found = _read(task.map)
    names, colours, dates = found.about.names, found.about.colours, " and ".join(found.about.dates) or "a raster"
    seen = found.classes != IGNORE
    counts = {value: int((found.classes == value).sum()) for value in names}
    total = max(int(seen.sum()), 1)
    order = sorted((value for value in counts if counts[value]), key=lambda value: -counts[value])
    said = ", ".join(f"{names[value]} {text.percent(counts[value] / total, 0)}" for value in order[:4])
    table = np.array([colours.get(value, INVALID_RGB) for value in range(256)], np.uint8)
    table[IGNORE] = INVALID_RGB
    answer = Picture(
        to_data_uri(table[found.classes], max_px=LARGEST_PX, exact=True),
        f"Map of {dates}: {said or 'no valid pixel'}",
        ("map",),
    )
    legend = [Swatch(hex_colour(colours[value]), names[value]) for value in order[:IN_LEGEND]]
    if not seen.all():
        legend.append(Swatch(hex_colour(INVALID_RGB), "invalid"))
    rows = tuple(
        (names[value], f"{counts[value] * found.pixel_km2:.2f}", text.percent(counts[value] / total)) for value in order
    )
    blocks: tuple[Block, ...] = (
        Gallery(_caption(found, seen), (Strip("", (*_scenes(inputs, found), answer)),), tuple(legend), large=True),
        Table(
            "Area by class",
            ("class", "km²", "share of the valid area"),
            rows,
            numeric=(1, 2),
            folded=len(rows) > IN_LEGEND,
        ),
    )
    return Section(
        f"map-{name.replace('_', '-')}",
        "A map of a whole scene",
        f"Every pixel of {dates}. {task.map.name} opens in any GIS in these colours."
        + (
            f" The legend has the {IN_LEGEND} largest of {len(order)}; the table has all."
            if len(order) > IN_LEGEND
            else ""
        ),
        blocks,
    )


_QUANTILES = (("lowest", 0.0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95), ("highest", 1.0))


def _value_map(inputs: ReportInputs, name: str, path: Path) -> Section:
    """Show a map of values."""
    with rasterio.open(path) as source:
        share = min(1.0, LARGEST_PX / max(source.shape))
        shape = (max(1, round(source.height * share)), max(1, round(source.width * share)))
        values = source.read(1, out_shape=shape)
        dates = tuple(json.loads(source.tags()["DATES"]))
        what, units = source.descriptions[0], source.units[0] or ""
        grid = GeoBox(source.shape, source.transform, source.crs.to_wkt()).zoom_to(shape)
    seen = np.isfinite(values)
    known, ramp, raster = values[seen].astype(np.float64), Ramp.of(values), " and ".join(dates)
    found = {key: float(np.quantile(known, at)) for key, at in _QUANTILES} if known.size else {}
    said = (
        f"{what} {text.number(found['5 %'], 1, units)} to {text.number(found['95 %'], 1, units)}"
        if found
        else "nothing"
    )
    answer = Picture(
        to_data_uri(ramp.colours(values), max_px=LARGEST_PX, exact=True), f"Map of {raster}: {said}", ("map",)
    )
    legend = list(ramp.legend(units))
    if not seen.all():
        legend.append(Swatch(hex_colour(INVALID_RGB), "invalid"))
    caption = "" if seen.all() else f"{text.percent(float(1 - seen.mean()))} is nodata, cloud or shadow."
    scenes = [picture for picture in (scene_picture(inputs, date, grid) for date in dates) if picture is not None]
    rows = [("mean", text.number(float(known.mean()) if found else None, 2, units))]
    rows += [(key, text.number(value, 2, units)) for key, value in found.items()]
    blocks: tuple[Block, ...] = (
        Gallery(caption, (Strip("", (*scenes, answer)),), tuple(legend), large=True),
        Table(f"{what} over the valid area", ("", "value"), tuple(rows), numeric=(1,)),
    )
    return Section(
        f"map-{name.replace('_', '-')}",
        "A map of a whole scene",
        f"The {what} of every pixel of {raster}. {path.name} holds it in {units or 'its units'} as numbers (float32).",
        blocks,
    )


def _read(path: Path) -> _Map:
    about = open_class_map(path)
    with rasterio.open(path) as source:
        share = min(1.0, LARGEST_PX / max(source.shape))
        shape = (max(1, round(source.height * share)), max(1, round(source.width * share)))
        grid = about.grid.zoom_to(shape)
        return _Map(about, source.read(1, out_shape=shape), grid, abs(grid.resolution.x * grid.resolution.y) / 1e6)


def _caption(found: _Map, seen: NDArray[np.bool_]) -> str:
    parts = []
    if found.about.moved_m is not None:
        east, north = found.about.moved_m
        moved = f"was moved by {east:+.1f} m east and {north:+.1f} m north onto the earlier one"
        parts.append(
            f"The later date {moved if (east, north) != (0, 0) else 'could not be registered and keeps its position'}."
        )
    if not seen.all():
        parts.append(f"{text.percent(float(1 - seen.mean()))} is nodata, cloud or shadow and has no class.")
    return " ".join(parts)


def _scenes(inputs: ReportInputs, found: _Map) -> list[Picture]:
    """Draw the dates that are scenes of the table with files on this machine; of image sets the first scene of each."""
    about = found.about
    shown = [(name, (0.0, 0.0)) for name in about.dates[:1]]
    if about.moved_m is not None:
        shown.append((about.dates[about.earlier], about.moved_m))
    pictures = [scene_picture(inputs, name, found.grid, shift_m) for name, shift_m in shown]
    return [picture for picture in pictures if picture is not None]


RASTER, ABOUT = "embeddings.tif", "embeddings.json"


def embeddings(inputs: ReportInputs) -> Section | None:
    """Show the embedded raster as colours beside its scene, and what its description says."""
    if inputs.embeddings is None or not (inputs.embeddings / ABOUT).exists():
        return None
    about = json.loads((inputs.embeddings / ABOUT).read_text("utf-8"))
    blocks: list[Block] = []
    if (inputs.embeddings / RASTER).exists():
        blocks.append(_pictures(inputs, inputs.embeddings / RASTER, str(about["raster"]), int(about["dimensions"])))
    rows = tuple((key.replace("_", " "), _words(value)) for key, value in about.items())
    blocks.append(Table("What was embedded", ("what", "value"), rows))
    return Section(
        "embeddings",
        "Embeddings of a raster",
        f"Each patch of {about['patch_px']} × {about['patch_px']} pixels is described by {about['dimensions']} numbers:"
        " embeddings.tif has one band per number, embeddings.parquet one row per block of patches.",
        tuple(blocks),
    )


def _pictures(inputs: ReportInputs, path: Path, name: str, dimensions: int) -> Gallery:
    colours = raster_picture(path, max_px=LARGEST_PX)
    scene = None
    with rasterio.open(path) as source:
        if source.crs is not None:
            grid = GeoBox(source.shape, source.transform, source.crs.to_wkt())
            share = LARGEST_PX / max(source.shape)
            scene = scene_picture(
                inputs, name, grid.zoom_to((round(source.height * share), round(source.width * share)))
            )
    answer = Picture(
        to_data_uri(colours, max_px=LARGEST_PX, exact=True),
        f"Embeddings of {name}: three principal components of {dimensions} dimensions as colours",
        ("embeddings",),
    )
    return Gallery(
        "Similar embeddings have similar colours: red, green and blue are the first three principal components; invalid"
        " pixels are grey.",
        (Strip("", (*([scene] if scene is not None else []), answer)),),
        large=True,
    )


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

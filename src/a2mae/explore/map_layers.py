"""The layers of the map page: images of each date in true and false colour, and what the stages have drawn."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from scipy import sparse
from scipy.spatial import cKDTree

from a2mae.errors import InputError
from a2mae.explore.archive import Archive
from a2mae.explore.tiles import (
    NOTHING,
    Bytes,
    Draw,
    GroundPicture,
    Pyramid,
    cut_tiles,
    palette_png,
    values_script,
    webp,
)
from a2mae.raster.footprints import EARTH_RADIUS_M, ground_size_m, on_sphere
from a2mae.raster.opening import GDAL_OPTIONS
from a2mae.report.inputs import records
from a2mae.report.pictures import INVALID_RGB, Ramp, display_bands
from a2mae.report.previews import raster_picture
from a2mae.sensors import Sensor
from a2mae.tasks.inference.read_map import FULL_PROBABILITY, open_class_map
from a2mae.tasks.palette import hex_colour

FINEST_M = 2.5
"""Tiles have no finer pixels: those of a sensor of half a metre would be most of the page."""
_MOST_TILES = 400
_MOST_PX = 2048
_SAMPLED, _MOST_THREADS = 4, 4
_STRETCH_PCT = (2.0, 98.0)
_TOGETHER = 3.0
"""Places within so many footprints of each other are one area."""
_RAMP_CODES = 250
_MOST_IN_LEGEND = 12

Told = dict[str, object]


@dataclass(frozen=True)
class DrawnMap:
    """A map that a task has drawn.

    Attributes:
        name: Of the task.
        title: For people.
        path: The raster of classes or values.
        confidence: The probability of the mapped class; None: not known.
        values: Whether pixels are values.
        unchanged: Class of ground on which nothing changed, which is not drawn; None: every class is.
    """

    name: str
    title: str
    path: Path
    confidence: Path | None
    values: bool
    unchanged: int | None = None


def areas_of(places: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number the places `(N,)` so that those near each other have one number.

    Args:
        places: `lon`, `lat`, `footprint_m`.
    """
    if places.empty:
        return np.zeros(0, np.int64)
    points = on_sphere(places["lon"].to_numpy(), places["lat"].to_numpy()) * EARTH_RADIUS_M
    pairs = cKDTree(points).query_pairs(_TOGETHER * float(places["footprint_m"].max()), output_type="ndarray")
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(places),) * 2)
    return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1], np.int64)


def image_layers(archive: Archive, places: pd.DataFrame, folder: Path) -> Iterator[Told]:
    """Write the images of some places, a layer per area, sensor and day; areas side by side.

    Args:
        archive: Images with their tables.
        places: Locations with `area`; images of others are left out.
        folder: Where.

    Yields:
        What the page is told of each layer, the earliest first.
    """
    of_place = places.set_index("location_id")
    images = archive.images.drop_duplicates(["sensor", "row"])  # an image may serve two sets
    images = images[images["location_id"].isin(of_place.index) & (images["valid_fraction"] > 0)]
    images = images.assign(
        area=of_place["area"].reindex(images["location_id"]).to_numpy(),
        day=[f"{moment:%Y-%m-%d}" for moment in images["datetime"]],
    )

    def layers(number: int, area: int, name: str, group: pd.DataFrame) -> list[Told]:
        reader, told = _Reader(archive, name, group["row"].to_numpy(np.int64)), []
        for day, rows in group.groupby("day", sort=True):
            pictures = [reader.picture(of_place.loc[row["location_id"]], int(row["row"])) for row in records(rows)]
            at = f"images/{number}/{day}"
            pyramid = cut_tiles(pictures, folder / at, reader.draw, gsd_m=reader.gsd_m, codes=False, most=_MOST_TILES)
            colours = list(reader.colours)
            told.append(
                {
                    "area": area,
                    "sensor": name,
                    "day": day,
                    "places": len(rows),
                    "folder": at,
                    "colours": colours,
                    **pyramid.told(),
                }
            )
        return told

    groups = images.groupby(["area", "sensor"], sort=True)
    # rasterio hides this warning of its own arrays, but one thread ends what another still needs hidden.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool,  # warps and codecs let others run
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        found = [
            pool.submit(layers, number, int(group["area"].iloc[0]), str(group["sensor"].iloc[0]), group)
            for number, (_, group) in enumerate(groups)
        ]
        for future in found:
            yield from future.result()


class _Reader:
    """Reads images of one area and sensor in one stretch, so that dates can be compared.

    Red, green and blue are stretched together, which keeps their colours; the infrared, which is brighter, by itself.
    """

    def __init__(self, archive: Archive, sensor: str, rows: npt.NDArray[np.int64]) -> None:
        self._archive, self.sensor = archive, archive.store.sensor(sensor)
        self._bands = [*display_bands(self.sensor), *_infrared(self.sensor)]
        self.colours = ("true", "false")[: len(self._bands) - 2]
        self._shape = archive.store.shape(sensor)[1:]
        self._step = max(1, math.floor(FINEST_M / self.sensor.gsd_m))
        self.gsd_m = max(self.sensor.gsd_m, FINEST_M)
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLED).round().astype(int))]
        samples = [self._read(int(row)) for row in chosen]
        ranges = []
        for part in (slice(0, 3), slice(3, None)):
            seen = np.concatenate([pixels[part][:, valid].ravel() for pixels, valid in samples])
            low, high = np.percentile(seen, _STRETCH_PCT) if seen.size else (0.0, 1.0)
            ranges += [(low, max(high - low, 1e-6))] * len(self._bands[part])
        self._low, self._width = (np.array(values, np.float32)[:, None, None] for values in zip(*ranges, strict=True))

    def picture(self, place: pd.Series, row: int) -> GroundPicture:
        """Lay an image on its footprint."""
        rows, columns = (side // self._step for side in self._shape)
        size = float(place["footprint_m"])
        transform = Affine(size / columns, 0, float(place["x_m"]), 0, -size / rows, float(place["y_m"]))
        return GroundPicture(lambda: self._pixels(row), (rows, columns), transform, str(place["crs"]))

    def draw(self, bands: Bytes) -> Mapping[str, bytes]:
        """Encode a tile: true and, where there is an infrared, false colour."""
        files = {"true/{}.webp": webp(bands[:3], bands[-1])}
        if len(self.colours) > 1:
            files["false/{}.webp"] = webp(bands[[3, 0, 1]], bands[-1])
        return files

    def _pixels(self, row: int) -> Bytes:
        pixels, valid = self._read(row)
        shown = np.clip((pixels - self._low) / self._width * 255, 0, 255).astype(np.uint8)
        return np.concatenate([shown, np.where(valid, np.uint8(255), np.uint8(0))[None]])

    def _read(self, row: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        pixels, valid = self._archive.store.read_physical(self.sensor.id, [row], self._bands)
        if self._step == 1:
            return pixels[0], valid[0]
        step = self._step
        rows, columns = (side // step for side in self._shape)
        cut = (slice(rows * step), slice(columns * step))
        mean = pixels[0][:, *cut].reshape(len(pixels[0]), rows, step, columns, step).mean(axis=(2, 4))
        return mean, valid[0][cut].reshape(rows, step, columns, step).all(axis=(1, 3))


def _infrared(sensor: Sensor) -> list[int]:
    """Find the near infrared that false colour needs, beside red and green; empty where there is none."""
    by_name = {band.common_name: index for index, band in enumerate(sensor.bands)}
    found = [by_name[name] for name in ("nir", "nir08") if name in by_name]
    return found[:1] if {"red", "green", "blue"} <= by_name.keys() else []


def map_layers(drawn: DrawnMap, folder: Path) -> list[Told]:
    """Write the layers of a task's map: classes with their probability, or values."""
    if drawn.values:
        return [value_layer(drawn.name, drawn.title, drawn.path, folder)]
    found = open_class_map(drawn.path, drawn.confidence)
    codes = Path(f"maps/{drawn.name}")
    pixels = np.zeros(NOTHING + 1, np.int64)
    colours = {value: rgb for value, rgb in found.colours.items() if value != drawn.unchanged}

    def read() -> Bytes:
        classes = found.read()
        classes = np.where(np.isin(classes, list(found.names)), classes, NOTHING).astype(np.uint8)
        pixels[:] = np.bincount(classes.ravel(), minlength=len(pixels))
        confidence = found.read_confidence()
        if confidence is None:
            return classes[None]
        return np.stack([classes, (confidence * FULL_PROBABILITY).round().clip(0, NOTHING).astype(np.uint8)])

    ramp = Ramp(0, FULL_PROBABILITY, "YlGn")
    shades = _shades(ramp, FULL_PROBABILITY + 1)

    def draw(bands: Bytes) -> Mapping[str, bytes]:
        # Named after the tile: the page asks for the numbers of a place when somebody clicks on it.
        files = {"classes/{}.png": palette_png(bands[0], colours)}
        if len(bands) > 1:
            files["confidence/{}.png"] = palette_png(np.where(bands[0] == NOTHING, NOTHING, bands[1]), shades)
        return files | {"numbers/{}.js": values_script(drawn.name, bands)}

    pyramid = _raster_tiles(read, found.grid, folder / codes, draw)
    when = sorted({str(moment)[:10] for moment in found.datetimes if moment is not None})
    title = drawn.title + (f", {' to '.join([when[0], *when[1:][-1:]])}" if when else "")
    used: Told = {"numbers": f"{codes}/numbers", "key": drawn.name, "bands": 1 if drawn.confidence is None else 2}
    told: list[Told] = [
        {
            "title": title,
            "kind": "classes",
            "folder": f"{codes}/classes",
            "suffix": "png",
            "legend": _legend(found.names, colours, pixels),
            "names": {str(value): name for value, name in found.names.items()},
            **used,
            **pyramid.told(),
        }
    ]
    if drawn.confidence is not None:
        shown = Ramp(0, 100, "YlGn").legend("%")
        told.append(
            {
                "title": f"{drawn.title}: confidence",
                "kind": "confidence",
                "folder": f"{codes}/confidence",
                "suffix": "png",
                "legend": [[swatch.colour, swatch.label] for swatch in shown],
                **pyramid.told(),
            }
        )
    return told


def _legend(
    names: Mapping[int, str], colours: Mapping[int, tuple[int, int, int]], pixels: npt.NDArray[np.int64]
) -> list[list[str]]:
    """List the classes that a map shows in their order: of very many the largest, and how many more there are."""
    there = [value for value in names if pixels[value]]
    largest = sorted((value for value in there if value in colours), key=lambda value: -pixels[value])
    kept = set(largest[:_MOST_IN_LEGEND])
    legend = [[hex_colour(colours[value]), names[value]] for value in there if value in kept]
    left = len(largest) - len(kept)
    legend += [["transparent", f"{names[value]}: not drawn"] for value in there if value not in colours]
    return legend + ([["transparent", f"and {left} more, of smaller areas"]] if left else [])


def value_layer(name: str, title: str, path: Path, folder: Path, *, ramp: str = "viridis") -> Told:
    """Write the layer of a raster of one band of values.

    Args:
        name: Folder of the tiles.
        title: For people.
        path: The raster.
        folder: Of all tiles.
        ramp: Of matplotlib's.
    """
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as source:
        share = min(1.0, _MOST_PX * 4 / max(source.shape))
        shape = tuple(max(1, round(side * share)) for side in source.shape)
        values = source.read(1, out_shape=shape, masked=True).astype(np.float32).filled(np.nan)
        units = source.units[0] or ""
        grid = GeoBox(source.shape, source.transform, source.crs.to_wkt()).zoom_to(shape)
    found = Ramp.of(values)
    found = Ramp(found.low, found.high, ramp)
    share_of = np.clip((values - found.low) / (found.high - found.low), 0, 1) * _RAMP_CODES
    codes = np.where(np.isfinite(values), np.nan_to_num(share_of).round(), NOTHING).astype(np.uint8)
    shades = _shades(Ramp(0, _RAMP_CODES, ramp), _RAMP_CODES + 1)

    def draw(bands: Bytes) -> Mapping[str, bytes]:
        return {"values/{}.png": palette_png(bands[0], shades), "numbers/{}.js": values_script(name, bands)}

    pyramid = _raster_tiles(lambda: codes[None], grid, folder / f"maps/{name}", draw)
    return {
        "title": title,
        "kind": "values",
        "folder": f"maps/{name}/values",
        "suffix": "png",
        "legend": [[swatch.colour, swatch.label] for swatch in found.legend(units)],
        "numbers": f"maps/{name}/numbers",
        "key": name,
        "bands": 1,
        "range": [found.low, found.high, _RAMP_CODES],
        "units": units,
        **pyramid.told(),
    }


def component_layer(path: Path, folder: Path) -> Told | None:
    """Write the principal components of an embedded raster as colours; None where it lies nowhere."""
    with rasterio.open(path) as source:
        if source.crs is None:
            return None
        grid = GeoBox(source.shape, source.transform, source.crs.to_wkt())
    colours = raster_picture(path, max_px=_MOST_PX)
    seen = (colours != INVALID_RGB).any(axis=2)
    # Three bands of codes: a patch is one colour, whose pixels are not to be blended with the next.
    bands = np.where(seen[None], np.minimum(colours.transpose(2, 0, 1), NOTHING - 1), NOTHING).astype(np.uint8)

    def draw(bands: Bytes) -> Mapping[str, bytes]:
        alpha = np.where(bands[0] == NOTHING, np.uint8(0), np.uint8(255))
        return {"{}.webp": webp(bands, alpha, exact=True)}

    at = "maps/components"
    pyramid = _raster_tiles(lambda: bands, grid.zoom_to(seen.shape), folder / at, draw)
    return {
        "title": "Embeddings: what is alike has like colours",
        "kind": "components",
        "folder": at,
        "suffix": "webp",
        "legend": [],
        **pyramid.told(),
    }


def _raster_tiles(read: Callable[[], Bytes], grid: GeoBox, folder: Path, draw: Draw) -> Pyramid:
    shape, crs = (grid.shape[0], grid.shape[1]), str(grid.crs)
    gsd_m = ground_size_m(grid.affine, shape, crs)
    picture = GroundPicture(read, shape, grid.affine, crs)
    return cut_tiles([picture], folder, draw, gsd_m=gsd_m, codes=True, most=_MOST_TILES)


def _shades(ramp: Ramp, count: int) -> dict[int, tuple[int, int, int]]:
    """Give each code its colour."""
    return {code: tuple(rgb) for code, rgb in enumerate(ramp.colours(np.arange(count, dtype=float)[None])[0].tolist())}


def read_features(path: Path) -> list[Told]:
    """Read the features of a GeoJSON file; none where there is no such file."""
    if not path.is_file():
        return []
    found: Sequence[Told] = json.loads(path.read_text("utf-8"))["features"]
    if not isinstance(found, list):
        raise InputError(f"{path} has no list of features: run the search stage again (kedro run --pipelines=search)")
    return list(found)

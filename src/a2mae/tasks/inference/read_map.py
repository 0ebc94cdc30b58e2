"""Read class maps as the tasks write them: classes, colours and dates, and where each class was how probable."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from a2mae.errors import InputError
from a2mae.raster.footprints import ground_m2_per_unit
from a2mae.raster.opening import GDAL_OPTIONS
from a2mae.tasks.palette import class_colours

Bytes = npt.NDArray[np.uint8]

FULL_PROBABILITY = 250
"""Stored value of probability 1; 255 is nodata."""
_BLOCK_PX = 512
"""A pixel's ground is measured once for so many rows and columns."""


@dataclass(frozen=True)
class ClassMap:
    """A map of classes, not read yet.

    Attributes:
        path: A uint8 raster.
        confidence: A raster of the same grid with the probability of the mapped class; None: not known.
        names: Of the classes, by their value.
        colours: Red, green, blue of each class.
        dates: Scenes or files that it was drawn from, the earlier first.
        datetimes: When these were taken; None where that is not known.
        earlier: How many of `dates` are of the earlier date.
        moved_m: (east, north): how far the later date was moved, metres; None where the map is of one date.
        nodata: Value of what was not seen; None: everything was.
        grid: Of its pixels.
    """

    path: Path
    confidence: Path | None
    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]
    dates: tuple[str, ...]
    datetimes: tuple[dt.datetime | None, ...]
    earlier: int
    moved_m: tuple[float, float] | None
    nodata: int | None
    grid: GeoBox

    @property
    def crs(self) -> str:
        """The CRS as "EPSG:…" or WKT."""
        return str(self.grid.crs)

    @property
    def affine(self) -> Affine:
        """Pixels to coordinates."""
        return self.grid.affine

    def read(self, row: int = 0, column: int = 0, rows: int | None = None, columns: int | None = None) -> Bytes:
        """Read classes of a window `(rows, columns)`; to the end where a side is not given."""
        return self._read(self.path, row, column, rows, columns)

    def read_confidence(
        self, row: int = 0, column: int = 0, rows: int | None = None, columns: int | None = None
    ) -> npt.NDArray[np.float32] | None:
        """Read the probability of the mapped class of a window, 0 to 1; None where no raster tells it."""
        if self.confidence is None:
            return None
        return self._read(self.confidence, row, column, rows, columns).astype(np.float32) / np.float32(FULL_PROBABILITY)

    def at(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Look up the class at some places of the map's CRS, `(N,)`; -1 where there is none."""
        columns, rows = (np.floor(values) for values in ~self.affine @ (x, y))
        height, width = self.grid.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = np.full(len(x), -1, np.int64)
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(self.path) as source:
            found[inside] = [int(value[0]) for value in source.sample(np.stack([x[inside], y[inside]], axis=1))]
        return np.where(np.isin(found, list(self.names)), found, -1)

    def seen(self, classes: Bytes) -> npt.NDArray[np.bool_]:
        """Tell pixels that have a class."""
        return np.ones(classes.shape, bool) if self.nodata is None else np.asarray(classes != self.nodata)

    def pixel_m2(self) -> npt.NDArray[np.float64]:
        """Measure a pixel's ground in every block of 512 x 512 pixels, `(block rows, block columns)`, square metres."""
        rows, columns = self.grid.shape
        centres = [np.minimum(np.arange(0, n, _BLOCK_PX) + _BLOCK_PX / 2, n) for n in (rows, columns)]
        column, row = np.meshgrid(centres[1], centres[0])
        x, y = self.affine @ (column.ravel(), row.ravel())
        per_unit = ground_m2_per_unit(x, y, self.crs, abs(self.affine.a))
        return np.asarray(per_unit * abs(self.affine.determinant)).reshape(row.shape)

    def _read(self, path: Path, row: int, column: int, rows: int | None, columns: int | None) -> Bytes:
        height, width = self.grid.shape
        window = Window(column, row, columns or width - column, rows or height - row)
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as source:
            return np.asarray(source.read(1, window=window), np.uint8)


def open_class_map(path: Path, confidence: Path | None = None) -> ClassMap:
    """Read what a map says of itself.

    Args:
        path: As `tasks.inference.raster_map.map_raster` has written it.
        confidence: Likewise; None: not known.

    Raises:
        InputError: If it names no classes, or the two are not of one grid.
    """
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as source:
        tags = source.tags()
        if "CLASS_NAMES" not in tags or source.dtypes[0] != "uint8" or source.crs is None:
            raise InputError(
                f"{path} is no class map: a georeferenced uint8 raster with the tag CLASS_NAMES was expected, as the"
                " stages that map classes write it"
            )
        names = {int(value): str(name) for value, name in json.loads(tags["CLASS_NAMES"]).items()}
        try:
            table = {value: colour[:3] for value, colour in source.colormap(1).items()}
        except ValueError:  # rasterio's word for "has none"
            table = {}
        colours = dict(zip(names, class_colours([], len(names)), strict=True))
        found = ClassMap(
            path,
            confidence,
            names,
            {value: table.get(value, colours[value]) for value in names},
            tuple(json.loads(tags.get("DATES", "[]"))),
            tuple(when and dt.datetime.fromisoformat(when) for when in json.loads(tags.get("DATETIMES", "[]"))),
            int(tags.get("EARLIER_DATES", "1")),
            (moved[0], moved[1]) if (moved := json.loads(tags.get("LATER_DATE_MOVED_M", "null"))) else None,
            None if source.nodata is None else int(source.nodata),
            GeoBox(source.shape, source.transform, source.crs.to_wkt()),
        )
    if confidence is not None:
        with rasterio.open(confidence) as source:
            if (source.shape, source.transform) != (found.grid.shape, found.affine):
                raise InputError(f"{confidence} is not of the grid of {path}: draw the map again")
    return found


def class_pixels_m2(found: ClassMap) -> tuple[dict[int, int], dict[int, float]]:
    """Count the pixels of every class, and measure their ground.

    Args:
        found: The map; it is read in rows of blocks.

    Returns:
        Pixels and square metres by class value; classes that the map does not show have 0.
    """
    per_block = found.pixel_m2()
    pixels, ground = np.zeros(256, np.int64), np.zeros(256)
    for number, weights in enumerate(per_block):
        top = number * _BLOCK_PX
        strip = found.read(top, rows=min(_BLOCK_PX, found.grid.shape[0] - top))
        for place, m2 in enumerate(weights):
            part = strip[:, place * _BLOCK_PX : (place + 1) * _BLOCK_PX]
            counts = np.bincount(part.ravel(), minlength=256)
            pixels += counts
            ground += counts * m2
    return {value: int(pixels[value]) for value in found.names}, {value: float(ground[value]) for value in found.names}

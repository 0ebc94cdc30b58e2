"""Place a region: its UTM zone, its square, and the grids on which sensors deliver it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pyproj import Transformer
from rasterio.transform import Affine

from a2mae.errors import InputError
from a2mae.simulate.noise import Points
from a2mae.simulate.parameters import RegionParameters


def utm_zone(lon: float) -> int:
    """Return the number of the UTM zone of a longitude, without the exceptions of Norway and Svalbard."""
    return int(np.floor((lon + 180.0) / 6.0)) % 60 + 1


def utm_epsg(zone: int, *, south: bool) -> int:
    """Return the EPSG code of a UTM zone on WGS 84."""
    return (32700 if south else 32600) + zone


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster's place: pixel (0, 0) is the upper left one.

    Attributes:
        epsg: Code of the coordinate reference system.
        left_m: Easting of the left edge.
        top_m: Northing of the upper edge.
        gsd_m: Side of a pixel.
        height: Rows.
        width: Columns.
    """

    epsg: int
    left_m: float
    top_m: float
    gsd_m: float
    height: int
    width: int

    @property
    def transform(self) -> Affine:
        """Rasterio's geotransform."""
        return Affine(self.gsd_m, 0.0, self.left_m, 0.0, -self.gsd_m, self.top_m)

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        return (
            self.left_m,
            self.top_m - self.height * self.gsd_m,
            self.left_m + self.width * self.gsd_m,
            self.top_m,
        )

    def refine(self, factor: int, halo: int = 0) -> Grid:
        """Return the same place with pixels `factor` times smaller and `halo` of these small pixels around."""
        gsd = self.gsd_m / factor
        return Grid(
            self.epsg,
            self.left_m - halo * gsd,
            self.top_m + halo * gsd,
            gsd,
            self.height * factor + 2 * halo,
            self.width * factor + 2 * halo,
        )

    def coarsen(self, gsd_m: float) -> Grid:
        """Return the same square with larger pixels; its side must be a multiple of them."""
        factor = gsd_m / self.gsd_m
        height, width = self.height / factor, self.width / factor
        if height != round(height) or width != round(width):
            raise InputError(
                f"a grid of {self.height} x {self.width} px of {self.gsd_m} m does not divide into {gsd_m} m"
            )
        return dataclasses.replace(self, gsd_m=gsd_m, height=round(height), width=round(width))


@lru_cache(maxsize=64)
def _transformer(source: int, target: int) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@dataclass(frozen=True, slots=True)
class Region:
    """A region's square in its own UTM zone.

    Attributes:
        parameters: What was asked for.
        epsg: The zone of its centre.
        left_m: Easting of the footprints' left edge, a multiple of `footprint_m`.
        top_m: Northing of the footprints' upper edge, a multiple of `footprint_m`.
        footprint_m: Side of a footprint.
        margin_m: What scenes show beyond.
    """

    parameters: RegionParameters
    epsg: int
    left_m: float
    top_m: float
    footprint_m: int
    margin_m: int

    @classmethod
    def place(cls, parameters: RegionParameters, *, footprint_m: int, margin_m: int) -> Region:
        """Put a region's square of footprints around its coordinates, on multiples of the footprint."""
        epsg = utm_epsg(utm_zone(parameters.lon), south=parameters.lat < 0)
        x, y = _transformer(4326, epsg).transform(parameters.lon, parameters.lat)
        half = parameters.footprints * footprint_m / 2
        left = round((x - half) / footprint_m) * footprint_m
        top = round((y + half) / footprint_m) * footprint_m
        return cls(parameters, epsg, float(left), float(top), footprint_m, margin_m)

    @property
    def name(self) -> str:
        """The region's name."""
        return self.parameters.name

    @property
    def south(self) -> bool:
        """Whether it lies in the southern hemisphere."""
        return self.parameters.lat < 0

    @property
    def side_m(self) -> float:
        """Side of the square of footprints, without margin."""
        return float(self.parameters.footprints * self.footprint_m)

    @property
    def center_m(self) -> tuple[float, float]:
        """Easting and northing of the centre: the origin of local coordinates."""
        return self.left_m + self.side_m / 2, self.top_m - self.side_m / 2

    def block(self, gsd_m: float, *, row: int = 0, column: int = 0, side: int | None = None, margin_m: float) -> Grid:
        """Lay a grid in the region's own zone over a square block of footprints.

        Args:
            gsd_m: Side of a pixel; must divide the block's side.
            row: First footprint row, from the north.
            column: First footprint column, from the west.
            side: Footprints per side of the block; None for all.
            margin_m: What is shown beyond the block.
        """
        side = self.parameters.footprints if side is None else side
        length = side * self.footprint_m + 2 * margin_m
        pixels = round(length / gsd_m)
        return Grid(
            self.epsg,
            self.left_m + column * self.footprint_m - margin_m,
            self.top_m - row * self.footprint_m + margin_m,
            gsd_m,
            pixels,
            pixels,
        )

    def covering(self, epsg: int, gsd_m: float, *, phase_m: float, margin_m: float) -> Grid:
        """Lay a grid in another zone around the region's square, its edges at multiples of `gsd_m` plus `phase_m`."""
        own = self.block(gsd_m, margin_m=margin_m).bounds_m
        left, bottom, right, top = _transformer(self.epsg, epsg).transform_bounds(*own)
        first_x = np.floor((left - phase_m) / gsd_m) * gsd_m + phase_m
        first_y = np.ceil((top - phase_m) / gsd_m) * gsd_m + phase_m
        width = int(np.ceil((right - first_x) / gsd_m))
        height = int(np.ceil((first_y - bottom) / gsd_m))
        return Grid(epsg, float(first_x), float(first_y), gsd_m, height, width)

    def local(self, grid: Grid, *, shift_m: tuple[float, float] = (0.0, 0.0)) -> Points:
        """Return a grid's pixel centres in local coordinates, moved so that content appears displaced.

        Args:
            grid: In any zone.
            shift_m: How far east and north (in the region's zone) the content lies from where the grid says.
        """
        x = grid.left_m + (np.arange(grid.width, dtype=np.float64) + 0.5) * grid.gsd_m
        y = grid.top_m - (np.arange(grid.height, dtype=np.float64) + 0.5) * grid.gsd_m
        if grid.epsg % 100 == self.epsg % 100:
            # One zone: the southern half differs from the northern by a false northing only.
            y = y + (1e7 if self.epsg >= 32700 else 0.0) - (1e7 if grid.epsg >= 32700 else 0.0)
        else:
            x, y = _transformer(grid.epsg, self.epsg).transform(*np.meshgrid(x, y))
        return Points(x - self.center_m[0] - shift_m[0], y - self.center_m[1] - shift_m[1])

    def lonlat_ring(self, grid: Grid) -> list[tuple[float, float]]:
        """Return the corners of a grid in degrees, counter-clockwise and closed, rounded to 1e-7."""
        left, bottom, right, top = grid.bounds_m
        corners = ((left, bottom), (right, bottom), (right, top), (left, top), (left, bottom))
        lonlat = (_transformer(grid.epsg, 4326).transform(x, y) for x, y in corners)
        return [(round(lon, 7), round(lat, 7)) for lon, lat in lonlat]

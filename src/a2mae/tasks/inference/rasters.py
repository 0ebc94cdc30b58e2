"""Read rasters of any size window by window: scenes, mosaics of scenes, and files on one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from a2mae.config import CloudParameters
from a2mae.raster.footprints import ground_size_m
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import read_image
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import BandAsset, Role, Scene
from a2mae.sensors import Sensor
from a2mae.tasks.datasets.inputs import InputPlan
from a2mae.tasks.datasets.task_data import TaskDataError

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_PIECE_PX = 512


@dataclass(frozen=True)
class Raster:
    """Bands of one sensor on one grid.

    Attributes:
        layers: Scenes, or the bands of a file in the order wanted. The first lies on top; the others fill what those
            above them do not show.
        sensor: The sensor; values are in its units.
        bands: Names of the bands, in the order wanted.
        grid: The grid that windows are read on.
        name: Name of the scene, the scenes or the file.
        day: Days since 1970-01-01 UTC; None if not known.
        shift_m: (east, north): how far the content is moved when it is read, metres.
        clouds: How clouds of scenes are told, so that they count as not seen; None: they count as seen.
        access: How a catalog's files are reached; None: the user has named the file.
    """

    layers: tuple[Scene | tuple[BandAsset, ...], ...]
    sensor: Sensor
    bands: tuple[str, ...]
    grid: GeoBox
    name: str
    day: float | None = None
    shift_m: tuple[float, float] = (0.0, 0.0)
    clouds: CloudParameters | None = None
    access: RemoteAccess | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.grid.shape
        return int(rows), int(columns)

    @property
    def gsd_m(self) -> float:
        """Size of a pixel on the ground at the centre, metres."""
        return ground_size_m(self.grid.affine, self.shape, str(self.grid.crs))

    @property
    def pixel_m(self) -> float:
        """Size of a pixel in the grid's own metres, which shifts are given in; EPSG:3857 has shorter ones."""
        return float(abs(self.grid.resolution.x))

    @property
    def files(self) -> list[tuple[BandAsset, ...]]:
        """The bands, in the order wanted, of every file or part of a scene, the uppermost first."""
        return [files for layer in self.layers for files in _files_of(layer, self.bands)]

    def lonlat_deg(self, row: int, column: int, size: int) -> tuple[float, float]:
        """Return longitude and latitude of the centre of a square window, degrees."""
        x, y = self.grid.affine @ (column + size / 2, row + size / 2)
        (lon,), (lat,) = transform(str(self.grid.crs), "EPSG:4326", [x], [y])
        return float(lon), float(lat)


def _files_of(layer: Scene | tuple[BandAsset, ...], bands: Sequence[str]) -> list[tuple[BandAsset, ...]]:
    if not isinstance(layer, Scene):
        return [layer]
    by_name = [{asset.band: asset for asset in part if asset.role is Role.DATA} for part in layer.parts]
    return [tuple(assets[name] for name in bands) for assets in by_name]


def raster_from_scene(
    scene: Scene, sensor: Sensor, bands: Sequence[str], *, access: RemoteAccess, clouds: CloudParameters | None
) -> Raster:
    """Describe bands of a scene, all its parts, on the grid of the finest of them.

    Args:
        scene: A scene of the scene table.
        sensor: Its sensor.
        bands: Names or common names, in the order wanted.
        access: How its files are reached.
        clouds: How clouds are told; None: they count as seen.

    Raises:
        ReadError: If the scene table does not know the finest band's grid and its file cannot be opened.
    """
    names = tuple(sensor.bands[sensor.band_index(name)].name for name in bands)
    grids = [_grid_of(min(files, key=lambda asset: asset.gsd_m), access) for files in _files_of(scene, names)]
    day = scene.datetime.timestamp() / 86400
    return Raster((scene,), sensor, names, _union(grids), scene.scene_id, day, clouds=clouds, access=access)


def _grid_of(asset: BandAsset, access: RemoteAccess) -> GeoBox:
    if asset.crs is not None and asset.shape is not None and asset.affine is not None:
        return GeoBox(asset.shape, asset.affine, asset.crs)
    with RasterReader(access=access) as reader:
        source = reader.dataset(asset.href)
        return GeoBox(source.shape, source.transform, source.crs.to_wkt())


def mosaic(rasters: Sequence[Raster]) -> Raster:
    """Lay rasters of one sensor on one another: the first on top, the others where those above show nothing.

    Args:
        rasters: In order, the uppermost first.

    Returns:
        A raster on the first one's CRS and pixels, large enough for all of them; its day is the first one's.

    Raises:
        TaskDataError: If there are none, or they are of several sensors.
    """
    if not rasters or len({raster.sensor.id for raster in rasters}) > 1:
        found = ", ".join(sorted({raster.sensor.id for raster in rasters})) or "nothing"
        raise TaskDataError(f"a mosaic needs scenes of one sensor, found {found}")
    return replace(
        rasters[0],
        layers=tuple(layer for raster in rasters for layer in raster.layers),
        grid=_union([raster.grid for raster in rasters]),
        name=", ".join(raster.name for raster in rasters),
    )


def _union(grids: Sequence[GeoBox]) -> GeoBox:
    """The first grid, grown to hold all of them."""
    first = grids[0]
    top, left, bottom, right = 0, 0, *first.shape
    for grid in grids[1:]:
        box = grid.extent.to_crs(str(first.crs)).boundingbox
        corners = [~first.affine @ (x, y) for x in (box.left, box.right) for y in (box.bottom, box.top)]
        columns, rows = zip(*corners, strict=True)
        left, right = min(left, math.floor(min(columns) + 1e-6)), max(right, math.ceil(max(columns) - 1e-6))
        top, bottom = min(top, math.floor(min(rows) + 1e-6)), max(bottom, math.ceil(max(rows) - 1e-6))
    return GeoBox((bottom - top, right - left), first.affine @ Affine.translation(left, top), first.crs)


def coarser_grid(grid: GeoBox, factor: int) -> GeoBox:
    """Make the grid of blocks of `factor` x `factor` pixels; the last ones may reach past the edges."""
    rows, columns = (math.ceil(length / factor) for length in grid.shape)
    return GeoBox((rows, columns), grid.affine @ Affine.scale(factor), grid.crs)


class RasterWindows(AbstractContextManager["RasterWindows"]):
    """Reads windows of a raster; files stay open between reads."""

    def __init__(self, raster: Raster) -> None:
        self._raster = raster
        self._reader = RasterReader(access=raster.access)

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Floats, Bools]:
        """Read a window, which may reach past the edges.

        Returns:
            Pixels `(C, height, width)` in physical units, 0 where not valid, and where they are valid
            `(height, width)`: every band was seen, and there is no cloud.
        """
        rows, columns = self._raster.shape
        pixels = np.zeros((len(self._raster.bands), height, width), np.float32)
        valid = np.zeros((height, width), bool)
        # In pieces: resampling takes a matrix of the target's by the source's width.
        for top in range(row, min(row + height, rows), _PIECE_PX):
            for left in range(column, min(column + width, columns), _PIECE_PX):
                bottom, right = (
                    min(first + _PIECE_PX, end, side)
                    for first, end, side in ((top, row + height, rows), (left, column + width, columns))
                )
                place = np.s_[top - row : bottom - row, left - column : right - column]
                pixels[:, *place], valid[place] = self.on(self._raster.grid[top:bottom, left:right])
        return pixels, valid

    def on(self, grid: GeoBox) -> tuple[Floats, Bools]:
        """Read the raster on a small grid of any kind; pixels and validity are those of `read`."""
        first, *others = self._raster.layers
        pixels, valid = self._layer(first, grid)
        for layer in others:
            if valid.all():
                break
            under, fills = self._layer(layer, grid)
            fills &= ~valid
            pixels[:, fills] = under[:, fills]
            valid |= fills
        return np.where(valid, pixels, np.float32(0)), valid

    def normalised(self, plan: InputPlan, row: int, column: int, height: int, width: int) -> tuple[Floats, Bools]:
        """Read a window as the encoder takes it.

        Returns:
            `(C, height, width)` normalised, 0 where not valid or absent; and where they are valid `(height, width)`.
        """
        pixels, valid = self.read(row, column, height, width)
        index = plan.sensors.index(self._raster.sensor.id)
        has = np.asarray(plan.std[index]) > 0  # the others are bands that the sensor lacks
        mean, std = (np.asarray(values[index], np.float32)[has, None, None] for values in (plan.mean, plan.std))
        found = np.zeros((len(has), height, width), np.float32)
        pixels -= mean
        pixels /= std
        found[has] = np.where(valid, pixels, np.float32(0))
        return plan.filled_up(found), valid

    def _layer(self, layer: Scene | tuple[BandAsset, ...], grid: GeoBox) -> tuple[Floats, Bools]:
        raster = self._raster
        if not isinstance(layer, Scene):
            pixels = self._reader.read(layer, grid, shift_m=raster.shift_m)
            return pixels, np.asarray(np.isfinite(pixels).all(axis=0))
        # A cloud beyond the window's edge reaches in as it does in the whole raster.
        edge = 0 if raster.clouds is None else math.ceil(raster.clouds.buffer_m / abs(grid.resolution.x))
        image = read_image(
            self._reader,
            layer,
            raster.sensor,
            grid.pad(edge) if edge else grid,
            raster.clouds,
            bands=raster.bands,
            shift_m=raster.shift_m,
        )
        rows, columns = grid.shape
        inner = np.s_[edge : edge + rows, edge : edge + columns]
        return image.physical[:, *inner], image.valid[inner]


class RasterRows(AbstractContextManager["RasterRows"]):
    """Windows of rasters on one grid, from top to bottom: every pixel is read once, and while others are computed.

    Memory is that of the rows which a window has, and of those by which the next ones lie below, at full width.
    """

    def __init__(
        self, rasters: Sequence[Raster], plan: InputPlan, size: int, first_rows: Sequence[int], width: int
    ) -> None:
        """Prepare.

        Args:
            rasters: On one grid.
            plan: Bands and normalisation.
            size: Side of a window, pixels.
            first_rows: First row of each row of windows, ascending.
            width: What a row of windows covers, pixels; at least the rasters' width.
        """
        self._rasters, self._plan, self._size = rasters, plan, size
        self._below = dict(pairwise(first_rows))
        self._width = width
        self._top: int | None = None
        self._pixels, self._valid = np.empty(0, np.float32), np.empty(0, bool)
        self._ahead: Future[tuple[Floats, Bools]] | None = None
        self._thread = ThreadPoolExecutor(1, "a2mae-rows")  # GDAL's handles belong to the thread that uses them
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._readers = self._thread.submit(self._opened).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._thread.submit(self._open.close)
        self._thread.shutdown()

    def windows(self, row: int, columns: Sequence[int]) -> tuple[Floats, Bools]:
        """Return windows of one row of them.

        Args:
            row: Their first row, as `first_rows` has it; never above that of an earlier call.
            columns: Their first columns.

        Returns:
            `(windows, rasters, C, size, size)` normalised, 0 where not valid or absent; and where they are valid,
            `(windows, rasters, size, size)`.
        """
        self._move_to(row)
        parts = [np.s_[..., column : column + self._size] for column in columns]
        return np.stack([self._pixels[part] for part in parts]), np.stack([self._valid[part] for part in parts])

    def valid(self, row: int, rows: int) -> Bools:
        """Return where rows of the present windows are valid: `(rasters, rows, columns)`."""
        assert self._top is not None, "windows are read before their rows are asked for"
        return self._valid[:, row - self._top : row - self._top + rows, : self._rasters[0].shape[1]]

    def _move_to(self, row: int) -> None:
        if row == self._top:
            return
        kept = 0 if self._top is None else max(self._top + self._size - row, 0)
        if self._ahead is None or self._top is None or self._below.get(self._top) != row:
            self._ahead = self._thread.submit(self._read, row + kept, row + self._size)
        pixels, valid = self._ahead.result()
        if kept:
            self._pixels[..., :kept, :] = self._pixels[..., self._size - kept :, :]
            self._valid[..., :kept, :] = self._valid[..., self._size - kept :, :]
            self._pixels[..., kept:, :], self._valid[..., kept:, :] = pixels, valid
        else:
            self._pixels, self._valid = pixels, valid
        self._top, self._ahead = row, None
        if (below := self._below.get(row)) is not None:
            self._ahead = self._thread.submit(self._read, max(row + self._size, below), below + self._size)

    def _opened(self) -> list[RasterWindows]:
        return [self._open.enter_context(RasterWindows(raster)) for raster in self._rasters]

    def _read(self, first: int, last: int) -> tuple[Floats, Bools]:
        read = [reader.normalised(self._plan, first, 0, last - first, self._width) for reader in self._readers]
        return np.stack([pixels for pixels, _ in read]), np.stack([valid for _, valid in read])


def sample_of(raster: Raster) -> Floats:
    """Read the valid pixels of one window of at most 512 x 512, the first of five that has any.

    Returns:
        Physical values `(C, N)`; N is 0 if none of the five has any.
    """
    rows, columns = raster.shape
    height, width = min(rows, _PIECE_PX), min(columns, _PIECE_PX)
    with RasterWindows(raster) as windows:
        for row, column in ((1, 1), (1, 2), (2, 1), (2, 2), (0, 0)):
            pixels, valid = windows.read(row * rows // 4, column * columns // 4, height, width)
            if valid.any():
                break
    return pixels[:, valid]

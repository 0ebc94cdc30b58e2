"""Rasters of any size, read window by window in physical units."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.warp import transform

from a2mae.plausibility import BRIGHTEST_TOO_DARK, TOO_DARK
from a2mae.raster.masks import PixelClass, decode_mask, grow
from a2mae.raster.read import RasterReader
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import BandAsset, Role, Scene
from a2mae.sensors import Sensor, Units
from a2mae.tasks.datasets.task_data import Task, TaskDataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RasterKeys:
    """Full names of the parameters that say what a raster holds.

    Attributes:
        sensor: Whose raster it is.
        scale: Physical units per count; empty where no parameter says so and the file must.
        offset: Physical value of a stored zero, likewise.
    """

    sensor: str
    scale: str = ""
    offset: str = ""

    @property
    def raster(self) -> str:
        """Which raster it is."""
        return self.sensor.replace(".sensor", ".raster")

    @property
    def advice(self) -> str:
        """What to change where values are not what they are taken for: the end of a sentence."""
        stated = f"set {self.scale} and {self.offset}, " if self.scale else ""
        return f"{stated}write scale and offset into the file, or set {self.sensor}"


EMBED = RasterKeys("embed.sensor", "embed.scale", "embed.offset")


def keys_of_map(task: Task) -> RasterKeys:
    """Those of a task's map."""
    return RasterKeys(f"{task}.map.sensor")


OF_SCENES = "check scale and offset of the rule or item by which ingest has read them"
"""What to change where the values of scenes of the scene table are not what they are taken for."""


Floats = npt.NDArray[np.float32]
_PIECE_PX = 512
REFLECTANCE_LIMIT = 2.0
"""A median above this is no reflectance: the raster holds other units than its sensor says."""


@dataclass(frozen=True)
class Layer:
    """One scene's part of a raster.

    Attributes:
        assets: The bands in the order wanted; each on a grid of its own.
        mask: The provider's, whose clouds and shadows count as not seen; None: none is asked for or there.
        cloud_buffer_m: Clouds and shadows are widened by so many metres.
    """

    assets: tuple[BandAsset, ...]
    mask: BandAsset | None = None
    cloud_buffer_m: float = 0.0


@dataclass(frozen=True)
class Raster:
    """Bands of one acquisition on one grid.

    Attributes:
        layers: Scenes, the first on top: those below fill what the ones above them did not see.
        grid: The grid that windows are read on.
        sensor: Sensor id, for normalisation.
        name: Of the scene, the scenes or the file.
        day: Days since 1970-01-01 UTC; None where not known.
        shift_m: (east, north): how far the content is moved when it is read, metres.
        access: How a catalog's files are reached; None: the user has named the file, and GDAL may open what it can.
    """

    layers: tuple[Layer, ...]
    grid: GeoBox
    sensor: str
    name: str
    day: float | None = None
    shift_m: tuple[float, float] = (0.0, 0.0)
    access: RemoteAccess | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """`(rows, columns)`."""
        rows, columns = self.grid.shape
        return int(rows), int(columns)

    @property
    def gsd_m(self) -> float:
        """Metres per pixel."""
        return float(abs(self.grid.resolution.x))

    def lonlat_deg(self, row: int, column: int, size: int) -> tuple[float, float]:
        """Centre of a square window, degrees."""
        x, y = self.grid.affine @ (column + size / 2, row + size / 2)
        (lon,), (lat,) = transform(str(self.grid.crs), "EPSG:4326", [x], [y])
        return float(lon), float(lat)


def raster_from_file(
    path: Path,
    sensor: Sensor,
    bands: Sequence[str],
    *,
    stated: Sensor | None = None,
    scale: float | None = None,
    offset: float | None = None,
    keys: RasterKeys = EMBED,
) -> Raster:
    """Describe a GeoTIFF, COG or VRT that holds bands of a sensor on one projected grid in metres.

    Bands are found by their descriptions, else by their order: as stated where the file has as many bands as that, or
    the sensor's where it has as many as the sensor. Scale and offset are those given, else the file's where it has
    any, else those of `stated` or the sensor; a file of floats without any is taken as physical values. An offset that
    nobody but the sensor states is warned of: many providers have taken it off already.

    Args:
        path: The file.
        sensor: Whose raster it is.
        bands: Names or common names, in the order wanted.
        stated: The sensor with the bands, order and encoding of files like this one, as those that a task was trained
            on; None: as the sensor has them.
        scale: Physical units per count, whatever file and sensor say; None: as they say.
        offset: Physical value of a stored zero, likewise.
        keys: What the parameters are called, for messages.

    Raises:
        TaskDataError: If the file cannot be opened, has no CRS or none in metres, lacks a band, or its values are not
            in the sensor's units; the message says what was seen.
    """
    try:
        with rasterio.open(path) as source:
            if source.crs is None:
                raise TaskDataError(
                    f"{path} has no coordinate reference system: write one, for example with rio edit-info"
                )
            if not source.crs.is_projected or source.crs.linear_units not in ("metre", "meter", "m"):
                raise TaskDataError(
                    f"{path} is in {source.crs}, not in metres: reproject it, for example to its UTM zone"
                )
            layouts = (stated or sensor, sensor)
            assets = tuple(_asset(source, path, layouts, name, keys) for name in bands)
            silent = any(_says_nothing(source, asset.band_index - 1) for asset in assets)
            grid = GeoBox(source.shape, source.transform, source.crs.to_wkt())
    except RasterioError as error:
        raise TaskDataError(f"{path} cannot be opened as a raster: {error}") from error
    if scale is not None:
        assets = tuple(replace(asset, scale=scale) for asset in assets)
    if offset is not None:
        assets = tuple(replace(asset, offset=offset) for asset in assets)
    raster = Raster((Layer(assets),), grid, sensor.id, path.name)
    if silent and stated is None and offset is None and sensor.encoding.offset:
        logger.warning(
            "%s states no scale and offset: it is read by the offset of %s, %g. Where a provider has taken that off"
            " already (harmonised data), every value is wrong by it: %s",
            path,
            sensor.id,
            sensor.encoding.offset,
            f"set {keys.offset} (0.0, or {sensor.encoding.offset:g} if it is right)" if keys.offset else keys.advice,
        )
    _check_units(raster, path, sensor, keys)
    return raster


def _says_nothing(source: rasterio.io.DatasetReader, position: int) -> bool:
    """Integers of a band for which the file has neither scale nor offset."""
    is_float = np.issubdtype(np.dtype(source.dtypes[position]), np.floating)
    return not is_float and (source.scales[position], source.offsets[position]) == (1.0, 0.0)


def _asset(
    source: rasterio.io.DatasetReader,
    path: Path,
    layouts: tuple[Sensor, Sensor],
    name: str,
    keys: RasterKeys,
) -> BandAsset:
    """Where a band lies in a file of one of these layouts, the first one that fits."""
    stated, sensor = layouts
    band = sensor.bands[sensor.band_index(name)]
    named = [str(text or "") for text in source.descriptions]
    position = next((i for i, text in enumerate(named) if text in (band.name, band.common_name)), None)
    if position is None:
        layout = next((layout for layout in layouts if source.count == len(layout.bands)), None)
        if layout is None:
            raise TaskDataError(
                f"{path} has no band described as {band.name!r} or {band.common_name!r} (descriptions:"
                f" {', '.join(map(repr, named))}), and its {source.count} bands are not the {len(sensor.bands)} of"
                f" {sensor.id} ({', '.join(sensor.band_names)}): describe the bands, or set {keys.sensor}"
            )
        position = layout.band_index(name)
    encoding = stated.encoding
    is_float = np.issubdtype(np.dtype(source.dtypes[position]), np.floating)
    found = float(source.scales[position]), float(source.offsets[position])
    if _says_nothing(source, position):
        found = encoding.scale, encoding.offset
    nodata = source.nodata if source.nodata is not None else (None if is_float else float(encoding.nodata))
    return BandAsset(
        band=band.name,
        href=str(path),
        band_index=position + 1,
        scale=found[0],
        offset=found[1],
        nodata=nodata,
        units=encoding.units,
        gsd_m=abs(float(source.transform.a)),
    )


def _check_units(raster: Raster, path: Path, sensor: Sensor, keys: RasterKeys) -> None:
    """Look at one window: reflectance far above 1 or all zero is a wrong unit."""
    if sensor.encoding.units is not Units.REFLECTANCE:
        return
    seen = sample_of(raster)
    if not seen.size:
        return
    median = float(np.median(seen))
    if not 0.0 < median < REFLECTANCE_LIMIT:
        raise TaskDataError(
            f"{path}: decoded as reflectance the values are {seen.min():.4g} to {seen.max():.4g} with median"
            f" {median:.4g}; reflectance is 0 to 1: {keys.advice}"
        )
    brightest = float(np.percentile(seen, 99))
    if brightest < BRIGHTEST_TOO_DARK:
        logger.warning("%s: values from %.4g to %.4g; %s: %s", path, seen.min(), brightest, TOO_DARK, keys.advice)


def sample_of(raster: Raster) -> Floats:
    """Seen pixels of one window of at most 512 x 512, the first of five that has any.

    Returns:
        `(C, N)` physical values; N is 0 where nothing was seen in any of the five.
    """
    rows, columns = raster.shape
    height, width = min(rows, _PIECE_PX), min(columns, _PIECE_PX)
    with RasterWindows(raster) as windows:
        for row, column in ((1, 1), (1, 2), (2, 1), (2, 2), (0, 0)):
            pixels, valid = windows.read(row * rows // 4, column * columns // 4, height, width)
            if valid.any():
                break
    return pixels[:, valid]


def raster_from_scene(
    scene: Scene, sensor: Sensor, bands: Sequence[str], *, access: RemoteAccess, cloud_buffer_m: float | None = None
) -> Raster:
    """Bands of a scene of the scene table, all its parts, on the grid of the finest of them.

    Args:
        scene: From `scenes_from_table`.
        sensor: Its sensor.
        bands: Names or common names, in the order wanted.
        access: How its files are reached.
        cloud_buffer_m: What its mask calls cloud or shadow, widened by so much, counts as not seen; None: it is seen.

    Raises:
        ReadError: If the scene table does not know the finest band's grid and its file cannot be opened.
    """
    names = [sensor.bands[sensor.band_index(name)].name for name in bands]
    day = scene.datetime.timestamp() / 86400
    parts = []
    for assets in scene.parts:
        by_name = {asset.band: asset for asset in assets if asset.role is Role.DATA}
        wanted = tuple(by_name[name] for name in names)
        mask = next((asset for asset in assets if asset.role is Role.CLOUD_MASK), None)
        layer = Layer(wanted) if cloud_buffer_m is None else Layer(wanted, mask, cloud_buffer_m)
        grid = _grid_of(min(wanted, key=lambda asset: asset.gsd_m), access)
        parts.append(Raster((layer,), grid, scene.sensor, scene.scene_id, day, access=access))
    return replace(mosaic(parts), name=scene.scene_id)


def _grid_of(asset: BandAsset, access: RemoteAccess) -> GeoBox:
    if asset.crs is not None and asset.shape is not None and asset.transform is not None:
        return GeoBox(asset.shape, Affine(*asset.transform), asset.crs)
    with RasterReader(access=access) as reader:
        source = reader.dataset(asset.href)
        return GeoBox(source.shape, source.transform, source.crs.to_wkt())


def mosaic(rasters: Sequence[Raster]) -> Raster:
    """Scenes of one sensor as one raster: the first on top, the others where those above saw nothing.

    Args:
        rasters: In order, the uppermost first.

    Returns:
        A raster on the first one's CRS and pixels, grown to hold all of them; its day is the first one's.

    Raises:
        TaskDataError: If there are none, or they are of several sensors.
    """
    if not rasters or len({raster.sensor for raster in rasters}) > 1:
        found = ", ".join(sorted({raster.sensor for raster in rasters})) or "nothing"
        raise TaskDataError(f"a mosaic needs scenes of one sensor, found {found}")
    first = rasters[0]
    left, top, right, bottom = 0, 0, first.shape[1], first.shape[0]
    to_pixels = ~first.grid.affine
    for raster in rasters[1:]:
        box = raster.grid.extent.to_crs(str(first.grid.crs)).boundingbox
        corners = [to_pixels @ (x, y) for x in (box.left, box.right) for y in (box.bottom, box.top)]
        columns, rows = zip(*corners, strict=True)
        left, right = min(left, math.floor(min(columns) + 1e-6)), max(right, math.ceil(max(columns) - 1e-6))
        top, bottom = min(top, math.floor(min(rows) + 1e-6)), max(bottom, math.ceil(max(rows) - 1e-6))
    grid = GeoBox((bottom - top, right - left), first.grid.affine @ Affine.translation(left, top), first.grid.crs)
    name = ", ".join(raster.name for raster in rasters)
    return replace(first, grid=grid, name=name, layers=tuple(layer for raster in rasters for layer in raster.layers))


def on_grid_of(raster: Raster, other: Raster) -> Raster:
    """A raster read on another one's grid: pairs of dates must share theirs."""
    return replace(raster, grid=other.grid)


def coarser_grid(grid: GeoBox, factor: int) -> GeoBox:
    """The grid of blocks of `factor` x `factor` pixels, the last ones reaching past the edges."""
    rows, columns = (math.ceil(length / factor) for length in grid.shape)
    return GeoBox((rows, columns), grid.affine @ Affine.scale(factor), grid.crs)


class RasterWindows(AbstractContextManager["RasterWindows"]):
    """Reads windows of a raster; files stay open between reads."""

    def __init__(self, raster: Raster) -> None:
        self._raster = raster
        self._reader = RasterReader(access=raster.access, any_driver=raster.access is None)

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """A window that may reach past the edges.

        Returns:
            `(C, height, width)` float32 in physical units, 0 where not valid, and `(height, width)` bool: every band
            was seen.
        """
        rows, columns = self._raster.shape
        pixels = np.zeros((len(self._raster.layers[0].assets), height, width), np.float32)
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

    def on(self, grid: GeoBox) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The raster on a small grid of any kind: pixels and validity as `read` gives them."""
        first, *others = self._raster.layers
        pixels, seen = self._layer(first, grid)
        for layer in others:
            if seen.all():
                break
            under, fills = self._layer(layer, grid)
            fills &= ~seen
            pixels[:, fills] = under[:, fills]
            seen |= fills
        return np.where(seen, pixels, np.float32(0)), seen

    def _layer(self, layer: Layer, grid: GeoBox) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        pixels = self._reader.read(layer.assets, grid, shift_m=self._raster.shift_m)
        seen = np.asarray(np.isfinite(pixels).all(axis=0))
        return pixels, seen if layer.mask is None else seen & self._clear(layer.mask, layer.cloud_buffer_m, grid)

    def _clear(self, mask: BandAsset, buffer_m: float, grid: GeoBox) -> npt.NDArray[np.bool_]:
        """`(H, W)`: no cloud, shadow or fill; a cloud beyond the edge reaches in as it would in the whole raster."""
        radius_px = buffer_m / abs(grid.resolution.x)
        edge = math.ceil(radius_px)
        values = self._reader.read([mask], grid.pad(edge), shift_m=self._raster.shift_m, categorical=True)[0]
        classes = decode_mask(values, mask.mask, scale=mask.scale)
        hidden = grow((classes == PixelClass.CLOUD) | (classes == PixelClass.SHADOW), radius_px)
        rows, columns = grid.shape
        inner = np.s_[edge : edge + rows, edge : edge + columns]
        return np.asarray((~hidden & (classes != PixelClass.NODATA) & np.isfinite(values))[inner])

"""Read bands of scenes onto a grid: one resampling from the source, shift included; files stay open in between."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window

from a2mae.errors import ReadError, RejectedError
from a2mae.raster.files import OpenFile, crs_of, filled_in_all, same_text, source_window, warn_once
from a2mae.raster.opening import first_line, gdal_env, open_raster
from a2mae.raster.resample import can_resample, find_map, resample
from a2mae.raster.statements import compared_nodata
from a2mae.remote.fetch import TRANSIENT, Answer, NoAnswerError, ask, retried
from a2mae.remote.policy import RemoteAccess, is_remote, redact
from a2mae.remote.storage import Folder
from a2mae.remote.verify import Verifier

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from a2mae.scenes import BandAsset

Bands = set[tuple[str, int]]
"""Href and index of bands that hold data."""
_OPEN_FILES = 128
_MAX_READ_PIXELS = 2**27  # of one band: half a gigabyte as float32
_MAX_READ_VALUES = 2**29  # of all bands that are warped together: two gigabytes as float32


class RasterReader:
    """Reads bands and keeps the most recently used files open; a context manager, one per process or thread.

    Attributes:
        access: How files of a catalog are reached.
        sign: Its signer; asked before every use, so that a token may expire while files are open.
        verifier: Compares files with their checksums before their pixels are read, and knows its copies of remote
            ones; None: nothing is compared.
    """

    def __init__(
        self,
        *,
        access: RemoteAccess | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        self.access = access or RemoteAccess()
        self.sign = self.access.signer()
        self.verifier = verifier
        warn_once()
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._given_up: dict[str, ReadError] = {}
        self._env = gdal_env(self.access.reading)

    def __enter__(self) -> Self:
        self._env.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._env.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Self]:
        """Use the reader without closing its files at the end; what was given up before is tried again."""
        self._given_up.clear()
        with self._env:
            yield self

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].dataset.close()

    def _close_removed(self) -> None:
        """Close copies that were deleted to make room for others: until then they take it."""
        for address in [a for a in self._open if not is_remote(a) and not os.path.exists(a)]:
            self._open.pop(address).dataset.close()

    def _copy(self, href: str) -> str | None:
        return None if self.verifier is None else self.verifier.copy_of(href)

    def _is_far(self, href: str) -> bool:
        """Whether a file is read over a network, so that trying again may help."""
        return is_remote(href) and self._copy(href) is None

    def _address(self, href: str) -> str:
        copy = self._copy(href)
        if copy is not None:
            return copy
        with _rejected_as_unread():
            return self.sign(href)

    def dataset(self, href: str) -> DatasetReader:
        """Open a file, or return it if it is open.

        Raises:
            ReadError: If it cannot be opened, or claims a size beyond bounds.
        """
        return self._file(href).dataset

    def _file(self, href: str) -> OpenFile:
        address = self._address(href)
        if address in self._open:
            self._open.move_to_end(address)
            return self._open[address]
        try:
            dataset = open_raster(href, address, self.access)
        except RejectedError as rejection:
            again = href if rejection.reason in TRANSIENT - {"no_keys"} else None  # no server has them
            raise ReadError(rejection.detail, rejection.reason, href=again) from rejection
        self._open[address] = OpenFile(dataset, redact(href))
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].dataset.close()
        return self._open[address]

    def read(
        self,
        assets: Sequence[BandAsset],
        grid: GeoBox,
        *,
        beside: Sequence[BandAsset] = (),
        shift_m: tuple[float, float] = (0.0, 0.0),
        categorical: bool = False,
    ) -> NDArray[np.float32]:
        """Read bands of one scene onto a grid, resampled once.

        Bands that share a source grid are warped together, by cubic convolution with a kernel that is widened if the
        grid is coarser than the source.

        Args:
            assets: The bands.
            grid: Target grid.
            beside: Bands of the scene that are not read now: none of them masks the others, though it be flagged as
                alpha (NAIP's near infrared is).
            shift_m: (east, north): how far the content is moved in the grid's coordinates, metres.
            categorical: The values are classes: nearest neighbour, and the stored numbers are returned as they are.

        Returns:
            Physical values (stored numbers if categorical) `(len(assets), H, W)`, NaN where nothing was seen.

        Raises:
            ReadError: If a file cannot be opened or its pixels not decoded. A remote file has then been tried as often
                as `access.reading` says, and the reason is "unreachable" if its server is to blame. "checksum" if it
                is not the file that its item describes.
        """
        for asset in assets:
            if asset.href in self._given_up:
                raise self._given_up[asset.href]
            if self.verifier is not None:
                with _rejected_as_unread():
                    self.verifier.check(asset)
        if any(self._copy(asset.href) for asset in assets):
            self._close_removed()

        def attempt() -> NDArray[np.float32]:
            try:
                return self._read(assets, grid, named, shift_m=shift_m, categorical=categorical)
            except ReadError as error:
                if error.href is None or not self._is_far(error.href):
                    raise
                failed.append(error.href)
                raise NoAnswerError(str(error), self._ask(error.href)) from error

        named = {(asset.href, asset.band_index) for asset in (*assets, *beside)}
        failed: list[str] = []
        try:
            return retried(attempt, self.access.reading)
        except RejectedError as rejection:
            error = ReadError(rejection.detail, rejection.reason)
            self._given_up[failed[-1]] = error
            raise error from rejection

    def _ask(self, href: str) -> Answer:
        """Ask the server of a file that could not be read what is wrong; GDAL forgets what it knows of the file."""
        address = self._address(href)
        if address in self._open:
            self._open.pop(address).dataset.close()
        return ask(address, self.access.reading.timeout_s, self.access.policy)

    def _read(
        self,
        assets: Sequence[BandAsset],
        grid: GeoBox,
        named: Bands,
        *,
        shift_m: tuple[float, float],
        categorical: bool,
    ) -> NDArray[np.float32]:
        height, width = grid.shape
        target = Affine.translation(-shift_m[0], -shift_m[1]) @ grid.affine
        groups: dict[tuple[object, ...], list[int]] = {}
        for k, asset in enumerate(assets):
            groups.setdefault(self._file(asset.href).grid, []).append(k)
        parts = [
            (members, self._warped([assets[k] for k in members], named, grid, target, categorical=categorical))
            for members in groups.values()
        ]
        if len(parts) == 1 and parts[0][1] is not None:
            return parts[0][1]
        result = np.empty((len(assets), height, width), dtype=np.float32)
        for members, warped in parts:
            result[members] = np.float32(np.nan) if warped is None else warped
        return result

    def _warped(
        self, assets: Sequence[BandAsset], named: Bands, grid: GeoBox, target: Affine, *, categorical: bool
    ) -> NDArray[np.float32] | None:
        """Warp bands of one source grid onto the target; None if the two do not meet."""
        height, width = grid.shape
        crs = str(grid.crs)
        file = self._file(assets[0].href)
        first, name = file.dataset, file.shown
        source_crs = same_text(file.crs_wkt, crs)
        way = find_map(file.transform, source_crs, target, crs, (height, width), middle_lon=file.middle_lon)
        window = source_window(file, grid, target, way)
        if window is None:
            return None
        pixels = window.width * window.height
        if pixels > _MAX_READ_PIXELS or pixels * len(assets) > _MAX_READ_VALUES:
            raise ReadError(
                f"{name}: a footprint of {height} x {width} pixels takes {window.height:.0f} x {window.width:.0f} of"
                f" its pixels, in {len(assets)} bands more than are read at once: is its georeference right?",
                "too_large",
            )
        source = np.empty((len(assets), int(window.height), int(window.width)), dtype=np.float32)
        fills = [
            self._window(asset, window, values, categorical=categorical, named=named)
            for values, asset in zip(source, assets, strict=True)
        ]
        empty = filled_in_all(fills)
        if empty is not None:
            source[:, empty] = np.nan
        if way is not None and can_resample(way, categorical=categorical):
            origin = (int(window.col_off), int(window.row_off))
            return resample(source, way, origin, categorical=categorical)
        warped = np.full((len(assets), height, width), np.nan, dtype=np.float32)
        try:
            reproject(
                source,
                warped,
                src_transform=first.window_transform(window),
                src_crs=first.crs,
                src_nodata=np.nan,
                dst_transform=target,
                dst_crs=crs_of(crs),
                dst_nodata=np.nan,
                resampling=Resampling.nearest if categorical else Resampling.cubic,
                tolerance=0.01,  # of a pixel: GDAL's default of 1/8 is as large as the shifts we correct
            )
        except RasterioError as error:
            raise ReadError(f"{name} cannot be warped: {first_line(error)}") from error
        return warped

    def _window(
        self, asset: BandAsset, window: Window, values: NDArray[np.float32], *, categorical: bool, named: Bands
    ) -> NDArray[np.bool_] | None:
        """Read a window of a band into `values`, NaN where nothing was seen; and return where it holds its fill."""
        file = self._file(asset.href)
        dataset, shown, index = file.dataset, file.shown, asset.band_index
        if not 1 <= index <= dataset.count:
            raise ReadError(f"{shown} has {dataset.count} bands, band {index} was expected", "missing_band")
        if np.dtype(dataset.dtypes[index - 1]).kind == "c":
            raise ReadError(f"{shown}, band {index}: complex pixels are not supported", "complex")
        nodata = asset.nodata
        if asset.stated_by is not None:
            with _rejected_as_unread():
                nodata = compared_nodata(file.bands, file.gsd_m, asset, shown)
        alpha_is_data = asset.alpha_is_data or (asset.href, file.bands.alpha) in named
        try:
            stored, unseen = file.read(index, nodata, window=window, alpha_is_data=alpha_is_data)
        except (RasterioError, OSError) as error:
            message = f"{shown}, band {index}: pixels cannot be read: {first_line(error)}"
            raise ReadError(message, href=asset.href) from error
        with np.errstate(invalid="ignore", over="ignore"):
            if categorical:
                values[...] = stored
            else:
                np.multiply(stored, np.float32(asset.scale), out=values, dtype=np.float32, casting="unsafe")
                values += np.float32(asset.offset)
        if unseen is not None:
            values[unseen] = np.nan
        return None if asset.fill is None else stored == asset.fill


@contextlib.contextmanager
def _rejected_as_unread() -> Iterator[None]:
    """Raise the rejection of a file as the `ReadError` that callers of a reader expect."""
    try:
        yield
    except RejectedError as rejection:
        raise ReadError(rejection.detail, rejection.reason) from rejection


class _Kept(threading.local):
    """One reader per thread: GDAL's handles belong to the thread that uses them."""

    build: str = ""
    reader: RasterReader | None = None


_kept = _Kept()


@contextlib.contextmanager
def kept_reader(build: str, *, work: str, access: RemoteAccess) -> Iterator[RasterReader]:
    """Return the reader that earlier pieces of the same build in this thread have used, or a new one.

    Args:
        build: Identifies one run of a build; files of another run are closed, so that a rerun sees them as they are.
        work: The build's work folder, which remembers which files were verified.
        access: How files are reached; what an earlier piece has given up is tried again.

    Yields:
        The reader.
    """
    if _kept.build != build or _kept.reader is None:
        close_kept()
        _kept.build = build
        _kept.reader = RasterReader(access=access, verifier=Verifier(Folder(work), access))
    with _kept.reader.in_use() as reader:
        yield reader


def close_kept() -> None:
    """Close the files of this thread's kept reader, at the end of a build."""
    if _kept.reader is not None:
        _kept.reader.close()
    _kept.build, _kept.reader = "", None

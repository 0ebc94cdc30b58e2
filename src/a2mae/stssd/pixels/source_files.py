"""An open raster file: what is asked of it for every window is asked of GDAL once, and so are its warnings."""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.transform import Affine

from a2mae.stssd.refusals import ReadError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_REMEMBERED = 10_000  # warnings


class _OnlyOnce(logging.Filter):
    """Lets a message through the first time: GDAL says of a file with every window what it said when it opened it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._seen
        self._seen[text] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return new or record.levelno >= logging.ERROR


@functools.cache
def warn_once() -> None:
    """From now on a warning of GDAL that was logged is not logged again by this process."""
    logging.getLogger("rasterio._env").addFilter(_OnlyOnce())


@dataclass(frozen=True, eq=False)
class OpenFile:
    """An open file, and what is asked of it for every window.

    Attributes:
        dataset: The file.
        shown: Its name for messages.
    """

    dataset: DatasetReader
    shown: str
    _known: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _crs_texts: dict[str, str] = field(default_factory=dict)
    _masked: dict[int, bool] = field(default_factory=dict)

    def place(self) -> tuple[object, ...]:
        """The source grid: bands that share it are warped together.

        Raises:
            ReadError: If it has no coordinate reference system.
        """
        if "place" not in self._known:
            if self.dataset.crs is None:
                raise ReadError(f"{self.shown} has no coordinate reference system", "no_crs")
            self._known["place"] = (*self.transform[:6], self.dataset.crs.to_wkt(), *self.dataset.shape)
        return self._known["place"]

    @functools.cached_property
    def transform(self) -> Affine:
        """Pixel to coordinates (GDAL is asked once)."""
        return self.dataset.transform

    def crs_as(self, wanted: str) -> str:
        """The reference system as text: the wanted one's where they are the same."""
        if wanted not in self._crs_texts:
            crs = self.dataset.crs
            self._crs_texts[wanted] = wanted if crs == crs_of(wanted) else str(crs.to_wkt())
        return self._crs_texts[wanted]

    def has_mask(self, index: int) -> bool:
        """Whether a band has a mask of its own (nodata is compared with, not read as a mask)."""
        if index not in self._masked:
            flags = self.dataset.mask_flag_enums[index - 1]
            self._masked[index] = MaskFlags.alpha in flags or flags == [MaskFlags.per_dataset]
        return self._masked[index]


@functools.lru_cache(maxsize=64)
def crs_of(text: str) -> CRS:
    """A coordinate reference system, parsed once."""
    return CRS.from_string(text)

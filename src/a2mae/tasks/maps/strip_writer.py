"""Rasters of any size, written strip by strip and continued after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from a2mae.files import write_json
from a2mae.stssd.pixels.rasters import GDAL_OPTIONS

BLOCK = 256


class StripWriter:
    """Writes a raster top to bottom beside its place, and continues where an interrupted run stopped.

    Attributes:
        first_row: Rows before this one are already written.
    """

    def __init__(
        self,
        path: Path,
        *,
        bands: int,
        dtype: str,
        grid: GeoBox,
        nodata: float,
        fingerprint: str,
        names: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        colors: Mapping[int, tuple[int, int, int]] | None = None,
        scales: Sequence[float] = (),
    ) -> None:
        """Start, or continue, a raster.

        Args:
            path: The finished COG.
            bands: Channels.
            dtype: NumPy name.
            grid: Of the output.
            nodata: Value of what was not seen.
            fingerprint: Of everything that decides the content; another one starts anew.
            names: Band descriptions.
            tags: Dataset tags.
            colors: Colour table of a class map.
            scales: Per band, physical units per count.
        """
        self._path = path
        self._partial = path.with_name(f".{path.stem}.partial.tif")
        self._state = path.with_name(f".{path.stem}.partial.json")
        self._fingerprint = fingerprint
        path.parent.mkdir(parents=True, exist_ok=True)
        self.first_row = self._resume_row()
        if self.first_row:
            return
        rows, columns = grid.shape
        profile = {
            "driver": "GTiff",
            "height": rows,
            "width": columns,
            "count": bands,
            "dtype": dtype,
            "crs": str(grid.crs),
            "transform": grid.affine,
            "nodata": nodata,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "interleave": "band",
            "bigtiff": "IF_SAFER",
            "sparse_ok": True,
        }
        with rasterio.open(self._partial, "w", **profile) as target:
            for number, name in enumerate(names, start=1):
                target.set_band_description(number, name)
            target.update_tags(**(tags or {}))
            if colors:
                target.write_colormap(1, dict(colors))
            if scales:
                target.scales = tuple(scales)

    def write(self, row: int, strip: npt.NDArray[np.generic]) -> None:
        """Write rows `(bands, rows, columns)` and remember that they are done."""
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(self._partial, "r+") as target:
            target.write(strip, window=Window(0, row, strip.shape[-1], strip.shape[-2]))
        write_json(self._state, {"fingerprint": self._fingerprint, "rows": row + strip.shape[-2]})

    def finish(self) -> Path:
        """Turn what was written into the cloud-optimised GeoTIFF at its place."""
        cog = self._partial.with_suffix(".cog")
        with rasterio.Env(**GDAL_OPTIONS):  # GDAL's own cache would be 5 % of the machine
            copy_raster(
                self._partial,
                cog,
                driver="COG",
                compress="DEFLATE",
                blocksize=BLOCK,
                overview_resampling="NEAREST",
                bigtiff="IF_SAFER",
            )
        cog.replace(self._path)
        self._partial.unlink()
        self._state.unlink(missing_ok=True)
        return self._path

    def _resume_row(self) -> int:
        if not (self._state.is_file() and self._partial.is_file()):
            return 0
        state = json.loads(self._state.read_text())
        return int(state["rows"]) if state["fingerprint"] == self._fingerprint else 0

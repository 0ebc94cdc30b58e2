"""How much each patch of an embedded raster looks like the examples of a search, as a COG."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from a2mae.explore.search import Searcher
from a2mae.explore.store import Vectors
from a2mae.files import digest_of
from a2mae.raster.opening import GDAL_OPTIONS
from a2mae.tasks.tiling import StripWriter

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
_ROWS = 64


def write_similarity(path: Path, searcher: Searcher, positive: Vectors, negative: Vectors, *, embeddings: Path) -> None:
    """Write the similarity of every patch: cosine to the positive examples less that to the negative ones.

    Where patches cannot be compared with the examples, or lie nowhere, nothing is written, and the log says why.

    Examples are whole images, so it is the mean of their patches that patches are compared with, each standardised by
    its own kind: images by those of their sensor, patches by those of the raster.

    Args:
        path: The COG: one band, float32, NaN where nothing was seen.
        searcher: Of the store that the examples are of.
        positive: Examples.
        negative: Examples of what is not wanted; may be empty.
        embeddings: Folder that `embed` wrote.
    """
    store, raster = searcher.store, embeddings / "embeddings.tif"
    about = json.loads((embeddings / "embeddings.json").read_text("utf-8"))
    if about.get("model") != store.about.model or store.about.pool == "cls":
        reason = "is of another model" if store.about.pool != "cls" else "has patches, and the store's vectors are CLS"
        logger.warning("search: no similarity.tif: %s %s", raster, reason)
        return
    # View after view, of each the mean of its patches and, with mean_std, their deviation.
    width, times = int(about["dimensions"]) // int(about["views"]), 2 if store.about.pool == "mean_std" else 1
    dimensions = [view * width * times + number for view in range(int(about["views"])) for number in range(width)]
    wanted = searcher.direction(positive, dimensions)
    if len(negative.rows):
        wanted = wanted - searcher.direction(negative, dimensions)
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(raster) as source:
        if source.crs is None:
            logger.warning("search: no similarity.tif: %s has no CRS, so its patches lie nowhere", raster)
            return
        mean, deviation = _moments(source)
        writer = StripWriter(
            path,
            bands=1,
            dtype="float32",
            grid=GeoBox(source.shape, source.transform, source.crs.to_wkt()),
            nodata=float("nan"),
            fingerprint=digest_of([wanted.tolist(), str(about["raster"])]),
            names=["similarity"],
        )
        for top in range(0, source.height, _ROWS):
            values, seen = _strip(source, top)
            unit = (values - mean[:, None, None]) / deviation[:, None, None]
            length = np.maximum(np.sqrt((unit**2).sum(axis=0)), np.float32(1e-12))
            score = np.tensordot(wanted, unit, axes=1) / length
            writer.write(top, np.where(seen, score, np.float32(np.nan)).astype(np.float32)[None])
    writer.finish()


def _strip(source: rasterio.io.DatasetReader, top: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Read rows of vectors `(D, rows, columns)`, 0 where nothing was seen."""
    stored = source.read(window=Window(0, top, source.width, min(_ROWS, source.height - top)))
    seen = stored[0] != source.nodata if stored.dtype == np.int8 else np.isfinite(stored[0])
    scales = np.asarray(source.scales, np.float32)[:, None, None]
    return np.where(seen, stored.astype(np.float32) * scales, np.float32(0)), seen


def _moments(source: rasterio.io.DatasetReader) -> tuple[Floats, Floats]:
    """Compute mean and deviation of each dimension over the patches that were seen."""
    count, total, squares = 0, np.zeros(source.count), np.zeros(source.count)
    for top in range(0, source.height, _ROWS):
        values, seen = _strip(source, top)
        vectors = values[:, seen].astype(np.float64)
        count += vectors.shape[1]
        total += vectors.sum(axis=1)
        squares += (vectors**2).sum(axis=1)
    mean = total / max(count, 1)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)

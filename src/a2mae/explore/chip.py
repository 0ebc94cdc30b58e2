"""A picture of what is searched for that is not of the archive: embedded as the archive's images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from a2mae.errors import InputError
from a2mae.explore.archive import Embedder
from a2mae.explore.store import EmbeddingStore, Vectors
from a2mae.models.checkpoint import load_encoder
from a2mae.models.sources import weights_digest
from a2mae.raster.footprints import footprint_lonlat
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.finetune.encoders import bands_per_view, encoder_normalisation
from a2mae.tasks.finetune.train import computing
from a2mae.tasks.inference.files import RasterKeys, raster_from_file, sensor_named
from a2mae.tasks.inference.rasters import RasterWindows


class _Keys(RasterKeys):
    """Names of the chip's parameters."""

    @property
    def sensor(self) -> str:
        return "search.chip_sensor"

    @property
    def raster(self) -> str:
        return "search.chip"


_MOST_PX = 4096
_ID = "chip"


def embed_chip(pretrained: Path, store: EmbeddingStore, path: Path, sensor_id: str) -> Vectors:
    """Embed a GeoTIFF the way the vectors of a store were made.

    Args:
        pretrained: Model directory: that of the store.
        store: Says which bands were seen and how tokens were pooled.
        path: The file; its bands are found as those of `embed.raster` are.
        sensor_id: Whose image it is.

    Returns:
        One row with the columns that a search reads.

    Raises:
        InputError: If the model is not the store's, or the file is no image of the sensor, too large, or shows nothing.
    """
    about, digest = store.about, weights_digest(pretrained)
    if digest != about.model:
        raise InputError(
            f"search.chip would be embedded by the model {digest[:12]}, and the vectors of {store.folder} are of"
            f" {about.model[:12]}: they cannot be compared; name the model directory of the store"
        )
    encoder = load_encoder(pretrained)
    sensor = sensor_named(sensor_id, {})
    taught, width = encoder_normalisation(pretrained), bands_per_view(encoder)
    plan = plan_bands(sensor, about.bands, taught, bands_per_view=width, location=about.location)
    try:
        raster = raster_from_file(path, sensor, plan.bands, keys=_Keys("search"))
    except TaskDataError as error:
        raise InputError(f"search.chip cannot be read as an image of {sensor_id}: {error}") from error
    rows, columns = raster.shape
    if max(rows, columns) > _MOST_PX:
        raise InputError(
            f"search.chip {path} has {columns} x {rows} pixels, and a chip has {_MOST_PX} at most: cut out what is"
            " searched for"
        )
    with RasterWindows(raster) as windows:
        pixels, valid = windows.read(0, 0, rows, columns)
    if not valid.any():
        raise InputError(f"search.chip {path} shows nothing: every pixel is nodata; name a file that shows ground")
    outline = footprint_lonlat(raster.grid.affine, raster.shape, str(raster.grid.crs))
    centre = outline.centroid
    relative_gsd = min(1.0, about.tile_px / max(rows, columns))
    with computing("cpu", 0) as device:
        embedder = Embedder(encoder.to(device), plan, about, relative_gsd=relative_gsd)
        vectors = embedder(
            pixels[None],
            valid[None],
            gsd_m=np.array([raster.gsd_m], np.float32),
            days=None,
            lonlat=np.array([[centre.x, centre.y]]),
        )
    row = {
        "id": _ID, "level": "image", "set_id": "", "location_id": _ID, "sensor": sensor.id, "datetime": None,
        "split": "", "lon": centre.x, "lat": centre.y, "content": "", "geometry": shapely.to_wkb(outline),
    }  # fmt: skip
    schema = store.schema
    names = [name for name in schema.names if name not in ("scale", "vector")]
    table = pa.table({name: pa.array([row[name]], schema.field(name).type) for name in names})
    return Vectors(table, vectors)

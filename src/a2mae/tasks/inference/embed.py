"""Embed whole rasters: one vector per patch as a COG, one per block as GeoParquet, with constant memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from a2mae.config import Precision
from a2mae.files import whole_file
from a2mae.models.encoder import Encoder
from a2mae.models.precision import ComputePrecision, autocast
from a2mae.raster.opening import GDAL_OPTIONS
from a2mae.tables import geo_schema
from a2mae.tasks.datasets.inputs import InputPlan
from a2mae.tasks.inference.rasters import Floats, Raster, RasterRows, coarser_grid
from a2mae.tasks.inference.strips import Strip, Workers, draw
from a2mae.tasks.tiling import StripWriter, Windows, blended_strips, settled, starts

logger = logging.getLogger(__name__)

INT8_LIMIT = 127
INT8_NODATA = -128
_STEP = 8.0 / INT8_LIMIT
"""Embeddings have passed the final norm: a dimension beyond ±8 deviations of it is clipped when quantised."""
ROW_GROUP_BYTES = 32 * 2**20
"""Size of the vectors that are held before a row group of the table is written."""


def embed_raster(
    encoder: Encoder,
    plan: InputPlan,
    raster: Raster,
    path: Path,
    windows: Windows,
    *,
    device: torch.device,
    precision: Precision = "32-true",
    quantise: bool = False,
    model_hash: str = "",
    workers: Workers | None = None,
) -> Path:
    """Embed every patch of a raster, as a COG with a band per dimension.

    Args:
        encoder: A pretrained or finetuned encoder.
        plan: Bands and normalisation.
        raster: The raster.
        path: Path of the COG.
        windows: How the raster is cut.
        device: Where to run.
        precision: What the encoder computes in; embeddings that were begun go on in what `auto` came to then.
        quantise: Store int8 with one scale per dimension (written as the band's scale).
        model_hash: Identifies the model: embeddings that another one has begun are not continued.
        workers: Compute them where the raster is large enough to be shared; None: they are computed here.

    Returns:
        The path. CRS of the raster, pixels of one patch; patches of which less than half was seen are nodata.
    """
    patch = encoder.patch_size
    size, overlap = windows.in_patches(patch)
    grid = coarser_grid(raster.grid, patch)
    rows, columns = grid.shape
    features = encoder.num_features * plan.views
    settings = [str(raster), plan.to_dict(), windows.tile_px, windows.overlap_px, quantise, model_hash]
    computed, fingerprint = settled(path, settings, precision, device)
    writer = StripWriter(
        path,
        bands=features,
        dtype="int8" if quantise else "float32",
        grid=grid,
        nodata=INT8_NODATA if quantise else float("nan"),
        fingerprint=fingerprint,
        names=[f"feature {number}" for number in range(features)],
        tags={"PATCH_PX": str(patch), "SENSOR": raster.sensor.id, "BANDS": ",".join(plan.bands)},
        scales=[_STEP] * features if quantise else (),
    )
    drawing = _EmbeddingDrawing(raster, plan, patch, size, overlap, windows.batch_size, quantise, computed)
    draw(drawing, encoder, {drawing.name: writer}, path, fingerprint, device=device, workers=workers)
    logger.info("embeddings: %d x %d patches of %d px, %d dimensions", rows, columns, patch, features)
    return path


@dataclass(frozen=True)
class _EmbeddingDrawing:
    """Embeddings of a raster that are computed strip by strip; lengths are in patches.

    Attributes:
        raster: The raster.
        plan: Bands and normalisation.
        patch: Side of a patch, pixels.
        size: Side of a window.
        overlap: Shared by neighbouring windows.
        batch: Windows per forward pass.
        quantise: Give int8.
        precision: What the encoder computes in.
    """

    raster: Raster
    plan: InputPlan
    patch: int
    size: int
    overlap: int
    batch: int
    quantise: bool
    precision: ComputePrecision
    name = "embeddings"

    @property
    def first_rows(self) -> list[int]:
        """First row of each row of windows."""
        return starts(coarser_grid(self.raster.grid, self.patch).shape[0], self.size, self.overlap)

    def strips(
        self, model: Encoder, device: torch.device, first_row: int, last_row: int | None
    ) -> Iterator[tuple[int, Strip]]:
        """Yield rows of patches, as `Drawing` has it."""
        raster, plan, patch, size = self.raster, self.plan, self.patch, self.size
        rows, columns = coarser_grid(raster.grid, patch).shape
        side = size * patch
        model.to(device).eval()
        of_interest = [row * patch for row in self.first_rows if last_row is None or row < last_row]
        with RasterRows([raster], plan, side, of_interest, max(columns * patch, side)) as reader:

            def predict(row: int, cols: list[int]) -> Floats:
                images = torch.from_numpy(reader.windows(row * patch, [col * patch for col in cols])[0][:, 0])
                lonlat = [raster.lonlat_deg(row * patch, col * patch, side) for col in cols] if plan.location else []
                with autocast(self.precision, device.type):
                    tokens = _tokens(model, plan, raster, images.to(device), lonlat)
                count, _, width = tokens.shape
                maps: Floats = tokens.transpose(1, 2).reshape(count, width, size, size).float().cpu().numpy()
                return maps

            strips = blended_strips(
                rows,
                columns,
                model.num_features * plan.views,
                size=size,
                overlap=self.overlap,
                predict=predict,
                batch=self.batch,
                first_row=first_row,
                last_row=last_row,
                name=self.name,
            )
            for row, strip in strips:
                seen = _seen(reader, row, strip.shape[1], columns, patch)
                if self.quantise:
                    counts = np.clip(np.round(strip / _STEP), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
                    yield row, {self.name: np.where(seen, counts, np.int8(INT8_NODATA))}
                else:
                    yield row, {self.name: np.where(seen, strip, np.float32(np.nan))}


@torch.no_grad()
def _tokens(
    encoder: Encoder, plan: InputPlan, raster: Raster, images: torch.Tensor, lonlat_deg: list[tuple[float, float]]
) -> torch.Tensor:
    """Patch tokens `(B, N, D * views)` of windows `(B, C, H, W)`, final norm applied."""
    count = len(images)
    lonlat = torch.tensor(lonlat_deg, dtype=torch.float64, device=images.device) if plan.location else None
    day = None if raster.day is None else torch.full((count,), raster.day, device=images.device)
    wavelength = torch.tensor(plan.wavelength_nm, device=images.device)
    parts = []
    for number, view in enumerate(torch.split(images, plan.bands_per_view, dim=1)):
        tokens = encoder.forward_features(
            view,
            gsd_m=torch.full((count,), raster.gsd_m, device=images.device),
            lonlat_deg=lonlat,
            day=day,
            wavelength_nm=wavelength[number * plan.bands_per_view : (number + 1) * plan.bands_per_view],
        )
        parts.append(tokens[:, 1:])
    return torch.cat(parts, dim=-1)


def _seen(reader: RasterRows, row: int, rows: int, columns: int, patch: int) -> npt.NDArray[np.bool_]:
    """Patches of which at least half was seen, `(rows, columns)`."""
    valid = reader.valid(row * patch, rows * patch)[0]
    valid = np.pad(valid, [(0, 0), (0, columns * patch - valid.shape[1])])  # the last patch may reach past the edge
    share = valid.reshape(rows, patch, columns, patch).mean(axis=(1, 3))
    return np.asarray(share >= 0.5)


def write_block_vectors(path: Path, block: int, table: Path) -> int:
    """Average the vectors of each block of patches into a GeoParquet table, row group by row group.

    Columns: `row`, `column`, `seen` (share of its patches), `vector` and `geometry`, the block's square in the raster's
    CRS. A block of which nothing was seen has no row.

    Args:
        path: COG that `embed_raster` wrote.
        block: Side of a block in patches.
        table: The file; replaced when the new one is whole.

    Returns:
        Number of blocks written.
    """
    with whole_file(table) as partial, rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as source:
        coarse = coarser_grid(GeoBox(source.shape, source.transform, str(source.crs)), block)
        vector = pa.list_(pa.float32(), source.count)
        columns = [("row", pa.int64()), ("column", pa.int64()), ("seen", pa.float64()), ("vector", vector)]
        schema = geo_schema(columns, str(source.crs), ["Polygon"])
        with pq.ParquetWriter(partial, schema) as writer:
            written, pending, waiting = 0, list[pa.Table](), 0
            for row, vectors, seen in _blocks(source, block):
                pending.append(_block_rows(schema, coarse.affine, row, vectors, seen))
                waiting += len(pending[-1])
                if waiting * source.count * 4 >= ROW_GROUP_BYTES:
                    writer.write_table(pa.concat_tables(pending))
                    written, pending, waiting = written + waiting, [], 0
            if waiting or not written:
                writer.write_table(pa.concat_tables(pending))
    return written + waiting


def _block_rows(
    schema: pa.Schema, affine: Affine, row: int, vectors: Floats, seen: npt.NDArray[np.float64]
) -> pa.Table:
    """One row of blocks, without those of which nothing was seen."""
    columns = np.flatnonzero(seen > 0)
    left, right = (affine.c + affine.a * (columns + side) for side in (0, 1))  # north up, as every grid here
    top, bottom = (np.full(len(columns), affine.f + affine.e * (row + side)) for side in (0, 1))
    values = pa.array(np.ascontiguousarray(vectors[:, columns].T).ravel())
    arrays = [
        pa.array(np.full(len(columns), row, np.int64)),
        pa.array(columns.astype(np.int64)),
        pa.array(seen[columns]),
        pa.FixedSizeListArray.from_arrays(values, len(vectors)),
        pa.array(shapely.to_wkb(shapely.box(left, bottom, right, top)), pa.binary()),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _blocks(source: rasterio.io.DatasetReader, block: int) -> Iterator[tuple[int, Floats, npt.NDArray[np.float64]]]:
    """Yield row of blocks, mean vectors `(D, columns)` and share of patches seen `(columns,)`, top to bottom."""
    scales = np.asarray(source.scales, np.float32)[:, None, None]
    for number, top in enumerate(range(0, source.height, block)):
        height = min(block, source.height - top)
        stored = source.read(window=Window(0, top, source.width, height))
        seen = stored[0] != source.nodata if stored.dtype == np.int8 else np.isfinite(stored[0])
        values = np.where(seen, stored.astype(np.float32) * scales, np.float32(0))
        edges = np.arange(0, source.width, block)
        count = np.add.reduceat(seen.sum(axis=0), edges)
        total = np.add.reduceat(values.sum(axis=1), edges, axis=1)
        yield number, (total / np.maximum(count, 1)).astype(np.float32), count / (block * block)

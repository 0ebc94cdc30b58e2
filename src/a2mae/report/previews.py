"""One picture of a dataset for kedro-viz, W&B and DVC: contact sheets, rasters, curves of a training."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from a2mae.report.pictures import BytesImage, Ramp, classes_to_bytes, components_as_colours, display_bands, stretch

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from a2mae.report.inputs import StoreReader

_PANELS = (
    ("loss", {"loss": "training", "held_out_loss": "held out", "training_sets_loss": "fixed training sets"}),
    ("effective rank", {"effective_rank": "of the features"}),
    ("learning rate", {"lr": ""}),
)

GAP_PX = 4
PAPER = 255
_NOT_SCORED = 255
_MOST_NUMBERS = 16e6
"""Values that are read of a raster at most: one of many bands gets a smaller picture."""


def contact_sheet(store: StoreReader, *, columns: int = 8, cell_px: int = 96) -> BytesImage:
    """Draw a row of images per sensor, from its first to its last.

    Args:
        store: The open store.
        columns: Images per sensor.
        cell_px: Side of a picture.

    Returns:
        `(H, W, 3)`.
    """
    rows = []
    for name in store.sensors:
        count = store.count(name)
        chosen = np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(np.int64))
        bands = list(display_bands(store.sensor(name)))
        cells = []
        for row in chosen:  # one at a time: an image of a metre's GSD is large
            pixels, valid = store.read_physical(name, np.array([row], np.int64), bands)
            cells.append(stretch(pixels[0], valid[0]))
        rows.append(cells)
    return sheet(rows, columns=columns, cell_px=cell_px)


def sheet(rows: list[list[BytesImage]], *, columns: int, cell_px: int) -> BytesImage:
    """Lay pictures side by side on white paper, each reduced to its cell."""
    step = cell_px + GAP_PX
    paper = np.full((step * len(rows) + GAP_PX, step * columns + GAP_PX, 3), PAPER, np.uint8)
    for y, cells in enumerate(rows):
        for x, picture in enumerate(cells):
            small = np.asarray(Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.BOX))
            top, left = GAP_PX + y * step, GAP_PX + x * step
            paper[top : top + cell_px, left : left + cell_px] = small
    return paper


def task_pictures(path: Path, *, columns: int = 8, cell_px: int = 96) -> BytesImage:
    """Draw what a task's model was shown, the truth and its prediction below each other; classes and values as colours.

    Args:
        path: The `.npz` of the task's pictures.
        columns: Samples.
        cell_px: Side of a picture.
    """
    with np.load(path, allow_pickle=False) as arrays:
        rows = [list(arrays[name][:columns]) for name in sorted(arrays.files) if name.startswith("image")]
        colours = arrays["class_colours"] if "class_colours" in arrays.files else None  # absent: an earlier version's
        if "quantity" in arrays.files:
            both = [np.atleast_3d(arrays[name][:columns].T).T for name in ("truth", "prediction")]
            ramp = Ramp.of(np.concatenate(both))
            return sheet(
                [*rows, *([ramp.colours(values) for values in of] for of in both)], columns=columns, cell_px=cell_px
            )
        for name in ("truth", "prediction"):
            labels = arrays[name][:columns]
            maps = [_as_map(np.asarray(classes)) for classes in labels]
            rows.append([classes_to_bytes(np.ascontiguousarray(classes), colours=colours) for classes in maps])
    return sheet(rows, columns=columns, cell_px=cell_px)


def _as_map(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a map of a sample's classes: one fills it, several (0 and 1 per class) are stripes, none is not scored."""
    if labels.ndim == 2:
        return labels
    if labels.ndim == 0:
        return np.full((2, 2), labels, np.uint8)
    there = np.flatnonzero(labels)
    return (there if len(there) else np.array([_NOT_SCORED])).astype(np.uint8)[None]


def raster_picture(path: Path, *, max_px: int = 512) -> BytesImage:
    """Draw a GeoTIFF, reduced: classes in their colours, values by a ramp, features by their principal components.

    Args:
        path: The raster.
        max_px: Longest side.

    Returns:
        `(H, W, 3)`.
    """
    import rasterio  # noqa: PLC0415 (previews of tables need no GDAL)

    with rasterio.open(path) as source:
        share = min(1.0, max_px / max(source.height, source.width))
        if source.dtypes[0] != "uint8":
            share = min(share, math.sqrt(_MOST_NUMBERS / (source.count * source.height * source.width)))
        shape = (max(1, round(source.height * share)), max(1, round(source.width * share)))
        if source.dtypes[0] == "uint8":
            classes = source.read(1, out_shape=shape)
            try:
                colours = source.colormap(1)
            except ValueError:  # rasterio's word for "has none"
                return classes_to_bytes(classes)
            table = np.array([colours.get(index, (PAPER,) * 4)[:3] for index in range(256)], np.uint8)
            return np.asarray(table[classes])
        pixels = source.read(out_shape=(source.count, *shape), masked=True)
    valid = ~np.ma.getmaskarray(pixels).any(axis=0) & np.isfinite(pixels.data).all(axis=0)
    values = np.where(valid, pixels.data, 0).astype(np.float32)
    if len(values) == 1:
        shown = np.where(valid, values[0], np.nan)
        return Ramp.of(shown).colours(shown)
    if len(values) > 3:
        return components_as_colours(values, valid)
    return stretch(values[[min(band, len(values) - 1) for band in range(3)]], valid)


def draw_curves(curves: pd.DataFrame) -> bytes:
    """Draw loss, effective rank and learning rate over the steps.

    Args:
        curves: One row per log interval, with `step`; a measure that was not taken in a row is NaN there.

    Returns:
        A PNG; the same table gives the same bytes.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axis, (name, columns) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for column, label in columns.items():
            if column in curves:
                known = curves.dropna(subset=[column])
                axis.plot(known["step"], known[column], marker="o", markersize=3, label=label)
        axis.set(xlabel="step", ylabel=name)
        if len(columns) > 1:
            axis.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)  # draws without a window, whatever the user's backend
    # Without the library's version in it, an update of matplotlib alone changes no byte outside the picture.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def to_base64_png(picture: BytesImage) -> str:
    """Encode a picture as kedro-viz takes it."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

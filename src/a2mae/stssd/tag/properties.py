"""Measure the four properties that the paper's abstract claims of STSSD, and code footprints in GeoSOT.

GeoSOT-2D codes (docs/methods.md, A²-MAE) are computed here for whole tables. One coordinate is 32 bits: sign (1 is
west or south), 8 bits of whole degrees, 6 of minutes, 6 of seconds and 11 of the second's fraction in 1/2048. A code of
layer n keeps its n leading bits and has zeros below. `models/layers/geosot.py` is the same for tensors, where neither
pyproj nor a table is at hand; a test holds the two together.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from a2mae.errors import InputError
from a2mae.raster.footprints import transformer
from a2mae.stssd.coregister.sets import in_growing_season

LAYERS = 32
_METRES_PER_DEGREE = 111_319.49  # of latitude, and of longitude at the equator
_CELL_DEG = np.array(
    [512.0 / 2**n for n in range(10)]
    + [32.0 / 2**n / 60 for n in range(6)]
    + [32.0 / 2**n / 3600 for n in range(6)]
    + [0.5 / 2**n / 3600 for n in range(11)]
)


def encode(degrees: NDArray[np.float64], layer: int = LAYERS) -> NDArray[np.uint32]:
    """Codes of coordinates.

    Args:
        degrees: Longitudes or latitudes, any shape; negative is west or south. Longitudes beyond ±180 are wrapped by
            the caller.
        layer: 1 to 32.

    Raises:
        InputError: If the layer is not 1 to 32, or a coordinate is not a number within ±180.
    """
    if not 1 <= layer <= LAYERS:
        raise InputError(f"GeoSOT layer must be 1 to {LAYERS}, found {layer}")
    values = np.asarray(degrees, dtype=np.float64)
    if not (np.abs(values) <= 180).all():
        raise InputError("GeoSOT codes need longitudes and latitudes in degrees within ±180")
    units = np.floor(np.abs(values) * (3600 * 2048)).astype(np.int64)  # of 1/2048 second: below 2^31, exact
    seconds = units >> 11
    code = (
        ((values < 0).astype(np.int64) << 31)
        | ((seconds // 3600) << 23)
        | ((seconds // 60 % 60) << 17)
        | ((seconds % 60) << 11)
        | (units & 0x7FF)
    )
    keep = ((1 << layer) - 1) << (LAYERS - layer)
    return np.asarray(code & keep, dtype=np.uint32)


def layer_for_size(size_m: float) -> int:
    """The finest layer whose cell is at least as large as a footprint [ours]: 14 (2 minutes) at 1,920 m."""
    if not (np.isfinite(size_m) and size_m > 0):
        raise InputError(f"a footprint's side must be positive metres, found {size_m}")
    fitting = np.flatnonzero(_CELL_DEG[1:] * _METRES_PER_DEGREE >= size_m)
    return int(fitting[-1]) + 1 if fitting.size else 1


def footprint_codes(locations: pd.DataFrame, layer: int | None = None) -> NDArray[np.uint32]:
    """Codes of the corners of footprints.

    Args:
        locations: `LOCATION_COLUMNS`.
        layer: 1 to 32; by the footprint's size if None.

    Returns:
        `(N, 8)`: upper left, upper right, lower right, lower left × (lon, lat).
    """
    codes = np.zeros((len(locations), 8), dtype=np.uint32)
    crs = locations["crs"].to_numpy()
    left, top = locations["x_m"].to_numpy(np.float64), locations["y_m"].to_numpy(np.float64)
    size = locations["footprint_m"].to_numpy(np.float64)
    for code in np.unique(crs.astype(str)):
        rows = np.flatnonzero(crs == code)
        x0, y0, side = left[rows], top[rows], size[rows]
        xs = np.stack([x0, x0 + side, x0 + side, x0], axis=1)
        ys = np.stack([y0, y0, y0 - side, y0 - side], axis=1)
        lon, lat = transformer(str(code), "EPSG:4326").transform(xs, ys)
        corners = np.stack([lon, lat], axis=2).reshape(len(rows), 8)
        for one_size in np.unique(side):
            chosen = side == one_size
            codes[rows[chosen]] = encode(corners[chosen], layer or layer_for_size(float(one_size)))
    return codes


_ONE_DEGREE_LAYER = 9


def four_properties(images: pd.DataFrame, sets: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Measure the four properties: several sources, diverse coverage, unified locations, heterogeneity.

    Args:
        images: Image table.
        sets: Set table.

    Returns:
        Figures by name for each property, JSON-ready.
    """
    return {
        "sources": _sources(images, sets),
        "coverage": _coverage(images, sets),
        "unified_locations": _unified(images),
        "heterogeneity": _heterogeneity(sets),
    }


def _sources(images: pd.DataFrame, sets: pd.DataFrame) -> dict[str, object]:
    gsd = images.groupby("set_id")["gsd_m"].agg(["min", "max"])
    ratio = gsd["max"] / gsd["min"]
    counts = sets["sensors"].map(len)
    return {
        "sensors": int(images["sensor"].nunique()),
        "images_per_sensor": {str(k): int(v) for k, v in images["sensor"].value_counts().sort_index().items()},
        "sets": len(sets),
        "sets_per_kind": {str(k): int(v) for k, v in sets["kind"].value_counts().sort_index().items()},
        "images_per_set_mean": float(sets["image_count"].mean()),
        "sets_with_two_sources_share": float((counts >= 2).mean()),
        "gsd_ratio_within_sets_median": float(ratio.median()),
        "dates_per_set_mean": float(images.groupby("set_id")["datetime"].nunique().mean()),
    }


def _coverage(images: pd.DataFrame, sets: pd.DataFrame) -> dict[str, object]:
    lon, lat = sets["lon"].to_numpy(), sets["lat"].to_numpy()
    cells = np.stack([encode(lon, _ONE_DEGREE_LAYER), encode(lat, _ONE_DEGREE_LAYER)], axis=1)
    when = images["datetime"]
    growing = [
        in_growing_season(dt.datetime(2000, month, 1, tzinfo=dt.UTC), 1.0 if north else -1.0)
        for month in range(1, 13)
        for north in (False, True)
    ]
    in_season = np.array(growing).reshape(12, 2)[when.dt.month - 1, (images["lat"] >= 0).to_numpy().astype(int)]
    return {
        "locations": int(sets["location_id"].nunique()),
        "one_degree_cells": len(np.unique(cells, axis=0)),
        "utm_zones": int(np.unique(np.floor((lon + 180) / 6)).size),
        "longitude_range_deg": [float(lon.min()), float(lon.max())],
        "latitude_range_deg": [float(lat.min()), float(lat.max())],
        "southern_hemisphere_share": float((lat < 0).mean()),
        "years": sorted(int(year) for year in when.dt.year.unique()),
        "months": sorted(int(month) for month in when.dt.month.unique()),
        "growing_season_share": float(in_season.mean()),
    }


def _unified(images: pd.DataFrame) -> dict[str, object]:
    moved = images[images["registration"] == "registered"]
    residual = moved["residual_px"].dropna()
    shift = pd.Series(np.hypot(moved["shift_x_m"].to_numpy(), moved["shift_y_m"].to_numpy()))
    return {
        "registration": {str(k): int(v) for k, v in images["registration"].value_counts().sort_index().items()},
        "shift_applied_m_median": _quantile(shift, 0.5),
        "shift_applied_m_95": _quantile(shift, 0.95),
        "residual_px_median": _quantile(residual, 0.5),
        "residual_px_95": _quantile(residual, 0.95),
        "residual_measured_share": float(len(residual) / len(moved)) if len(moved) else None,
    }


def _heterogeneity(sets: pd.DataFrame) -> dict[str, object]:
    values = sets["heterogeneity"]
    return {
        "mean": float(values.mean()),
        "quantile_05": _quantile(values, 0.05),
        "median": _quantile(values, 0.5),
        "quantile_95": _quantile(values, 0.95),
        "nearly_uniform_share": float((values < 0.05).mean()),
    }


def _quantile(values: pd.Series, q: float) -> float | None:
    return float(values.quantile(q)) if len(values) else None

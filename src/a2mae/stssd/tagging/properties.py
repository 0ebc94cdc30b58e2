"""The four properties that the paper's abstract claims of STSSD, measured on what was built."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from a2mae.stssd.building.sets import in_growing_season
from a2mae.stssd.tagging.geosot import encode

_ONE_DEGREE_LAYER = 9


def four_properties(images: pd.DataFrame, sets: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Several sources, diverse coverage, unified locations, heterogeneity within the images.

    Args:
        images: Image table.
        sets: Set table.
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

"""A map of the locations, and how many image sets of which kind and split they have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Section, Table, View, chart
from a2mae.report.inputs import ReportInputs, drawn, how_many, records

if TYPE_CHECKING:
    import pandas as pd

_UTM_ZONE_DEG = 6
_SPLIT_SYMBOL = {"train": "circle", "val": "diamond", "test": "square"}
_MAX_ROWS = 500


def locations(inputs: ReportInputs) -> Section | None:
    """Draw a map of image sets by kind and split, or of locations where there are no sets yet."""
    if inputs.sets is not None and len(inputs.sets):
        return _of_sets(inputs.sets)
    if inputs.locations is not None and len(inputs.locations):
        return _of_locations(inputs.locations)
    return None


def _of_sets(sets: pd.DataFrame) -> Section:
    figure = go.Figure()
    views = _views(sets)
    whole = _draw_grid(figure, sets, views)
    kinds_here = sorted(sets["kind"].unique())
    for kind, of_kind in drawn(sets).groupby("kind", sort=True):
        _draw_footprints(figure, of_kind, str(kind))
        # Sets of one location are drawn side by side inside its footprint.
        aside = (kinds_here.index(kind) + 1) / (len(kinds_here) + 1) - 0.5
        figure.add_scatter(
            x=of_kind["lon"] + aside * _width_deg(of_kind),
            y=of_kind["lat"],
            mode="markers",
            name=str(kind),
            legendgroup=str(kind),
            marker={"size": 10, "symbol": [_SPLIT_SYMBOL.get(split, "cross") for split in of_kind["split"]]},
            text=[_hover(row) for row in records(of_kind)],
            hoverinfo="text",
        )
    zones = sorted({_utm_zone(lon, lat) for lon, lat in zip(sets["lon"], sets["lat"], strict=True)})
    kinds = ", ".join(f"{kind} {number}" for kind, number in sets["kind"].value_counts(sort=False).sort_index().items())
    rows = records(sets.sort_values(["kind", "set_id"]).head(_MAX_ROWS))
    table = Table(
        f"The image sets{_cut(len(sets))}",
        ("set", "kind", "sensors", "images", "first date", "last date", "position", "split", "kept"),
        tuple(
            (
                str(row["set_id"]),
                str(row["kind"]),
                ", ".join(row["sensors"]),
                text.count(row["image_count"]),
                text.day(row["time_start"]),
                text.day(row["time_end"]),
                text.position(row["lon"], row["lat"]),
                str(row["split"]),
                "yes" if row["kept"] else "no",
            )
            for row in rows
        ),
        numeric=(3,),
        folded=True,
    )
    split = (
        sets.assign(kept=sets["kept"].astype(bool))
        .groupby(["kind", "split"], sort=True)
        .agg(sets=("set_id", "size"), images=("image_count", "sum"), kept=("kept", "sum"))
        .reset_index()
    )
    by_split = Table(
        "Sets by kind and split (splits are by location: no location is in two of them)",
        ("kind", "split", "sets", "kept", "images"),
        tuple(
            (
                str(row["kind"]),
                str(row["split"]),
                text.count(row["sets"]),
                text.count(row["kept"]),
                text.count(row["images"]),
            )
            for row in records(split)
        ),
        numeric=(2, 3, 4),
    )
    return Section(
        "locations",
        "Locations",
        f"{plural(len(sets), 'image set')} at {plural(sets['location_id'].nunique(), 'location')}"
        f" in {plural(len(zones), 'UTM zone')} ({', '.join(zones)}). Scroll to zoom, drag to move, or"
        " jump to a zone; zoomed in, each square is the true footprint. The page fetches no background map:"
        " the dashed lines are the borders of UTM zones and the equator.",
        (
            chart(
                "locations",
                figure,
                caption="Image sets by kind (colour) and split (circle: train, diamond: validation, square: test)."
                + how_many(sets),
                alt=f"Map of {len(sets)} image sets by kind: {kinds}; UTM zones {', '.join(zones)}."
                " The table below lists every set.",
                table=table,
                height_px=480,
                views=(whole, *views),
            ),
            by_split,
        ),
    )


def _of_locations(locations: pd.DataFrame) -> Section:
    figure = go.Figure()
    views = _views(locations)
    whole = _draw_grid(figure, locations, views)
    shown = drawn(locations)
    _draw_footprints(figure, shown, "location")
    figure.add_scatter(
        x=shown["lon"],
        y=shown["lat"],
        mode="markers",
        name="location",
        legendgroup="location",
        text=[f"{row['location_id']}<br>{row['crs']}" for row in records(shown)],
        hoverinfo="text",
    )
    table = Table(
        f"The locations{_cut(len(locations))}",
        ("location", "position", "CRS", "side"),
        tuple(
            (
                str(row["location_id"]),
                text.position(row["lon"], row["lat"]),
                str(row["crs"]),
                text.number(row["footprint_m"], 0, "m"),
            )
            for row in records(locations.head(_MAX_ROWS))
        ),
        numeric=(3,),
        folded=True,
    )
    return Section(
        "locations",
        "Locations",
        f"{plural(len(locations), 'location')}. Scroll to zoom, drag to move.",
        (
            chart(
                "locations",
                figure,
                caption="Locations; zoomed in, each square is the true footprint." + how_many(locations),
                alt=f"Map of {len(locations)} locations; the table below lists them.",
                table=table,
                height_px=480,
                views=(whole, *views),
            ),
        ),
    )


def _width_deg(table: pd.DataFrame) -> NDArray[np.float64]:
    """Compute the width of each footprint in degrees of longitude."""
    boxes = [geometry.bounds for geometry in table.get("geometry", ())]
    return np.array([east - west for west, _, east, _ in boxes]) if boxes else np.zeros(len(table))


def _views(table: pd.DataFrame) -> list[View]:
    """Make a view of each UTM zone that has locations."""
    zones = [_utm_zone(lon, lat) for lon, lat in zip(table["lon"], table["lat"], strict=True)]
    views = []
    for zone, rows in table.assign(_zone=zones).groupby("_zone", sort=True):
        (west, east), (south, north) = (rows[axis].agg(["min", "max"]) for axis in ("lon", "lat"))
        pad = 0.02 + 0.1 * max(east - west, north - south)
        views.append(View(str(zone), (west - pad, east + pad), (south - pad, north + pad)))
    return views


def _cut(total: int) -> str:
    return f" (the first {_MAX_ROWS} of {text.count(total)})" if total > _MAX_ROWS else ""


def _hover(row: dict[str, object]) -> str:
    sensors = row["sensors"]
    names = ", ".join(str(name) for name in sensors) if hasattr(sensors, "__iter__") else ""
    parts = (
        f"{row['set_id']} ({row['kind']})",
        names,
        f"{row['image_count']} images, {text.day(row['time_start'])} to {text.day(row['time_end'])}",
        f"split: {row['split']}",
    )
    # Plotly reads a little HTML in hover texts: names from a user's catalog must not become markup.
    return "<br>".join(part.replace("&", "&amp;").replace("<", "&lt;") for part in parts)


def _utm_zone(lon: float, lat: float) -> str:
    return f"{int((lon + 180) // _UTM_ZONE_DEG) % 60 + 1}{'N' if lat >= 0 else 'S'}"


def _draw_footprints(figure: go.Figure, table: pd.DataFrame, group: str) -> None:
    """Draw the footprints as one line, with gaps between them."""
    if "geometry" not in table.columns:
        return
    xs: list[float | None] = []
    ys: list[float | None] = []
    for geometry in table["geometry"]:
        for x, y in geometry.exterior.coords:
            xs.append(float(x))
            ys.append(float(y))
        xs.append(None)
        ys.append(None)
    figure.add_scatter(
        x=xs, y=ys, mode="lines", legendgroup=group, name=group, showlegend=False, hoverinfo="skip", line={"width": 1.5}
    )


def _draw_grid(figure: go.Figure, table: pd.DataFrame, zones: Sequence[View]) -> View:
    """Draw axes in degrees around the locations, with zone borders and the equator; a single zone is shown large."""
    pad = 3.0
    west, east = float(table["lon"].min()) - pad, float(table["lon"].max()) + pad
    south, north = float(table["lat"].min()) - pad, float(table["lat"].max()) + pad
    borders = range(math.ceil(west / _UTM_ZONE_DEG) * _UTM_ZONE_DEG, math.floor(east) + 1, _UTM_ZONE_DEG)
    lines = [{"type": "line", "x0": lon, "x1": lon, "y0": 0, "y1": 1, "yref": "paper"} for lon in borders]
    if south < 0 < north:
        lines.append({"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0})
    figure.update_layout(
        shapes=[{**line, "line": {"dash": "dash", "width": 1, "color": "#8a8f98"}, "layer": "below"} for line in lines],
        dragmode="pan",
    )
    whole = View("all", (west, east), (south, north))
    shown = zones[0] if len(zones) == 1 else whole
    figure.update_layout(
        xaxis={"title": "longitude, degrees east", "range": list(shown.x)},
        yaxis={"title": "latitude, degrees north", "range": list(shown.y)},
    )
    return whole

"""Plotly figures for the page: structure from here, colours from the page's theme, the script inlined once."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from a2mae.reporting.blocks import Chart, Table, View


def chart(
    name: str,
    figure: go.Figure,
    *,
    caption: str,
    alt: str,
    table: Table | None = None,
    height_px: int = 380,
    views: tuple[View, ...] = (),
) -> Chart:
    """Wrap a figure for the page.

    Fonts, grid and series colours are set by `report.js` from the theme, so figures must not fix them.

    Args:
        name: Identifier in the page.
        figure: Data, axes' titles (with units) and interactions.
        caption: What it shows.
        alt: The finding in words.
        table: The numbers behind it.
        height_px: Height in CSS pixels.
        views: Parts to jump to.
    """
    figure.update_layout(
        template="none",
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        height=height_px,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"namelength": -1},
    )
    return Chart(name, figure.to_json(), caption, alt, table, height_px, views)


def plotly_script() -> str:
    """The plotting library as one script (MIT), so that the page opens without a network."""
    return str(get_plotlyjs())

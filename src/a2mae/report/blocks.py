"""What a page is made of: values that sections return and the template draws.

A block holds only text, formatted numbers and data URIs; the template escapes every string. So no section writes
HTML, and no name from a user's catalog can become markup.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from a2mae.errors import InputError


@dataclass(frozen=True)
class Fact:
    """One key figure.

    Attributes:
        label: What it is.
        value: The figure, formatted, with its unit.
        note: A line under it, may be empty.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """A row of key figures."""

    facts: tuple[Fact, ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What the rows are.
        columns: Headings, with units.
        rows: Formatted cells, as many per row as there are columns.
        numeric: Positions of the columns that hold numbers; they are aligned right.
        folded: Whether it is shown behind a button.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    folded: bool = False
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        """Check that every row has a cell per column.

        Raises:
            InputError: If one has not.
        """
        ragged = [row for row in self.rows if len(row) != len(self.columns)]
        if ragged:
            raise InputError(
                f"table {self.caption!r}: {len(self.columns)} columns, but a row has {len(ragged[0])} cells"
            )


@dataclass(frozen=True)
class View:
    """A part of a chart that a button jumps to.

    Attributes:
        label: On the button.
        x: From, to.
        y: From, to.
    """

    label: str
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """An interactive figure.

    Attributes:
        name: Identifier in the page, letters and hyphens.
        figure_json: Plotly's JSON of data and layout; colours are left to the page's light or dark theme.
        caption: What it shows.
        alt: For somebody who cannot see it: the finding, not the picture.
        table: The numbers behind it, folded.
        height_px: Height in CSS pixels.
        views: Parts to jump to, for readers who do not scroll.
    """

    name: str
    figure_json: str
    caption: str
    alt: str
    table: Table | None = None
    height_px: int = 380
    views: tuple[View, ...] = ()
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Arrow:
    """A shift drawn in the corner of a picture.

    Attributes:
        east_m: Metres moved east.
        north_m: Metres moved north.
    """

    east_m: float
    north_m: float

    @property
    def length_m(self) -> float:
        """Length of the shift, in metres."""
        return float((self.east_m**2 + self.north_m**2) ** 0.5)

    def tip(self, radius: float) -> tuple[float, float]:
        """Compute where an arrow of length `radius` from (0, 0) ends in SVG coordinates (y points down)."""
        if self.length_m == 0:
            return (0.0, 0.0)
        return (radius * self.east_m / self.length_m, -radius * self.north_m / self.length_m)


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        uri: `data:image/...` URI.
        alt: What is seen, for a screen reader.
        lines: Caption lines under it.
        badge: A word in its corner, for example "anchor"; may be empty.
        arrow: The shift to draw in the corner, if there is one.
    """

    uri: str
    alt: str
    lines: tuple[str, ...] = ()
    badge: str = ""
    arrow: Arrow | None = None


@dataclass(frozen=True)
class Strip:
    """Pictures side by side that belong together.

    Attributes:
        title: What they share.
        pictures: Left to right.
        note: A line under the title, may be empty.
    """

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Swatch:
    """A colour of a legend: `colour` as `#rrggbb`."""

    colour: str
    label: str


@dataclass(frozen=True)
class Gallery:
    """Strips under one caption, with a legend where colours mean something.

    Attributes:
        caption: What they show.
        strips: One below the other.
        legend: What the colours of maps mean.
        large: Whether pictures are drawn large.
    """

    caption: str
    strips: tuple[Strip, ...]
    legend: tuple[Swatch, ...] = ()
    large: bool = False
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Code:
    """Preformatted text, folded: a configuration, a log."""

    caption: str
    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class Way:
    """A link to a page of the report.

    Attributes:
        page: Name of the page.
        title: Text of the link.
        text: What is found there, or why to look at it.
    """

    page: str
    title: str
    text: str


@dataclass(frozen=True)
class Ways:
    """Links to pages: `cards` to choose from, `notices` to be read in order.

    Attributes:
        title: Heading of the list.
        ways: The links.
        style: How they are drawn.
    """

    title: str
    ways: tuple[Way, ...]
    style: Literal["cards", "notices"] = "cards"
    kind: Literal["ways"] = "ways"


@dataclass(frozen=True)
class File:
    """A link to a file beside the page.

    Attributes:
        href: Relative to the page, `/` between folders.
        title: Text of the link.
        text: What is in it.
    """

    href: str
    title: str
    text: str


@dataclass(frozen=True)
class Files:
    """Links to files beside the page; they work where the page lies in its folder.

    Attributes:
        title: Heading of the list.
        files: The links.
    """

    title: str
    files: tuple[File, ...]
    kind: Literal["files"] = "files"


Block = Facts | Table | Chart | Gallery | Text | Code | Ways | Files


@dataclass(frozen=True)
class Section:
    """One chapter of a page.

    Attributes:
        name: Anchor in the file, letters and hyphens.
        title: Heading.
        lead: One or two sentences on what is shown and how to read it.
        blocks: The content.
    """

    name: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Page:
    """What is shown at a time: the summary, or one stage of the chain.

    Attributes:
        name: Address in the file: `report.html#/name`.
        title: Heading.
        purpose: What the stage does, for somebody who does not know the project.
        finding: The result of this run, in a sentence with figures.
        sections: The chapters.
    """

    name: str
    title: str
    purpose: str
    finding: str
    sections: tuple[Section, ...] = ()


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
    """Make a chart of a Plotly figure.

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
    """Return the plotting library as one script (MIT), so that the page opens without a network."""
    return str(get_plotlyjs())

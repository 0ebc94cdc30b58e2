"""Rendering: pages to one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from a2mae.errors import InputError
from a2mae.report.blocks import Chart, Page, plotly_script
from a2mae.report.inputs import ReportInputs
from a2mae.report.stage_pages import pages

SIZE_LIMIT_MB = 15


class ReportTooLargeError(InputError):
    """The file would be too large to be passed on and opened at once."""


def build(inputs: ReportInputs) -> str:
    """Build the file as HTML.

    Args:
        inputs: The chain's outputs; pages of absent stages are left out.

    Raises:
        ReportTooLargeError: If the page is over `SIZE_LIMIT_MB`; the message says which limits to lower.
    """
    shown = pages(inputs)
    page = render(inputs.title, shown)
    size_mb = len(page.encode("utf-8")) / 1e6
    if size_mb > SIZE_LIMIT_MB:
        raise ReportTooLargeError(
            f"the report would be {size_mb:.1f} MB, more than {SIZE_LIMIT_MB}: {_largest(shown)}. Pictures are what is"
            " large: lower sets, reconstructions, examples or picture_px under 'report:' in"
            " conf/<env>/parameters_report.yml"
        )
    return page


def _largest(shown: Sequence[Page]) -> str:
    """Name the chapters that take most of the file."""
    sizes = {
        f"'{section.title}' of {page.title} ({len(str(section)) / 1e6:.1f} MB)": len(str(section))
        for page in shown
        for section in page.sections
    }
    return f"most of it is {', '.join(sorted(sizes, key=lambda name: -sizes[name])[:3])}"


def render(title: str, shown: Sequence[Page]) -> str:
    """Render pages with the template, with style and scripts inside.

    Without scripts all pages are shown one below the other, and links lead from one to the next. With scripts one is
    shown at a time, at the address `#/name`; `#/all` and a printer show the whole report.
    """
    folder = resources.files("a2mae.report") / "page_assets"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text("utf-8"))
    blocks = [block for page in shown for section in page.sections for block in section.blocks]
    has_charts = any(isinstance(block, Chart) for block in blocks)
    return template.render(
        title=title,
        pages=shown,
        # Our own files and the vendored library: the only text that reaches the page unescaped.
        style=Markup((folder / "report.css").read_text("utf-8")),  # noqa: S704
        paging=Markup((folder / "paging.js").read_text("utf-8")),  # noqa: S704
        script=Markup((folder / "report.js").read_text("utf-8")),  # noqa: S704
        plotly=Markup(plotly_script()) if has_charts else "",  # noqa: S704
        embed_json=_embed_json,
    )


def _embed_json(text: str) -> Markup:
    """Escape JSON for a `<script type="application/json">`, so that no string in it can end the element."""
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704

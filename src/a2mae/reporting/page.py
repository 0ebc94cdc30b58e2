"""Sections to one self-contained HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from a2mae.reporting.blocks import Chart, Section
from a2mae.reporting.charts import plotly_script
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.sections.image_sets import image_sets
from a2mae.reporting.sections.places import places
from a2mae.reporting.sections.pretraining import curves, reconstructions
from a2mae.reporting.sections.provenance import provenance
from a2mae.reporting.sections.registration import refused, registration
from a2mae.reporting.sections.registration_truth import registration_truth
from a2mae.reporting.sections.scores import knn_over_gsd, scores
from a2mae.reporting.sections.structure import four_properties, pruning
from a2mae.reporting.sections.summary import summary
from a2mae.reporting.sections.task_pictures import task_pictures

SIZE_LIMIT_MB = 15


class ReportTooLargeError(ValueError):
    """The page would be too large to be passed on and opened at once."""


def build(inputs: ReportInputs) -> str:
    """The page as HTML.

    Args:
        inputs: The chain's outputs; sections of absent stages are left out.

    Raises:
        ReportTooLargeError: If the page is over `SIZE_LIMIT_MB`; the message says which limits to lower.
    """
    page = render(inputs.title, inputs.stages, sections(inputs))
    size_mb = len(page.encode("utf-8")) / 1e6
    if size_mb > SIZE_LIMIT_MB:
        raise ReportTooLargeError(
            f"the report would be {size_mb:.1f} MB, more than {SIZE_LIMIT_MB}; lower sets, reconstructions, examples or"
            " picture_px under 'report:' in conf/base/parameters_report.yml"
        )
    return page


def sections(inputs: ReportInputs) -> list[Section]:
    """Every section that has something to show, in reading order."""
    found: Iterable[Section | None] = (
        summary(inputs),
        scores(inputs),
        knn_over_gsd(inputs),
        *task_pictures(inputs),
        curves(inputs),
        reconstructions(inputs),
        places(inputs),
        image_sets(inputs),
        registration(inputs),
        registration_truth(inputs),
        refused(inputs),
        four_properties(inputs),
        pruning(inputs),
        provenance(inputs),
    )
    return [section for section in found if section is not None]


def render(title: str, stages: tuple[str, ...], chapters: list[Section]) -> str:
    """Draw sections with the page's template, style and scripts inside."""
    folder = resources.files("a2mae.reporting") / "page_assets"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text("utf-8"))
    has_charts = any(isinstance(block, Chart) for section in chapters for block in section.blocks)
    return template.render(
        title=title,
        stages=stages,
        sections=chapters,
        # Our own files and the vendored library: the only text that reaches the page unescaped.
        style=Markup((folder / "report.css").read_text("utf-8")),  # noqa: S704
        script=Markup((folder / "report.js").read_text("utf-8")),  # noqa: S704
        plotly=Markup(plotly_script()) if has_charts else "",  # noqa: S704
        embed_json=_embed_json,
    )


def write(page: str, path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(page, "utf-8")
    os.replace(temporary, path)


def _embed_json(text: str) -> Markup:
    """JSON for a `<script type="application/json">`: `<` is escaped, so no string in it can end the element."""
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704

"""The page as a whole: self-contained, escaped, reproducible, and only what the chain made."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from a2mae.reporting import page
from a2mae.reporting.inputs import Limits, ReportInputs


class Elements(HTMLParser):
    """Collects every start tag with its attributes, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def built(inputs: ReportInputs) -> str:
    return page.build(inputs)


def without_library(text: str) -> str:
    return text.replace(page.plotly_script(), "")


def test_page_is_one_file_that_asks_for_nothing(built):
    elements = Elements(built)
    assert not elements.named("link") and not elements.named("iframe")
    assert all("src" not in script for script in elements.named("script"))
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in elements.named("img"))
    assert "default-src 'none'" in next(m["content"] for m in elements.named("meta") if m.get("http-equiv"))
    assert not re.findall(r"(?:href|src)=[\"']?https?://", without_library(built))
    assert len(built.encode()) < 15e6


def test_plotting_library_is_inlined_once(built):
    assert built.count("plotly.js v") == 1


def test_charts_offer_no_upload(built):
    assert 'showSendToCloud: false, plotlyServerURL: ""' in built


def test_every_picture_has_an_alternative_text(built):
    images = Elements(built).named("img")
    assert len(images) > 20
    assert all(image["alt"] for image in images)


def test_every_chart_says_its_finding(built):
    plots = [attributes for attributes in Elements(built).named("div") if attributes.get("class") == "plot"]
    assert {plot["id"] for plot in plots} == {
        "chart-scores",
        "chart-knn",
        "chart-curves",
        "chart-places",
        "chart-shifts",
    }
    assert all(len(str(plot["aria-label"])) > 20 for plot in plots)


def test_contents_lead_to_every_section(built):
    elements = Elements(built)
    links = {str(a["href"])[1:] for a in elements.named("a")}
    chapters = {s["id"] for s in elements.named("section") if s.get("class") == "chapter"}
    assert chapters <= links
    assert {"summary", "scores", "places", "image-sets", "registration", "refused", "provenance"} <= chapters


def test_sections_of_absent_stages_are_absent(inputs):
    short = dataclasses.replace(
        inputs,
        stages=("ingest", "coregister", "tag", "prune", "pretrain", "report"),
        scores=None,
        tasks=(),
        simulation=None,
    )
    names = [section.name for section in page.sections(short)]
    assert "scores" not in names and not any(name.startswith("task-") for name in names)
    assert "places" in names and "reconstructions" in names
    assert "no task was scored" in page.build(short)


def test_nothing_at_all_still_makes_a_page():
    text = page.build(ReportInputs(title="Empty", stages=("report",)))
    assert "plotly.js v" not in text
    assert [section.name for section in page.sections(ReportInputs("Empty", ("report",)))] == ["summary", "provenance"]


def test_names_from_catalogs_cannot_become_markup(inputs, built):
    assert "<b>cannot be read</b>" not in built
    assert "&lt;b&gt;cannot be read&lt;/b&gt;" in built
    hostile = inputs.sets.assign(set_id="</script><script>alert(1)</script>", kind="<img src=x onerror=alert(1)>")
    text = without_library(page.build(dataclasses.replace(inputs, sets=hostile, title="<script>")))
    scripts = Elements(text).named("script")
    assert len(scripts) == len(Elements(without_library(built)).named("script"))
    assert not [image for image in Elements(text).named("img") if "onerror" in image]


def test_no_path_of_this_machine_is_passed_on(built, tmp_path):
    assert "/home/somebody" not in built and "…/scenes" in built
    assert str(tmp_path) not in built


def test_same_inputs_give_the_same_bytes(inputs, built):
    assert page.build(inputs) == built


def test_too_large_a_page_says_what_to_lower(inputs, monkeypatch):
    monkeypatch.setattr(page, "SIZE_LIMIT_MB", 1)
    with pytest.raises(page.ReportTooLargeError, match=r"parameters_report\.yml"):
        page.build(inputs)


def test_limits_are_kept(inputs):
    few = dataclasses.replace(inputs, limits=Limits(sets=1, reconstructions=1, examples=2, picture_px=32))
    by_name = {section.name: section for section in page.sections(few)}
    gallery = next(block for block in by_name["image-sets"].blocks if block.kind == "gallery")
    assert len(gallery.strips) == 1


def test_write_leaves_no_part_behind(tmp_path):
    page.write("<p>", tmp_path / "deep" / "report.html")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]

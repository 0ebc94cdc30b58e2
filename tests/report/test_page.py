"""The page as a whole: self-contained, escaped, reproducible, and only what the chain made."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import rasterio

from a2mae import pipeline_registry
from a2mae.pipeline_registry import register_pipelines
from a2mae.pipelines.report import SHOWN
from a2mae.report import page
from a2mae.report.inputs import Limits, ReportInputs
from a2mae.report.stage_pages import STAGES, pages


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
        "chart-clusters",
        "chart-scores",
        "chart-knn",
        "chart-curves",
        "chart-mistakes-segment",
        "chart-locations",
        "chart-shifts",
    }
    assert all(len(str(plot["aria-label"])) > 20 for plot in plots)


def names(inputs: ReportInputs) -> list[str]:
    return [page.name for page in pages(inputs)]


def chapters(inputs: ReportInputs) -> dict[str, list[str]]:
    return {page.name: [section.name for section in page.sections] for page in pages(inputs)}


def test_the_contents_the_summary_and_the_neighbours_lead_to_every_page(built, inputs):
    elements = Elements(built)
    shown = [f"/{name}" for name in names(inputs)]
    assert [str(article["id"]) for article in elements.named("article")] == shown
    links = [str(a["href"])[1:] for a in elements.named("a")]
    assert all(links.count(name) >= 3 for name in shown), "contents, summary or page before, page after"
    ids = [str(attributes["id"]) for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids), "no link leads nowhere, with or without scripts"


def test_each_stage_has_its_page_with_its_chapters(inputs):
    assert chapters(inputs) == {
        "summary": ["built", "good-for", "pays", "look-at", "stages"],
        "simulate": ["simulated"],
        "ingest": ["locations", "rejected-scenes"],
        "coregister": ["image-sets", "registration", "rejected-images"],
        "tag": ["four-properties"],
        "prune": ["pruning"],
        "pretrain": ["curves", "reconstructions"],
        "classify": ["scores-classify", "task-classify"],
        "segment": ["scores-segment", "mistakes-segment", "task-segment"],
        "detect_change": ["scores-detect-change", "task-detect-change"],
        "evaluate": ["scores", "knn"],
        "report": ["provenance"],
    }
    assert all(page.purpose.endswith(".") and page.finding.endswith(".") for page in pages(inputs))


def test_the_stages_are_those_of_the_chain_in_its_order():
    assert list(STAGES) == [stage for stage in pipeline_registry.STAGES if stage in STAGES]
    made = {
        name: stage
        for stage, pipeline in register_pipelines().items()
        for name in pipeline.all_outputs()
        if stage in STAGES
    }
    assert {made[name] for name in SHOWN} | {"simulate", "report"} == set(STAGES), "what the report is given has a page"


def test_findings_have_the_figures(inputs):
    found = {page.name: page.finding for page in pages(inputs)}
    assert found["simulate"] == "3 scenes of 2 sensors over 2 regions."
    assert found["ingest"] == "1 rejected, 3 locations."
    assert found["coregister"] == "6 of 12 images registered to the reference of their location, 1 rejected."
    assert found["tag"] == "3 image sets of 4.0 images on average."
    assert found["prune"] == "2 of 3 image sets kept."
    assert found["pretrain"] == "30 steps; the loss went from 1.000 to 0.183."
    assert found["segment"].startswith("mIoU 0.800 (simulated), 0.020 below")
    assert found["evaluate"] == "Pretraining scored higher on 2 of 3 tasks."


def test_pages_of_absent_stages_are_absent(inputs):
    short = dataclasses.replace(inputs, scores=None, tasks=(), simulation=None)
    found = names(short)
    assert not {"evaluate", "simulate", "classify", "segment", "detect_change", "embed"} & set(found)
    assert "coregister" in found and "pretrain" in found
    assert "no task was scored" in page.build(short)


def test_embeddings_are_shown_as_a_picture_and_by_what_they_are(inputs, tmp_path):
    profile = {"driver": "GTiff", "width": 12, "height": 8, "count": 4, "dtype": "float32"}
    with rasterio.open(tmp_path / "embeddings.tif", "w", **profile) as target:
        target.write(np.random.default_rng(3).random((4, 8, 12), np.float32))
    about = {"raster": "scene-1", "bands": ["red", "nir"], "dimensions": 4, "patch_px": 8, "blocks": 6}
    (tmp_path / "embeddings.json").write_text(json.dumps(about))
    (section,) = next(
        page.sections for page in pages(dataclasses.replace(inputs, embeddings=tmp_path)) if page.name == "embed"
    )
    gallery, table = section.blocks
    assert gallery.strips[0].pictures[0].uri.startswith("data:image/webp") and ("bands", "red, nir") in table.rows
    assert "8 × 8 pixels is described by 4 numbers" in section.lead


def test_nothing_at_all_still_makes_a_page():
    text = page.build(ReportInputs(title="Empty", stages=("report",)))
    assert "plotly.js v" not in text
    assert names(ReportInputs("Empty", ("report",))) == ["summary", "report"]


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
    told = r"most of it is '.* of .* MB\), .*: lower sets, .*conf/<env>/parameters_report\.yml"
    with pytest.raises(page.ReportTooLargeError, match=told):
        page.build(inputs)


def test_a_hundred_times_the_demo_still_opens_at_once(inputs, built):
    """Charts draw as many points as can be told apart and say so; every count is of all."""
    times = 4_100
    many = {
        "sets": pd.concat([inputs.sets.assign(set_id=inputs.sets["set_id"] + f"-{k}") for k in range(times)]),
        "images": pd.concat([inputs.images] * times, ignore_index=True),
        "rejected_images": pd.concat([inputs.rejected_images] * times, ignore_index=True),
        "prune_report": {
            **inputs.prune_report,
            "clusters": {f"{k:05}": inputs.prune_report["clusters"]["001"] for k in range(3_000)},
        },
    }
    large = dataclasses.replace(inputs, **many)
    text = page.build(large)
    assert len(text) < len(built) + 2_500_000
    assert "2,000 of 12,300 are drawn, evenly chosen" in text and "12,300 image sets at" in text
    assert "the largest 500 first" in text and "in 3,000 clusters" in text
    assert "drawn, evenly chosen" not in built


def test_limits_are_kept(inputs):
    few = dataclasses.replace(inputs, limits=Limits(sets=1, reconstructions=1, examples=2, picture_px=32))
    by_name = {section.name: section for shown in pages(few) for section in shown.sections}
    gallery = next(block for block in by_name["image-sets"].blocks if block.kind == "gallery")
    assert len(gallery.strips) == 1

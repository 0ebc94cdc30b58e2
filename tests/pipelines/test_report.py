"""The report's pipeline: which outputs it waits for, and that Kedro hands them to the page."""

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from a2mae.pipelines.datasets import PathDataset, TextFileDataset
from a2mae.pipelines.report import build_report, create_pipeline
from a2mae.report.inputs import ReportParameters

CARD = {"model_name": "m", "dataset_name": "d", "licence": "other"}
OPTIONS = {"title": "Mine", "sets": 1, "reconstructions": 1, "examples": 1, "picture_px": 32, "card": CARD}


@pytest.fixture
def locations() -> gpd.GeoDataFrame:
    row = {
        "location_id": "a",
        "lon": 8.5,
        "lat": 47.3,
        "crs": "EPSG:32632",
        "x_m": 0.0,
        "y_m": 0.0,
        "footprint_m": 1920.0,
    }
    return gpd.GeoDataFrame([row], geometry=[shapely.box(8.49, 47.29, 8.51, 47.31)], crs=4326)


def test_inputs_are_those_of_the_chain():
    drawn, node = create_pipeline({"scenes", "locations", "refused_scenes", "sensors"}).nodes
    assert drawn.name == "report.draw_map" and set(drawn.inputs) == {"params:report", "map_files_target", "locations"}
    assert set(node.inputs) == {
        "params:report",
        "params:chain",
        "parameters",
        "scenes",
        "locations",
        "refused_scenes",
        "map_files",
    }
    whole = {node.name: node for node in create_pipeline().nodes}
    assert set(whole) == {"report.build_report", "report.write_cards", "report.picture_of_curves", "report.draw_map"}
    for name in ("report.build_report", "report.write_cards"):
        assert {"simulation", "classify.metrics", "scores", "embeddings"} <= set(whole[name].inputs)
    assert set(whole["report.write_cards"].outputs) == {"model_card", "dataset_card"}
    made = {"scenes", "images", "sets", "four_properties"}
    (cards,) = (node for node in create_pipeline(made).nodes if node.name == "report.write_cards")
    assert cards.outputs == ["dataset_card"], "no model, no card of it"
    assert "sets" in cards.inputs, "sets that nobody pruned are not shown"
    assert "sets" not in whole["report.build_report"].inputs


def test_page_is_built_from_the_catalog_and_written_whole(tmp_path, locations):
    page = tmp_path / "08_reporting" / "report.html"
    empty = pd.DataFrame({"scene_id": [], "location_id": [], "sensor": [], "datetime": [], "stage": [], "reason": []})
    options = ReportParameters(**OPTIONS)
    catalog = DataCatalog(
        {
            "params:report": MemoryDataset(options),
            "params:chain": MemoryDataset(["ingest", "report"]),
            "parameters": MemoryDataset({"report": options, "ingest": {"folder": "/home/me/scenes"}}),
            "scenes": MemoryDataset(locations.assign(scene_id="s", status="accepted")),
            "locations": MemoryDataset(locations),
            "refused_scenes": MemoryDataset(empty),
            "report": TextFileDataset(filepath=str(page)),
            "map_page": TextFileDataset(filepath=str(page.with_name("map.html"))),
            "map_files": PathDataset(filepath=str(page.with_name("map_files"))),
            "map_files_target": PathDataset(filepath=str(page.with_name("map_files"))),
        }
    )
    SequentialRunner().run(create_pipeline({"scenes", "locations", "refused_scenes", "sensors"}), catalog)
    text = page.read_text("utf-8")
    assert "<title>Mine</title>" in text and 'id="locations"' in text and "every scene was used" in text
    assert "/home/me" not in text and "&#34;picture_px&#34;: 32" in text
    assert sorted(path.name for path in page.parent.iterdir()) == ["map.html", "map_files", "report.html"]
    assert '<a href="map.html">Open the map</a>' in text
    assert TextFileDataset(filepath=str(page)).load() == text


def test_a_chain_without_evaluate_still_compares_its_tasks():
    side = {"miou_low": 0.0, "miou_high": 1.0, "pixel_accuracy": 0.9, "pixel_accuracy_low": 0.8}
    side |= {"pixel_accuracy_high": 1.0, "n": 12, "groups": 1}
    metrics = {"task": "segment", "data": "lake", "gsd_m": 10.0}
    metrics |= {"pretrained": {"miou": 0.52, **side}, "random": {"miou": 0.58, **side}}
    metrics["gain"] = {"miou": -0.06, "pixel_accuracy_low": -1.0, **side, "miou_low": -1.0, "pixel_accuracy": 0.0}
    page = build_report(ReportParameters(**OPTIONS), ["segment", "report"], {}, segment_metrics=metrics)
    assert "0.520" in page
    assert "0.060 below random initialisation (difference -1.000 to +1.000)" in page
    assert "no task was scored" not in page


@pytest.mark.parametrize(
    "change", [{"picture_px": 2}, {"title": ""}, {"sets": -1}, {"sts": 3}, {"card": CARD | {"licence": "My own!"}}]
)
def test_parameters_out_of_range_or_mistyped_are_refused(change):
    with pytest.raises(ValidationError):
        ReportParameters(**{**OPTIONS, **change})

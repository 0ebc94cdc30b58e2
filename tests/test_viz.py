"""Kedro-viz builds offline with layers, collapsed tasks and previews; in a browser a clicked node shows them."""

import functools
import http.server
import json
import threading
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin

from a2mae.report.previews import draw_curves
from a2mae.viz import without_outside
from helpers.browser import BROWSER, browser
from helpers.built_world import write_store
from helpers.checkout import changes, checkout, run
from helpers.configuration import DEMO
from helpers.task_samples import SENTINEL2


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A checkout with an image-set store, and kedro-viz's static page of it."""
    folder = tmp_path_factory.mktemp("viz")
    clone = checkout(folder / "clone")
    image = (np.full((len(SENTINEL2.bands), 16, 16), 900, np.uint16), np.ones((16, 16), bool))
    write_store(clone / "data/03_primary/stssd.zarr", {SENTINEL2.id: [image] * 3})
    outputs(clone / "data")
    log = folder / "sockets.log"
    done = run(clone, "python", "-m", "a2mae.viz", socket_log=log, timeout=280)
    assert done.returncode == 0 and "index.html" in done.stdout, (done.stdout + done.stderr)[-2000:]
    return clone, log


def outputs(data) -> None:
    """One of each kind that has a preview beside the store: tables, curves, a map, scores."""
    scores = pd.DataFrame({"task": ["segment"], "metric": ["miou"], "value": [0.421875]})
    curves = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5], "effective_rank": [3.0, 4.0], "lr": [0.1, 0.1]})
    for folder in ("04_feature", "07_model_output/segment", "08_reporting"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"set_id": ["place-1"], "kept": [True]}).to_parquet(data / "04_feature/sets.parquet")
    scores.to_parquet(data / "08_reporting/scores.parquet")
    curves.to_csv(data / "08_reporting/pretrain_curves.csv", index=False)
    (data / "08_reporting/pretrain_curves.png").write_bytes(draw_curves(curves))
    profile = {"driver": "GTiff", "width": 40, "height": 20, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    place = from_origin(0, 0, 10, 10)
    with rasterio.open(data / "07_model_output/segment/map.tif", "w", transform=place, **profile) as target:
        target.write(np.ones((1, 20, 40), np.uint8))
        target.write_colormap(1, {1: (200, 100, 50, 255)})


def graph(clone) -> dict:
    return json.loads((clone / "build/api/main").read_text("utf-8"))


def ids(clone) -> dict[str, str]:
    return {node["name"]: node["id"] for node in graph(clone)["nodes"]}


def test_builds_with_layers_and_collapsed_tasks(built):
    clone, log = built
    assert graph(clone)["layers"][0] == "raw" and graph(clone)["layers"][-1] == "reporting"
    assert {"classify", "segment", "detect_change"} <= set(graph(clone)["modular_pipelines"])
    assert changes(clone) == ""
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"


def test_every_stage_is_one_box_until_it_is_opened(built):
    """A stage of several nodes is a namespace; one of a single node needs none."""
    clone, _ = built
    tasks = [node for node in graph(clone)["nodes"] if node["type"] == "task"]
    boxes = [(node["modular_pipelines"] or [node["name"]])[0] for node in tasks]
    assert set(boxes) == set(DEMO)
    opened = {box for box in boxes if boxes.count(box) > 1}
    assert opened <= set(graph(clone)["modular_pipelines"])


def test_nodes_have_names_tags_and_docstrings(built):
    clone, _ = built
    tasks = [node for node in graph(clone)["nodes"] if node["type"] == "task"]
    assert tasks and all("__" not in node["name"] and node["tags"] for node in tasks)
    for node in tasks:
        told = json.loads((clone / "build/api/nodes" / node["id"]).read_text("utf-8"))
        assert '"""' in told["code"], node["name"]


PICTURE = "iVBORw0KGgo"  # how a PNG begins in base64


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("image_sets", PICTURE),
        ("sets", "place-1"),
        ("pretrain_curves", "effective_rank"),
        ("pretrain_curves_picture", PICTURE),
        ("segment.map", PICTURE),
        ("scores", "0.421875"),
    ],
)
def test_each_kind_of_output_has_its_preview(built, dataset, shown):
    clone, _ = built
    told = json.loads((clone / "build/api/nodes" / ids(clone)[dataset]).read_text("utf-8"))
    assert shown in json.dumps(told["preview"]), told


def test_no_page_asks_another_host(built):
    pages = sorted((built[0] / "build").glob("*.html"))
    assert pages and not [page.name for page in pages if "http" in page.read_text("utf-8").split("<body")[0]]


def test_what_comes_from_elsewhere_is_taken_out_and_nothing_else():
    page = """<head>
  <link rel="icon" href="./favicon.ico" />
  <link
    href="https://fonts.example/css2?family=Inter"
    rel="stylesheet"
  />
  <script src="http://elsewhere.example/a.js"></script>
  <script type="module" src="./assets/index.js"></script>
</head>
"""
    assert (
        without_outside(page)
        == """<head>
  <link rel="icon" href="./favicon.ico" />
  <script type="module" src="./assets/index.js"></script>
</head>
"""
    )


@pytest.mark.timeout(1500)  # ten seconds of one core; a busy machine may take long
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_clicked_node_shows_its_preview_and_its_code(built):
    clone, _ = built
    handler = functools.partial(Quiet, directory=str(clone / "build"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browser() as page:
            page.before_load('localStorage.setItem("KedroViz", JSON.stringify({showFeatureHints: false}))')
            page.open(f"http://127.0.0.1:{server.server_port}/")
            page.wait(selected(clone, "image_sets"))
            width = page.wait("document.querySelector('.pipeline-metadata img')?.naturalWidth")
            assert width == 804  # the contact sheet, decoded by the browser
            page.wait(selected(clone, "ingest"))
            page.click("label[for=pipeline-toggle-input-code]")
            page.wait("document.querySelector('.pipeline-metadata-code__code')?.textContent.includes('def ingest')")
            hosts = {urlsplit(url).hostname for url in page.requests if url.startswith("http")}
            assert hosts == {"127.0.0.1"}, "the page asks nobody else"
    finally:
        server.shutdown()
        server.server_close()


def selected(clone, name: str) -> str:
    """An expression that clicks a node until it is selected, wherever the page has moved the graph to."""
    node = f"document.querySelector('.pipeline-node[data-id=\"{ids(clone)[name]}\"]')"
    click = f"{node}?.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    return f"document.querySelector('.pipeline-metadata__title')?.textContent === '{name}' || ({click}, false)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a line per request."""

    def log_message(self, *_):
        """Say nothing."""


def test_the_graph_of_an_environment_is_its_chain(tmp_path):
    clone = checkout(tmp_path / "clone")
    done = run(clone, "python", "-m", "a2mae.viz", "--no-previews", "--env=real_samples", timeout=280)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    tasks = {node["name"] for node in graph(clone)["nodes"] if node["type"] == "task"}
    assert {"ingest", "pretrain", "build_report"} <= tasks and not tasks & {"simulate", "evaluate", "finetune"}

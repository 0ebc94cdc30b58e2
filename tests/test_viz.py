"""Kedro-viz builds offline with layers, collapsed tasks and previews; in a browser a clicked node shows them."""

import functools
import http.server
import json
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest

from a2mae.viz import without_outside
from helpers.browser import BROWSER, browser
from helpers.built_world import write_store
from helpers.checkout import changes, checkout, run
from helpers.task_samples import SENTINEL2


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A checkout with an image-set store, and kedro-viz's static page of it."""
    folder = tmp_path_factory.mktemp("viz")
    clone = checkout(folder / "clone")
    image = (np.full((len(SENTINEL2.bands), 16, 16), 900, np.uint16), np.ones((16, 16), bool))
    write_store(clone / "data/03_primary/stssd.zarr", {SENTINEL2.id: [image] * 3})
    log = folder / "sockets.log"
    done = run(clone, "python", "-m", "a2mae.viz", socket_log=log, timeout=280)
    assert done.returncode == 0 and "index.html" in done.stdout, (done.stdout + done.stderr)[-2000:]
    return clone, log


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


def test_nodes_have_names_tags_and_docstrings(built):
    clone, _ = built
    tasks = [node for node in graph(clone)["nodes"] if node["type"] == "task"]
    assert tasks and all("__" not in node["name"] and node["tags"] for node in tasks)
    for node in tasks:
        told = json.loads((clone / "build/api/nodes" / node["id"]).read_text("utf-8"))
        assert '"""' in told["code"], node["name"]


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


@pytest.mark.slow  # a large page in a browser without a GPU
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
            title = "document.querySelector('.pipeline-metadata__title')?.textContent"
            page.click_until(f'.pipeline-node[data-id="{ids(clone)["image_sets"]}"]', f"{title} === 'image_sets'")
            width = page.wait("document.querySelector('.pipeline-metadata img')?.naturalWidth")
            assert width == 804  # the contact sheet, decoded by the browser
            page.click_until(f'.pipeline-node[data-id="{ids(clone)["ingest"]}"]', f"{title} === 'ingest'")
            page.click("label[for=pipeline-toggle-input-code]")
            page.wait("document.querySelector('.pipeline-metadata-code__code')?.textContent.includes('def ingest')")
            hosts = {urlsplit(url).hostname for url in page.requests if url.startswith("http")}
            assert hosts == {"127.0.0.1"}, "the page asks nobody else"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a line per request."""

    def log_message(self, *_):
        """Say nothing."""

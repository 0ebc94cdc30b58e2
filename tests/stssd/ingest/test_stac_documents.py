"""Documents and answers that are none cost themselves, and a search that fails says so in a sentence."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from a2mae.errors import InputError
from a2mae.remote.policy import HrefPolicy
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import ApiParameters, IngestParameters
from a2mae.stssd.ingest.stac import read_stac_api, read_stac_catalog
from a2mae.stssd.ingest.stac_documents import search
from helpers.http_server import listening, serve_files
from helpers.stac_api import CONFORMANCE

from .test_stac_item import PLACE, item

DEEP = "[" * 900 + "]" * 900
DOCUMENTS = {
    "empty": "", "object": "{}", "list": "[]", "html": "<html><body>502 Bad Gateway</body></html>", "null": "null",
    "deep": '{"type": "Feature", "properties": ' + DEEP + "}", "deeper": "[" * 100_000,
    "digits": '{"type": "Feature", "id": ' + "9" * 5000 + "}", "surrogate": '{"type": "Feature", "id": "\\ud800"}',
    "nan": '{"type": "Feature", "id": NaN, "properties": {"datetime": Infinity}}',
    "features": '{"type": "FeatureCollection", "features": {"a": 1}}', "bytes": "\x00\x01",
    "links": '{"type": "Catalog", "links": {"rel": "child"}}', "links2": '{"type": "Catalog", "links": [null, 7, {}]}',
    "members": '{"type": "FeatureCollection", "features": [null, 7, "x", [], {}]}',
    "latin": '{"type": "Feature", "id": "\xe4"}',
}  # fmt: skip


def test_documents_of_any_kind_cost_themselves(tmp_path):
    good = item(tmp_path, "good")
    links = [{"rel": "item", "href": f"./{name}.json"} for name in (*DOCUMENTS, "good", "gone", "pipe")]
    links += [
        {"rel": "child", "href": href} for href in ("\ud800", "http://[x", "./a b/ü?x=1", "", "x" * 9000, "C:\\a")
    ]
    links += [{"rel": "item"}, {"href": "x"}, None, {"rel": "item", "href": {"a": 1}}, {"rel": ["item"], "href": "a"}]
    catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "d", "links": links}
    for name, text in DOCUMENTS.items():
        (tmp_path / f"{name}.json").write_bytes(text.encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    parameters = IngestParameters(source={"catalog": str(tmp_path / "catalog.json")}, **PLACE)
    found = read_stac_catalog(parameters, SensorTable({}, parameters.bands), default=None)
    assert [scene.scene_id for scene in found.scenes] == ["good"]
    told = {os.path.basename(r.scene_id).removesuffix(".json"): r.reason for r in found.rejected}
    assert told["pipe"] == told["gone"] == "missing_file" and told["html"] == told["object"] == "bad_metadata"
    assert len(found.rejected) >= len(DOCUMENTS) - 2 + 5  # catalogs without links lead nowhere
    assert all(r.scene_id.encode() and r.detail.encode() for r in found.rejected)


@pytest.mark.parametrize(
    "text", [DOCUMENTS[k] for k in ("empty", "object", "list", "html", "null", "deeper", "features", "bytes")]
)
def test_a_recording_that_is_none_is_told_in_a_sentence(tmp_path, text):
    (tmp_path / "items.json").write_text(text)
    api = {"url": "https://example.org", "bbox": [0, 0, 1, 1], "replay": str(tmp_path / "items.json")}
    parameters = IngestParameters(source={"kind": "stac_api", "api": api})
    with pytest.raises(InputError, match="is not a recorded search"):
        read_stac_api(parameters, SensorTable({}))


@contextlib.contextmanager
def answering(root: object, page: bytes | Callable[[str], bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(root(url)).encode() if self.path == "/" and callable(root) else page
            data = data(url) if callable(data) else data
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with listening(Handler) as url:
        yield url


def landing(url: str) -> dict[str, object]:
    links = [{"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": m}
             for m in ("GET", "POST")]  # fmt: skip
    return {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "d", "links": links,
            "conformsTo": CONFORMANCE}  # fmt: skip


LOOPBACK = HrefPolicy(frozenset({"http"}), (), allow_private=True)
PAGES = (*(text.encode("latin-1") for name, text in DOCUMENTS.items() if name not in ("members", "surrogate")),
         b'{"features": 7}', b'{"features": [], "links": [{"rel": "next"}]}',
         b'{"features": [{"id": "a"}], "links": [{"rel": "next", "href": "http://[x"}]}',
         b'{"features": [{"id": "a"}], "links": [{"rel": "next", "method": 7, "href": 7}]}')  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("root", [landing, None])
def test_whatever_an_api_answers_the_search_ends_in_items_or_a_sentence(root, page):
    with answering(root, page) as url:
        api = ApiParameters(url=url, bbox=(10, 50, 11, 51), retries=0, timeout_s=5)
        try:
            found = search(api, LOOPBACK, max_bytes=2**20)
        except InputError as error:
            assert str(error).startswith("ingest.source.api: http://127.0.0.1") and len(str(error)) < 1000
        else:
            assert all(isinstance(one, dict) for one in found)


def test_an_item_of_an_api_that_is_none_costs_itself(tmp_path):
    with serve_files(tmp_path) as files:
        good = item(tmp_path, "good")
        for asset in good["assets"].values():
            asset["href"] = f"{files.url}/{asset['href'][2:]}"
        later = json.loads(json.dumps(good)) | {"id": "later"}
        later["properties"]["datetime"] = "2023-07-01T00:00:00Z"
        odd = f'null, 7, [], {{}}, {{"id": "deep", "properties": {DEEP}}}, {{"id": "\\ud800", "links": 7, "bbox": NaN}}'
        odd += ', {"id": "user", "properties": {"datetime": "2023-06-01"}, "note": "of http://me:geheim@host/a@b"}'
        text = f'{{"type": "FeatureCollection", "features": [{odd}, {json.dumps(good)}, {json.dumps(later)}]}}'
        with answering(landing, text.encode()) as url:
            api = {"url": url, "bbox": [-180, -90, 180, 90], "retries": 0}
            source = {"kind": "stac_api", "api": api}
            hrefs = {"schemes": ["http"], "allow_private": True}
            done = ingest(IngestParameters(**{"source": source, "hrefs": hrefs, "probe": "all", **PLACE}))
    assert list(done.scenes.loc[done.scenes["status"] == "accepted", "scene_id"]) == ["good", "later"]
    assert len(done.rejected) >= 3
    assert "geheim" not in json.dumps(done.stac_items) and "http://***@host" in json.dumps(done.stac_items)
    (tmp_path / "items.json").write_text(json.dumps(done.stac_items))  # what is recorded can be written


def page_of(url: str, *items: object) -> bytes:
    link = {"rel": "next", "href": f"{url}/search", "method": "GET"}
    return json.dumps({"type": "FeatureCollection", "features": list(items), "links": [link]}).encode()


def test_items_are_lost_under_no_id_and_pages_without_end_are_told():
    """Of five that were none, one was listed; of two under one id, the second vanished."""
    one, other = {"id": "a", "collection": "c", "n": 1}, {"id": "a", "collection": "c", "n": 2}
    whole = json.dumps({"type": "FeatureCollection", "features": [None, 7, {}, one, other, one]}).encode()
    api = {"bbox": (10, 50, 11, 51), "retries": 0, "timeout_s": 5}
    with answering(landing, whole) as url:
        found = search(ApiParameters(url=url, **api), LOOPBACK, max_bytes=2**20)
    assert found == [{}, {}, {}, one, other]
    with (
        answering(landing, lambda here: page_of(here, one)) as url,
        pytest.raises(InputError, match=r"gave \d+ items and then no further page: its pages do not end: 20 came"),
    ):
        search(ApiParameters(url=url, **api), LOOPBACK, max_bytes=2**20)


@pytest.mark.parametrize("text", ["{}", "null", "[]", '{"detail": "log in"}'])
def test_an_answer_that_is_no_page_is_no_search_without_a_scene(text):
    """Of `{}` it was said to widen the bbox."""
    with answering(landing, text.encode()) as url, pytest.raises(InputError, match="is no document of STAC and begins"):
        search(ApiParameters(url=url, bbox=(10, 50, 11, 51), retries=0, timeout_s=5), LOOPBACK, max_bytes=2**20)

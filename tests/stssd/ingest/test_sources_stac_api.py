"""A search on a real STAC API server, COGs read by HTTP ranges, replay without either."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from a2mae.remote.fetch import SasSigner
from a2mae.scenes import scenes_from_table
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from helpers.http_server import serve_files
from helpers.stac_api import items_of

RUSTAC = Path(sys.executable).with_name("rustac")
LOOPBACK = {"schemes": ["http"], "allow_private": True}
WORLD = (12.0, 51.5, 12.6, 52.3)  # around the tiny world


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    """A STAC API on loopback over the tiny world, its COGs beside it on a server of ranges."""
    if not RUSTAC.is_file():
        pytest.skip("rustac is not installed beside this Python")
    folder = tmp_path_factory.mktemp("world")
    manifest = write_tiny_world(folder)
    with serve_files(folder) as files:
        items = items_of(folder, manifest, files.url)
        (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            str(RUSTAC),
            "serve",
            "--create-collections",
            "--addr",
            f"127.0.0.1:{port}",
            str(folder / "items.json"),
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                wait_for(f"http://127.0.0.1:{port}/", server)
                yield f"http://127.0.0.1:{port}", files, manifest
            finally:
                server.terminate()


def wait_for(url, process):
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail(f"rustac ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("rustac did not answer within 10 s")


def parameters(url, *, hrefs=LOOPBACK, locations=None, **api):
    api = {"url": url, "bbox": WORLD, "retries": 1, "timeout_s": 10, **api}
    return IngestParameters(
        source={"kind": "stac_api", "api": api}, probe="all", hrefs=hrefs, workers=4,
        locations={"min_scenes": 1, **(locations or {})},
    )  # fmt: skip


def ids(done):
    return sorted(done.scenes.loc[done.scenes["status"] == "accepted", "scene_id"])


def test_search_pages_and_reads_by_ranges(provider):
    url, files, manifest = provider
    done = ingest(parameters(url, page_size=2))  # five items in three pages
    assert ids(done) == sorted(s.scene_id for s in manifest.scenes)
    assert len(done.locations) > 0 and len(files.ranges) >= 20
    for scene in scenes_from_table(done.scenes):
        assert all(asset.href.startswith(files.url) and asset.transform for asset in scene.assets)
    recorded = done.stac_items["features"]
    assert [item["id"] for item in recorded] == [
        item["id"] for item in sorted(recorded, key=lambda i: (i["collection"], i["id"]))
    ]


def test_filters(provider):
    url, _, manifest = provider
    sentinel = [s for s in manifest.scenes if s.sensor == "sentinel-2-l2a"]
    assert ids(ingest(parameters(url, collections=["sentinel-2-l2a"]))) == sorted(s.scene_id for s in sentinel)
    early = [s.scene_id for s in manifest.scenes if s.datetime < "2022"]
    assert ids(ingest(parameters(url, datetime="2019-01-01/2021-12-31"))) == sorted(early)
    assert len(ids(ingest(parameters(url, max_items=3, page_size=2)))) == 3
    with pytest.raises(ValueError, match="widen bbox"):
        ingest(parameters(url, bbox=(-60, 10, -59, 11)))


def test_a_filter_that_the_server_would_ignore_is_an_error(provider):
    url, _, _ = provider
    for name, value in (("query", {"eo:cloud_cover": {"lt": 3}}), ("filter", "eo:cloud_cover < 3")):
        with pytest.raises(ValueError, match=rf"ingest\.source\.api\.{name}: .* does not declare"):
            ingest(parameters(url, **{name: value}))


def test_a_recording_replays_without_the_api_and_makes_the_same_tables(provider, tmp_path):
    url, _, _ = provider
    live = ingest(parameters(url))
    path = tmp_path / "stac_items.json"
    path.write_text(json.dumps(live.stac_items))
    again = ingest(parameters("http://127.0.0.1:9", replay=str(path)))
    for name in ("scenes", "locations"):
        getattr(live, name).to_parquet(tmp_path / "a")
        getattr(again, name).to_parquet(tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert again.stac_items == live.stac_items
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not a recorded search"):
        ingest(parameters(url, replay=str(path)))


def test_addresses_of_items_are_not_trusted(provider):
    url, files, manifest = provider
    before = len(files.requests)
    with pytest.raises(ValueError, match=rf"no usable scene among {len(manifest.scenes)} rejected \(bad_href"):
        ingest(parameters(url, hrefs={"schemes": ["http"]}))
    assert len(files.requests) == before  # nothing was asked of the private address


def test_a_file_that_fails_refuses_its_scene_only(provider, tmp_path):
    url, _, manifest = provider
    recorded = ingest(parameters(url)).stac_items
    victim = next(item for item in recorded["features"] if item["collection"] == "sentinel-2-l2a")
    victim["assets"]["B04"]["href"] += ".gone"
    (tmp_path / "items.json").write_text(json.dumps(recorded))
    done = ingest(parameters(url, replay=str(tmp_path / "items.json")))
    assert ids(done) == sorted(s.scene_id for s in manifest.scenes if s.scene_id != victim["id"])
    assert dict(zip(done.rejected["scene_id"], done.rejected["reason"], strict=True))[victim["id"]] == "unreachable"


def test_an_api_that_does_not_answer(provider):
    with pytest.raises(ValueError, match=r"ingest\.source\.api: .* does not answer"):
        ingest(parameters("http://127.0.0.1:9", retries=0))
    with pytest.raises(ValueError, match="is not the address"):
        ingest(parameters(""))
    for junk in ("http://[x", "https://x:99999999"):
        with pytest.raises(
            ValueError, match=r"ingest\.source\.api\.url: .* is no address \(.*write it as https://host"
        ):
            ingest(parameters(junk))
    with pytest.raises(ValueError, match="set bbox"):
        ingest(parameters("http://127.0.0.1:9", bbox=None))


def test_too_many_requests_are_repeated(tmp_path):
    """A 429 with Retry-After, then the answer."""
    root = {
        "type": "Catalog", "id": "r", "stac_version": "1.0.0", "description": "d", "links": [],
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core"],
    }  # fmt: skip
    (tmp_path / "api").write_text(json.dumps(root))
    with serve_files(tmp_path) as server:
        answers = iter([(429, {"Retry-After": "0"}), (503, {})])
        server.fail = lambda path: next(answers, None)
        with pytest.raises(ValueError, match="does not answer the search"):  # it has no search; but its root was read
            ingest(parameters(f"{server.url}/api", retries=3))
        assert [path for path in server.requests if path == "/api"] == ["/api"] * 3


def test_tokens_are_fetched_once_and_stay_out_of_tables(tmp_path):
    (tmp_path / "sas" / "127.0.0.1").mkdir(parents=True)
    token = {"token": "sig=secret", "msft:expiry": "2999-01-01T00:00:00Z"}
    (tmp_path / "sas" / "127.0.0.1" / "box").write_text(json.dumps(token))
    with serve_files(tmp_path) as server:
        sign = SasSigner(f"{server.url}/sas", host="127.0.0.1")
        assert sign(f"{server.url}/box/a.tif") == f"{server.url}/box/a.tif?sig=secret"
        sign(f"{server.url}/box/b.tif")
        assert len(server.requests) == 1
        assert sign("https://example.com/a.tif") == "https://example.com/a.tif"
        assert "secret" not in repr(sign)

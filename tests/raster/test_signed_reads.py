"""Pixels behind a provider that answers signed addresses only: ingest and build, tokens in no table, log or store."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from a2mae.errors import ReadError
from a2mae.raster import opening
from a2mae.raster.read import RasterReader
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import sensors_from_json
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.coregister.build import build
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from helpers.http_server import serve_files
from helpers.rasters import write_tif

HOOK = '''
"""A signing hook as a user would write one."""
from collections import Counter

asked = Counter()

def sign(href):
    asked[href] += 1
    return f"{href}?sig=secret"
'''


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "my_provider.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path / "hooks")
    return "my_provider:sign"


def unsigned(path: str) -> tuple[int, dict[str, str]] | None:
    return (403, {}) if ".tif" in path and not path.endswith("?sig=secret") else None


def test_scenes_are_signed_whenever_they_are_read(
    tmp_path: Path, hook: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    write_tiny_world(tmp_path / "world")
    with serve_files(tmp_path / "world") as server, caplog.at_level(logging.INFO):
        server.fail = unsigned
        settings = {
            "source": {"catalog": f"{server.url}/catalog.json", "signing": hook},
            "hrefs": {"schemes": ["http"], "allow_private": True},
            "locations": {"max_locations": 1, "min_sensors": 2},
            "use_sensors": ["sentinel-2-l2a", "landsat-oli-c2-l2"],
        }
        done = ingest(IngestParameters(**settings, probe="all"))
        assert set(done.rejected["reason"]) <= {"sensor_not_used"}
        recipes = {"grid": {"sources": [{"sensors": ["sentinel-2-*"]}, {"sensors": ["landsat-*"]}]}}
        parameters = CoregisterParameters(recipes=recipes, workers=1)
        sensors = sensors_from_json(done.sensors)
        signed = RemoteAccess(hook)
        tables = build(done.scenes, done.locations, sensors, parameters, str(tmp_path / "stssd.zarr"), access=signed)
        assert len(tables.images) >= 3 and not set(tables.rejected["reason"]) & {"corrupt", "unreachable"}
        # Without the hook every image is refused, each with its reason, and nothing shows a token.
        bare = build(done.scenes, done.locations, sensors, parameters, str(tmp_path / "bare.zarr"))
        assert bare.images.empty and set(bare.rejected["reason"]) == {"unreachable"}
    shown = (
        tables.images.to_csv() + bare.rejected.to_csv() + done.scenes.to_csv() + done.rejected.to_csv() + caplog.text
    )
    assert "secret" not in shown
    written = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.parts[-2] not in ("hooks", "__pycache__")
    ]
    assert written and not any(b"sig=secret" in path.read_bytes() for path in written)


def test_an_expired_token_is_replaced_while_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tif(tmp_path / "a.tif")
    tokens = 'tokens = iter(["one", "one", "two"])\nsign = lambda href: f"{href}?{next(tokens)}"\n'
    (tmp_path / "expiring_tokens.py").write_text(tokens)
    monkeypatch.syspath_prepend(tmp_path)
    with serve_files(tmp_path) as server:
        valid = {"one"}
        server.fail = lambda path: None if path.partition("?")[2] in valid else (403, {})
        with RasterReader(access=RemoteAccess("expiring_tokens:sign")) as reader:
            first = reader.dataset(f"{server.url}/a.tif")
            assert reader.dataset(f"{server.url}/a.tif") is first
            valid.clear()
            valid.add("two")
            assert reader.dataset(f"{server.url}/a.tif").read(1).any()


def test_only_rasters_are_opened_and_none_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tif(tmp_path / "a.tif", size=(100, 3000), tiled=False, blockxsize=None, blockysize=50)
    (tmp_path / "b.tif").write_text(f"<VRTDataset rasterXSize='1' rasterYSize='1'>{tmp_path}</VRTDataset>")
    monkeypatch.setattr(opening, "_MAX_BLOCK_PIXELS", 100_000)
    with RasterReader() as reader:
        with pytest.raises(ReadError, match="blocks of 50 x 3000") as large:
            reader.dataset(str(tmp_path / "a.tif"))
        with pytest.raises(ReadError, match=r"b\.tif is a VRT") as other:
            reader.dataset(str(tmp_path / "b.tif"))
    assert (large.value.reason, other.value.reason) == ("too_large", "not_read")

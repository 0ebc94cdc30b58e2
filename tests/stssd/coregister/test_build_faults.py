"""A build whose scenes lie behind a bad network, or whose disk is full: real servers, real failures."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio

from a2mae.errors import ReadError
from a2mae.files import WriteError
from a2mae.raster.read import RasterReader
from a2mae.remote.fetch import Answer, ask, wait_s
from a2mae.remote.policy import HrefPolicy, ReadingParameters, RemoteAccess
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.tables import BuildIncompleteError, BuiltTables
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from helpers.http_server import Served, serve_files

from ..build_runs import RECIPES, digests, start
from ..conftest import World

FAST = {"retries": 3, "retry_delay_s": 0.01, "timeout_s": 1.0}


@dataclass(frozen=True)
class Remote:
    """The tiny world behind a server."""

    server: Served
    scenes: gpd.GeoDataFrame
    locations: gpd.GeoDataFrame
    sensors: dict[str, Sensor]

    def build(self, out: Path, **more: object) -> BuiltTables:
        parameters = CoregisterParameters(recipes=RECIPES, workers=1, reading=FAST, **more)
        return build(self.scenes, self.locations, self.sensors, parameters, str(out / "stssd.zarr"))


@pytest.fixture
def remote(world: World, tmp_path: Path) -> Remote:
    root = tmp_path / "served"
    shutil.copytree(world.folder, root)
    with serve_files(root) as server:
        scenes = world.scenes.copy()
        scenes["assets"] = scenes["assets"].str.replace(str(world.folder), server.url, regex=False)
        assert scenes["assets"].str.contains("http://127").all()
        yield Remote(server, scenes, world.locations.iloc[:2], world.sensors)


@pytest.fixture(scope="module")
def expected(world: World, tmp_path_factory: pytest.TempPathFactory) -> BuiltTables:
    out = tmp_path_factory.mktemp("local")
    parameters = CoregisterParameters(recipes=RECIPES, workers=1)
    return build(world.scenes, world.locations.iloc[:2], world.sensors, parameters, str(out / "stssd.zarr"))


def test_busy_and_broken_servers_are_waited_for(
    remote: Remote, expected: BuiltTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: Counter[str] = Counter()

    def busy(path: str) -> tuple[int, dict[str, str]] | None:
        asked[path] += 1
        code = {"B04": 429, "red": 503}.get(Path(path).stem)
        return (code, {"Retry-After": "0.1"}) if code and asked[path] <= 3 else None

    def cut(path: str) -> int | None:
        return 1000 if Path(path).stem == "B03" and asked[path] in (2, 3) else None

    def slow(path: str) -> float:
        return 1.5 if Path(path).stem == "B05" and asked[path] == 0 else 0.0

    remote.server.fail, remote.server.cut, remote.server.wait_s = busy, cut, slow
    with caplog.at_level(logging.WARNING):
        tables = remote.build(tmp_path / "out")
    assert tables.manifest_hash == expected.manifest_hash
    assert set(tables.rejected["reason"]) <= {"cloud", "nodata", "incomplete_set", "not_needed"}
    for told in ("answers 429", "answers 503", "try 2 in 0."):
        assert told in caplog.text
    assert "B03.tif" in caplog.text and "B05.tif" in caplog.text


def test_a_file_that_redirects_elsewhere_is_kept_out(remote: Remote, tmp_path: Path) -> None:
    sent_on = next(p for p in sorted((tmp_path / "served").rglob("B09.tif")))  # read for the store only
    path = f"/{sent_on.relative_to(tmp_path / 'served')}"
    elsewhere = remote.server.url.replace("127.0.0.1", "localhost") + "/elsewhere.tif"
    remote.server.fail = lambda asked: (302, {"Location": elsewhere}) if asked == path else None
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, reading=FAST)
    policy = HrefPolicy(frozenset({"http"}), (), hosts=("127.0.0.1",), allow_private=True)
    url, access = str(tmp_path / "stssd.zarr"), RemoteAccess(policy=policy)
    tables = build(remote.scenes, remote.locations, remote.sensors, parameters, url, access=access)
    kept_out = tables.rejected[tables.rejected["reason"] == "bad_href"]
    assert set(kept_out["scene_id"]) == {sent_on.parent.name} and len(tables.images)
    assert kept_out["detail"].str.contains(r"B09\.tif redirects: .*ingest\.hrefs\.hosts").all()
    assert "/elsewhere.tif" not in remote.server.requests


def test_what_is_missing_is_told_and_a_rerun_asks_for_it_only(
    remote: Remote, expected: BuiltTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s2 = next(p for p in sorted((tmp_path / "served").rglob("B09.tif")))  # read for the store only
    gone = f"/{s2.relative_to(tmp_path / 'served')}"
    remote.server.fail = lambda path: (503, {}) if path == gone else None
    out = tmp_path / "out"
    tables = remote.build(out)
    missing = tables.rejected[tables.rejected["reason"] == "unreachable"]
    assert set(missing["scene_id"]) == {s2.parent.name}
    assert missing["detail"].str.contains(r"B09\.tif .*answers 503; given up after 4 tries").all()
    assert 0 < len(tables.images) < len(expected.images)
    assert "2 images of 1 scene could not be reached" in caplog.text
    with pytest.raises(BuildIncompleteError, match=r"Run the same command again.*everything else is kept"):
        remote.build(out, fail_if_unreachable=True)
    ImageSetStore.open(str(out / "stssd.zarr")).verify()
    # The server is well again: only the shards of that sensor are read.
    remote.server.fail = lambda path: None
    remote.server.requests.clear()
    again = remote.build(out)
    assert again.manifest_hash == expected.manifest_hash
    assert again.rejected["reason"].isin(["unreachable"]).sum() == 0
    assert remote.server.requests and all("/sentinel-2" in path for path in remote.server.requests)
    remote.server.requests.clear()
    assert remote.build(out).manifest_hash == expected.manifest_hash
    assert not remote.server.requests


def test_survey_that_missed_a_scene_is_made_again(remote: Remote, expected: BuiltTables, tmp_path: Path) -> None:
    red = next(p for p in sorted((tmp_path / "served").rglob("red.tif")))  # compared: the survey needs it
    gone = f"/{red.relative_to(tmp_path / 'served')}"
    remote.server.fail = lambda path: (404, {}) if path == gone else None
    tables = remote.build(tmp_path / "out")
    assert set(tables.rejected.loc[tables.rejected["reason"] == "unreachable", "scene_id"]) == {red.parent.name}
    remote.server.fail = lambda path: None
    assert remote.build(tmp_path / "out").manifest_hash == expected.manifest_hash


def test_truncated_file_is_damaged_not_unreachable(remote: Remote, tmp_path: Path) -> None:
    path = next(p for p in sorted((tmp_path / "served").rglob("B09.tif")))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    tables = remote.build(tmp_path / "out")
    corrupt = tables.rejected[tables.rejected["reason"] == "corrupt"]
    assert set(corrupt["scene_id"]) == {path.parent.name} and len(tables.images)
    assert corrupt["detail"].str.contains("gives the file's first bytes; given up after 3 tries").all()


def damage(path: Path) -> bytes:
    """Spoil the first block of a GeoTIFF, so that it cannot be decoded; gives the bytes as they were."""
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        first = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    path.write_bytes(whole[:first] + b"\xff" * 64 + whole[first + 64 :])
    return whole


def test_block_that_cannot_be_decoded_is_told_and_the_rest_goes_on(
    remote: Remote, expected: BuiltTables, tmp_path: Path
) -> None:
    path = next(p for p in sorted((tmp_path / "served").rglob("B09.tif")))
    damage(path)
    tables = remote.build(tmp_path / "out")
    corrupt = tables.rejected[tables.rejected["reason"] == "corrupt"]
    assert set(corrupt["scene_id"]) == {path.parent.name}
    assert corrupt["detail"].str.contains(r"B09\.tif, band 1: pixels cannot be read").all()
    assert 0 < len(tables.images) < len(expected.images)


def test_block_that_was_damaged_on_its_way_is_asked_for_again(
    remote: Remote, expected: BuiltTables, tmp_path: Path
) -> None:
    path = next(p for p in sorted((tmp_path / "served").rglob("B09.tif")))
    whole, told = damage(path), []

    class Mend(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            path.write_bytes(whole)

    log, mend = logging.getLogger("a2mae.remote.fetch"), Mend(logging.WARNING)
    log.addHandler(mend)
    try:
        tables = remote.build(tmp_path / "out")
    finally:
        log.removeHandler(mend)
    assert len(told) == 1 and "B09.tif" in told[0] and "try 2 in 0." in told[0]
    assert tables.manifest_hash == expected.manifest_hash


def test_waits_are_bounded_and_heed_the_server() -> None:
    settings = ReadingParameters(retries=3, retry_delay_s=1.0, longest_wait_s=20.0)
    busy = Answer(there=False, again=True, wait_s=7.0, detail="")
    assert [wait_s(k, busy, settings, 0.5) for k in (1, 2, 3, 4)] == [7.0, 7.0, 7.0, None]
    quiet = Answer(there=False, again=True, wait_s=0.0, detail="")
    assert [wait_s(k, quiet, settings, d) for k, d in ((1, 0.0), (1, 1.0), (3, 0.5))] == [0.5, 1.5, 4.0]
    assert wait_s(1, Answer(False, True, 60.0, ""), settings, 0.5) == 20.0
    assert wait_s(1, Answer(False, True, 61.0, ""), settings, 0.5) is None, "later than the last of three tries"
    assert wait_s(1, Answer(False, False, 0.0, ""), settings, 0.5) is None
    assert wait_s(3, Answer(True, True, 0.0, ""), settings, 0.5) is None


def test_servers_are_asked_once_and_their_words_are_short(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with serve_files(tmp_path) as server:
        assert ask(f"{server.url}/a.tif?sig=secret", 5).there
        server.fail = lambda path: (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
        answer = ask(f"{server.url}/a.tif?sig=secret", 5)
        assert (answer.again, answer.wait_s, answer.detail) == (True, 0.0, "the server answers 503")
        server.fail = lambda path: (403, {"Retry-After": "12"})
        assert ask(f"{server.url}/a.tif?sig=secret", 5) == Answer(False, False, 12.0, "the server answers 403")
        url = server.url
    assert "gives no answer" in ask(f"{url}/a.tif", 1).detail


def test_a_file_given_up_is_not_asked_for_again(tmp_path: Path, world: World) -> None:
    from odc.geo.geobox import GeoBox
    from rasterio.transform import Affine

    from a2mae.scenes import scenes_from_table

    asset = scenes_from_table(world.scenes)[0].bands[0]
    with (
        serve_files(tmp_path) as server,
        RasterReader(access=RemoteAccess(reading=ReadingParameters(**FAST))) as reader,
    ):
        asset = type(asset)(asset.band, f"{server.url}/no.tif", 1, 1.0, 0.0, None, asset.units, 10.0)
        grid = GeoBox((8, 8), Affine(10, 0, 0, 0, -10, 0), "EPSG:32631")
        for _ in range(2):
            with pytest.raises(ReadError, match=r"the server answers 404$") as error:
                reader.read([asset], grid)
            assert error.value.reason == "unreachable"
        assert len(server.requests) <= 3


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = sys.argv[2:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), {"__name__": "__main__"})
"""


def test_full_disk_is_told_and_loses_nothing(world: World, tmp_path: Path) -> None:
    runs = Path(__file__).parents[1] / "build_runs.py"
    command = [sys.executable, "-c", LIMITED, str(1_000_000), str(runs), str(world.folder), str(tmp_path), "1", ""]
    full = subprocess.run(command, check=False, capture_output=True, text=True)
    assert full.returncode != 0
    assert "WriteError: cannot write" in full.stderr and "what is finished is kept" in full.stderr
    assert list((tmp_path / "stssd.zarr.work/survey").iterdir())  # the survey is not made again
    assert not list(tmp_path.rglob("*.part"))
    process = start(world.folder, tmp_path, workers=1)
    assert process.wait() == 0
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert start(world.folder, fresh, workers=1).wait() == 0
    assert digests(tmp_path) == digests(fresh)


def test_full_file_system(tmp_path: Path, world: World) -> None:
    """A file system of its own that is too small, where the machine lets us mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system; the limit on file sizes above is tested instead")
    try:
        sensor = world.sensors["sentinel-2-l2a"]
        writer = StoreWriter.create(small / "s.zarr", [SensorPlan(sensor, 4, 192, 192, 2)], fingerprint="x")
        import numpy as np

        pixels = np.random.default_rng(0).integers(1, 2**16, (2, 12, 192, 192)).astype("uint16")
        with pytest.raises(WriteError, match=r"No space left on device.*make room"):
            writer.write(writer.shards()[0], pixels, np.ones((2, 192, 192), bool))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        for shard in writer.pending():
            writer.write(shard, pixels, np.ones((2, 192, 192), bool))
        writer.finish()
        store = ImageSetStore.open(str(small / "s.zarr"))
        store.verify()
        assert np.array_equal(store.read(sensor.id, [0, 3])[0], pixels)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY

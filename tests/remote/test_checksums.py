"""Checksums of STAC items: damage that still decodes is found, locally and over HTTP, and costs its images only."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.windows import Window

from a2mae.errors import RejectedError
from a2mae.raster.read import RasterReader
from a2mae.remote import verify as checksums
from a2mae.remote.policy import ReadingParameters, RemoteAccess, VerifyChecksums
from a2mae.remote.storage import Folder
from a2mae.remote.verify import Copies, Multihash, UnknownChecksumError, Verifier, parse_multihash, tell_unverified
from a2mae.scenes import BandAsset, assets_from_json, assets_to_json, scenes_from_table
from a2mae.sensors import Units
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.tables import BuiltTables
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore
from helpers.http_server import Served, serve_files

from ..stssd.build_runs import RECIPES
from ..stssd.conftest import World

FAST = {"retries": 2, "retry_delay_s": 0.01, "timeout_s": 2.0}
PREFIXES = {"sha256": "1220", "sha512": "1340", "md5": "d50110", "sha1": "1114", "sha3_256": "1620", "sha384": "2030"}


def flip(path: Path) -> bytes:
    """Flip a byte in every block so that it still decodes, to other pixels; gives the file's bytes as they were."""
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    with rasterio.open(path) as file:
        for (row, column), window in file.block_windows(1):
            name = f"{column}_{row}"
            first, size = (
                int(file.get_tag_item(f"BLOCK_{what}_{name}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
            )
            before = file.read(1, window=window)
            # The adler32 at a block's end is what GDAL does not compare.
            assert any(
                _decodes_to_other(spoilt, at, before, window) for at in range(first + size // 2, first + size - 4)
            )
    path.write_bytes(spoilt)
    return whole


def _decodes_to_other(spoilt: bytearray, at: int, before: np.ndarray, window: Window) -> bool:
    for bit in (0x01, 0x10):
        spoilt[at] ^= bit
        with MemoryFile(bytes(spoilt)) as memory:
            try:
                with memory.open() as file:
                    if np.count_nonzero(file.read(1, window=window) != before) > before.size // 20:
                        return True
            except rasterio.errors.RasterioError:
                pass
        spoilt[at] ^= bit
    return False


def moved(world: World, root: str) -> dict[str, object]:
    table = world.scenes.copy()
    table["assets"] = table["assets"].str.replace(str(world.folder), root, regex=False)
    return {"scenes_table": table, "locations_table": world.locations.iloc[:2], "sensors": world.sensors}


def run(given: dict[str, object], out: Path, **reading: object) -> BuiltTables:
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, reading={**FAST, **reading})
    return build(**given, parameters=parameters, url=str(out / "stssd.zarr"))


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world.folder, tmp_path / "copy"))


@pytest.fixture
def served(copy: Path) -> Served:
    with serve_files(copy) as server:
        yield server


@pytest.fixture(scope="module")
def expected(world: World, tmp_path_factory: pytest.TempPathFactory) -> BuiltTables:
    return run(moved(world, str(world.folder)), tmp_path_factory.mktemp("expected"))


def test_items_bring_their_checksums(world: World) -> None:
    for scene in scenes_from_table(world.scenes):
        for asset in scene.assets:
            digest = hashlib.sha256(Path(asset.href).read_bytes()).digest()
            assert parse_multihash(str(asset.checksum)) == Multihash(str(asset.checksum), "sha256", digest)
        assert assets_from_json(assets_to_json(scene.assets)) == scene.assets


@pytest.mark.parametrize("algorithm", PREFIXES)
def test_multihashes_of_known_algorithms(algorithm: str) -> None:
    digest = hashlib.new(algorithm, b"a file").digest()
    found = parse_multihash(PREFIXES[algorithm] + digest.hex().upper())
    assert (found.algorithm, found.digest) == (algorithm, digest)
    fed = found.new()
    fed.update(b"a file")
    assert fed.digest() == digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a multihash"),
        ("xyz", "not a multihash"),
        ("ff" * 12, "not a multihash"),
        ("1e20" + "00" * 32, "algorithm 0x1e"),
        (hashlib.sha256(b"").hexdigest(), "not known here"),  # a digest without the prefix of a multihash
        ("1220" + "00" * 31, "31 bytes instead of 32"),
    ],
)
def test_other_texts_are_not_compared_and_told_once(text: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnknownChecksumError, match=told):
        parse_multihash(text)
    asset = BandAsset("B1", "a.tif", 1, 1.0, 0.0, None, Units.DN, 1.0, checksum=text)
    other = dataclasses.replace(asset, href="b.tif")
    tell_unverified([asset, other, asset], VerifyChecksums.LOCAL)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "file:checksum of 2 files is" in line and "not verified" in line


def test_flipped_byte_of_a_local_file_is_found_and_the_rest_goes_on(
    world: World, copy: Path, expected: BuiltTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, out = moved(world, str(copy)), tmp_path / "out"
    path = next(p for p in sorted(copy.rglob("B09.tif")))  # read for the store only
    whole = flip(path)
    tables = run(given, out)
    wrong = tables.rejected[tables.rejected["reason"] == "checksum"]
    assert set(wrong["scene_id"]) == {path.parent.name}
    assert (
        wrong["detail"].str.contains(r"B09\.tif is not the file that its item describes: file:checksum is sha256").all()
    )
    assert path.parent.name not in set(tables.images["scene_id"]) and len(tables.images)
    lines = [r.getMessage() for r in caplog.records if "B09.tif" in r.getMessage() and r.name.endswith("verify")]
    assert len(lines) == 1
    assert "could not be read, the first" in caplog.text
    # In silence it would have been in the store, with other pixels.
    silent = run(given, tmp_path / "silent", verify_checksums="none")
    assert path.parent.name in set(silent.images["scene_id"])
    assert silent.manifest_hash != expected.manifest_hash
    # Mended: the survey is not made again, nor the shards of the other sensor.
    path.write_bytes(whole)
    ledger = out / "stssd.zarr.work" / "checksums"
    before = {p: p.stat().st_mtime_ns for p in ledger.rglob("*.json")}
    landsat = {p: p.stat().st_mtime_ns for p in (out / "stssd.zarr" / "landsat-oli-c2-l2").rglob("c/*") if p.is_file()}
    again = run(given, out)
    assert again.manifest_hash == expected.manifest_hash
    assert not again.rejected["reason"].isin(["checksum"]).any()
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {p: p.stat().st_mtime_ns for p in landsat} == landsat
    ImageSetStore.open(str(out / "stssd.zarr")).verify()


def test_flipped_byte_that_the_survey_reads_is_surveyed_again(
    world: World, copy: Path, expected: BuiltTables, tmp_path: Path
) -> None:
    given, out = moved(world, str(copy)), tmp_path / "out"
    path = next(p for p in sorted(copy.rglob("red.tif")))
    whole = flip(path)
    tables = run(given, out)
    assert set(tables.rejected.loc[tables.rejected["reason"] == "checksum", "scene_id"]) == {path.parent.name}
    path.write_bytes(whole)
    assert run(given, out).manifest_hash == expected.manifest_hash


def test_flipped_byte_behind_a_server_is_found_where_all_are_verified(
    served: Served, world: World, expected: BuiltTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out, copy = moved(world, served.url), tmp_path / "out", tmp_path / "copy"
    path = next(p for p in sorted(copy.rglob("B09.tif")))
    whole = flip(path)
    silent = run(given, tmp_path / "silent")  # ranges cannot be verified
    assert silent.manifest_hash != expected.manifest_hash
    downloads: Counter[str] = Counter()
    original = checksums.blocks
    monkeypatch.setattr(checksums, "blocks", lambda a, **more: (downloads.update([a]), original(a, **more))[1])
    tables = run(given, out, verify_checksums="all")
    wrong = tables.rejected[tables.rejected["reason"] == "checksum"]
    assert set(wrong["scene_id"]) == {path.parent.name}
    assert wrong["detail"].str.contains(r"given up after 3 tries").all()
    damaged = f"{served.url}/{path.relative_to(copy)}"
    assert len(downloads) > 20 and downloads.pop(damaged) == 3
    assert set(downloads.values()) == {1}
    path.write_bytes(whole)
    served.requests.clear()
    downloads.clear()
    again = run(given, out, verify_checksums="all")
    assert again.manifest_hash == expected.manifest_hash
    asked = set(served.requests)
    assert asked and all("/sentinel-2" in p for p in asked)  # shards of that sensor, and nothing else
    # The others are known to be right, but for the band after it, which was not looked at.
    assert downloads == {damaged: 1, damaged.replace("B09", "B12"): 1}
    served.requests.clear()
    assert run(given, out, verify_checksums="all").manifest_hash == expected.manifest_hash
    assert not served.requests


def test_a_verified_remote_file_is_downloaded_once_and_no_range_of_it_is_asked_for(
    served: Served, world: World, expected: BuiltTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, copy = moved(world, served.url), tmp_path / "copy"
    work = tmp_path / "out" / "stssd.zarr.work"
    with caplog.at_level(logging.INFO):
        built = run(given, tmp_path / "out", verify_checksums="all")
    assert built.manifest_hash == expected.manifest_hash
    sizes = {path: (copy / path.lstrip("/")).stat().st_size for path in served.sent}
    assert len(sizes) > 20 and dict(served.sent) == sizes and not served.ranges
    told = f"Downloaded and verified {len(sizes)} remote files, {sum(sizes.values()) / 1e6:.1f} MB"
    assert told in caplog.text and "each that is needed is downloaded as a whole" in caplog.text
    assert not (work / "copies").exists() and len(list((work / "checksums").iterdir())) == len(sizes)
    # Two workers share the copies; none of the two downloads what the other has.
    served.sent.clear()
    parameters = CoregisterParameters(
        recipes=RECIPES, workers=2, locations_per_task=1, reading={**FAST, "verify_checksums": "all"}
    )
    shared = build(**given, parameters=parameters, url=str(tmp_path / "two" / "stssd.zarr"))
    assert shared.manifest_hash == expected.manifest_hash
    assert dict(served.sent) == sizes and not served.ranges


@pytest.mark.parametrize("copies_gb", [0.0, 300e-6])
def test_copies_take_no_more_than_their_space(
    copies_gb: float, served: Served, world: World, expected: BuiltTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = served.root.parent
    copies, most = tmp_path / "out" / "stssd.zarr.work" / "copies", [0]
    original = RasterReader._window

    def looks(*args: object, **kwargs: object) -> None:
        if copies.exists():
            most.append(sum(f.stat().st_size for f in copies.iterdir()))
        original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(RasterReader, "_window", looks)
    built = run(moved(world, served.url), tmp_path / "out", verify_checksums="all", copies_gb=copies_gb)
    assert built.manifest_hash == expected.manifest_hash
    assert served.ranges  # what made room, or never had any, is read as without copies
    assert max(most) <= copies_gb * 1e9 and bool(max(most)) == bool(copies_gb)


def test_a_full_disk_costs_the_copy_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(Folder(str(tmp_path / "work")), 1000)
    with copies.alone("a"):
        assert b"".join(copies.written("a", [b"x" * 400, b"y" * 400])) == b"x" * 400 + b"y" * 400
    assert copies.path("a") is None  # not known to be right yet
    copies.keep("a")
    assert Path(str(copies.path("a"))).read_bytes() == b"x" * 400 + b"y" * 400
    assert b"".join(copies.written("b", [b"z" * 700])) == b"z" * 700
    copies.keep("b")
    assert copies.path("a") is None and copies.path("b")  # made room
    assert b"".join(copies.written("c", [b"z" * 700, b"z" * 700])) == b"z" * 1400
    copies.keep("c")
    assert copies.path("c") is None  # larger than all the space

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    assert b"".join(copies.written("d", [b"z"])) == b"z"
    copies.keep("d")
    assert copies.path("d") is None


def test_remote_files_that_are_not_compared_are_told(caplog: pytest.LogCaptureFixture) -> None:
    known = "d50110" + "00" * 16
    asset = BandAsset("B1", "https://host.example/a.tif", 1, 1.0, 0.0, None, Units.DN, 1.0, checksum=known)
    with caplog.at_level(logging.INFO):
        tell_unverified([asset], VerifyChecksums.ALL)
        assert "1 remote file with file:checksum: each that is needed is downloaded" in caplog.text
        caplog.clear()
        tell_unverified([asset], VerifyChecksums.LOCAL)
    assert "of 1 file is not compared (coregister.reading.verify_checksums: local)" in caplog.text


def test_connection_cut_while_verifying_is_tried_again(copy: Path, served: Served, tmp_path: Path) -> None:
    path = next(p for p in sorted(copy.rglob("B09.tif")))
    checksum = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    href = f"{served.url}/{path.relative_to(copy)}"
    asset = BandAsset("B09", href, 1, 1.0, 0.0, None, Units.DN, 10.0, checksum=checksum)
    reading = ReadingParameters(**FAST, verify_checksums="all")
    work = Folder(str(tmp_path / "work"))

    def verifier() -> Verifier:
        return Verifier(work, RemoteAccess(reading=reading))

    served.cut = lambda _: 100 if len(served.requests) == 1 else None
    verifier().check(asset)
    served.requests.clear()
    verifier().check(asset)
    assert not served.requests  # another worker reads the ledger
    served.fail = lambda _: (503, {})
    other = dataclasses.replace(asset, href=href + "?part=2")
    with pytest.raises(RejectedError, match=r"answers 503.*given up after 3 tries") as error:
        verifier().check(other)
    assert error.value.reason == "unreachable" and "part=2" not in str(error.value)


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "a.tif", []
    path.write_bytes(b"a" * 5_000_000)
    checksum = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    asset = BandAsset("B1", str(path), 1, 1.0, 0.0, None, Units.DN, 1.0, checksum=checksum)
    original = checksums.blocks
    monkeypatch.setattr(checksums, "blocks", lambda p: (reads.append(p), original(p))[1])

    def check() -> None:
        local = RemoteAccess(reading=ReadingParameters(verify_checksums=VerifyChecksums.LOCAL))
        Verifier(Folder(str(tmp_path / "w")), local).check(asset)

    check()
    check()
    assert len(reads) == 1
    path.write_bytes(b"b" + b"a" * 4_999_999)
    with pytest.raises(RejectedError, match="is not the file that its item describes"):
        check()
    assert len(reads) == 2


def test_a_torn_entry_of_what_was_verified_counts_for_nothing(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut must not turn files that nobody has compared into verified ones."""
    path = next(p for p in sorted(world.folder.rglob("B09.tif")))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    work = Folder(str(tmp_path / "work"))
    asset = BandAsset("B09", str(path), 1, 1.0, 0.0, None, Units.REFLECTANCE, 60.0, checksum=f"1220{digest}")
    Verifier(work, RemoteAccess()).check(asset)
    (entry,) = (tmp_path / "work").rglob("*.json")
    whole = entry.read_bytes()
    for torn in (b"", whole[:-3]):
        entry.write_bytes(torn)
        Verifier(work, RemoteAccess()).check(asset)
        assert entry.read_bytes() == whole and f"{entry} is not what was written" in caplog.text
        caplog.clear()

"""What a catalog or a file claims does not decide how much memory is taken: it is refused first, with a reason."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from odc.geo.geobox import GeoBox
from rasterio.transform import Affine

from a2mae.errors import ReadError, RejectedError
from a2mae.raster.read import RasterReader
from a2mae.remote.policy import HrefPolicy
from a2mae.scenes import BandAsset
from a2mae.sensors import Units
from a2mae.stssd.ingest.parameters import ApiParameters
from a2mae.stssd.ingest.stac_documents import read_json, search
from helpers.http_server import listening

from ..stssd.stac_parsing import parse

MEMORY_MIB = 100  # beyond what an ordinary file takes
TIFF_TYPES = {"H": 3, "I": 4, "Q": 16, "d": 12}


def big_tiff(path: Path, *, width: int, height: int, tile: tuple[int, int], bands: int = 1, length: int = 0) -> Path:
    """A BigTIFF that is a header only: its tables of tiles lie in a hole of a sparse file, or beyond its end.

    Args:
        path: Where it goes.
        width: Columns that it claims.
        height: Rows that it claims.
        tile: Columns and rows of a tile that it claims.
        bands: Bands that it claims.
        length: Bytes of the file, holes included.
    """
    tiles = -(-width // tile[0]) * -(-height // tile[1]) * bands
    doubles = {33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0)}
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    entries: list[tuple[int, str, int, bytes | None]] = [
        (256, "I", 1, struct.pack("<I", width)), (257, "I", 1, struct.pack("<I", height)),
        (258, "H", 1, struct.pack("<H", 16)), (259, "H", 1, struct.pack("<H", 1)), (262, "H", 1, struct.pack("<H", 1)),
        (277, "H", 1, struct.pack("<H", bands)), (284, "H", 1, struct.pack("<H", 2 if bands > 1 else 1)),
        (322, "I", 1, struct.pack("<I", tile[0])), (323, "I", 1, struct.pack("<I", tile[1])),
        (324, "Q", tiles, None), (325, "Q", tiles, None),
        *((tag, "d", len(values), struct.pack(f"<{len(values)}d", *values)) for tag, values in doubles.items()),
        (34735, "H", len(keys), struct.pack(f"<{len(keys)}H", *keys)),
    ]  # fmt: skip
    end = 16 + 8 + 20 * len(entries) + 8
    table, after = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(entries)), b""
    for tag, kind, count, data in sorted(entries):
        if data is None:  # somewhere behind: zeros of a hole, which say "sparse"
            value = struct.pack("<Q", 1_000_000 + (tag - 324) * 8 * count)
        elif len(data) <= 8:
            value = data.ljust(8, b"\0")
        else:
            value = struct.pack("<Q", end + len(after))
            after += data
        table += struct.pack("<HHQ", tag, TIFF_TYPES[kind], count) + value
    path.write_bytes(table + struct.pack("<Q", 0) + after)
    with path.open("r+b") as file:
        file.truncate(max(length, file.seek(0, 2)))
    return path


HUGE: dict[str, dict[str, object]] = {
    "a million squared": {"width": 10**6, "height": 10**6, "tile": (256, 256)},
    "a million squared, one tile": {"width": 10**6, "height": 10**6, "tile": (10**6, 10**6)},
    "an absurd tile": {"width": 100_000, "height": 100_000, "tile": (65_536, 65_536)},
    "many small tiles": {"width": 190_000, "height": 190_000, "tile": (16, 16), "length": 4 * 2**30},
    "many small tiles beyond the end": {"width": 190_000, "height": 190_000, "tile": (16, 16)},
    "many bands": {"width": 10_000, "height": 10_000, "tile": (16, 16), "bands": 1_900, "length": 20 * 2**30},
}
CHILD = """
import json, resource, sys
from a2mae.raster.header import read_header
from a2mae.errors import RejectedError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

read_header(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    try:
        said = f"read {read_header(path).shape}"
    except RejectedError as refusal:
        said = refusal.reason
    print(json.dumps([path, said, peak() - before]))
"""


def test_headers_that_claim_too_much_take_no_memory(tmp_path: Path) -> None:
    plain = big_tiff(tmp_path / "plain.tif", width=512, height=512, tile=(256, 256), length=2**21)
    paths = [str(big_tiff(tmp_path / f"{k}.tif", **claims)) for k, claims in enumerate(HUGE.values())]  # type: ignore[arg-type]
    assert sum(Path(p).stat().st_blocks for p in paths) * 512 < 2**20  # holes
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(plain), *paths],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30)),  # of the machine's memory
    )
    assert done.returncode == 0, done.stderr
    told = {name: json.loads(line)[1:] for name, line in zip(HUGE, done.stdout.splitlines(), strict=True)}
    assert max(grown for _, grown in told.values()) < MEMORY_MIB, told
    reasons = {name: said for name, (said, _) in told.items()}
    assert set(reasons.values()) == {"too_large"}, told


def traced(work: Callable[[], object]) -> tuple[BaseException, float]:
    """The error of some work, and the most memory it took in MiB, by Python's and NumPy's own account."""
    tracemalloc.start()
    try:
        with pytest.raises((RejectedError, ReadError, ValueError)) as error:
            work()
        return error.value, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_windows_that_take_too_much_are_not_allocated(tmp_path: Path) -> None:
    path = big_tiff(tmp_path / "a.tif", width=190_000, height=190_000, tile=(1024, 1024), bands=12)
    assets = [BandAsset(f"B{k}", str(path), k + 1, 1.0, 0.0, None, Units.DN, 10.0) for k in range(12)]
    for side in (10_500, 100_000):  # pixels of the file under a footprint of 64 pixels
        grid = GeoBox((64, 64), Affine(side * 10 / 64, 0, 600_000, 0, -side * 10 / 64, 4_900_000), "EPSG:32633")
        with RasterReader() as reader:
            error, mib = traced(lambda reader=reader, grid=grid: reader.read(assets, grid))
        assert isinstance(error, ReadError) and error.reason == "too_large", error
        assert "in 12 bands more than are read at once" in str(error)
        assert mib < 10


def item(**changes: object) -> dict[str, object]:
    document = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2020-06-11T10:00:00Z", "platform": "sentinel-2a"},
        "geometry": {"type": "Polygon", "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 50]]]},
        "collection": "sentinel-2-l2a",
        "assets": {"B04": {"href": "https://host.example/B04.tif", "type": "image/tiff"}},
    }
    return {**document, **changes}


def test_items_of_absurd_size_are_refused() -> None:
    many = {f"A{k}": {"href": "https://host.example/a.tif", "type": "image/tiff"} for k in range(5_000)}
    bands = {"A": {"href": "a.tif", "eo:bands": [{"name": "B04"}] * 20_000}}
    ring = [[10 + (k % 100) / 100, 50.0] for k in range(150_000)]
    for changes, told in (
        ({"assets": many}, "5000 assets"),
        ({"assets": bands}, "20000 bands"),
        ({"geometry": {"type": "Polygon", "coordinates": [ring]}}, "has 100000 vertices or more"),
    ):
        error, mib = traced(lambda changes=changes: parse(item(**changes)))
        assert isinstance(error, RejectedError) and error.reason == "too_large" and told in error.detail, error
        assert mib < 10


def test_documents_of_hundreds_of_megabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    with path.open("wb") as file:
        file.truncate(500 * 2**20)
    policy = HrefPolicy(frozenset({"file", "http"}), (tmp_path,), allow_private=True)
    error, mib = traced(lambda: read_json(str(path), policy, 2**20))
    assert isinstance(error, RejectedError) and error.reason == "too_large" and mib < 5

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            sent.append(0)
            try:
                while sent[-1] < 500:  # MiB, without saying so beforehand
                    self.wfile.write(b" " * 2**20)
                    sent[-1] += 1
            except ConnectionError:
                pass

        def log_message(self, *_: object) -> None:
            """Nothing."""

    sent: list[int] = []
    with listening(Endless) as url:
        error, mib = traced(lambda: read_json(f"{url}/catalog.json", policy, 2**20))
        assert isinstance(error, RejectedError) and error.reason == "too_large" and mib < 10
        api = ApiParameters(url=url, bbox=(10, 50, 11, 51), retries=0)
        error, mib = traced(lambda: search(api, policy, max_bytes=2**20))
        assert "larger than ingest.source.max_document_mb" in str(error) and mib < 20
    assert all(count < 100 for count in sent)

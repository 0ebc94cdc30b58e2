"""One read for documents, tokens, headers and downloads: bounded, tried again as the server asks, no secrets told."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from a2mae.errors import RejectedError
from a2mae.raster.header import RasterHeader, read_header
from a2mae.remote.fetch import SasSigner, ask, blocks, fetch
from a2mae.remote.policy import HrefPolicy, ReadingParameters, RemoteAccess
from helpers.http_server import Served, listening, serve_files
from helpers.rasters import write_tif

LOOPBACK = HrefPolicy(frozenset({"http"}), (), hosts=("127.0.0.1",), allow_private=True)
FAST = ReadingParameters(retries=3, retry_delay_s=0.01, timeout_s=2.0)
LIMITS = {"max_bytes": 1000, "bound": "the test allows", "reading": FAST}


@pytest.fixture
def served(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    write_tif(tmp_path / "a.tif")
    with serve_files(tmp_path) as server:
        yield server


def busy(server: Served, times: int) -> None:
    answers = iter([(503, {"Retry-After": "0"})] * times)
    server.fail = lambda path: next(answers, None)


def test_documents_tokens_and_headers_are_tried_again(served: Served) -> None:
    busy(served, 2)
    assert fetch(f"{served.url}/a.json", LOOPBACK, **LIMITS) == b"{}"
    busy(served, 2)
    assert isinstance(read_header(f"{served.url}/a.tif", RemoteAccess(policy=LOOPBACK, reading=FAST)), RasterHeader)
    (served.root / "account").mkdir()
    token = {"token": "sig=secret", "msft:expiry": "2999-01-01T00:00:00Z"}
    (served.root / "account" / "box").write_text(json.dumps(token))
    busy(served, 2)
    sign = SasSigner(served.url, host=".127.0.0.1", reading=FAST)
    assert sign("http://account.127.0.0.1/box/a.tif") == "http://account.127.0.0.1/box/a.tif?sig=secret"


def test_a_final_answer_is_not_asked_for_again_and_shows_no_query(served: Served) -> None:
    with pytest.raises(RejectedError, match=r"the server answers 404$") as error:
        fetch(f"{served.url}/none.json?sig=secret", LOOPBACK, **LIMITS)
    assert error.value.reason == "unreachable" and "secret" not in error.value.detail and len(served.requests) == 1
    with pytest.raises(RejectedError, match="missing_file"):
        fetch("none.json", LOOPBACK, **LIMITS)


def test_a_host_that_is_not_there_is_named_as_such(monkeypatch, caplog) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no test asks a name server
    once = LIMITS | {"reading": ReadingParameters(retries=0)}
    for reading, end in ((LIMITS, "; given up after 4 tries"), (once, "")):
        caplog.clear()
        with pytest.raises(RejectedError) as error:
            fetch("http://mistyped.example/a.json?sig=secret", None, **reading)
        said = "http://mistyped.example/a.json cannot be fetched: its host cannot be found; check the address and the"
        assert str(error.value.detail) == f"{said} network{end}"
        assert len(caplog.records) == (4 if end else 0), "the only try says nothing but its sentence"


def test_patience_ends(served: Served) -> None:
    busy(served, 10)
    with pytest.raises(RejectedError, match="the server answers 503; given up after 4 tries"):
        fetch(f"{served.url}/a.json", LOOPBACK, **LIMITS)
    assert len(served.requests) == 4


def test_a_redirect_to_what_is_not_an_address_is_rejected(served: Served) -> None:
    served.fail = lambda path: (302, {"Location": "http://[abc/a.json"})
    for policy in (LOOPBACK, None):
        with pytest.raises(RejectedError, match="redirects") as error:
            fetch(f"{served.url}/a.json", policy, **LIMITS)
        assert error.value.reason == "bad_href"


def test_files_come_as_they_are_and_packed_documents_are_bounded_unpacked() -> None:
    packed = gzip.compress(b" " * (100 * 2**20))

    class Packs(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            try:
                self.wfile.write(packed)
            except ConnectionError:
                pass

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with listening(Packs) as url:
        assert b"".join(blocks(f"{url}/a.tif")) == packed
        tracemalloc.start()
        try:
            with pytest.raises(RejectedError, match="larger than the test allows"):
                fetch(f"{url}/a.json", LOOPBACK, **LIMITS, packed=True)
            assert tracemalloc.get_traced_memory()[1] < 70 * 2**20  # a block of the packed file, unpacked
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        ("text/html", b"<html>log in</html>", "a web page instead of the file"),
        ("image/tiff", b"II*\0" + b"x" * 100, "the file as a whole and no parts of it"),
    ],
)
def test_a_server_that_gives_something_else_than_a_part_is_told_as_such(kind: str, body: bytes, sentence: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with listening(Handler) as url:
        assert sentence in ask(f"{url}/a.tif", 5.0).detail

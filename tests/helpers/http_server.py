"""A file server on loopback that answers range requests (Python's own does not) and fails when told to."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A running server.

    Attributes:
        root: The folder that is served.
        url: Its root, without a slash at the end.
        ranges: Paths that were asked for a range.
        requests: Every path that was asked for, with its query.
        sent: Bytes of files that were sent, by path.
        fail: Asked before every answer: a status (and headers) instead of the file, or None.
        cut: Asked before every file or range: after how many bytes the connection is cut, or None.
        wait_s: Asked before every answer: how long it takes.
    """

    root: Path
    url: str
    ranges: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    fail: Callable[[str], tuple[int, dict[str, str]] | None] = lambda path: None
    cut: Callable[[str], int | None] = lambda path: None
    wait_s: Callable[[str], float] = lambda path: 0.0


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer on a free port of loopback while the context lasts; gives the root address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serve_files(root: Path) -> Iterator[Served]:
    """Serve a folder while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            served.requests.append(self.path)
            time.sleep(served.wait_s(self.path))
            failure = served.fail(self.path)
            path = root / self.path.partition("?")[0].lstrip("/")
            if failure is not None or not path.is_file():
                status, headers = failure or (404, {})
                self._send(status, b"", headers, body=body)
                return
            data = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                self._send(200, data, {"Accept-Ranges": "bytes"}, body=body)
                return
            served.ranges.append(self.path)
            first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self._send(206, data[first : last + 1], headers, body=body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                cut = served.cut(self.path) if status < 300 else None
                with contextlib.suppress(ConnectionError):  # whoever asked may have given up
                    self.wfile.write(data[:cut])
                    served.sent[self.path.partition("?")[0]] += len(data[:cut])
                if cut is not None:
                    self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Tests read `Served` instead."""

    with listening(Handler) as url:
        served = Served(root, url)
        yield served

"""Requests end in time as a whole, whatever the server does, and odd answers are answers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from a2mae.errors import InputError, RejectedError, without_places, without_secrets
from a2mae.remote.fetch import blocks, fetch
from a2mae.remote.policy import HrefPolicy, ReadingParameters
from a2mae.scenes import RejectedScene

LOOPBACK = HrefPolicy(frozenset({"http"}), (), hosts=("127.0.0.1",), allow_private=True)
ONCE = ReadingParameters(retries=0, timeout_s=0.6)
LIMITS = {"max_bytes": 10_000, "bound": "the test allows", "reading": ONCE}


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what it is told, below HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(10_000)
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.json"
    finally:
        listener.close()


def drip(text: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        for k in range(len(text)):
            connection.sendall(text[k : k + 1])
            time.sleep(0.05)

    return answer


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"


@pytest.mark.parametrize("answer", [drip(HEAD + b" " * 400), drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400)])
def test_a_byte_now_and_then_does_not_keep_anybody_waiting(answer):
    with answering(answer) as url:
        start = time.monotonic()
        with pytest.raises(RejectedError, match=r"too slow: not all of it came within 0\.6 s \(timeout_s\)") as error:
            fetch(url, LOOPBACK, **LIMITS)
        assert error.value.reason == "unreachable" and time.monotonic() - start < 2


def test_a_download_may_take_longer_as_long_as_it_comes():
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 120000\r\n\r\n")
        for _ in range(12):
            connection.sendall(b"x" * 10_000)
            time.sleep(0.1)

    with answering(answer) as url:
        assert len(b"".join(blocks(url, timeout_s=0.9))) == 120_000
        with pytest.raises(OSError, match="too slow"):
            b"".join(blocks(url, timeout_s=0.9, whole=True))


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 OK", b"HTTP/1.1 2000 OK", b"HTTP/9 200 OK", b"SSH-2.0-x", b"\xff\xfe\x00", b"", b"HTTP/1.1 -1 no",
     b"HTTP/1.1 200 " + b"x" * 70_000],
)  # fmt: skip
def test_status_lines_that_are_none_are_no_answer(line):
    with answering(lambda connection: connection.sendall(line + b"\r\n\r\n")) as url:
        with pytest.raises(RejectedError) as error:
            fetch(url, LOOPBACK, **LIMITS)
        assert error.value.reason == "unreachable"


@pytest.mark.parametrize("later", [b"86400", b"Wed, 01 Jan 2200 00:00:00 GMT", b"1e300"])
def test_who_is_asked_to_come_back_in_a_day_does_not_wait(later):
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nRetry-After: " + later + b"\r\n\r\n")

    with answering(answer) as url:
        start = time.monotonic()
        with pytest.raises(RejectedError, match=r"asks to come back in [\d,]+ s$"):
            fetch(url, LOOPBACK, max_bytes=9, bound="", reading=ReadingParameters(retries=3, timeout_s=5))
        assert time.monotonic() - start < 2


def test_a_pipe_is_no_document(tmp_path):
    os.mkfifo(tmp_path / "catalog.json")
    policy = HrefPolicy(frozenset({"file"}), (tmp_path,))
    with pytest.raises(RejectedError, match="no regular file") as error:
        fetch(policy.check_path(tmp_path / "catalog.json"), policy, max_bytes=9, bound="")
    assert error.value.reason == "missing_file"


SECRET = "https://us:pa@ss@host.example/a/b.tif?sig=geheim&x=1#geheim"


def test_secrets_of_addresses_are_shown_nowhere():
    shown = "https://host.example/a/b.tif"
    assert without_secrets(f"of {SECRET}, and '{SECRET}'.") == f"of {shown} and '{shown}'."
    assert without_secrets("a?b#c and x@y.z: no address") == "a?b#c and x@y.z: no address"
    assert without_places({"a": [SECRET]}) == {"a": [shown]}
    for text in (str(InputError(f"x {SECRET} y")), RejectedError("a", f"x {SECRET} y").detail,
                 RejectedScene(SECRET, "a", SECRET).detail, RejectedScene(SECRET, "a", "b").scene_id):  # fmt: skip
        assert shown in text and "geheim" not in text and "pa@" not in text and "us:" not in text

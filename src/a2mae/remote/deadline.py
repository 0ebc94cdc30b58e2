"""Requests that end in time as a whole, and that follow no redirect by themselves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Self

import requests
import requests.adapters


class Deadline:
    """Ends a request that takes too long as a whole, headers included: timeouts of sockets are of one silence each.

    Attributes:
        seen: Bytes that came.
        over: The time was up.
    """

    def __init__(self, seconds: float, bytes_per_s: float) -> None:
        self.seen, self.over = 0, False
        self._end, self._bytes_per_s = time.monotonic() + seconds, bytes_per_s
        self._done, self._sockets = threading.Event(), list[socket.socket]()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._wait, name="deadline of a request", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def check(self) -> None:
        """Tell an answer that was cut from one that ends: headers that are cut short end like whole ones.

        Raises:
            requests.Timeout: If the time is up.
        """
        if self.over:
            raise requests.Timeout

    def watch(self, connection: socket.socket) -> None:
        """End this connection, too, when the time is up."""
        with self._lock:
            self._sockets.append(connection)
            if self.over:
                _shut(connection)

    def _wait(self) -> None:
        while (left := self._end + self.seen / self._bytes_per_s - time.monotonic()) > 0:
            if self._done.wait(left):
                return
        with self._lock:
            self.over = True
            for connection in self._sockets:
                _shut(connection)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, whose own would wait for the other side


class _Adapter(requests.adapters.HTTPAdapter):
    """Shows a deadline the sockets of its connections."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (of the class above)
        """Have every pool open connections that the deadline watches."""
        super().init_poolmanager(*args, **kwargs)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {scheme: self._watched(pool) for scheme, pool in pools.items()}

    def _watched(self, pool: Any) -> type:  # noqa: ANN401 (a class of urllib3, which requests brings along)
        plain, deadline = pool.ConnectionCls, self._deadline

        def connect(connection: Any) -> None:  # noqa: ANN401
            plain.connect(connection)
            deadline.watch(connection.sock)

        return type(pool.__name__, (pool,), {"ConnectionCls": type(plain.__name__, (plain,), {"connect": connect})})


class Session(requests.Session):
    """Follows no redirect by itself: requests would not check it, and would read its body without a bound."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(deadline))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow none."""
        return

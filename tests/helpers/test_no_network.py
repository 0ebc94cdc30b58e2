"""The guard itself: it stops and records what would leave the machine, in every process, and lets loopback pass."""

import socket
import threading

import pytest

from helpers.checkout import run

TRY = """
import socket, subprocess, sys
def attempt(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return "reached"
    except PermissionError:
        return "forbidden"
print(attempt("127.0.0.1", int(sys.argv[1])), attempt("192.0.2.1", 80), attempt("example.org", 80))
if len(sys.argv) < 3:
    print(subprocess.run([sys.executable, __file__, sys.argv[1], "child"], capture_output=True, text=True).stdout)
"""


@pytest.fixture
def port():
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(2)], daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def test_loopback_passes_and_everything_else_is_recorded(tmp_path, port):
    (tmp_path / "try.py").write_text(TRY)
    log = tmp_path / "sockets.log"
    done = run(tmp_path, "python", "try.py", str(port), socket_log=log, timeout=60)
    assert done.stdout.split() == ["reached", "forbidden", "forbidden"] * 2, done.stderr
    assert log.read_text().splitlines() == ["getaddrinfo '192.0.2.1'", "getaddrinfo 'example.org'"] * 2

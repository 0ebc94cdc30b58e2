"""Python runs this when it starts, wherever this folder is on PYTHONPATH: sockets reach loopback only.

It holds for every Python process that a run starts (training, Dask workers), not only for the test's own. Each attempt
is written to the file named by A2MAE_SOCKET_LOG, so that one that is caught and swallowed is found all the same.
"""

import ipaddress
import os
import socket

_LOOPBACK_NAMES = {"localhost", "", None}


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in _LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return host == socket.gethostname()
    return address.is_loopback or address.is_unspecified


def _refuse(what: str, host: object) -> None:
    with open(os.environ["A2MAE_SOCKET_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{what} {host!r}\n")
    raise PermissionError(f"the network is forbidden in this test: {what} {host!r}")


def _guard_address(name: str) -> None:
    original = getattr(socket.socket, name)

    def guarded(self, *arguments, **options):
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            _refuse(name, address[0])
        return original(self, *arguments, **options)

    setattr(socket.socket, name, guarded)


def _guard_lookup(name: str) -> None:
    original = getattr(socket, name)

    def guarded(host, *arguments, **options):
        if not _is_local(host):
            _refuse(name, host)
        return original(host, *arguments, **options)

    setattr(socket, name, guarded)


if "A2MAE_SOCKET_LOG" in os.environ:
    for _name in ("connect", "connect_ex"):
        _guard_address(_name)
    for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        _guard_lookup(_name)

"""Which addresses of a catalog may be opened: schemes, hosts, folders, redirects, and how they are signed.

Hrefs of catalogs are untrusted: which schemes, hosts and folders may be opened.

GDAL understands far more than addresses of rasters: `/vsizip/`, `/vsicurl/`, `/vsistdin/`, driver prefixes such as
`WMS:` or `NETCDF:`, XML documents given as a name. A catalog decides none of that. Every href becomes either a plain
local path below an allowed root or an address with an allowed scheme, and everything else is refused.

Where a server sends a reader on: checked like any other address, before it is asked.

GDAL follows redirects by itself and has no option against it. So a file's server is asked once before GDAL opens it.
That is a check before use: a server that answers GDAL otherwise than it answered here is not found out.

Signing hooks: addresses as tables hold them → addresses that a provider answers. Tokens never leave memory.

A hook is any function from address to address, named in `ingest.source.signing`; this is the one that Microsoft's
Planetary Computer needs.
"""

from __future__ import annotations

import datetime as dt
import http.client
import ipaddress
import json
import os
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from a2mae.config import load_function
from a2mae.errors import RejectedError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]*):(.*)$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_LENGTH = 4096
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?$")


def local_href(path: str | Path) -> str:
    """A local path as tables hold it: relative to the project's root where it lies below it, so that clones agree."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative == os.pardir or relative.startswith(os.pardir + os.sep) else relative


def is_remote(href: str) -> bool:
    """Whether a checked href is an address rather than a local path."""
    return "://" in href


@dataclass(frozen=True)
class HrefPolicy:
    """What may be opened.

    Attributes:
        schemes: Allowed of `file`, `https`, `http`, `s3`.
        roots: Folders below which local files may lie; the folder of the catalog itself is one of them.
        hosts: Where not empty, only these hosts (and their subdomains) may be asked.
        allow_private: Allow loopback, link-local and private addresses.
    """

    schemes: frozenset[str]
    roots: tuple[Path, ...]
    hosts: tuple[str, ...] = ()
    allow_private: bool = False

    @cached_property
    def _real_roots(self) -> tuple[str, ...]:
        return tuple(os.path.realpath(root) for root in self.roots)

    def check(self, href: str, *, base: str | None = None) -> str:
        """The one form of an href that may be opened.

        Args:
            href: As the catalog has it.
            base: Checked href of the document it stands in; relative hrefs start there.

        Returns:
            A local path or an address.

        Raises:
            RejectedError: "bad_href", with what is wrong and which parameter would allow it.
        """
        if not href or len(href) > _MAX_LENGTH or _CONTROL.search(href):
            raise _bad(href, "it is empty, too long or holds control characters")
        if href.lstrip("/").lower().startswith("vsi") and "/" in href.lstrip("/"):
            raise _bad(href, "GDAL's virtual file systems (/vsi…) are not opened for a catalog")
        match = _SCHEME.match(href)
        if match is None:
            if base is None:
                return self._local(href, href)
            if is_remote(base):
                return self._remote(urllib.parse.urljoin(base, href), href)
            return self._local(os.path.join(os.path.dirname(base), href), href)
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file":
            if rest.startswith("//") and not rest.startswith("///"):
                raise _bad(href, "a file: address names a host")
            path = urllib.parse.unquote(rest[2:] if rest.startswith("///") else rest)
            if _CONTROL.search(path):
                raise _bad(href, "it holds control characters")
            return self._local(path, href)
        if scheme in ("https", "http", "s3"):
            return self._remote(href, href)
        raise _bad(href, f"scheme {scheme!r} is not one of {', '.join(sorted(self.schemes))}")

    def check_path(self, path: str | Path) -> str:
        """Check a local path that came from listing a folder: links out of the roots are refused."""
        return self._local(str(path), str(path))

    def _local(self, path: str, href: str) -> str:
        if "file" not in self.schemes:
            raise _bad(href, "local files are not allowed; add 'file' to ingest.hrefs.schemes")
        if "/vsi" in path.lower() or _SCHEME.match(os.path.basename(path)) is not None:
            raise _bad(href, "GDAL would take it for something else than a file")
        real = os.path.realpath(path)
        for root in self._real_roots:
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                return local_href(path)
        raise _bad(
            href,
            "it lies outside the allowed folders"
            f" {', '.join(local_href(root) for root in self.roots) or '(none)'}; add its folder to ingest.hrefs.roots",
        )

    def _remote(self, address: str, href: str) -> str:
        try:
            parts = urllib.parse.urlsplit(address)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as error:
            raise _bad(href, f"it is not an address ({error})") from error
        scheme = parts.scheme.lower()
        if scheme not in self.schemes:
            raise _bad(href, f"scheme {scheme!r} is not in ingest.hrefs.schemes ({', '.join(sorted(self.schemes))})")
        if parts.username or parts.password:
            raise _bad(
                redact(href), "it carries credentials; use the provider's environment variables or a signing hook"
            )
        if not host:
            raise _bad(href, "it names no host")
        if self.hosts and not any(host == h or host.endswith("." + h) for h in self.hosts):
            raise _bad(href, f"host {host!r} is not in ingest.hrefs.hosts ({', '.join(self.hosts)})")
        if scheme != "s3" and not self.allow_private and _is_private(host):
            raise _bad(href, f"host {host!r} is private or this machine; set ingest.hrefs.allow_private to allow it")
        if "/vsi" in urllib.parse.unquote(parts.path).lower():
            raise _bad(href, "GDAL's virtual file systems (/vsi…) are not opened for a catalog")
        return urllib.parse.urlunsplit((scheme, *parts[1:]))

    @property
    def is_open(self) -> bool:
        """Whether any host may be asked."""
        return self.allow_private and not self.hosts

    def check_redirect(self, address: str) -> None:
        """Refuse an address that a server sends readers on to, its host looked up.

        Raises:
            RejectedError: As `check` and `check_resolved`.
        """
        self.check_resolved(self._remote(address, address))

    def check_resolved(self, href: str, *, unknown_host: bool = True) -> None:
        """Refuse an address whose name leads to a private one; asked just before it is opened, once per host.

        Args:
            href: A checked href.
            unknown_host: Also refuse names that are not known: not before they are needed.

        Raises:
            RejectedError: "bad_href" for a private address, "unreachable" where the name is not known.
        """
        if self.allow_private or not is_remote(href):
            return
        parts = urllib.parse.urlsplit(href)
        if parts.scheme == "s3" or parts.hostname is None:
            return
        private = _resolves_to_private(parts.hostname)
        if private is None and unknown_host:
            raise RejectedError(
                "unreachable", f"host {parts.hostname!r} cannot be found; check the network or the catalog"
            )
        if private:
            raise _bad(href, f"host {parts.hostname!r} leads to a private address (ingest.hrefs.allow_private)")


Signer = Callable[[str], str]
"""Takes a checked address, gives the one that may be opened: a provider's token never enters a table."""


def load_signer(spec: str) -> Signer:
    """The signing hook of `ingest.source.signing`.

    Args:
        spec: `none`, or `package.module:function` (for example `planetary_computer:sign_url`); local paths are never
            signed.

    Raises:
        ValueError: If it cannot be imported.
    """
    if spec == "none":
        return str
    function = load_function(spec, "ingest.source.signing")
    return lambda href: str(function(href)) if is_remote(href) else href


def redact(href: str) -> str:
    """An address without user, password and query: what may be shown in a table or a log."""
    if not is_remote(href):
        return href
    parts = urllib.parse.urlsplit(href)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _bad(href: str, why: str) -> RejectedError:
    shown = redact(href)
    shown = shown if len(shown) <= 200 else shown[:197] + "…"
    return RejectedError("bad_href", f"href {shown!r} is refused: {why}")


def _is_private(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # The C library also reads 127.1, 2130706433 and 0x7f000001 as addresses.
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return _HOST.match(name) is None
    return not _is_global(address)


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global


@lru_cache(maxsize=1024)
def _resolves_to_private(host: str) -> bool | None:
    try:
        found: Sequence[tuple[object, ...]] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return any(not _is_global(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)  # type: ignore[index]


class _Checked(urllib.request.HTTPRedirectHandler):
    def __init__(self, policy: HrefPolicy) -> None:
        self._policy = policy

    def redirect_request(  # noqa: PLR0917 (of urllib)
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            self._policy.check_redirect(newurl)
        except RejectedError as refusal:
            raise RejectedError(refusal.reason, f"{redact(req.full_url)} redirects: {refusal.detail}") from refusal
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opened(
    request: urllib.request.Request, timeout_s: float, policy: HrefPolicy | None = None
) -> http.client.HTTPResponse:
    """The answer to a request of a checked http(s) address.

    Args:
        request: What is asked.
        timeout_s: Of the request.
        policy: What the address and its redirects may lead to; None asks them all.

    Raises:
        RejectedError: If they lead where the policy does not.
        OSError: If there is no answer.
    """
    if policy is not None:
        policy.check_resolved(request.full_url, unknown_host=False)
    handlers = () if policy is None else (_Checked(policy),)
    answer: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(request, timeout=timeout_s)
    return answer


def check_redirects(address: str, policy: HrefPolicy, timeout_s: float) -> None:
    """Refuse an address whose server sends readers on to where the policy does not allow; asks it for one byte.

    A server that gives no answer is not refused: whoever opens the file will find that, too, and can wait.

    Raises:
        RejectedError: If a redirect leads where the policy does not, or they do not end.
    """
    if policy.is_open or not address.startswith(("https://", "http://")):
        return
    request = urllib.request.Request(address, headers={"Range": "bytes=0-0"})  # noqa: S310 (http(s), a checked href)
    try:
        opened(request, timeout_s, policy).close()
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            raise RejectedError("bad_href", f"{redact(address)} is refused: its redirects do not end") from error
    except (OSError, http.client.HTTPException):
        return


_BLOB_HOST = ".blob.core.windows.net"
_SLACK = dt.timedelta(minutes=2)
_MAX_BYTES = 100_000


@dataclass
class SasSigner:
    """Appends a shared-access token to Azure Blob addresses; one token per container, kept until it expires.

    Attributes:
        endpoint: Gives `{"token": …, "msft:expiry": …}` at `<endpoint>/<account>/<container>`.
        host: Ending of the hosts that are signed; other addresses stay as they are.
        timeout_s: Of one request for a token.
    """

    endpoint: str
    host: str = _BLOB_HOST
    timeout_s: float = 30.0
    _tokens: dict[str, tuple[str, dt.datetime]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, href: str) -> str:
        """Sign one address.

        Raises:
            RejectedError: "unsigned" if the provider gives no token.
        """
        parts = urllib.parse.urlsplit(href)
        name = parts.hostname or ""
        if not name.endswith(self.host):
            return href
        container = parts.path.lstrip("/").partition("/")[0]
        key = f"{name.removesuffix(self.host) or name}/{container}"
        with self._lock:
            kept = self._tokens.get(key)
            if kept is None or kept[1] <= dt.datetime.now(dt.UTC) + _SLACK:
                kept = self._tokens[key] = self._ask(key)
        return urllib.parse.urlunsplit(parts._replace(query=kept[0]))

    def _ask(self, key: str) -> tuple[str, dt.datetime]:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/{urllib.parse.quote(key)}", timeout=self.timeout_s) as answer:  # noqa: S310 (a fixed https address)
                data = json.loads(answer.read(_MAX_BYTES))
            return str(data["token"]), dt.datetime.fromisoformat(str(data["msft:expiry"]).replace("Z", "+00:00"))
        except (urllib.error.URLError, TimeoutError, KeyError, ValueError) as error:
            raise RejectedError(
                "unsigned", f"no access token for {key}: {type(error).__name__}; try again later"
            ) from error


planetary_computer = SasSigner("https://planetarycomputer.microsoft.com/api/sas/v1/token")
"""The hook `a2mae.remote.policy:planetary_computer`."""

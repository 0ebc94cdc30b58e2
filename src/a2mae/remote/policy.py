"""Which addresses of a catalog may be opened, how they are signed, and how patiently their files are read.

Hrefs of catalogs are untrusted. GDAL understands far more than addresses of rasters: `/vsizip/`, `/vsicurl/`,
`/vsistdin/`, driver prefixes such as `WMS:` or `NETCDF:`, XML documents given as a name. A catalog decides none of
that. `HrefPolicy` turns every href into a plain local path below an allowed root or an address with an allowed scheme,
and rejects everything else.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache, partial
from pathlib import Path

from pydantic import Field
from pyproj import CRS
from pyproj.exceptions import CRSError

from a2mae.config import Parameters, load_function
from a2mae.errors import InputError, RejectedError, is_address, without_users
from a2mae.files import check_regular

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]*):(.*)$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WINDOWS = re.compile(r"^[A-Za-z]:[\\/]")
_MAX_LENGTH = 4096
_IN_PATHS = "/%:@!$&'()*+,;=~"
_CRS_CODE = re.compile(
    r"(urn:(x-)?ogc:def:crs:|https?://www\.opengis\.net/def/crs/)[A-Za-z0-9_.:/+]+"
    r"|[A-Za-z0-9_]+:[A-Za-z0-9.+]+|WGS ?84|CRS84"
)
_BESIDE_VECTORS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx")
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?$")
_MOVED = {"a2mae.stssd.access.signing:planetary_computer": "a2mae.remote.fetch:planetary_computer"}


def local_href(path: str | Path) -> str:
    """A local path as tables hold it: relative to the project's root where it lies below it, so that clones agree."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative == os.pardir or relative.startswith(os.pardir + os.sep) else relative


def is_remote(href: str) -> bool:
    """Whether a checked href is an address rather than a local path."""
    return "://" in href


def redact(href: str) -> str:
    """An address without user, password and query: what may be shown in a table or a log."""
    if not (is_remote(href) or is_address(href)):
        return href
    return without_users(href).partition("?")[0].partition("#")[0]


@dataclass(frozen=True)
class HrefPolicy:
    """What may be opened.

    Attributes:
        schemes: Allowed of `file`, `https`, `http`, `s3`.
        roots: Folders below which local files may lie; the folder of the catalog itself is one of them.
        hosts: Where not empty, only these hosts (and their subdomains) may be asked.
        allow_private: Allow loopback, link-local and private addresses.
        trusted: Scheme and host (with its port) that the user named: always allowed.
        alternates: Keys of an asset's `alternate` that are taken before its own href.
    """

    schemes: frozenset[str]
    roots: tuple[Path, ...]
    hosts: tuple[str, ...] = ()
    allow_private: bool = False
    trusted: tuple[str, str] | None = None
    alternates: tuple[str, ...] = ()

    @cached_property
    def _real_roots(self) -> tuple[str, ...]:
        return tuple(os.path.realpath(root) for root in self.roots)

    @property
    def is_open(self) -> bool:
        """Whether any host may be asked."""
        return self.allow_private and not self.hosts

    def trusting(self, address: str) -> HrefPolicy:
        """The same policy for whoever asks a server that the user named: its own addresses are allowed.

        Raises:
            InputError: If it is no address.
        """
        return replace(self, trusted=_root(address))

    def check(self, href: str, *, base: str | None = None) -> str:
        """Bring an href into the one form that may be opened.

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
        if _SURROGATE.search(href):
            raise _bad(href, "it holds signs that are no text")
        if href.lstrip("/").lower().startswith("vsi") and "/" in href.lstrip("/"):
            raise _bad(href, "GDAL's virtual file systems (/vsi…) are not opened for a catalog")
        match = _SCHEME.match(href)
        if match is None:
            if base is None:
                return self._local(href, href)
            if is_remote(base):
                return self._remote(href, base)
            return self._local(_spelled(os.path.dirname(base), href), href)
        if _WINDOWS.match(href):
            raise _bad(href, "it is a path of a Windows machine; write paths relative to the document")
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file":
            if rest.startswith("//") and not rest.startswith("///"):
                raise _bad(href, "a file: address names a host")
            path = urllib.parse.unquote(rest[2:] if rest.startswith("///") else rest)
            if _CONTROL.search(path):
                raise _bad(href, "it holds control characters")
            return self._local(path, href)
        if scheme in ("https", "http", "s3"):
            return self._remote(href)
        raise _bad(href, f"scheme {scheme!r} is not one of {', '.join(sorted(self.schemes))}")

    def check_path(self, path: str | Path) -> str:
        """Check a local path that came from listing a folder: links out of the roots are rejected."""
        return self._local(str(path), str(path))

    def check_redirect(self, address: str) -> None:
        """Reject an address that a server redirects to; its host is looked up.

        Raises:
            RejectedError: As `check` and `check_resolved`.
        """
        self.check_resolved(self._remote(address))

    def check_resolved(self, href: str, *, unknown_host: bool = True) -> None:
        """Reject an address whose name leads to a private one; asked just before it is opened, once per host.

        Args:
            href: A checked href.
            unknown_host: Also reject names that are not known. Off where the address may never be needed.

        Raises:
            RejectedError: "bad_href" for a private address, "unreachable" where the name is not known.
        """
        if self.allow_private or not is_remote(href) or _root(href) == self.trusted:
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

    def _local(self, path: str, href: str) -> str:
        if "file" not in self.schemes:
            raise _bad(href, "local files are not allowed; add 'file' to ingest.hrefs.schemes")
        if "/vsi" in path.lower() or _SCHEME.match(os.path.basename(path)) is not None:
            raise _bad(href, "GDAL would take it for something else than a file")
        real = os.path.realpath(path)
        for root in self._real_roots:
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                return local_href(path)
        lies = "lies" if real == os.path.abspath(path) else f"leads by a link to {real}, which lies"
        raise _bad(
            href,
            f"it {lies} outside the allowed folders"
            f" {', '.join(local_href(root) for root in self.roots) or '(none)'}; add its folder to ingest.hrefs.roots",
        )

    def _remote(self, href: str, base: str = "") -> str:
        try:
            parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, href))
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as error:
            raise _bad(href, f"it is not an address ({error})") from error
        if parts.scheme in ("https", "http"):  # spaces and umlauts as servers read them
            path, query = urllib.parse.quote(parts.path, _IN_PATHS), urllib.parse.quote(parts.query, _IN_PATHS + "?")
            parts = parts._replace(path=path, query=query)
        scheme, address = parts.scheme, urllib.parse.urlunsplit(parts)
        if _root(address) == self.trusted:
            return address
        if parts.username or parts.password:
            raise _bad(
                redact(href), "it carries credentials; use the provider's environment variables or a signing hook"
            )
        if not host:
            raise _bad(href, "it names no host")
        if "/vsi" in urllib.parse.unquote(parts.path).lower():
            raise _bad(href, "GDAL's virtual file systems (/vsi…) are not opened for a catalog")
        if scheme not in self.schemes:
            raise _bad(href, f"scheme {scheme!r} is not in ingest.hrefs.schemes ({', '.join(sorted(self.schemes))})")
        if self.hosts and not any(host == h or host.endswith("." + h) for h in self.hosts):
            raise _bad(href, f"host {host!r} is not in ingest.hrefs.hosts ({', '.join(self.hosts)})")
        if scheme != "s3" and not self.allow_private and _is_private(host):
            raise _bad(href, f"host {host!r} is private or this machine; set ingest.hrefs.allow_private to allow it")
        return address


def _beside(path: Path) -> Iterator[Path]:
    """Where GDAL and SQLite look for what belongs to a vector file."""
    for ending in _BESIDE_VECTORS:
        yield path.with_suffix(ending)
        yield path.with_suffix(ending.upper())
    for ending in ("-wal", "-shm", "-journal", ".aux.xml"):
        yield path.with_name(path.name + ending)


def check_vector(path: Path) -> None:
    """Reject a vector file that would make GDAL open something else: XML of its VRT, or a GeoJSON `crs` that is a link.

    Such a link may stand in the document and in every geometry, and GDAL reads keys in capitals and small letters. A
    name that it does not know it takes for WGS 84, without a word: that is rejected, too.

    Raises:
        InputError: If it does, or if it or what belongs to it cannot be read.
    """
    try:
        check_regular(path, _beside(path))
        with path.open("rb") as file:
            start = file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n")
        if start.startswith(b"<"):
            raise InputError(
                f"{path} is XML, which may name other files and servers: write it as GeoPackage or GeoJSON"
            )
        if not start.startswith((b"{", b"[")):
            return
        json.loads(path.read_bytes(), object_pairs_hook=partial(_checked_crs, path))
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} cannot be read: its lists are nested too deep") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _checked_crs(path: Path, members: list[tuple[str, object]]) -> dict[str, object]:
    """Take an object of a JSON document, of all whose members GDAL may choose where two have one name."""
    crs, inside = (
        [value for key, value in members if key.lower() == name and isinstance(value, dict)]
        for name in ("crs", "properties")
    )
    links = {str(one[key]).lower() for one in crs for key in one if key.lower() == "type"} - {"name", "epsg", "ogc"}
    if any({"href", "url"} & {key.lower() for key in one} for one in inside):
        links |= {str(value).lower() for key, value in members if key.lower() == "type"} & {"link", "url"}
    if links:
        raise InputError(
            f"{path}: its crs is of type {min(links)!r}, a link, which is not followed: write its name, for example"
            ' {"type": "name", "properties": {"name": "EPSG:4326"}}'
        )
    for one in crs:
        told = {key.lower(): value for key, value in one.items()}
        if str(told.get("type")).lower() == "name":
            named = told.get("properties")
            names = [value for key, value in named.items() if key.lower() == "name"] if isinstance(named, dict) else []
            if not names or not all(_is_known_crs(name) for name in names):
                raise InputError(
                    f"{path}: its crs is named {str(names[0])[:80] if names else ''!r}, which is no code of a known"
                    " reference system: write the one of its coordinates, for example EPSG:4326"
                )
    return dict(members)


def _is_known_crs(name: object) -> bool:
    """Tell whether PROJ knows a code; text that it might take for a file's name is none."""
    if not isinstance(name, str) or not _CRS_CODE.fullmatch(name):
        return False
    try:
        CRS.from_user_input("OGC:CRS84" if name == "CRS84" else name)
    except CRSError:
        return False
    return True


Signer = Callable[[str], str]
"""Takes a checked address, gives the one that may be opened: a provider's token never enters a table."""


def load_signer(spec: str) -> Signer:
    """The signing hook of `ingest.source.signing`.

    Args:
        spec: `none`, or `package.module:function` (for example `planetary_computer:sign_url`); local paths are never
            signed.

    Raises:
        InputError: If it cannot be imported.
    """
    if spec == "none":
        return str
    if spec in _MOVED:
        raise InputError(f"ingest.source.signing: {spec!r} has moved: write {_MOVED[spec]}")
    function = load_function(spec, "ingest.source.signing")
    return lambda href: str(function(href)) if is_remote(href) else href


class VerifyChecksums(StrEnum):
    """Which files are compared with the `file:checksum` of their STAC items before their pixels are used."""

    LOCAL = "local"
    """Files of this machine's file systems."""
    ALL = "all"
    """Remote files too: each is downloaded once as a whole, and its pixels are read from that copy."""
    NONE = "none"
    """None."""


class ReadingParameters(Parameters):
    """How files are read: how patient over a network, and whether their checksums are compared."""

    retries: int = Field(default=4, ge=0, le=20, description="Further tries after a read that failed.")
    retry_delay_s: float = Field(
        default=1.0, ge=0, le=60, description="Before the first of them; doubled for each, with jitter."
    )
    longest_wait_s: float = Field(
        default=60.0, ge=0, le=600, description="Of one wait, also where a server asks for more by Retry-After."
    )
    timeout_s: float = Field(default=60.0, gt=0, le=600, description="Of one request.")
    verify_checksums: VerifyChecksums = Field(
        default=VerifyChecksums.LOCAL,
        description="Which files are read once as a whole and compared with `file:checksum` where their items have"
        " it: local, all (downloads remote ones once) or none.",
    )
    copies_gb: float = Field(
        default=10.0,
        ge=0,
        description="Space for copies of the remote files that were downloaded to be verified, in `<store>.work` until"
        " the build ends; their pixels are read from there. What does not fit is read by ranges after its download.",
    )


@dataclass(frozen=True)
class RemoteAccess:
    """Who signs addresses, where they may lead, and how patient reads are.

    Attributes:
        signing: As `ingest.source.signing`: `none`, or `package.module:function`; local paths are never signed.
        policy: As `ingest.hrefs`: where redirects of remote files may lead; None follows them all.
        reading: As `coregister.reading`: patience over a network, and which checksums are compared.
    """

    signing: str = "none"
    policy: HrefPolicy | None = None
    reading: ReadingParameters = field(default_factory=ReadingParameters)

    def signer(self) -> Signer:
        """What turns an address into the one that is opened; it may remember tokens.

        Raises:
            ValueError: If the hook cannot be imported.
        """
        return load_signer(self.signing)


def _spelled(folder: str, href: str) -> str:
    """A relative href as the file is called: as it stands, percent-decoded or with the slashes of Windows turned."""
    spellings = (href, urllib.parse.unquote(href), href.replace("\\", "/"))
    paths = [os.path.join(folder, spelling) for spelling in spellings if not _CONTROL.search(spelling)]
    return next((path for path in paths if os.path.exists(path)), paths[0])


def split_address(address: str) -> urllib.parse.SplitResult:
    """Take an address that the user named apart.

    Raises:
        InputError: If it is none.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{redact(address)!r} is no address ({error}): write it as https://host/path") from error
    return parts


def _root(address: str) -> tuple[str, str]:
    scheme, host, *_ = split_address(address)
    return scheme, host


def _bad(href: str, why: str) -> RejectedError:
    shown = redact(href)
    shown = shown if len(shown) <= 200 else shown[:197] + "…"
    return RejectedError("bad_href", f"href {shown!r} is rejected: {why}")


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
    except (OSError, UnicodeError):  # the latter for labels that no name can have
        return None
    return any(not _is_global(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)  # type: ignore[index]

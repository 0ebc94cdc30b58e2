"""Check that files are those that their STAC items describe, and tell files of a build apart by their content.

GDAL decodes what it is given: of a DEFLATE block it does not compare the checksum, so a flipped byte may give wrong
pixels in silence. Where an item has a `file:checksum`, the file is read once as a whole and compared before its first
pixels are used. A remote file is downloaded for that, and its pixels are then read from the copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from a2mae.errors import InputError, RejectedError, plural
from a2mae.files import PART
from a2mae.remote.fetch import blocks, retried
from a2mae.remote.policy import RemoteAccess, VerifyChecksums, is_remote, redact
from a2mae.remote.storage import Folder, Parts
from a2mae.scenes import BandAsset

logger = logging.getLogger(__name__)

LEDGER = "checksums"
"""Folder of a build's work that remembers which files were verified."""
_COPIES = "copies"
_LOCK = ".lock"
_MAX_REMOTE_BYTES = 64 * 2**30  # an endless answer is not read to its end
_SHOWN = 12
# https://github.com/multiformats/multicodec: code -> name in hashlib, bytes of the digest.
_ALGORITHMS = {
    0x11: ("sha1", 20),
    0x12: ("sha256", 32),
    0x13: ("sha512", 64),
    0x14: ("sha3_512", 64),
    0x15: ("sha3_384", 48),
    0x16: ("sha3_256", 32),
    0x17: ("sha3_224", 28),
    0x20: ("sha384", 48),
    0xD5: ("md5", 16),
    0x1013: ("sha224", 28),
    0xB220: ("blake2b", 32),
    0xB240: ("blake2b", 64),
    0xB260: ("blake2s", 32),
}


class UnknownChecksumError(InputError):
    """A checksum that cannot be compared: not a multihash, or of an algorithm that is not known here."""


@dataclass(frozen=True)
class Multihash:
    """A digest and how it was made.

    Attributes:
        text: As it is written in the item, in hex.
        algorithm: Name in `hashlib`.
        digest: Expected bytes.
    """

    text: str
    algorithm: str
    digest: bytes

    def new(self) -> hashlib._Hash | hashlib.blake2b | hashlib.blake2s:
        """A hash to feed."""
        if self.algorithm == "blake2b":
            return hashlib.blake2b(digest_size=len(self.digest))
        if self.algorithm == "blake2s":
            return hashlib.blake2s(digest_size=len(self.digest))
        return hashlib.new(self.algorithm, usedforsecurity=False)


@lru_cache(maxsize=10_000)
def parse_multihash(text: str) -> Multihash:
    """Read a multihash in hex: code of the algorithm and length as varints, then the digest.

    Raises:
        UnknownChecksumError: If it is none, or cannot be compared here.
    """
    try:
        data = bytes.fromhex(text)
        code, rest = _varint(data)
        length, digest = _varint(rest)
    except (ValueError, IndexError) as error:
        raise UnknownChecksumError("a text that is not a multihash in hex") from error
    if code not in _ALGORITHMS:
        raise UnknownChecksumError(f"a multihash of algorithm 0x{code:x}, which is not known here")
    algorithm, size = _ALGORITHMS[code]
    if not length == len(digest) == size:
        raise UnknownChecksumError(f"a multihash of {algorithm} with {len(digest)} bytes instead of {size}")
    return Multihash(text, algorithm, digest)


class Verifier:
    """Compares files with their checksums, each once per build; use one per process or thread."""

    def __init__(self, work: Folder, access: RemoteAccess) -> None:
        """Begin.

        Args:
            work: The build's work folder: what one worker has verified no other reads again, nor a build that goes on.
                A local file is verified again once its size or time of modification is another.
            access: How files are reached, and which of them are compared.
        """
        self._known, self._access, self._sign = Parts(work, ""), access, access.signer()
        self._copies = Copies(work, round(access.reading.copies_gb * 1e9))
        self._verdicts: dict[tuple[str, str], RejectedError | None] = {}
        self._copied: dict[str, str] = {}

    def check(self, asset: BandAsset) -> None:
        """Read the asset's file as a whole and compare it, unless that is done.

        Raises:
            RejectedError: "checksum" where it is another file, "unreachable" where it cannot be read.
        """
        if asset.checksum is None:
            return
        key = asset.href, asset.checksum
        if key not in self._verdicts:
            try:
                self._check(asset)
                self._verdicts[key] = None
            except RejectedError as rejection:
                self._verdicts[key] = rejection
        rejected = self._verdicts[key]
        if rejected is not None:
            raise rejected

    def copy_of(self, href: str) -> str | None:
        """A local copy of a remote file that was verified, where there is one."""
        name = self._copied.get(href)
        return None if name is None else self._copies.path(name)

    def _check(self, asset: BandAsset) -> None:
        href, expected = asset.href, verified_checksum(asset, self._access.reading.verify_checksums)
        if expected is None:
            return
        name = hashlib.sha256(f"{expected.text} {href}".encode()).hexdigest()[:40]
        entry = f"{LEDGER}/{name}.json"
        if is_remote(href):
            if not self._is_known(entry, None):
                with self._copies.alone(name):
                    if not self._is_known(entry, None):
                        size = self._check_remote(href, expected, name)
                        self._known.put(entry, json.dumps({"bytes": size}).encode())
            self._copied[href] = name
            return
        state = _state(href)
        if not self._is_known(entry, state):
            try:
                _compare(href, expected, blocks(href))
            except OSError as error:
                raise RejectedError("corrupt", f"{href} cannot be read: {error.strerror}") from error
            self._known.put(entry, json.dumps(state).encode())

    def _is_known(self, entry: str, state: Mapping[str, int] | None) -> bool:
        known = self._known.get(entry)  # a torn entry is none: the file is verified again
        return known is not None and (state is None or json.loads(known) == state)

    def _check_remote(self, href: str, expected: Multihash, name: str) -> int:
        """Download a file and compare it; gives its size in bytes."""
        reading = self._access.reading

        def attempt() -> int:
            pieces = blocks(
                self._sign(href),
                policy=self._access.policy,
                timeout_s=reading.timeout_s,
                max_bytes=_MAX_REMOTE_BYTES,
                bound=f"the {_MAX_REMOTE_BYTES >> 30} GiB that are downloaded to be verified",
            )
            return _compare(href, expected, self._copies.written(name, pieces))

        try:
            size = retried(attempt, reading)
            self._copies.keep(name)
        finally:
            self._copies.drop(name)
        return size


def verified_checksum(asset: BandAsset, mode: VerifyChecksums) -> Multihash | None:
    """Read the checksum that an asset's file is compared with; None where it is not compared.

    Args:
        asset: The asset.
        mode: Which files are compared.
    """
    if asset.checksum is None or not _is_wanted(asset.href, mode):
        return None
    try:
        return parse_multihash(asset.checksum)
    except UnknownChecksumError:
        return None


def _is_wanted(href: str, mode: VerifyChecksums) -> bool:
    return mode is VerifyChecksums.ALL or (mode is VerifyChecksums.LOCAL and not is_remote(href))


def tell_unverified(assets: Iterable[BandAsset], mode: VerifyChecksums) -> None:
    """Log once per kind how many files have a checksum that is not compared, and why.

    Args:
        assets: Of a build.
        mode: Which files are compared.
    """
    kinds: Counter[str] = Counter()
    skipped = remote = 0
    for href, text in sorted({(asset.href, asset.checksum) for asset in assets if asset.checksum is not None}):
        if not _is_wanted(href, mode):
            skipped += 1
            continue
        try:
            parse_multihash(text)
        except UnknownChecksumError as error:
            kinds[str(error)] += 1
        else:
            remote += is_remote(href)
    for kind, count in sorted(kinds.items()):
        logger.warning("file:checksum of %s is %s: not verified", plural(count, "file"), kind)
    if skipped:
        logger.info(
            "file:checksum of %s is not compared (coregister.reading.verify_checksums: %s)",
            plural(skipped, "file"),
            mode.value,
        )
    if remote:
        logger.info(
            "%s with file:checksum: each that is needed is downloaded as a whole before its pixels are used"
            " (coregister.reading.verify_checksums: %s)",
            plural(remote, "remote file"),
            mode.value,
        )


@contextlib.contextmanager
def verifying(work: Folder, mode: VerifyChecksums) -> Iterator[None]:
    """Run a build inside: at its end, log how much was downloaded to be verified, and remove the copies.

    Args:
        work: The build's work folder.
        mode: Which files are compared.
    """
    before = _downloads(work) if mode is VerifyChecksums.ALL else {}
    try:
        yield
    finally:
        work.remove(_COPIES)
        if mode is VerifyChecksums.ALL:
            new = [size for name, size in _downloads(work).items() if name not in before]
            logger.info("Downloaded and verified %s, %.1f MB", plural(len(new), "remote file"), sum(new) / 1e6)


def _downloads(work: Folder) -> dict[str, int]:
    """Bytes of every remote file that the ledger knows as verified."""
    parts = Parts(work, "")
    names = [name for name in work.sizes() if name.startswith(f"{LEDGER}/")]
    return {name: int(state["bytes"]) for name in names if "bytes" in (state := json.loads(parts.get(name) or b"{}"))}


def source_digest(href: str) -> str:
    """Digest a local file's size and content; empty for addresses and for files that are not there.

    Files up to 1 MiB are read whole, of larger ones 64 blocks of 16 KiB spread from the first byte to the last. So
    a scene that was processed again is noticed even at the same size: of a compressed file all blocks behind the first
    changed one move, and its table of blocks changes. The time of modification is not part of it, because it
    differs between copies of the same data, and stores of the same data have the same bytes everywhere.
    """
    try:
        status = os.stat(href)
    except OSError:
        return ""
    return _digest(href, status.st_size, status.st_mtime_ns)


class Copies:
    """The copies of one build; every worker on the machine (or on a shared disk) has its own, of the same folder."""

    def __init__(self, work: Folder, limit_bytes: int) -> None:
        """Begin.

        Args:
            work: The build's work folder; where it is not local, nothing is kept.
            limit_bytes: Of all copies together, those included that are still being written.
        """
        self._folder = Path(work.key(_COPIES)) if work.is_local and limit_bytes else None
        self._limit = limit_bytes

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let one worker at a time download a file; the others wait here, and find it there."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}{_LOCK}").open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: it is downloaded twice, perhaps
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def path(self, name: str) -> str | None:
        """Where the copy of a file lies; None where there is none."""
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            os.utime(path)  # in use: the last to make room
        except FileNotFoundError:
            return None
        return str(path)

    def written(self, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a file's bytes on, and write them down as far as there is room; `keep` makes them a copy."""
        if self._folder is None:
            yield from pieces
            return
        part = self._part(name)
        part.unlink(missing_ok=True)
        fits = True
        for piece in pieces:
            if fits:
                fits = self._make_room(len(piece)) and _append(part, piece)
                if not fits:
                    part.unlink(missing_ok=True)
            yield piece

    def keep(self, name: str) -> None:
        """Make a copy of what was written last under this name: it is the whole file, and the right one."""
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):  # it did not fit
                os.replace(self._part(name), self._folder / name)

    def drop(self, name: str) -> None:
        """Remove what was written last under this name, if it is no copy."""
        if self._folder is not None:
            self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f".{name}.{os.getpid()}{PART}"

    def _make_room(self, size: int) -> bool:
        """Remove copies, the longest unused first, until so many bytes more are within the limit."""
        assert self._folder is not None
        found: list[tuple[int, int, Path]] = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another worker has removed it
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        free = self._limit - size - sum(length for _, length, _ in found)
        for _, length, path in sorted(found):
            if free >= 0:
                break
            if not path.name.endswith((PART, _LOCK)):
                path.unlink(missing_ok=True)
                free += length
        return free >= 0


def _append(part: Path, piece: bytes) -> bool:
    """Write on; False where the disk has no more room, which costs a copy and nothing else."""
    try:
        with part.open("ab") as file:
            file.write(piece)
    except OSError:
        return False
    return True


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for k in range(9):
        value |= (data[k] & 0x7F) << 7 * k
        if data[k] < 0x80:
            return value, data[k + 1 :]
    raise InputError("a varint of more than nine bytes")


def _state(href: str) -> dict[str, int]:
    """What tells a local file from the same file changed."""
    try:
        status = os.stat(href)
    except OSError as error:
        raise RejectedError("corrupt", f"{href} cannot be opened: {error.strerror}") from error
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _compare(href: str, expected: Multihash, pieces: Iterable[bytes]) -> int:
    """Compare a file's bytes with its checksum; gives their number."""
    found, size = expected.new(), 0
    for piece in pieces:
        found.update(piece)
        size += len(piece)
    if found.digest() == expected.digest:
        return size
    shown = redact(href)
    detail = (
        f"{shown} is not the file that its item describes: file:checksum is {expected.algorithm}"
        f" {expected.digest.hex()[:_SHOWN]}…, the file has {found.hexdigest()[:_SHOWN]}…; fetch it again"
    )
    if not is_remote(href):
        logger.warning("%s", detail)
    raise RejectedError("checksum", detail)


_DIGEST_BLOCK = 16 * 2**10
_DIGEST_BLOCKS = 64


@lru_cache(maxsize=100_000)
def _digest(path: str, size: int, _modified: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with Path(path).open("rb") as file:
        if size <= _DIGEST_BLOCK * _DIGEST_BLOCKS:
            digest.update(file.read())
        else:
            for k in range(_DIGEST_BLOCKS):
                file.seek((size - _DIGEST_BLOCK) * k // (_DIGEST_BLOCKS - 1))
                digest.update(file.read(_DIGEST_BLOCK))
    return digest.hexdigest()

"""Whether a file is the one that its STAC item describes, and what stands for a file in a fingerprint.

Whether a file is the one that its STAC item describes: the whole of it, by the item's `file:checksum`.

GDAL decodes what it is given: of a DEFLATE block it does not compare the checksum, so a flipped byte may give wrong
pixels in silence. Where an item carries a checksum, the file is read once as a whole before its first pixels are used.

What stands for the pixels of a source file in a build's fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import logging
import os
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import fsspec

from a2mae.errors import RejectedError, plural
from a2mae.remote.fetch import COPIES, TRANSIENT, Answer, Copies, RemoteAccess, VerifyChecksums, ask, wait_s
from a2mae.remote.policy import HrefPolicy, is_remote, opened, redact
from a2mae.remote.storage import Folder
from a2mae.scenes import BandAsset

logger = logging.getLogger(__name__)

LEDGER = "checksums"
"""Folder of a build's work that remembers which files were verified."""
_BLOCK = 4 * 2**20
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


class UnknownChecksumError(ValueError):
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


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for k in range(9):
        value |= (data[k] & 0x7F) << 7 * k
        if data[k] < 0x80:
            return value, data[k + 1 :]
    raise ValueError("a varint of more than nine bytes")


def verified_checksum(asset: BandAsset, mode: VerifyChecksums) -> Multihash | None:
    """What an asset's file is compared with before it is used; None where it is not compared."""
    if asset.checksum is None or not _is_wanted(asset.href, mode):
        return None
    try:
        return parse_multihash(asset.checksum)
    except UnknownChecksumError:
        return None


def _is_wanted(href: str, mode: VerifyChecksums) -> bool:
    return mode is VerifyChecksums.ALL or (mode is VerifyChecksums.LOCAL and not is_remote(href))


def tell_unverified(assets: Iterable[BandAsset], mode: VerifyChecksums) -> None:
    """Say once per kind how many files have a checksum that is not compared, and why."""
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
    """Around a build: say at its end how much was downloaded to be verified, and remove the copies.

    Args:
        work: The build's work folder.
        mode: Which files are compared.
    """
    before = _downloads(work) if mode is VerifyChecksums.ALL else {}
    try:
        yield
    finally:
        work.remove(COPIES)
        if mode is VerifyChecksums.ALL:
            new = [size for name, size in _downloads(work).items() if name not in before]
            logger.info("Downloaded and verified %s, %.1f MB", plural(len(new), "remote file"), sum(new) / 1e6)


def _downloads(work: Folder) -> dict[str, int]:
    """Bytes of every remote file that the ledger knows as verified."""
    names = [name for name in work.sizes() if name.startswith(f"{LEDGER}/")]
    return {name: int(state["bytes"]) for name in names if "bytes" in (state := json.loads(work.read(name) or b"{}"))}


class Verifier:
    """Compares files with their checksums, each once per build; use one per process or thread."""

    def __init__(self, work: Folder, access: RemoteAccess) -> None:
        """Begin.

        Args:
            work: The build's work folder: what one worker has verified no other reads again, nor a build that goes on.
                A local file is verified again once its size or time of modification is another.
            access: How files are reached, and which of them are compared.
        """
        self._work, self._access, self._sign = work, access, access.signer()
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
            except RejectedError as refusal:
                self._verdicts[key] = refusal
        refused = self._verdicts[key]
        if refused is not None:
            raise refused

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
                        self._work.write(entry, json.dumps({"bytes": size}).encode())
            self._copied[href] = name
            return
        state = _state(href)
        if not self._is_known(entry, state):
            _compare(href, expected, _local_blocks(href))
            self._work.write(entry, json.dumps(state).encode())

    def _is_known(self, entry: str, state: Mapping[str, int] | None) -> bool:
        known = self._work.read(entry)
        return known is not None and (state is None or json.loads(known) == state)

    def _check_remote(self, href: str, expected: Multihash, name: str) -> int:
        """Download a file and compare it; gives its size in bytes."""
        shown, reading, policy = redact(href), self._access.reading, self._access.policy
        for tries in itertools.count(1):
            address = self._sign(href)
            try:
                blocks = _remote_blocks(address, reading.timeout_s, policy)
                size = _compare(href, expected, self._copies.written(name, blocks))
            except RejectedError as refusal:
                if refusal.reason not in TRANSIENT:
                    self._copies.drop(name)
                    raise
                # On its way, perhaps.
                failure, answer = refusal, Answer(there=True, again=True, wait_s=0.0, detail=refusal.detail)
            except (OSError, http.client.HTTPException) as error:
                answer = ask(address, reading.timeout_s, policy)
                detail = f"{shown} cannot be read to be verified ({type(error).__name__}; {answer.detail})"
                failure = RejectedError("unreachable", detail)
            else:
                self._copies.keep(name)
                return size
            self._copies.drop(name)
            pause = wait_s(tries, answer, reading, random.random())  # noqa: S311 (jitter)
            if pause is None:
                logger.warning("%s; given up after %d tries", failure.detail, tries)
                raise RejectedError(failure.reason, f"{failure.detail}; given up after {tries} tries")
            logger.warning("%s; try %d in %.1f s", failure.detail, tries + 1, pause)
            time.sleep(pause)
        raise AssertionError("the loop above ends by itself")


def _state(href: str) -> dict[str, int]:
    """What tells a local file from the same file changed."""
    try:
        status = os.stat(href)
    except OSError as error:
        raise RejectedError("corrupt", f"{href} cannot be opened: {error.strerror}") from error
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _compare(href: str, expected: Multihash, blocks: Iterable[bytes]) -> int:
    """Number of bytes of a file that is the right one."""
    found, size = expected.new(), 0
    for block in blocks:
        found.update(block)
        size += len(block)
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


def _local_blocks(path: str) -> Iterator[bytes]:
    try:
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise RejectedError("corrupt", f"{path} cannot be read: {error.strerror}") from error


def _remote_blocks(address: str, timeout_s: float, policy: HrefPolicy | None) -> Iterator[bytes]:
    """The bytes of an http(s) or other address."""
    if address.startswith(("https://", "http://")):
        request = urllib.request.Request(address)  # noqa: S310 (http(s), checked hrefs)
        with opened(request, timeout_s, policy) as answer:
            size = answer.headers.get("Content-Length")
            yield from _bounded(answer, None if size is None else int(size))
        return
    with fsspec.open(address, "rb") as file:
        yield from _bounded(file, None)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _bounded(file: _Readable, size: int | None) -> Iterator[bytes]:
    seen = 0
    while block := file.read(_BLOCK):
        seen += len(block)
        if seen > _MAX_REMOTE_BYTES:
            raise RejectedError("too_large", f"a file of more than {_MAX_REMOTE_BYTES >> 30} GiB is not verified")
        yield block
    if size is not None and seen != size:  # Python takes a cut connection for the end
        raise ConnectionError(f"the connection was cut after {seen} of {size} bytes")


_DIGEST_BLOCK = 16 * 2**10
_DIGEST_BLOCKS = 64


def source_digest(href: str) -> str:
    """A digest of a local file's size and content; empty for addresses and for files that are not there.

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

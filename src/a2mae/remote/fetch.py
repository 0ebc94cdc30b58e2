"""Reading remote files: tried again as the server asks, with one value from the settings to whoever opens one.

When a remote file cannot be read: ask its server what is the matter, wait as it says, try again, not for ever.

Copies of remote files that were downloaded as a whole to be verified: their pixels are read from here.

They lie in the build's work folder until the build ends, in a bounded space: the one that was not opened for the
longest time makes room for the next. A file that does not fit is downloaded, compared and then read by ranges.

How files that a catalog names are reached: one value from the settings to whoever opens one.
"""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from a2mae.config import Parameters
from a2mae.errors import RejectedError
from a2mae.files import PART
from a2mae.remote.policy import HrefPolicy, Signer, load_signer, opened
from a2mae.remote.storage import Folder

DAMAGED = frozenset({"checksum", "corrupt"})
"""Reasons of refusals of files that are there but not whole."""
TRANSIENT = DAMAGED | {"unreachable", "unsigned"}
"""Reasons of refusals that another day, or the file fetched again, may lift: a build that is run again tries these
images again."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


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
class Answer:
    """What a server says when it is asked for the first bytes of a file.

    Attributes:
        there: It gives them.
        again: Asking later may help.
        wait_s: Its Retry-After, 0 without.
        detail: For people: no address, no query.
    """

    there: bool
    again: bool
    wait_s: float
    detail: str


def ask(address: str, timeout_s: float, policy: HrefPolicy | None = None) -> Answer:
    """Ask the server of an http(s) address that was refused to a reader; others answer "try again".

    Args:
        address: What is asked for.
        timeout_s: Of the request.
        policy: Where redirects may lead; None follows them all.
    """
    if not address.startswith(("https://", "http://")):
        return Answer(there=False, again=True, wait_s=0.0, detail="its store gives no answer that could be asked for")
    request = urllib.request.Request(address, headers={"Range": "bytes=0-1"})  # noqa: S310 (http(s), checked hrefs)
    try:
        with opened(request, timeout_s, policy) as answer:
            start = answer.read(2)
    except urllib.error.HTTPError as error:
        wait = _retry_after_s(error.headers.get("Retry-After", ""))
        return Answer(there=False, again=error.code in _BUSY, wait_s=wait, detail=f"the server answers {error.code}")
    except RejectedError as refusal:
        return Answer(there=False, again=False, wait_s=0.0, detail=refusal.detail)
    except (OSError, ValueError) as error:
        name = type(getattr(error, "reason", error)).__name__
        return Answer(there=False, again=True, wait_s=0.0, detail=f"the server gives no answer ({name})")
    if len(start) == 2:
        return Answer(there=True, again=True, wait_s=0.0, detail="the server gives the file's first bytes")
    return Answer(there=False, again=True, wait_s=0.0, detail="the server cuts the connection")


def wait_s(tries: int, answer: Answer, settings: ReadingParameters, draw: float) -> float | None:
    """Seconds before the next try; None where there is no use or no more patience.

    Args:
        tries: Made so far.
        answer: Of the server.
        settings: Bounds.
        draw: A number from 0 to 1: the wait is a half to one and a half of the delay, which doubles with every try.
    """
    # A server that gives the file's beginning has it; what cannot be read twice again is damaged.
    if not answer.again or tries > (min(2, settings.retries) if answer.there else settings.retries):
        return None
    backoff = settings.retry_delay_s * 2.0 ** (tries - 1) * (0.5 + draw)
    return float(min(settings.longest_wait_s, max(backoff, answer.wait_s)))


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 where it is neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


COPIES = "copies"
"""Folder of a build's work."""
_LOCK = ".lock"


class Copies:
    """The copies of one build; every worker on the machine (or on a shared disk) has its own, of the same folder."""

    def __init__(self, work: Folder, limit_bytes: int) -> None:
        """Begin.

        Args:
            work: The build's work folder; where it is not local, nothing is kept.
            limit_bytes: Of all copies together, those included that are still being written.
        """
        self._folder = Path(work.key(COPIES)) if work.is_local and limit_bytes else None
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

    def written(self, name: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a file's bytes on, and write them down as far as there is room; `keep` makes them a copy."""
        if self._folder is None:
            yield from blocks
            return
        part = self._part(name)
        part.unlink(missing_ok=True)
        fits = True
        for block in blocks:
            if fits:
                fits = self._make_room(len(block)) and _append(part, block)
                if not fits:
                    part.unlink(missing_ok=True)
            yield block

    def keep(self, name: str) -> None:
        """What was written last under this name is the whole file, and the right one."""
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):  # it did not fit
                os.replace(self._part(name), self._folder / name)

    def drop(self, name: str) -> None:
        """What was written last under this name is of no use."""
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


def _append(part: Path, block: bytes) -> bool:
    """Write on; False where the disk has no more room, which costs a copy and nothing else."""
    try:
        with part.open("ab") as file:
            file.write(block)
    except OSError:
        return False
    return True


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

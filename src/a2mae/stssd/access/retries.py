"""When a remote file cannot be read: ask its server what is the matter, wait as it says, try again, not for ever."""

from __future__ import annotations

import email.utils
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from a2mae.parameters import Parameters
from a2mae.stssd.access.hrefs import HrefPolicy
from a2mae.stssd.access.redirects import opened
from a2mae.stssd.refusals import RefusedError

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
    except RefusedError as refusal:
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

"""Read files and documents that nobody vouches for: bounded, at checked addresses, tried again as the server asks.

`blocks` is the one read of a local file, an http(s) address or an object store, `fetch` gives a small file as a whole,
and `retried` tries again as `ReadingParameters` says. GDAL reads rasters by itself: `check_redirects` asks a file's
server before GDAL opens it, and `ask` finds out why GDAL could not read.

GDAL follows redirects and has no option against it. `check_redirects` is a check before use: a server that answers
GDAL otherwise than it answered here is not found out.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import errno
import itertools
import json
import logging
import math
import os
import random
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec
import requests

from a2mae.errors import A2maeError, RejectedError
from a2mae.remote.deadline import Deadline, Session
from a2mae.remote.policy import HrefPolicy, ReadingParameters, is_remote, redact

logger = logging.getLogger(__name__)

DAMAGED = frozenset({"checksum", "corrupt"})
"""Reasons of rejected files that are there but not whole."""
TRANSIENT = DAMAGED | {"unreachable", "unsigned", "no_keys"}
"""Reasons that may be gone another day, or once the file is fetched again: a build that is run again tries these."""
_HTTP = ("https://", "http://")
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_BLOCK = 4 * 2**20
_HTTP_BLOCK = 2**16  # packed it may become a thousand times as long; and deadlines see what has come
_MAX_REDIRECTS = 10
_LEAST_RATE = 20_000  # bytes per second of a download, on the whole

_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    """What a server says when it is asked for a file.

    Attributes:
        there: It gives the file's first bytes.
        again: Asking later may help.
        wait_s: Its Retry-After, 0 without.
        detail: For people: no address, no query.
    """

    there: bool
    again: bool
    wait_s: float
    detail: str


class NoAnswerError(A2maeError, OSError):
    """A server or store does not give what it was asked for.

    Attributes:
        answer: Why, and whether to ask again.
    """

    def __init__(self, told: str, answer: Answer) -> None:
        super().__init__(f"{told}: {answer.detail}")
        self.answer = answer


def blocks(
    address: str,
    *,
    policy: HrefPolicy | None = None,
    timeout_s: float = 60.0,
    max_bytes: float = math.inf,
    bound: str = "",
    whole: bool = False,
    follow: bool = True,
    packed: bool = False,
    **request: Any,  # noqa: ANN401 (handed on as it is)
) -> Iterator[bytes]:
    """Read a file piece by piece, once.

    Args:
        address: A checked href, signed where its provider asks for that.
        policy: Where the address and its redirects may lead; None follows them all.
        timeout_s: Longest silence of a server; what it gives after that must come at 20 kB/s or more on the whole.
        max_bytes: Nothing is read beyond so many bytes, unpacked.
        bound: Who sets that limit, for the message.
        whole: The file must be there within `timeout_s`: for documents.
        follow: False rejects redirects.
        packed: The server may pack the file on its way (gzip): for documents.
        request: `method`, `params`, `json` and `headers` of an http(s) request, as `requests.request` takes them.

    Raises:
        RejectedError: "too_large", or "bad_href" where the policy does not allow the address or a redirect.
        NoAnswerError: If a remote file cannot be read.
        OSError: If a local file cannot be read.
    """
    size = int(min(_HTTP_BLOCK if address.startswith(_HTTP) else _BLOCK, max_bytes + 1))

    def bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
        seen = 0
        for piece in pieces:
            seen += len(piece)
            if seen > max_bytes:
                raise RejectedError("too_large", f"{redact(address)} is larger than {bound}")
            yield piece

    if address.startswith(_HTTP):
        with (
            Deadline(timeout_s, math.inf if whole else _LEAST_RATE) as deadline,
            _opened(address, policy, timeout_s, deadline, follow=follow, packed=packed, **request) as answer,
        ):
            if not packed:
                answer.raw.headers.pop("Content-Encoding", None)  # the file as it lies there
            for piece in bounded(answer.iter_content(size)):
                deadline.seen += len(piece)
                yield piece
            deadline.check()
        return
    if not is_remote(address) and os.path.exists(address) and not os.path.isfile(address):
        raise OSError(errno.EINVAL, "it is no regular file")  # a pipe would wait for ever
    try:
        with fsspec.open(address, "rb") if is_remote(address) else open(address, "rb") as file:
            yield from bounded(iter(lambda: file.read(size), b""))
    except OSError as error:
        if not is_remote(address):
            raise
        raise _no_answer(address, f"its store gives no answer ({type(error).__name__})") from error


def fetch(
    href: str,
    policy: HrefPolicy | None,
    *,
    max_bytes: int,
    bound: str,
    reading: ReadingParameters | None = None,
    **how: Any,  # noqa: ANN401 (handed on as it is)
) -> bytes:
    """Read a small file, or a server's answer, as a whole.

    Args:
        href: A checked href.
        policy: Where it and its redirects may lead; None follows them all.
        max_bytes: Nothing is read beyond so many bytes, unpacked.
        bound: Who sets that limit, for the message.
        reading: How often and how long a server is asked.
        how: `follow`, `packed` and parts of the request as `blocks` takes them.

    Raises:
        RejectedError: "missing_file", "unreachable", "too_large" or "bad_href".
    """
    reading = reading or ReadingParameters()
    timeout_s = reading.timeout_s
    if policy is not None:
        policy.check_resolved(href)

    def attempt() -> bytes:
        pieces = blocks(href, policy=policy, timeout_s=timeout_s, max_bytes=max_bytes, bound=bound, whole=True, **how)
        return b"".join(pieces)

    try:
        return retried(attempt, reading)
    except OSError as error:
        raise RejectedError("missing_file", f"{href} cannot be read: {error.strerror or error}") from error


def retried(attempt: Callable[[], _T], reading: ReadingParameters) -> _T:
    """Call until it works, waiting in between as the server asks.

    Args:
        attempt: Reads a file; a `NoAnswerError` or a reason in `DAMAGED` may be gone at the next try.
        reading: How often and how long to wait.

    Raises:
        RejectedError: If it never works: "unreachable" where a server is to blame, "corrupt" where it has the file.
    """
    for tries in itertools.count(1):
        try:
            return attempt()
        except NoAnswerError as error:
            answer = error.answer
            failure = RejectedError("corrupt" if answer.there else "unreachable", str(error))
        except RejectedError as rejection:
            if rejection.reason not in DAMAGED:
                raise
            failure, answer = rejection, Answer(there=True, again=True, wait_s=0.0, detail=rejection.detail)
        seconds = wait_s(tries, answer, reading, random.random())  # noqa: S311 (jitter)
        if seconds is None:
            asked = answer.wait_s > reading.longest_wait_s
            told = failure.detail + (f" and asks to come back in {answer.wait_s:,.0f} s" if asked else "")
            if tries > 1:
                told += f"; given up after {tries} tries"
                logger.warning("%s", told)
            raise RejectedError(failure.reason, told)
        logger.warning("%s; try %d in %.1f s", failure.detail, tries + 1, seconds)
        time.sleep(seconds)
    raise AssertionError("the loop above ends by itself")


def ask(address: str, timeout_s: float, policy: HrefPolicy | None = None) -> Answer:
    """Ask the server of a file that could not be read what is the matter.

    Args:
        address: Of the file; of an object store nothing is asked, and the answer is "try again".
        timeout_s: Longest silence of the server.
        policy: Where redirects may lead; None follows them all.
    """
    if not address.startswith(_HTTP):
        return Answer(there=False, again=True, wait_s=0.0, detail="its store gives no answer that could be asked for")
    try:
        with (
            Deadline(timeout_s, math.inf) as deadline,
            _opened(address, policy, timeout_s, deadline, headers={"Range": "bytes=0-1"}) as answer,
        ):
            start, parts = next(answer.iter_content(2), b""), answer.status_code == 206
            page = start[:1] == b"<" and answer.headers.get("Content-Type", "").startswith("text/html")
    except NoAnswerError as error:
        return error.answer
    except RejectedError as rejection:
        return Answer(there=False, again=False, wait_s=0.0, detail=rejection.detail)
    if page:
        return Answer(there=False, again=True, wait_s=0.0, detail="the server gives a web page instead of the file")
    if len(start) == 2 and not parts:
        detail = "the server gives the file as a whole and no parts of it, by which it is read: download it"
        return Answer(there=True, again=True, wait_s=0.0, detail=detail)
    if len(start) == 2:
        return Answer(there=True, again=True, wait_s=0.0, detail="the server gives the file's first bytes")
    return Answer(there=False, again=True, wait_s=0.0, detail="the server cuts the connection")


def wait_s(tries: int, answer: Answer, reading: ReadingParameters, draw: float) -> float | None:
    """Seconds before the next try; None where there is no use or no more patience.

    Args:
        tries: Made so far.
        answer: Of the server.
        reading: How often and how long to wait.
        draw: A number from 0 to 1: the wait is a half to one and a half of the delay, which doubles with every try.
    """
    # A server that gives the file's beginning has it; what cannot be read twice again is damaged.
    if not answer.again or tries > (min(2, reading.retries) if answer.there else reading.retries):
        return None
    if answer.wait_s > reading.longest_wait_s * (reading.retries - tries + 1):  # it will not be ready by the last try
        return None
    backoff = reading.retry_delay_s * 2.0 ** (tries - 1) * (0.5 + draw)
    return float(min(reading.longest_wait_s, max(backoff, answer.wait_s)))


def check_redirects(address: str, policy: HrefPolicy, timeout_s: float) -> None:
    """Reject an address whose server redirects to where the policy does not allow; asks it for one byte.

    A server that gives no answer is not rejected: whoever opens the file will find that, too, and can wait.

    Raises:
        RejectedError: If a redirect leads where the policy does not allow, or the redirects do not end.
    """
    if not policy.is_open and address.startswith(_HTTP):
        with (
            contextlib.suppress(NoAnswerError),
            Deadline(timeout_s, math.inf) as deadline,
            _opened(address, policy, timeout_s, deadline, headers={"Range": "bytes=0-0"}),
        ):
            pass


@contextlib.contextmanager
def _opened(
    address: str,
    policy: HrefPolicy | None,
    timeout_s: float,
    deadline: Deadline,
    *,
    follow: bool = True,
    packed: bool = False,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    **request: Any,  # noqa: ANN401 (handed on as it is)
) -> Iterator[requests.Response]:
    """The answer to an http(s) request, its body still to be read.

    Raises:
        RejectedError: "bad_href" if the address or a redirect leads where the policy does not allow.
        NoAnswerError: If there is none, or another than success; also while the body is read.
    """
    if policy is not None:
        policy.check_resolved(address, unknown_host=False)
    request["headers"] = {**(headers or {}), "Accept-Encoding": "gzip" if packed else "identity"}
    here = address
    try:
        with Session(deadline) as session:
            for _ in range(_MAX_REDIRECTS + 1):
                with session.request(method, here, timeout=timeout_s, stream=True, **request) as answer:
                    deadline.check()
                    if not (follow and answer.is_redirect):
                        code, later = answer.status_code, answer.headers.get("Retry-After", "")
                        if not 200 <= code < 300:
                            again, wait = code in _BUSY, _retry_after_s(later)
                            raise _no_answer(address, f"the server answers {code}", again=again, wait_s=wait)
                        yield answer
                        return
                    here = _redirected(here, answer.headers["Location"], policy)
                request.pop("params", None)  # they are in the address, where the server wants them
                if answer.status_code in (301, 302, 303):  # as browsers do
                    method = "GET"
                    request.pop("json", None)
    except (requests.RequestException, UnicodeError) as error:
        if deadline.over:
            detail = f"the server is too slow: not all of it came within {timeout_s:g} s (timeout_s)"
            raise _no_answer(address, detail) from error
        raise _no_answer(address, _why(error)) from error
    raise RejectedError("bad_href", f"{redact(address)} is rejected: its redirects do not end")


def _why(error: Exception) -> str:
    """Say why there is no answer, as far as that is known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its host cannot be found; check the address and the network"
        cause = cause.__cause__ or cause.__context__
    return f"the server gives no answer ({type(error).__name__})"


def _no_answer(address: str, detail: str, *, again: bool = True, wait_s: float = 0.0) -> NoAnswerError:
    answer = Answer(there=False, again=again, wait_s=wait_s, detail=detail)
    return NoAnswerError(f"{redact(address)} cannot be fetched", answer)


def _redirected(here: str, location: str, policy: HrefPolicy | None) -> str:
    """Where a redirect leads, if that is allowed."""
    try:
        target = urllib.parse.urljoin(here, location)
        if policy is not None:
            policy.check_redirect(target)
    except RejectedError as rejection:
        raise RejectedError(rejection.reason, f"{redact(here)} redirects: {rejection.detail}") from rejection
    except ValueError as error:
        raise RejectedError("bad_href", f"{redact(here)} redirects to what is not an address ({error})") from error
    return target


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 where it is neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


_BLOB_HOST = ".blob.core.windows.net"
_SLACK = dt.timedelta(minutes=2)
_MAX_TOKEN_BYTES = 100_000


@dataclass
class SasSigner:
    """A signing hook: appends a shared-access token to Azure Blob addresses, one per container, kept until it expires.

    Tokens never leave memory.

    Attributes:
        endpoint: Gives `{"token": …, "msft:expiry": …}` at `<endpoint>/<account>/<container>`.
        host: Ending of the hosts that are signed; other addresses stay as they are.
        reading: How often and how long the endpoint is asked.
    """

    endpoint: str
    host: str = _BLOB_HOST
    reading: ReadingParameters = field(default_factory=ReadingParameters)
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
                kept = self._tokens[key] = self._token(key)
        return urllib.parse.urlunsplit(parts._replace(query=kept[0]))

    def _token(self, key: str) -> tuple[str, dt.datetime]:
        address = f"{self.endpoint}/{urllib.parse.quote(key)}"
        try:
            answer = fetch(address, None, max_bytes=_MAX_TOKEN_BYTES, bound="a token may be", reading=self.reading)
            data = json.loads(answer)
            return str(data["token"]), dt.datetime.fromisoformat(str(data["msft:expiry"]).replace("Z", "+00:00"))
        except RejectedError as rejection:
            raise RejectedError("unsigned", f"no access token for {key}: {rejection.detail}") from rejection
        except (KeyError, TypeError, ValueError) as error:
            raise RejectedError(
                "unsigned", f"no access token for {key}: {type(error).__name__}; try again later"
            ) from error


planetary_computer = SasSigner("https://planetarycomputer.microsoft.com/api/sas/v1/token")
"""The hook `a2mae.remote.fetch:planetary_computer`: Microsoft's Planetary Computer asks for signed addresses."""

"""Where a server sends a reader on: checked like any other address, before it is asked.

GDAL follows redirects by itself and has no option against it. So a file's server is asked once before GDAL opens it.
That is a check before use: a server that answers GDAL otherwise than it answered here is not found out.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from http.client import HTTPMessage
from typing import IO

from a2mae.stssd.access.hrefs import HrefPolicy, redact
from a2mae.stssd.refusals import RefusedError


class _Checked(urllib.request.HTTPRedirectHandler):
    def __init__(self, policy: HrefPolicy) -> None:
        self._policy = policy

    def redirect_request(  # noqa: PLR0917 (of urllib)
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            self._policy.check_redirect(newurl)
        except RefusedError as refusal:
            raise RefusedError(refusal.reason, f"{redact(req.full_url)} redirects: {refusal.detail}") from refusal
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
        RefusedError: If they lead where the policy does not.
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
        RefusedError: If a redirect leads where the policy does not, or they do not end.
    """
    if policy.is_open or not address.startswith(("https://", "http://")):
        return
    request = urllib.request.Request(address, headers={"Range": "bytes=0-0"})  # noqa: S310 (http(s), a checked href)
    try:
        opened(request, timeout_s, policy).close()
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            raise RefusedError("bad_href", f"{redact(address)} is refused: its redirects do not end") from error
    except (OSError, http.client.HTTPException):
        return

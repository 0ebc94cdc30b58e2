"""Signing hooks: addresses as tables hold them → addresses that a provider answers. Tokens never leave memory.

A hook is any function from address to address, named in `ingest.source.signing`; this is the one that Microsoft's
Planetary Computer needs.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

from a2mae.stssd.refusals import RefusedError

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
            RefusedError: "unsigned" if the provider gives no token.
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
            raise RefusedError(
                "unsigned", f"no access token for {key}: {type(error).__name__}; try again later"
            ) from error


planetary_computer = SasSigner("https://planetarycomputer.microsoft.com/api/sas/v1/token")
"""The hook `a2mae.stssd.access.signing:planetary_computer`."""

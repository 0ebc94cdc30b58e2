"""Reads STAC's JSON documents: bounded in size and number, every href checked, one broken document stops no other."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pystac
from pystac.errors import STACError

from a2mae.errors import RejectedError
from a2mae.remote.policy import HrefPolicy, is_remote, redact
from a2mae.scenes import RejectedScene

_MAX_DEPTH = 12
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Document:
    """An item and where it was found.

    Attributes:
        item: The item's JSON.
        base: Checked href of the document.
    """

    item: Mapping[str, object]
    base: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect leads to an address that was not checked: it is not followed."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def read_json(href: str, policy: HrefPolicy, max_bytes: int) -> Mapping[str, object]:
    """Read one JSON document.

    Raises:
        RejectedError: "missing_file", "unreachable", "too_large" or "bad_metadata".
    """
    shown = redact(href)
    try:
        if is_remote(href):
            policy.check_resolved(href)
            opener = urllib.request.build_opener(_NoRedirect)
            with opener.open(href, timeout=_TIMEOUT_S) as response:
                data = response.read(max_bytes + 1)
        else:
            if os.path.getsize(href) > max_bytes:
                raise RejectedError("too_large", f"{shown} is larger than ingest.source.max_document_mb allows")
            with open(href, "rb") as file:
                data = file.read(max_bytes + 1)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise RejectedError("unreachable", f"{shown} cannot be fetched: {error}") from error
    except OSError as error:
        raise RejectedError("missing_file", f"{shown} cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise RejectedError("too_large", f"{shown} is larger than ingest.source.max_document_mb allows")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RejectedError("bad_metadata", f"{shown} is not JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise RejectedError("bad_metadata", f"{shown} is not a STAC document")
    return document


def walk(
    href: str, policy: HrefPolicy, *, max_items: int, max_bytes: int, refused: list[RejectedScene]
) -> Iterator[Document]:
    """Items below a catalog, a collection, an item or a feature collection, each once, in a fixed order.

    Args:
        href: Checked href of the document to start at.
        policy: What links may point at.
        max_items: Bound on documents read.
        max_bytes: Bound on the size of each.
        refused: Documents that cannot be read are added here.

    Raises:
        RejectedError: If the first document cannot be read, or the catalog is larger than allowed.
    """
    queue: list[tuple[str, int]] = [(href, 0)]
    seen = {href}
    yielded = 0
    while queue:
        here, depth = queue.pop(0)
        try:
            document = read_json(here, policy, max_bytes)
            yield_now, links = _open(document, here)
        except RejectedError as refusal:
            if here == href:
                raise
            refused.append(RejectedScene(redact(here), refusal.reason, refusal.detail))
            continue
        for found in yield_now:
            yielded += 1
            if yielded > max_items:
                raise RejectedError("too_large", f"more than {max_items} items; raise ingest.source.max_items")
            yield found
        if links and depth >= _MAX_DEPTH:
            refused.append(RejectedScene(redact(here), "too_deep", f"catalogs nested deeper than {_MAX_DEPTH}"))
            continue
        for target in links:
            try:
                checked = policy.check(target, base=here)
            except RejectedError as refusal:
                refused.append(RejectedScene(redact(here), refusal.reason, refusal.detail))
                continue
            if checked not in seen:
                seen.add(checked)
                if len(seen) > 2 * max_items + 10_000:
                    raise RejectedError("too_large", f"more than {max_items} documents; raise ingest.source.max_items")
                queue.append((checked, depth + 1))


def _open(document: Mapping[str, object], here: str) -> tuple[list[Document], list[str]]:
    """Items that a document holds, and links to follow."""
    kind = document.get("type")
    if kind == "Feature":
        return [Document(document, here)], []
    if kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise RejectedError("bad_metadata", f"{redact(here)}: a FeatureCollection without features")
        return [Document(f if isinstance(f, Mapping) else {}, here) for f in features], []
    try:
        catalog = pystac.read_dict(dict(document), href=here)
    except (STACError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RejectedError("bad_metadata", f"{redact(here)} is not a STAC document: {error!r}") from error
    return [], [str(link.href) for link in catalog.links if link.rel in ("child", "item")]

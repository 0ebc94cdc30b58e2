"""Read STAC items from a static catalog or a live API, bounded in size and number."""

from __future__ import annotations

import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pystac.errors import STACError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import DoesNotConformTo
from tqdm import tqdm

from a2mae.errors import InputError, RejectedError, plural
from a2mae.remote.fetch import fetch
from a2mae.remote.policy import HrefPolicy, ReadingParameters, redact
from a2mae.scenes import RejectedScene
from a2mae.stssd.ingest.parameters import ApiParameters
from a2mae.stssd.ingest.stac_fields import mapping, number, sequence

logger = logging.getLogger(__name__)

_MAX_DEPTH = 12
_MOST_COLLECTIONS = 1000
_OF_STAC = {"type", "features", "links", "collections", "stac_version"}
_IDLE_PAGES = 20
"""Of a search, without another item, after which its pages are taken to have no end."""
_SHOWN = 500  # characters of an answer that is none
# What pystac-client makes of answers that are no STAC: a page without features is a KeyError, one of text a TypeError.
_NO_SEARCH = (
    APIError,
    ClientTypeError,
    RejectedError,
    STACError,
    DoesNotConformTo,
    NotImplementedError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    ArithmeticError,
)
_BOUND = "ingest.source.max_document_mb allows"


@dataclass(frozen=True)
class Document:
    """An item and where it was found.

    Attributes:
        item: The item's JSON.
        base: Checked href of the document.
    """

    item: Mapping[str, object]
    base: str


def read_json(href: str, policy: HrefPolicy, max_bytes: int) -> Mapping[str, object]:
    """Read one JSON document; redirects are rejected, because the document's links start at its own address.

    Args:
        href: Checked href of the document.
        policy: What it may lead to.
        max_bytes: Bound on its size.

    Raises:
        RejectedError: "missing_file", "unreachable", "too_large" or "bad_metadata".
    """
    data = fetch(href, policy, max_bytes=max_bytes, bound=_BOUND, follow=False, packed=True)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RejectedError("bad_metadata", f"{redact(href)} is not JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise RejectedError("bad_metadata", f"{redact(href)} is not a STAC document")
    return document


def walk(
    href: str, policy: HrefPolicy, *, max_items: int, max_bytes: int, rejected: list[RejectedScene]
) -> Iterator[Document]:
    """Find the items below a catalog, a collection, an item or a feature collection, each once, in a fixed order.

    A document that cannot be read stops no other.

    Args:
        href: Checked href of the document to start at.
        policy: What links may point at.
        max_items: Bound on documents read.
        max_bytes: Bound on the size of each.
        rejected: Documents that cannot be read are added here.

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
            yield_now, links = open_document(document, here, rejected)
        except RejectedError as rejection:
            if here == href:
                raise
            rejected.append(RejectedScene(redact(here), rejection.reason, rejection.detail))
            continue
        for found in yield_now:
            yielded += 1
            if yielded > max_items:
                raise RejectedError("too_large", f"more than {max_items} items; raise ingest.source.max_items")
            yield found
        if links and depth >= _MAX_DEPTH:
            rejected.append(RejectedScene(redact(here), "too_deep", f"catalogs nested deeper than {_MAX_DEPTH}"))
            continue
        for target in links:
            try:
                checked = policy.check(target, base=here)
            except RejectedError as rejection:
                rejected.append(RejectedScene(redact(here), rejection.reason, rejection.detail))
                continue
            if checked not in seen:
                seen.add(checked)
                if len(seen) > 2 * max_items + 10_000:
                    raise RejectedError("too_large", f"more than {max_items} documents; raise ingest.source.max_items")
                queue.append((checked, depth + 1))


def open_document(
    document: Mapping[str, object], here: str, rejected: list[RejectedScene]
) -> tuple[list[Document], list[str]]:
    """Take a document apart: the items that it holds, and the links to follow.

    Args:
        document: A catalog, a collection, an item or a feature collection.
        here: Its checked href.
        rejected: A page of a search that holds fewer items than the search found is added here.

    Raises:
        RejectedError: "bad_metadata" if it is none of these.
    """
    kind, links = document.get("type"), sequence(document.get("links"))
    if kind == "Feature":
        return [Document(document, here)], []
    if kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise RejectedError("bad_metadata", f"{redact(here)}: a FeatureCollection without features")
        matched = matched_of(document)
        further = any(mapping(link).get("rel") == "next" for link in links)
        if further or (matched is not None and matched > len(features)):
            of = f" of {matched:.0f}" if matched is not None else ", and a link to a next page"
            detail = (
                f"holds {plural(len(features), 'item')}{of}: it is one page of a search; search with"
                " ingest.source.kind: stac_api, or save all pages"
            )
            rejected.append(RejectedScene(redact(here), "incomplete", detail))
            logger.warning("%s %s", redact(here), detail)
        return [Document(f if isinstance(f, Mapping) else {}, here) for f in features], []
    if kind not in ("Catalog", "Collection") and "stac_version" not in document:  # before STAC 1.0 they had no type
        raise RejectedError("bad_metadata", f"{redact(here)} is not a STAC document")
    return [], [str(mapping(link).get("href")) for link in links if mapping(link).get("rel") in ("child", "item")]


class _ApiIO(StacApiIO):
    """Makes pystac-client's requests as all others are made: checked, bounded, tried again."""

    def __init__(self, policy: HrefPolicy, reading: ReadingParameters, max_bytes: int) -> None:
        super().__init__()
        self._policy, self._reading, self._max_bytes = policy, reading, max_bytes

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        # A search by POST changes nothing: it may be repeated.
        how = {"method": "POST", "json": parameters} if method == "POST" else {"params": parameters}
        answer = fetch(
            self._policy.check(href),
            self._policy,
            max_bytes=self._max_bytes,
            bound=_BOUND,
            reading=self._reading,
            packed=True,
            headers=headers,
            **how,
        )
        try:
            return answer.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RejectedError("bad_metadata", f"its answer is not in UTF-8, as JSON is ({error})") from error

    def json_loads(self, txt: str | bytes, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401 (of the class above)
        # Python's own: orjson, where it is installed, refuses a whole page for one odd number or text in it.
        try:
            found: dict[str, Any] = json.loads(txt)
        except (ValueError, RecursionError) as error:
            raise RejectedError("bad_metadata", f"its answer is no JSON and begins with {txt[:60]!r}") from error
        if not (isinstance(found, dict) and _OF_STAC & found.keys()):  # pystac-client takes {} for an empty page
            raise RejectedError("bad_metadata", f"its answer is no document of STAC and begins with {txt[:60]!r}")
        return found


def collections_of(api: ApiParameters, policy: HrefPolicy, *, max_bytes: int) -> list[str]:
    """List the ids of an API's collections, in its order.

    Args:
        api: Its address.
        policy: What redirects and further pages are checked against.
        max_bytes: Of one page.

    Raises:
        InputError: If it cannot be asked.
    """
    reading = ReadingParameters(retries=api.retries, timeout_s=api.timeout_s)
    stac_io = _ApiIO(policy.trusting(api.url), reading, max_bytes)
    try:
        client = Client.open(api.url, stac_io=stac_io)
        return [str(one.id) for one in itertools.islice(client.get_collections(), _MOST_COLLECTIONS)]
    except _NO_SEARCH as error:
        told = error.detail if isinstance(error, RejectedError) else str(error) or type(error).__name__
        raise InputError(f"{redact(api.url)}: its collections cannot be listed: {told[:_SHOWN]}") from error


def search(api: ApiParameters, policy: HrefPolicy, *, max_bytes: int = 2**26) -> list[Mapping[str, object]]:
    """Search a STAC API; gives items sorted by collection and id, each once; what is none is an empty one.

    Nothing is kept of a search that fails on the way: pages that were asked for at two times may not be of one search.

    Args:
        api: What to ask for.
        policy: What redirects, and pages on other hosts than the API's, are checked against.
        max_bytes: Of one page.

    Raises:
        InputError: If the search cannot be made or fails after its retries; the message says how far it came.
    """
    if not api.url.startswith(("https://", "http://")):
        raise InputError(f"ingest.source.api.url: {api.url!r} is not the address of a STAC API")
    try:
        trusting = policy.trusting(api.url)
    except InputError as error:
        raise InputError(f"ingest.source.api.url: {error}") from error
    if api.bbox is None:
        raise InputError("ingest.source.api: set bbox (west, south, east, north)")
    reading = ReadingParameters(retries=api.retries, timeout_s=api.timeout_s)
    stac_io = _ApiIO(trusting, reading, max_bytes)
    found: dict[tuple[str, str], list[Mapping[str, object]]] = defaultdict(list)
    count, idle, matched = 0, 0, None
    try:
        client = Client.open(api.url, stac_io=stac_io)
        _check_support(client, api)
        text = isinstance(api.filter, str)
        pages = client.search(
            method="GET" if text else "POST",
            filter_lang=None if api.filter is None else "cql2-text" if text else "cql2-json",
            collections=list(api.collections) or None,
            bbox=api.bbox,
            datetime=api.datetime,
            query=api.query,
            filter=api.filter,
            limit=min(api.page_size, api.max_items),
            max_items=api.max_items,
        )
        for page in tqdm(pages.pages_as_dicts(), desc="searching", unit="page", delay=1):
            matched = matched_of(page)
            idle += 1
            for item in page["features"]:
                count += 1
                read = item if isinstance(item, Mapping) else {}
                alike = found[str(read.get("collection")), str(read.get("id"))]
                if not read or read not in alike:  # pages overlap; another item under the same id is told of later
                    alike.append(read)
                    idle = 0
            if idle >= _IDLE_PAGES:
                raise RejectedError("too_large", f"its pages do not end: {idle} came without another item")
    except _NO_SEARCH as error:
        told = error.detail if isinstance(error, RejectedError) else f"{type(error).__name__}: {error}"
        if isinstance(error, TypeError | LookupError | AttributeError):
            told = f"its answer is no page of STAC items ({told})"
        raise InputError(f"ingest.source.api: {redact(api.url)} {_how_far(count, told[:_SHOWN])}") from error
    if count >= api.max_items:
        logger.warning("The search stopped at ingest.source.api.max_items = %d items.", api.max_items)
    elif matched is not None and count < matched:
        logger.warning(
            "%s says that %.0f items match, but its pages gave %d: the others are missing here; ask for less at once"
            " (ingest.source.api.datetime, bbox) or for pages of another size (page_size)",
            redact(api.url),
            matched,
            count,
        )
    return [item for key in sorted(found) for item in found[key]]


def _how_far(count: int, told: str) -> str:
    """How a search failed, the end of a sentence."""
    if not count:
        return f"does not answer the search: {told}"
    return (
        f"gave {plural(count, 'item')} and then no further page: {told}. Run again: the search begins anew, and nothing"
        " that was built before is touched; if it fails again, ask for less at once (ingest.source.api.datetime, bbox,"
        " page_size) or raise retries and timeout_s there"
    )


def matched_of(page: Mapping[str, object]) -> float | None:
    """Read how many items match a search, as a page of it says in one of two ways; None where it does not."""
    return number(page.get("numberMatched")) or number(mapping(page.get("context")).get("matched"))


def _check_support(client: Client, api: ApiParameters) -> None:
    """Check that the API knows the filters: a server that does not ignores them and gives scenes nobody asked for.

    Raises:
        InputError: If the search has a part that the API does not declare.
    """
    parts = (("query", api.query, ConformanceClasses.QUERY), ("filter", api.filter, ConformanceClasses.FILTER))
    for name, value, conformance in parts:
        if value is not None and not client.conforms_to(conformance):
            raise InputError(
                f"ingest.source.api.{name}: {redact(api.url)} does not declare that it knows {name!r}; leave it out and"
                " use ingest.max_cloud_cover_pct, or the other of query and filter"
            )

"""STAC items from static documents, a live API or a recording of it, made into scenes.

Searches a STAC API: pages, filters, retries with back-off, bounded in number.

STAC items → scenes, whether they come from static documents, a live API or a recording of it.
"""

from __future__ import annotations

import io
import json
import logging
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import DoesNotConformTo
from tqdm import tqdm
from urllib3.util.retry import Retry

from a2mae.errors import RejectedError
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.remote.documents import Document, walk
from a2mae.remote.policy import HrefPolicy, is_remote, load_signer, local_href, redact
from a2mae.scenes import RejectedScene
from a2mae.stssd.ingest.checks import Found, SensorTable
from a2mae.stssd.ingest.parameters import ApiParameters, IngestParameters
from a2mae.stssd.ingest.stac_item import ItemScene, finish, parse_item
from a2mae.stssd.ingest.stac_profiles import Recogniser

logger = logging.getLogger(__name__)

_BLOCK = 2**16
_RETRY_ON = (429, 500, 502, 503, 504)


class _CheckedIO(StacApiIO):
    """Asks only the API the user named: links to further pages are the server's words, so others are checked.

    No answer is read beyond `max_bytes`, unpacked.
    """

    def __init__(self, root: str, policy: HrefPolicy, max_bytes: int, **settings: Any) -> None:  # noqa: ANN401 (handed on as it is)
        super().__init__(**settings)
        self._max_bytes = max_bytes
        self.session.hooks["response"].append(self._bounded)
        self._root = urllib.parse.urlsplit(root)[:2]
        self._policy = policy

    def request(self, href: str, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 (handed on as it is)
        self._check(href)
        return str(super().request(href, *args, **kwargs))

    def _check(self, href: str) -> None:
        if urllib.parse.urlsplit(href)[:2] != self._root:
            self._policy.check_resolved(self._policy.check(href))

    def _bounded(self, answer: requests.Response, **_: object) -> requests.Response:
        """The answer read as far as it may be: what `requests` would read has no end but the server's."""
        if answer.is_redirect:
            self._check(urllib.parse.urljoin(answer.url, answer.headers["location"]))
        data = bytearray()
        for block in answer.iter_content(_BLOCK):
            data += block
            if len(data) > self._max_bytes:
                answer.close()
                raise RejectedError("too_large", "an answer is larger than ingest.source.max_document_mb allows")
        read = requests.Response()
        read.status_code, read.reason, read.url = answer.status_code, answer.reason, answer.url
        read.headers, read.encoding, read.request = answer.headers, answer.encoding, answer.request
        read.history, read.raw = answer.history, io.BytesIO(data)
        return read


def search(api: ApiParameters, policy: HrefPolicy, *, max_bytes: int = 2**26) -> list[Mapping[str, object]]:
    """Items of a search, sorted by collection and id, each once.

    Args:
        api: What to ask for.
        policy: What pages on other hosts are checked against.
        max_bytes: Of one page.

    Raises:
        ValueError: If the search cannot be made or fails after its retries.
    """
    if not api.url.startswith(("https://", "http://")):
        raise ValueError(f"ingest.source.api.url: {api.url!r} is not the address of a STAC API")
    if api.bbox is None and api.intersects is None:
        raise ValueError("ingest.source.api: set bbox (west, south, east, north) or intersects (a GeoJSON file)")
    retry = Retry(
        total=api.retries,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        backoff_max=60,
        status_forcelist=_RETRY_ON,
        allowed_methods=None,  # a search by POST changes nothing: it may be repeated
        respect_retry_after_header=True,
    )
    stac_io = _CheckedIO(api.url, policy, max_bytes, timeout=api.timeout_s, max_retries=retry)
    found: dict[tuple[str, str], Mapping[str, object]] = {}
    try:
        client = Client.open(api.url, stac_io=stac_io)
        _check_support(client, api)
        text = isinstance(api.filter, str)
        pages = client.search(
            method="GET" if text else "POST",
            filter_lang=None if api.filter is None else "cql2-text" if text else "cql2-json",
            collections=list(api.collections) or None,
            bbox=None if api.intersects else api.bbox,
            intersects=_geometry(api.intersects),
            datetime=api.datetime,
            query=api.query,
            filter=api.filter,
            limit=min(api.page_size, api.max_items),
            max_items=api.max_items,
        )
        for item in tqdm(pages.items_as_dicts(), desc="searching", unit="item", delay=1):
            found.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    except (APIError, RejectedError, DoesNotConformTo, NotImplementedError) as error:
        raise ValueError(f"ingest.source.api: {redact(api.url)} does not answer the search: {error}") from error
    if len(found) >= api.max_items:
        logger.warning("The search stopped at ingest.source.api.max_items = %d items.", api.max_items)
    return [found[key] for key in sorted(found)]


def _check_support(client: Client, api: ApiParameters) -> None:
    """A server that does not know a filter ignores it: that would build from scenes nobody asked for.

    Raises:
        ValueError: If the search has a part that the API does not declare.
    """
    parts = (("query", api.query, ConformanceClasses.QUERY), ("filter", api.filter, ConformanceClasses.FILTER))
    for name, value, conformance in parts:
        if value is not None and not client.conforms_to(conformance):
            raise ValueError(
                f"ingest.source.api.{name}: {redact(api.url)} does not declare that it knows {name!r}; leave it out and"
                " use ingest.max_cloud_cover_pct, or the other of query and filter"
            )


def _geometry(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"ingest.source.api.intersects: {path!r} is not a GeoJSON file ({error})") from error
    while isinstance(document, dict) and document.get("type") in ("FeatureCollection", "Feature"):
        if document["type"] == "Feature":
            document = document.get("geometry")
        elif len(document.get("features") or []) == 1:
            document = document["features"][0]
        else:
            raise ValueError(f"ingest.source.api.intersects: {path!r} must hold exactly one geometry")
    if not isinstance(document, dict) or "coordinates" not in document:
        raise ValueError(f"ingest.source.api.intersects: {path!r} holds no geometry")
    return document


@dataclass
class StacFound(Found):
    """Scenes of a STAC source.

    Attributes:
        recorded: The items that an API gave, as a FeatureCollection that replays the build without it.
    """

    recorded: dict[str, object] = field(default_factory=lambda: {"type": "FeatureCollection", "features": []})


def read_stac_catalog(parameters: IngestParameters, sensors: SensorTable, *, default: Path | None) -> StacFound:
    """Scenes of a static catalog.

    Args:
        parameters: `source` and `hrefs` are used.
        sensors: The sensors of the run.
        default: The simulated catalog, used when `source.catalog` is not given.

    Raises:
        ValueError: If there is no catalog or it cannot be read.
    """
    source = parameters.source
    given = source.catalog or (None if default is None else str(default))
    if given is None:
        raise ValueError(
            "no STAC catalog: run the simulate pipeline first, or pass --params=ingest.source.catalog=PATH"
        )
    found = StacFound()
    try:
        href, policy = _start(given, parameters)
        documents = list(
            walk(
                href,
                policy,
                max_items=source.max_items,
                max_bytes=int(source.max_document_mb * 2**20),
                refused=found.refused,
            )
        )
    except RejectedError as refusal:
        raise ValueError(f"ingest.source.catalog: {refusal.detail}") from refusal
    return _scenes(documents, parameters, sensors, policy, found)


def read_stac_api(parameters: IngestParameters, sensors: SensorTable) -> StacFound:
    """Scenes that a search on an API gives, or its recording.

    Raises:
        ValueError: If the search cannot be made; the message names the parameter.
    """
    api = parameters.source.api
    found = StacFound()
    policy = parameters.hrefs.policy()
    if api.replay is not None:
        items = _recorded(Path(api.replay))
        logger.info("Replaying %d recorded STAC items from %s.", len(items), local_href(api.replay))
    else:
        items = search(api, policy, max_bytes=int(parameters.source.max_document_mb * 2**20))
    found.recorded = {"type": "FeatureCollection", "features": items}
    base = api.url or "https://localhost.invalid/"
    return _scenes([Document(item, _self_href(item) or base) for item in items], parameters, sensors, policy, found)


def _start(given: str, parameters: IngestParameters) -> tuple[str, HrefPolicy]:
    if is_remote(given):
        policy = parameters.hrefs.policy()
        return policy.check(given), policy
    policy = parameters.hrefs.policy(Path(given).parent, local=True)
    if not Path(given).is_file():
        raise RejectedError(
            "missing_file", f"{given!r} is not a file; give a catalog.json, collection, item or GeoJSON"
        )
    return policy.check_path(given), policy


def _recorded(path: Path) -> list[Mapping[str, object]]:
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["features"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"ingest.source.api.replay: {str(path)!r} is not a recorded search ({error})") from error
    return [item for item in items if isinstance(item, Mapping)]


def _self_href(item: Mapping[str, object]) -> str | None:
    links = item.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, Mapping) and link.get("rel") == "self" and is_remote(str(link.get("href"))):
            return str(link["href"])
    return None


def _scenes(
    documents: Iterable[Document],
    parameters: IngestParameters,
    sensors: SensorTable,
    policy: HrefPolicy,
    found: StacFound,
) -> StacFound:
    recogniser = Recogniser(sensors, parameters.stac_profiles, honour_flag=parameters.sentinel2_offset == "flag")
    parsed: list[ItemScene] = []
    for document in documents:
        try:
            item = parse_item(document.item, recogniser=recogniser, policy=policy, base=document.base)
            for asset in item.scene.assets:
                policy.check_resolved(asset.href, unknown_host=False)
            parsed.append(item)
        except RejectedError as refusal:
            name = str(document.item.get("id") or document.base)[:200]
            found.refused.append(RejectedScene(name, refusal.reason, refusal.detail))
    headers = _headers(parsed, parameters, policy)
    for item in parsed:
        try:
            found.scenes.append(finish(item, headers))
        except RejectedError as refusal:
            scene = item.scene
            found.refused.append(
                RejectedScene(
                    scene.scene_id, refusal.reason, refusal.detail, scene.sensor, scene.datetime, scene.geometry
                )
            )
    return found


def _headers(
    parsed: Iterable[ItemScene], parameters: IngestParameters, policy: HrefPolicy
) -> dict[str, RasterHeader | RejectedError]:
    if parameters.probe == "none":
        return {}
    hrefs = [
        asset.href
        for item in parsed
        for asset in item.scene.assets
        if parameters.probe == "all" or not is_remote(asset.href)
    ]
    return read_headers(hrefs, policy=policy, sign=load_signer(parameters.source.signing), workers=parameters.workers)

"""Find the scenes of a STAC source: a static catalog, a live API or a recording of it."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from a2mae.errors import InputError, RejectedError, plural, without_secrets, without_users
from a2mae.files import check_regular, json_text
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.remote.policy import HrefPolicy, RemoteAccess, is_remote, local_href
from a2mae.scenes import RejectedScene
from a2mae.stssd.ingest.checks import Found, SensorTable, is_safe_id
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac_documents import Document, open_document, search, walk
from a2mae.stssd.ingest.stac_fields import mapping
from a2mae.stssd.ingest.stac_item import ItemScene, contradiction, finish, parse_item
from a2mae.stssd.ingest.stac_profiles import Recogniser

logger = logging.getLogger(__name__)


def read_stac_catalog(parameters: IngestParameters, sensors: SensorTable, *, default: Path | None) -> Found:
    """Find the scenes of a static catalog.

    Args:
        parameters: `source`, `hrefs`, `stac_profiles`, `sentinel2_offset`, `probe` and `workers` are used.
        sensors: The sensors of the run.
        default: The simulated catalog, used when `source.catalog` is not given.

    Raises:
        InputError: If there is no catalog or it cannot be read.
    """
    source, found = parameters.source, Found()
    given = source.catalog or (None if default is None else str(default))
    if given is None:
        raise InputError(
            "no STAC catalog: run the simulate pipeline first, or pass --params=ingest.source.catalog=PATH"
        )
    try:
        href, policy = checked_start(given, parameters)
        max_bytes = int(source.max_document_mb * 2**20)
        documents = list(walk(href, policy, max_items=source.max_items, max_bytes=max_bytes, rejected=found.rejected))
    except RejectedError as rejection:
        raise InputError(f"ingest.source.catalog: {rejection.detail}") from rejection
    read_items(documents, parameters, sensors, policy, found)
    return found


def read_stac_api(parameters: IngestParameters, sensors: SensorTable) -> Found:
    """Find the scenes that a search on an API gives, or its recording.

    Args:
        parameters: As for `read_stac_catalog`.
        sensors: The sensors of the run.

    Raises:
        ValueError: If the search cannot be made; the message names the parameter.
    """
    api, policy = parameters.source.api, parameters.hrefs.policy()
    if api.replay is not None:
        found = Found()
        found.items = _recorded(Path(api.replay), found.rejected)
        logger.info("Replaying %d recorded STAC items from %s.", len(found.items), local_href(api.replay))
    else:
        found = Found(items=search(api, policy, max_bytes=int(parameters.source.max_document_mb * 2**20)))
    base = api.url or "https://localhost.invalid/"
    documents = [Document(item, _self_href(item) or base) for item in found.items]
    found.items = [recorded for item in found.items if (recorded := _to_record(item)) is not None]
    read_items(documents, parameters, sensors, policy, found)
    return found


def checked_start(given: str, parameters: IngestParameters) -> tuple[str, HrefPolicy]:
    """Check where a catalog starts.

    Args:
        given: Path or address.
        parameters: `hrefs` is used.

    Returns:
        Checked href of the first document, and what its links may point at.

    Raises:
        RejectedError: If there is no such file, or the address is refused.
    """
    if is_remote(given):
        policy = parameters.hrefs.policy()
        return policy.check(given), policy
    policy = parameters.hrefs.policy(Path(given).parent, local=True)
    if not os.path.isfile(given):  # a text of any length
        raise RejectedError(
            "missing_file", f"{given!r} is not a file; give a catalog.json, collection, item or GeoJSON"
        )
    return policy.check_path(given), policy


def _recorded(path: Path, rejected: list[RejectedScene]) -> list[Mapping[str, object]]:
    try:
        check_regular(path)
        documents, _ = open_document(json.loads(path.read_text(encoding="utf-8")), str(path), rejected)
    except (OSError, AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"ingest.source.api.replay: {str(path)!r} is not a recorded search ({error})") from error
    return [document.item for document in documents]


def _to_record(item: Mapping[str, object]) -> Mapping[str, object] | None:
    """Give an item as it may be kept: an address with a user and a password is rejected either way, so they are hidden.

    None where JSON cannot hold it: it is rejected with its reason where it is read.
    """
    try:
        recorded = _without_users(json.loads(json_text(item, allow_nan=True)))
    except (ValueError, RecursionError):
        return None
    return mapping(recorded)


def _without_users(value: object) -> object:
    if isinstance(value, Mapping):
        return {without_users(key, "***@"): _without_users(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_users(one) for one in value]
    return without_users(value, "***@") if isinstance(value, str) else value


def _self_href(item: Mapping[str, object]) -> str | None:
    links = item.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, Mapping) and link.get("rel") == "self" and is_remote(str(link.get("href"))):
            return str(link["href"])
    return None


def read_items(
    documents: Iterable[Document], parameters: IngestParameters, sensors: SensorTable, policy: HrefPolicy, found: Found
) -> None:
    """Make scenes of items, with the headers of their files where those are read.

    Args:
        documents: The items.
        parameters: `stac_profiles`, `sentinel2_offset`, `probe` and `workers` are used.
        sensors: The sensors of the run.
        policy: What hrefs may point at.
        found: Takes scenes, what is rejected, and items whose sensor is not known.
    """
    recogniser = Recogniser(sensors, parameters.stac_profiles, honour_flag=parameters.sentinel2_offset == "flag")
    parsed: list[ItemScene] = []
    for document in documents:
        try:
            item = parse_item(document.item, recogniser=recogniser, policy=policy, base=document.base)
            for asset in item.scene.assets:
                policy.check_resolved(asset.href, unknown_host=False)
            parsed.append(item)
        except RejectedError as rejection:
            name = without_secrets(str(document.item.get("id") or document.base))[:200]
            found.rejected.append(RejectedScene(name, rejection.reason, rejection.detail))
            if rejection.reason == "unknown_sensor":
                found.unknown.append(document)
    parsed = _told_apart(parsed)
    _warn_of_queries(parsed)
    headers = _headers(parsed, parameters, policy)
    overruled = [told for item in parsed if item.profile.decides and (told := contradiction(item, headers))]
    if overruled:
        scenes = plural(len(overruled), "scene")
        logger.warning("%s: what the profile says counts, though the tags differ: %s", scenes, overruled[0])
    for item in parsed:
        try:
            found.scenes.append(finish(item, headers))
        except RejectedError as rejection:
            found.rejected.append(item.scene.rejected(rejection.reason, rejection.detail))


def _told_apart(items: Sequence[ItemScene]) -> list[ItemScene]:
    """Put its collection before the id of every scene whose id several collections have."""
    collections: dict[str, set[str]] = defaultdict(set)
    for item in items:
        collections[item.scene.scene_id].add(item.collection)
    found = []
    for item in items:
        name = f"{item.collection}__{item.scene.scene_id}"
        if len(collections[item.scene.scene_id]) > 1 and is_safe_id(name):
            item = replace(item, scene=replace(item.scene, scene_id=name))  # noqa: PLW2901
        found.append(item)
    return found


def _warn_of_queries(items: Iterable[ItemScene]) -> None:
    """Say so where addresses in the scene table may hold signatures: they are needed to read the pixels."""
    count = sum(any(is_remote(a.href) and "?" in a.href for a in item.scene.assets) for item in items)
    if count:
        logger.warning(
            "The addresses of %s hold queries (?…), which may be signatures: the scene table and recorded items"
            " (stac_items.json) keep them, as the files could not be read without. Before these are passed on: plain"
            " addresses and ingest.source.signing",
            plural(count, "scene"),
        )


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
    return read_headers(hrefs, RemoteAccess(parameters.source.signing, policy), workers=parameters.workers)

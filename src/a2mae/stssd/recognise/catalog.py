"""Recognise what a STAC API or catalog holds of an area: the stage's own reader is asked, for some items of each."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from a2mae.errors import InputError, RejectedError, plural
from a2mae.remote.fetch import fetch
from a2mae.remote.policy import ReadingParameters, is_remote, redact, split_address
from a2mae.scenes import MaskKind, RejectedScene, Role, Scene
from a2mae.stssd.ingest.checks import Found, SensorTable
from a2mae.stssd.ingest.parameters import ApiParameters, HrefParameters, IngestParameters
from a2mae.stssd.ingest.stac import checked_start, read_stac_api, read_stac_catalog
from a2mae.stssd.ingest.stac_documents import collections_of
from a2mae.stssd.ingest.stac_fields import mapping, sequence
from a2mae.stssd.recognise.facts import Aside, Fact, Product, Recognition, known_sensors
from a2mae.stssd.recognise.items import OF_ITEMS, describe, product_of

_PER_COLLECTION = 40
_MOST_COLLECTIONS = 12
_DOCUMENT_BYTES = 2**24
_RECOGNISED = re.compile(r"sentinel-?2|landsat-?c2-?l2|sentinel-1-rtc|hls|naip", re.IGNORECASE)
_SIGNED = {"planetarycomputer.microsoft.com": "a2mae.remote.fetch:planetary_computer"}


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        href: Address of an API or catalog, or path of a catalog.
        bbox: West, south, east, north in degrees; None: everywhere, which an API is not asked for.
        datetime: Instant or interval; None: any time.
        collections: None named: those that are recognised.
    """

    href: str
    bbox: tuple[float, float, float, float] | None
    datetime: str | None
    collections: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatalogFound:
    """What a catalog holds.

    Attributes:
        recognition: Products as those of a folder.
        source: Keys of the `ingest` group that read it again.
    """

    recognition: Recognition
    source: Mapping[str, Any] = field(repr=False)


def recognise_catalog(wanted: Wanted) -> CatalogFound:
    """Ask an API, or walk a catalog, and tell what is known of its items.

    Raises:
        InputError: If the address holds a secret, cannot be read, is no STAC, or what to look for is not said.
    """
    hrefs = _hrefs(wanted.href)
    root = _root(wanted.href, hrefs)
    is_api = any(mapping(link).get("rel") == "search" for link in sequence(root.get("links")))
    notes: list[str] = []
    found: dict[str, Found] = {}
    source: dict[str, Any]
    signing = _SIGNED.get(urllib.parse.urlsplit(wanted.href).hostname or "")
    signed = {} if signing is None else {"signing": signing}
    if is_api:
        if wanted.bbox is None or wanted.datetime is None:
            raise InputError(
                f"{redact(wanted.href)} is an API, which holds the whole Earth: say the place with --bbox W S E N (or"
                " --aoi FILE) and the time with --datetime 2023-05-01/2023-09-30"
            )
        api = ApiParameters(url=wanted.href, bbox=wanted.bbox, datetime=wanted.datetime, max_items=_PER_COLLECTION)
        chosen, notes = _collections(wanted, api, hrefs)
        policy = HrefParameters.model_validate(hrefs).policy()
        for name in chosen:
            one = api.model_copy(update={"collections": (name,)})
            parameters = IngestParameters.model_validate(
                {"source": {"kind": "stac_api", "api": one.model_dump(), **signed}, "hrefs": hrefs, "probe": "none"}
            )
            found[name] = read_stac_api(parameters, _table())
        source = {
            "source": {
                "kind": "stac_api",
                "api": {"url": wanted.href, "collections": [], "bbox": list(wanted.bbox), "datetime": wanted.datetime},
            }
        }
    else:
        parameters = IngestParameters.model_validate(
            {"source": {"kind": "stac_catalog", "catalog": wanted.href}, "hrefs": hrefs, "probe": "none"}
        )
        found["catalog"] = read_stac_catalog(parameters, _table(), default=None)
        _, policy = checked_start(wanted.href, parameters)
        href = wanted.href if is_remote(wanted.href) else str(Path(wanted.href).resolve())
        source = {"source": {"kind": "stac_catalog", "catalog": href}}
        if wanted.datetime is not None:
            start, _, end = wanted.datetime.partition("/")
            source |= {"datetime_start": start, "datetime_end": end or start}
        source["source"] |= signed
    products, usable = _products(found)
    asides = _rejected(found)
    for name, seen in found.items():
        told = describe(seen.unknown, parameters, policy, mixed=bool(seen.scenes))
        products += told.products
        asides += told.asides
        usable += [name] if told.products and name not in usable else []
        if told.unstated_grids:
            source["probe"] = "all"
    if is_api:
        source["source"]["api"]["collections"] = usable
    scenes = [scene for one in found.values() for scene in one.scenes]
    paths = {path for product in products for path in product.paths}
    files = sorted(paths | {asset.href for scene in scenes for asset in scene.assets})
    if any(map(is_remote, [wanted.href, *files])):
        source["hrefs"] = {**hrefs, "hosts": _hosts([wanted.href, *files])}
    return CatalogFound(
        Recognition(
            root=Path(urllib.parse.urlsplit(wanted.href).hostname or wanted.href),
            products=tuple(products),
            asides=tuple(asides),
            unusable=(),
            notes=tuple(notes),
        ),
        source,
    )


def _table() -> SensorTable:
    return SensorTable(known_sensors(), {}, ())


def _hrefs(href: str) -> dict[str, Any]:
    """What the catalog may make us open: the scheme that was typed, private addresses only if that is one."""
    if "://" not in href:
        return {"schemes": ["file", "https", "s3"]}
    parts = split_address(href)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"{redact(href)}: the address holds a name, a key or a query, and it is written into files: give it"
            " without; keys belong into the provider's environment variables or a signing hook (ingest.source.signing)"
        )
    if parts.scheme not in ("https", "http"):
        raise InputError(f"{href}: scheme {parts.scheme!r} is none that a STAC API or catalog is read by: https, http")
    hrefs: dict[str, Any] = {"schemes": ["https", "s3"] if parts.scheme == "https" else [parts.scheme]}
    try:
        HrefParameters.model_validate(hrefs).policy().check(href)
    except RejectedError:
        hrefs["allow_private"] = True  # it was typed, not linked
        HrefParameters.model_validate(hrefs).policy().check(href)
    return hrefs


def _root(href: str, hrefs: Mapping[str, Any]) -> Mapping[str, object]:
    parameters = HrefParameters.model_validate(hrefs)
    try:
        if is_remote(href):
            policy = parameters.policy().trusting(href)
            text = fetch(
                policy.check(href),
                policy,
                max_bytes=_DOCUMENT_BYTES,
                bound="a catalog's root may have",
                reading=ReadingParameters(retries=0),  # somebody waits who may have mistyped it
            )
        else:
            text = Path(href).read_bytes()[:_DOCUMENT_BYTES]
        document = json.loads(text)
    except RejectedError as error:
        raise InputError(error.detail) from error
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "no JSON"
        raise InputError(f"{redact(href)} is no STAC API or catalog that can be read: {why}") from error
    if not isinstance(document, Mapping) or not ({"stac_version", "features"} & set(document)):
        raise InputError(f"{redact(href)} is JSON and no STAC document: it says no stac_version")
    return document


def _collections(wanted: Wanted, api: ApiParameters, hrefs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Choose collections to look into; what was left aside is said."""
    if wanted.collections:
        return list(wanted.collections), []
    there = collections_of(api, HrefParameters.model_validate(hrefs).policy(), max_bytes=_DOCUMENT_BYTES)
    chosen = there if len(there) <= _MOST_COLLECTIONS else [name for name in there if _RECOGNISED.search(name)]
    left = [name for name in there if name not in chosen[:_MOST_COLLECTIONS]]
    notes = []
    if left:
        shown = ", ".join(left[:8]) + (" …" if len(left) > 8 else "")
        notes.append(f"{plural(len(left), 'collection')} not looked into ({shown}): name them with --collections")
    if not chosen:
        raise InputError(
            f"{redact(wanted.href)}: none of its {plural(len(there), 'collection')} is recognised; {notes[0]}"
        )
    return chosen[:_MOST_COLLECTIONS], notes


def _hosts(hrefs: Iterable[str]) -> list[str]:
    """The API's host and those of the files: no other may be asked later."""
    hosts = {urllib.parse.urlsplit(one).hostname for one in hrefs if is_remote(one)}
    return sorted(host for host in hosts if host)


def _products(found: Mapping[str, Found]) -> tuple[list[Product], list[str]]:
    products, usable = [], []
    for collection, one in found.items():
        sensors: dict[str, list[Scene]] = defaultdict(list)
        for scene in one.scenes:
            sensors[scene.sensor].append(scene)
        for sensor, scenes in sorted(sensors.items()):
            where = f"{plural(len(scenes), 'item')} of {collection}"
            products.append(_product(collection if len(sensors) == 1 else f"{collection}-{sensor}", where, scenes))
        if sensors:
            usable.append(collection)
    return products, usable


def _product(name: str, where: str, scenes: Sequence[Scene]) -> Product:
    """The product of items of a known sensor."""
    bands = [asset for scene in scenes for asset in scene.assets if asset.role is Role.DATA]
    sensor = known_sensors()[scenes[0].sensor]
    names = {asset.band for asset in bands}
    masks = Counter(a.mask.value for scene in scenes for a in scene.assets if a.mask is not MaskKind.NONE)
    factors = sorted({(asset.scale, asset.offset) for asset in bands})
    told = ", ".join(f"{scale:g} and {offset:g}" for scale, offset in factors[:3])
    baselines = sorted({scene.processing_baseline for scene in scenes if scene.processing_baseline})
    by = f"{where}" + (f", processing baseline {', '.join(baselines)}" if baselines else "")
    rule = {
        "sensor": Fact(sensor.id, by),
        "bands": Fact([band for band in sensor.band_names if band in names], "assets of the items"),
        "units": Fact(sensor.encoding.units.value, f"those of {sensor.id}"),
        "scale": Fact(factors[0][0] if len({s for s, _ in factors}) == 1 else OF_ITEMS, told),
        "offset": Fact(factors[0][1] if len({o for _, o in factors}) == 1 else OF_ITEMS, told),
    }
    if masks:
        rule["mask"] = Fact({"kind": masks.most_common(1)[0][0]}, "an asset of the items")
    else:
        rule["cloud_test"] = Fact(scenes[0].cloud_test.value, "the items have no mask")
    return product_of(name, sensor.title, rule, scenes)


def _rejected(found: Mapping[str, Found]) -> list[Aside]:
    """Items that cannot be used, by reason, each with the first one's sentence; unknown sensors are described apart."""
    asides = []
    for collection, one in found.items():
        reasons: dict[str, list[RejectedScene]] = defaultdict(list)
        for item in one.rejected:
            if item.reason != "unknown_sensor":
                reasons[item.reason].append(item)
        for reason, items in sorted(reasons.items()):
            asides.append(Aside(("item", collection), f"{collection}, {reason}: {items[0].detail}", len(items)))
    return asides

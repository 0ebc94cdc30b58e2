"""Describe STAC collections of sensors that nobody knows, by what their items state; what they do not is asked."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from a2mae.errors import RejectedError, plural
from a2mae.raster.footprints import bounds_lonlat
from a2mae.raster.header import RasterHeader
from a2mae.remote.policy import HrefPolicy
from a2mae.scenes import RejectedScene, Role, Scene
from a2mae.sensors import Band, Encoding, Sensor, Units
from a2mae.stssd.ingest.checks import Found, SensorTable
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac import read_items
from a2mae.stssd.ingest.stac_assets import is_picture, is_raster
from a2mae.stssd.ingest.stac_documents import Document
from a2mae.stssd.ingest.stac_fields import factor_of, mapping, nodata_of, number, sequence
from a2mae.stssd.ingest.stac_profiles import MASK_KINDS
from a2mae.stssd.recognise.facts import COMMON_NAMES, Aside, Fact, Product, asked, known_sensors
from a2mae.stssd.recognise.item_bands import StatedBand, headers_of_item, is_mask, stated_bands

OF_ITEMS = "of each item"
"""Value of a fact that every item states for itself: nothing is written, and the item's own is read."""
_THERMAL_NM = 3000.0
_POLARISATIONS = ("vv", "vh", "hh", "hv")
_M_PER_DEGREE = 111_320.0
_PROBED = 10
"""Items whose files are opened where the items say no grid."""


@dataclass(frozen=True)
class Described:
    """What items of unknown sensors say.

    Attributes:
        products: One for each collection, with what can be told.
        asides: Items that no product can be made of, with the reason.
        unstated_grids: Some items state no CRS, shape or transform: the files have to be opened for it.
    """

    products: tuple[Product, ...]
    asides: tuple[Aside, ...]
    unstated_grids: bool


def describe(
    documents: Iterable[Document], parameters: IngestParameters, policy: HrefPolicy, *, mixed: bool
) -> Described:
    """Describe the collections of items whose sensor is not known.

    Args:
        documents: The items.
        parameters: How the source is read.
        policy: What hrefs of the items may point at.
        mixed: Other items of the same source are of known sensors: profiles then ask for the platform as well.
    """
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[_owner(document.item)[1]].append(document)
    products: list[Product] = []
    asides: list[Aside] = []
    unstated = False
    for owner, members in sorted(groups.items()):
        try:
            product, rejected, has_grid = _described(owner, members, parameters, policy, mixed=mixed)
        except RejectedError as error:
            asides.append(Aside(("item", owner), f"{owner or 'items of no collection'}: {error.detail}", len(members)))
            continue
        products += [] if product is None else [product]
        unstated |= product is not None and not has_grid
        for reason, one in Counter((r.reason, r.detail) for r in rejected).items():
            asides.append(Aside(("item", owner), f"{owner}, {reason[0]}: {reason[1]}", one))
    return Described(tuple(products), tuple(asides), unstated)


def _owner(item: Mapping[str, object]) -> tuple[str, str]:
    """Property that says which product an item is of, and its value; both empty without one."""
    properties = mapping(item.get("properties"))
    for key, value in (
        ("collection", item.get("collection")),
        *((key, properties.get(key)) for key in ("odc:product", "constellation", "platform")),
    ):
        if value:
            return key, str(value)
    return "", ""


def _described(
    owner: str, documents: Sequence[Document], parameters: IngestParameters, policy: HrefPolicy, *, mixed: bool
) -> tuple[Product | None, Sequence[RejectedScene], bool]:
    key, _ = _owner(documents[0].item)
    if not key:
        raise RejectedError("unknown_sensor", "no collection, constellation or platform tells them from other items")
    stated, whole, found = [], [], Found()
    for document in documents:
        try:
            stated.append(stated_bands(document.item))
            whole.append(document)
        except RejectedError as error:
            found.rejected.append(RejectedScene(str(document.item.get("id"))[:200], error.reason, error.detail))
    if not stated:
        return None, found.rejected, True
    documents = whole
    counts = Counter(token for one in stated for token in one)
    usual = [token for token, count in counts.items() if count * 2 >= len(documents)]
    first = next((one for one in stated if all(token in one for token in usual)), stated[0])
    wanted, bands = _band_fact(usual, first, documents[0].item)
    if not wanted:
        raise RejectedError("missing_band", "the items hold no asset that is an image (GeoTIFF or JPEG 2000) of a band")
    headers, why = headers_of_item(wanted, first, documents[stated.index(first)], parameters, policy)
    match = {key: re.escape(owner)}
    if mixed and key != "platform":
        named = {str(mapping(document.item.get("properties")).get("platform") or "") for document in documents}
        match["platform"] = "|".join(re.escape(name) for name in sorted(named))
    rule: dict[str, Fact] = {
        "match": Fact(match, f"of {plural(len(documents), 'item')}"),
        "sensor": Fact(_sensor_name(owner), f"a name of its own, after {key} {owner!r}{_maker(documents[0].item)}"),
        "bands": bands,
    }
    everywhere = [one[token] for one in stated for token in wanted if token in one]
    rule |= _value_facts(everywhere, headers, why)
    rule |= _mask_facts(documents, rule["units"])
    gsd_m = {token: first[token].band.gsd_m or (headers[token].gsd_m if token in headers else 0.0) for token in wanted}
    if not all(gsd_m.values()):
        missing = next(token for token, gsd in gsd_m.items() if not gsd)
        raise RejectedError("no_crs", f"asset {missing!r} states no pixel size, and its file {why or 'was not opened'}")
    names = _names(bands, wanted)
    described = {
        token: replace(first[token].band, name=name, gsd_m=round(gsd_m[token], 4)) for token, name in names.items()
    }
    sensor = Sensor(
        _sensor_name(owner),
        owner,
        min(band.gsd_m for band in described.values()),
        tuple(described.values()),
        Encoding("uint16", 1e-4, -0.1, 0, Units.REFLECTANCE),
    )
    has_grid = all(one.has_grid for one in everywhere)
    profile = {
        "name": sensor.id, "match": match, "sensor": sensor.id, "scale": 1.0, "offset": 0.0,
        "bands": {name: token for token, name in names.items()},
    }  # fmt: skip
    update = {"stac_profiles": [profile], "probe": "none" if has_grid else "all"}
    reading = IngestParameters.model_validate({**parameters.model_dump(), **update})
    # The stage's own reader makes scenes of them, whatever their units may be.
    sensors = SensorTable({**known_sensors(), sensor.id: sensor})
    read_items(documents if has_grid else documents[:_PROBED], reading, sensors, policy, found)
    if not found.scenes:
        return None, found.rejected, has_grid
    title = f"{owner}, {plural(len(described), 'band')}"
    product = product_of(_sensor_name(owner), title, rule, found.scenes, described=described, opened=len(headers))
    return product, found.rejected, has_grid


def _names(bands: Fact, wanted: Sequence[str]) -> dict[str, str]:
    """Name of each band by its token; where names are asked, the tokens stand for them."""
    if isinstance(bands.value, Mapping):
        return {str(token): str(name) for token, name in bands.value.items()}
    return {token: token for token in wanted}


def _band_fact(
    tokens: Sequence[str], stated: Mapping[str, StatedBand], item: Mapping[str, object]
) -> tuple[list[str], Fact]:
    """Choose the bands of an image: by wavelength or, of radar, by polarisation; asked where neither is stated."""
    there = [token for token in tokens if token in stated]
    radar = any(str(key).startswith("sar:") for key in mapping(item.get("properties")))
    light = [t for t in there if 0 < stated[t].band.center_wavelength_nm < _THERMAL_NM]
    beams = [t for t in there if stated[t].band.name.lower() in _POLARISATIONS]
    wanted = beams if radar and beams else light
    coarse = max((stated[token].band.gsd_m for token in wanted), default=0.0)
    sharp = [t for t in wanted if stated[t].band.common_name == "pan" and stated[t].band.gsd_m < coarse]
    wanted = [token for token in wanted if token not in sharp]
    if not wanted:
        words = {token: _common_in(stated[token].band.name) for token in there}
        perhaps = {token: word for token, word in words.items() if word} or {t: stated[t].band.name for t in there}
        return there, asked("the items state no wavelength and no common name of a band", perhaps)
    names = Counter(stated[token].band.name for token in wanted)
    if (twice := next((name for name, count in names.items() if count > 1), None)) is not None:
        both = [token for token in wanted if stated[token].band.name == twice]
        asset = both[0].rpartition(":")[0] or both[0]
        perhaps = {t: stated[t].band.name for t in wanted if t.startswith(asset)}
        return wanted, asked(f"band {twice!r} stands in {' and in '.join(both)}: which is meant is not stated", perhaps)
    left = [stated[token].band.name for token in there if token not in wanted]
    by = "polarisations of the items" if wanted is beams else "names and wavelengths of the items' bands"
    told = f"; left out, without a wavelength of light: {', '.join(left[:6])}{' …' if len(left) > 6 else ''}"
    return wanted, Fact({token: stated[token].band.name for token in wanted}, by + (told if left else ""))


def _common_in(name: str) -> str:
    return next((word for word in re.split(r"[^a-z0-9]+", name.lower()) if word in COMMON_NAMES), "")


def _value_facts(bands: Sequence[StatedBand], headers: Mapping[str, RasterHeader], why: str) -> dict[str, Fact]:
    """Decide units, scale, offset and nodata by what every band of every item states."""
    scales = {factor_of(one.fields, "scale") for one in bands}
    offsets = {factor_of(one.fields, "offset") for one in bands}
    stored = {token: header.dtype for token, header in headers.items()}
    types = {str(stored.get(one.token) or one.fields.get("data_type") or "") for one in bands} - {""}
    tags = {
        (header.scales[_index(token, header)], header.offsets[_index(token, header)])
        for token, header in headers.items()
    }
    is_float = bool(types) and all(kind.startswith("float") for kind in types)
    shown = f"{', '.join(sorted(types)) or 'numbers of a type that is not stated'}{_seen(bands)}"
    rule: dict[str, Fact] = {}
    told_nothing = scales <= {None, 1.0} and offsets <= {None, 0.0} and not is_float
    if None not in scales and not told_nothing:
        rule["scale"] = Fact(OF_ITEMS, f"items state {_listed(scales)}")
        said = _listed(offsets - {None}) if offsets != {None} else "none beside their scale, which is 0"
        rule["offset"] = Fact(OF_ITEMS, f"items state {said}")
    elif len(tags) == 1 and tags != {(1.0, 0.0)} and scales <= {None, 1.0}:
        scale, offset = next(iter(tags))
        rule["scale"] = Fact(scale, "tagged in the files of an item that was opened")
        rule["offset"] = Fact(offset, "tagged likewise")
    elif types == {"uint8"}:
        rule["scale"] = Fact(1 / 255, f"full scale of 8 bits; {shown}")
        rule["offset"] = Fact(0.0, "full scale of 8 bits")
    elif is_float:
        rule["scale"], rule["offset"] = Fact(1.0, "floats are what they say"), Fact(0.0, "floats are what they say")
    else:
        some = ", and only some items state one" if None in scales and len(scales) > 1 else ""
        missing = f"{shown}: no scale is stated{some}" + (f"; a file {why}" if why else "")
        rule["scale"], rule["offset"] = asked(missing), asked(missing, 0.0)
    rule["units"] = _units(bands, types, shown)
    declared = {nodata_of(one.fields.get("nodata")) for one in bands}
    read = {header.nodata[_index(token, header)] for token, header in headers.items()}
    if None not in declared:
        rule["nodata"] = Fact("file", f"items state {_listed(declared)}")
    elif read and None not in read:
        rule["nodata"] = Fact("file", f"declared in the files: {_listed(read)}")
    elif is_float:
        rule["nodata"] = Fact("nan", "floats: what is not finite is not seen")
    else:
        rule["nodata"] = asked("neither items nor files declare which number stands for nothing seen", 0)
    return rule


def _units(bands: Sequence[StatedBand], types: set[str], shown: str) -> Fact:
    words = {str(one.fields.get("unit") or "").strip().lower() for one in bands}
    if words == {"db"}:
        return Fact(Units.BACKSCATTER_DB.value, "items state the unit dB")
    if words == {"reflectance"} or all("reflectance" in one.roles for one in bands):
        return Fact(Units.REFLECTANCE.value, "items say reflectance")
    if types == {"uint8"} and words <= {"", "dn", "1"}:
        return Fact(Units.DN.value, "8 bits: uncalibrated numbers, read as 0-1 of the full scale")
    said = f"; items state the unit {', '.join(sorted(words - {''}))}" if words - {""} else ""
    radar = all(one.band.name.lower() in _POLARISATIONS for one in bands)
    return asked(f"{shown}: units are not said{said}", "backscatter_linear" if radar else "reflectance")


def _seen(bands: Sequence[StatedBand]) -> str:
    """Range of values as `statistics` of the items have it; empty without."""
    found = [mapping(one.fields.get("statistics")) for one in bands]
    low = [value for one in found if (value := number(one.get("minimum"))) is not None]
    high = [value for one in found if (value := number(one.get("maximum"))) is not None]
    return f", {min(low):.4g} to {max(high):.4g}" if low and high else ""


def _index(token: str, header: RasterHeader) -> int:
    """Place of a band in its file, from 0."""
    number_text = token.rpartition(":")[2]
    return min(int(number_text) - 1, header.count - 1) if number_text.isdigit() and ":" in token else 0


def _listed(values: Iterable[float | None]) -> str:
    found = sorted(value for value in values if value is not None)
    return ", ".join(f"{value:g}" for value in found[:4]) + (" …" if len(found) > 4 else "")


def _mask_facts(documents: Sequence[Document], units: Fact) -> dict[str, Fact]:
    """Say which asset is the cloud mask and how it is read, or how clouds are told without one."""
    counts: Counter[str] = Counter()
    for document in documents:
        for key, value in mapping(document.item.get("assets")).items():
            asset = mapping(value)
            roles = frozenset(str(role) for role in sequence(asset.get("roles")))
            if is_raster(asset) and not is_picture(str(key), asset) and is_mask(str(key), roles):
                counts[str(key)] += 1
    clouds = [key for key in counts if counts[key] * 2 >= len(documents)]
    known = [key for key in clouds if key.lower() in MASK_KINDS]
    if known:
        kind = MASK_KINDS[known[0].lower()].value
        return {"mask": Fact({"kind": kind, "asset": known[0]}, f"asset {known[0]!r}, as others have it by this name")}
    if clouds:
        others = f" (others: {', '.join(clouds[1:4])})" if clouds[1:] else ""
        where = {"kind": "binary", "asset": clouds[0]}
        return {"mask": asked(f"asset {clouds[0]!r}{others} looks like a mask; its numbers are not explained", where)}
    if units.known:
        test = "brightness" if units.value == Units.REFLECTANCE.value else "none"
        return {"cloud_test": Fact(test, "the items have no mask")}
    why = "the items have no mask: brightness finds clouds of reflectance, none looks for none"
    return {"cloud_test": asked(why, "brightness")}


def _sensor_name(owner: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", owner.lower()).strip("-")[:60] or "items"
    return f"{name}-items" if name in known_sensors() else name


def _maker(item: Mapping[str, object]) -> str:
    properties = mapping(item.get("properties"))
    told = [str(properties.get("platform") or ""), *(str(one) for one in sequence(properties.get("instruments")))]
    shown = ", ".join(word for word in told if word)
    return f" ({shown})" if shown else ""


def product_of(
    name: str,
    title: str,
    rule: Mapping[str, Fact],
    scenes: Sequence[Scene],
    *,
    described: Mapping[str, Band] | None = None,
    opened: int = 0,
) -> Product:
    """Put a product together from the scenes that its items make.

    Args:
        name: Of the product.
        title: In words.
        rule: What is known.
        scenes: At least one.
        described: Bands as the items describe them, by key of `bands`, where no built-in sensor does.
        opened: Files that were looked into.
    """
    bands = [asset for scene in scenes for asset in scene.assets if asset.role is Role.DATA]
    return Product(
        name=name,
        title=title,
        rule=rule,
        paths=tuple(sorted({asset.href for asset in bands})),
        scenes=len(scenes),
        dates=tuple(sorted({f"{scene.datetime:%Y-%m-%d}" for scene in scenes})),
        gsd_m=min(asset.gsd_m for asset in bands),
        side_m=min(side_m(bounds_lonlat(scene.geometry)) for scene in scenes),
        outlines=tuple((scene.geometry, f"{scene.datetime:%Y-%m-%d}") for scene in scenes),
        opened=opened,
        band_count=len({asset.band for asset in bands}),
        darkest=None,
        described=described or {},
    )


def side_m(bounds: Sequence[float]) -> float:
    """Return the shorter side of a box of degrees, metres.

    Args:
        bounds: West, south, east, north; across the date line west is larger than east.
    """
    west, south, east, north = bounds
    across = (east - west + (0 if west < east else 360)) * _M_PER_DEGREE * math.cos(math.radians((south + north) / 2))
    return min(across, (north - south) * _M_PER_DEGREE)

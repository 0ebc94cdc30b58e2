"""Deliveries that are recognised by their names: what a provider documents of them is sure, if the files agree.

Names, scales, offsets and masks: Landsat Collection 2 (USGS product guides LSDS-1618, LSDS-1619), HLS v2.0 user guide,
HyP3 RTC product guide (ASF), OPERA RTC-S1 product specification (JPL), Planet's analytic product specification, NAIP's
naming (USDA), MOD09 user guide and VIIRS surface reflectance user guide (NASA; scale 0.0001, fill -28672).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from a2mae.errors import plural
from a2mae.sensors import Units
from a2mae.stssd.recognise.facts import Aside, Fact, Product, asked
from a2mae.stssd.recognise.look import Glimpse, Listing, look_into, spread_over
from a2mae.stssd.recognise.measure import day_of, factor_facts, nodata_fact, product_from

_ANY = r"(?:.*/)?"
_TIF = r"\.(?i:tiff?)"
_LOOKED = 8


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What a provider hands out.

    Attributes:
        name: Of the rule.
        title: In words, with who documents it.
        regex: Paths of its bands; `scene`, `date` and `band` are fields.
        others: Paths of everything else that comes with it.
        sensor: Id.
        bands: Band word -> band, or bands in the order of the file.
        date_format: Of the `date` field.
        units: Of the decoded values.
        factors: Scale and offset of its integers; None where its files tell them.
        nodata: As a rule says it.
        mask: As a rule says it; with `token` or `file` only where that is there.
        landsat_mtl: File beside the bands, used where every scene has it.
    """

    name: str
    title: str
    regex: str
    others: str
    sensor: str
    bands: Mapping[str, str] | tuple[str, ...]
    date_format: str
    units: Units = Units.REFLECTANCE
    factors: tuple[float, float] = (1e-4, 0.0)
    nodata: float | str = 0
    mask: Mapping[str, object] | None = None
    landsat_mtl: str | None = None


def _landsat(code: str, family: str, bands: Sequence[int]) -> Delivery:
    ident = rf"{code}_L2S[PR]_\d{{6}}_(?P<date>\d{{8}})_\d{{8}}_02_(?:T1|T2|RT)"
    return Delivery(
        name=f"landsat-{family}-c2-l2",
        title="Landsat Collection 2 Level 2 (USGS)",
        regex=rf"{_ANY}(?P<scene>{ident})_(?P<band>SR_B[1-7]|QA_PIXEL){_TIF}",
        others=rf"{_ANY}{re.sub('[?]P<date>', '?:', ident)}_.*",
        sensor=f"landsat-{family}-c2-l2",
        bands={f"SR_B{k}": f"SR_B{k}" for k in bands},
        date_format="%Y%m%d",
        factors=(2.75e-5, -0.2),
        mask={"kind": "qa_pixel", "token": "QA_PIXEL"},
        landsat_mtl="{scene}_MTL.txt",
    )


def _hls(kind: str, bands: Sequence[str]) -> Delivery:
    ident = rf"HLS\.{kind}\.T\w{{5}}\.(?P<date>\d{{7}}T\d{{6}})\.v\d\.\d"
    return Delivery(
        name=f"hls-{kind.lower()}",
        title=f"HLS {kind} (NASA)",
        regex=rf"{_ANY}(?P<scene>{ident})\.(?P<band>{'|'.join(bands)}|Fmask){_TIF}",
        others=rf"{_ANY}{re.sub('[?]P<date>', '?:', ident)}\..*",
        sensor=f"hls-{kind.lower()}",
        bands={band: band for band in bands},
        date_format="%Y%jT%H%M%S",
        nodata=-9999,
        mask={"kind": "hls_fmask", "token": "Fmask"},
    )


_PLANET = r"(?P<scene>(?P<date>\d{8}_\d{6})_\w+?)_3B_AnalyticMS_SR"


def _planet(name: str, bands: tuple[str, ...], middle: str) -> Delivery:
    return Delivery(
        name=name,
        title="PlanetScope surface reflectance (Planet)",
        regex=rf"{_ANY}{_PLANET}{middle}(?P<clip>(?:_clip)?){_TIF}",
        others=rf"{_ANY}\d{{8}}_\d{{6}}_\w+?_(?:3B_\w+|metadata)\.\w+",
        sensor=name,
        bands=bands,
        date_format="%Y%m%d_%H%M%S",
        mask={"kind": "clear", "file": "{scene}_3B_udm2{clip}.tif", "band_index": 1},
    )


def _rtc(name: str, title: str, scene: str, units: Units) -> Delivery:
    """Sentinel-1, terrain-corrected: a file per polarisation; what is named as its scene and is none lies beside it."""
    return Delivery(
        name=name,
        title=title,
        regex=rf"{_ANY}(?P<scene>{scene})_(?P<band>VV|VH){_TIF}",
        others=rf"{_ANY}{re.sub('[?]P<date>', '?:', scene)}.*",
        sensor="sentinel-1-rtc",
        bands={"VV": "vv", "VH": "vh"},
        date_format="%Y%m%dT%H%M%S",
        units=units,
        factors=(1.0, 0.0),
        nodata="file",
    )


def _hyp3(letter: str, units: Units) -> Delivery:
    scene = rf"S1[ABC]_(?:IW|EW|S\d)_(?P<date>\d{{8}}T\d{{6}})_[DS][VH][PRO]_RTC\d\d_G_g{letter}\w{{4}}_[0-9A-F]{{4}}"
    return _rtc("sentinel-1-rtc-hyp3", "Sentinel-1 RTC of HyP3, gamma nought (ASF)", scene, units)


_OPERA = r"OPERA_L2_RTC-S1_T\d{3}-\d{6}-IW\d_(?P<date>\d{8}T\d{6})Z_\d{8}T\d{6}Z_S1[ABC]_\d+_v\d\.\d"


def _appeears(name: str, title: str, products: str, bands: Mapping[str, str]) -> Delivery:
    """Surface reflectance of MODIS and VIIRS as AppEEARS writes it: a GeoTIFF per band, in counts of 1/10,000."""
    scene = rf"(?:{products})\.\d{{3}}"
    return Delivery(
        name=name,
        title=title,
        regex=rf"{_ANY}(?P<scene>{scene})_(?P<band>{'|'.join(bands)})_doy(?P<date>\d{{7}})(?:\d{{6}})?_(?P<area>aid\d+){_TIF}",
        others=rf"{_ANY}{scene}[_-].*",
        sensor=name,
        bands=bands,
        date_format="%Y%j",
        nodata=-28672,
    )


DELIVERIES: tuple[Delivery, ...] = (
    _landsat("LC0[89]", "oli", range(1, 8)),
    _landsat("LE07", "etm", (1, 2, 3, 4, 5, 7)),
    _landsat("LT0[45]", "tm", (1, 2, 3, 4, 5, 7)),
    _hls("L30", ("B01", "B02", "B03", "B04", "B05", "B06", "B07")),
    _hls("S30", ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")),
    _hyp3("p", Units.BACKSCATTER_LINEAR),
    _hyp3("d", Units.BACKSCATTER_DB),
    _rtc("sentinel-1-rtc-opera", "Sentinel-1 RTC of OPERA, gamma nought (JPL)", _OPERA, Units.BACKSCATTER_LINEAR),
    _planet("planetscope-4b", ("blue", "green", "red", "nir"), "(?:_harmonized)?"),
    _planet(
        "planetscope-8b",
        ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
        "(?:_harmonized)?_8b(?:_harmonized)?",
    ),
    _appeears(
        "modis-500m",
        "MODIS surface reflectance, exported by AppEEARS (NASA)",
        "M[OY]D09(?:A1|GA)",
        {f"sur_refl_b0{k}{one}": f"b0{k}" for k in range(1, 8) for one in ("", "_1")},
    ),
    _appeears(
        "viirs-500m",
        "VIIRS surface reflectance, exported by AppEEARS (NASA)",
        "V(?:NP|J1)09(?:H1|GA)",
        {f"SurfReflect_I{k}{one}": f"I{k}" for k in (1, 2, 3) for one in ("", "_1")},
    ),
    Delivery(
        name="naip",
        title="NAIP (USDA)",
        regex=rf"{_ANY}m_\d{{7}}_(?:ne|nw|se|sw)_\d\d?_\w+?_(?P<date>\d{{8}})(?:_\w+)?{_TIF}",
        others=rf"{_ANY}m_\d{{7}}_(?:ne|nw|se|sw)_\d\d?_.*\.(?:txt|xml|jgw|tfw|aux\.xml)",
        sensor="naip",
        bands=("B3", "B2", "B1", "B4"),
        date_format="%Y%m%d",
        units=Units.DN,
        factors=(1 / 255, 0.0),
        nodata="file",
    ),
)


@dataclass
class Claimed:
    """What a recogniser has found.

    Attributes:
        products: Of a provider.
        asides: What else came with them.
        names: Every path that is settled.
        unusable: What looks like a scene and cannot be read.
        notes: What else is to be said.
        unplaced: Rasters of which none says where it lies, where there are no others.
    """

    products: list[Product] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    unusable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)


def recognise_deliveries(listing: Listing, rest: Collection[str], found: Claimed) -> None:
    """Find deliveries of known providers among the files that nobody has claimed.

    Args:
        listing: The folder.
        rest: Paths that are not claimed.
        found: Takes what is found.
    """
    for delivery in DELIVERIES:
        left = [name for name in rest if name not in found.names]
        pattern = re.compile(delivery.regex)
        matches = {name: match for name in left if (match := pattern.fullmatch(name))}
        if not matches:
            continue
        scenes = scenes_of(matches)
        tokens, mask_there = _tokens(delivery, scenes, frozenset(listing.names))
        if isinstance(delivery.bands, Mapping) and not tokens:
            continue
        looked, why = _look(listing, delivery, scenes, tokens)
        found.names.update(matches)
        found.unusable |= why
        if not looked:
            continue
        product = _product(delivery, matches, tokens, mask_there, looked, names=frozenset(listing.names))
        found.products.append(product)
        aside(delivery.regex, delivery.others, f"comes with {delivery.title}, and holds no band of it", left, found)


def scenes_of(matches: Mapping[str, re.Match[str]]) -> dict[tuple[object, ...], dict[str, str]]:
    """Group the matches of a rule into scenes as ingest does: by folder and every field but `band`."""
    scenes: dict[tuple[object, ...], dict[str, str]] = defaultdict(dict)
    for name, match in matches.items():
        fields = {key: value for key, value in match.groupdict().items() if value is not None}
        token = fields.pop("band", name)
        scenes[name.rpartition("/")[0], *(sorted(fields.items()) if "band" in match.groupdict() else [name])][token] = (
            name
        )
    return scenes


def aside(rule: str, others: str, why: str, names: Collection[str], found: Claimed) -> None:
    """Set aside what comes with a product and is none of its bands."""
    regex = f"(?!{rule}$){others}"
    pattern = re.compile(regex)
    hits = [name for name in names if name not in found.names and pattern.fullmatch(name)]
    if hits:
        found.asides.append(Aside(("regex", regex), why, len(hits)))
        found.names.update(hits)


def _tokens(
    delivery: Delivery, scenes: Mapping[tuple[object, ...], Mapping[str, str]], names: frozenset[str]
) -> tuple[list[str], bool]:
    """Band words that most scenes have, and whether all have the mask."""
    mask = delivery.mask or {}
    counts = Counter(token for scene in scenes.values() for token in scene)
    if isinstance(delivery.bands, Mapping):
        there = [token for token in delivery.bands if counts[token] * 2 >= len(scenes)]
        return there, "token" in mask and counts[str(mask["token"])] == len(scenes)
    if "file" not in mask:
        return [], False
    pattern = re.compile(delivery.regex)
    beside = []
    for scene in scenes.values():
        for name in scene.values():
            match = pattern.fullmatch(name)
            assert match is not None
            text = str(mask["file"])
            for key, value in match.groupdict().items():
                text = text.replace("{" + key + "}", value or "")
            beside.append(f"{name.rpartition('/')[0]}/{text}".lstrip("/"))
    return [], all(name in names for name in beside)


def _look(
    listing: Listing, delivery: Delivery, scenes: Mapping[tuple[object, ...], Mapping[str, str]], tokens: Sequence[str]
) -> tuple[list[Glimpse], dict[str, str]]:
    """Look into a band of some scenes, and into all bands of one."""
    chosen = [tokens[len(tokens) // 2]] if tokens else []
    some = spread_over(list(scenes), _LOOKED)
    names = [name for key in some for token, name in scenes[key].items() if not chosen or token in chosen]
    names += [scenes[some[0]][token] for token in tokens if token in scenes[some[0]]]
    seen, why = look_into(listing.root, list(dict.fromkeys(names)))
    return list(seen.values()), why


def _product(
    delivery: Delivery,
    matches: Mapping[str, re.Match[str]],
    tokens: Sequence[str],
    mask_there: bool,
    looked: Sequence[Glimpse],
    *,
    names: frozenset[str],
) -> Product:
    scenes = scenes_of(matches)
    by_name = f"named as {delivery.title} names its files"
    rule: dict[str, Fact] = {"regex": Fact(delivery.regex, by_name)}
    rule["sensor"] = Fact(delivery.sensor, by_name)
    if isinstance(delivery.bands, Mapping):
        rule["bands"] = Fact({token: delivery.bands[token] for token in tokens}, "the band's word in each name")
    else:
        counts = {glimpse.header.count for glimpse in looked}
        if counts == {len(delivery.bands)}:
            rule["bands"] = Fact(list(delivery.bands), f"{by_name}; its order, and {len(delivery.bands)} bands")
        else:
            rule["bands"] = asked(
                f"{delivery.title} has {plural(len(delivery.bands), 'band')}, these files have"
                f" {' or '.join(map(str, sorted(counts)))}"
            )
    rule["units"] = Fact(delivery.units.value, f"documented for {delivery.title}")
    mtl = delivery.landsat_mtl
    if mtl and all(_beside(scene, mtl, matches) in names for scene in scenes.values()):
        rule["landsat_mtl"] = Fact(mtl, "beside the bands: date, scale and offset")
    else:
        rule["date_format"] = Fact(delivery.date_format, "date in the names, as its provider writes it")
        rule |= factor_facts(delivery.factors, delivery.units, looked, f"documented for {delivery.title}")
    rule["nodata"] = nodata_fact(delivery.nodata, looked, f"documented for {delivery.title}")
    if mask_there and delivery.mask is not None:
        rule["mask"] = Fact(dict(delivery.mask), "there for every scene")
    elif delivery.units is Units.REFLECTANCE:
        rule["cloud_test"] = Fact("brightness", "no cloud mask for every scene: clouds are told by brightness")
    days = {name: day_of(match["date"], delivery.date_format) for name, match in matches.items()}
    return product_from(delivery.name, delivery.title, rule, days, looked, scenes=len(scenes))


def _beside(scene: Mapping[str, str], template: str, matches: Mapping[str, re.Match[str]]) -> str:
    name = next(iter(scene.values()))
    text = template.replace("{scene}", matches[name]["scene"])
    return f"{name.rpartition('/')[0]}/{text}".lstrip("/")

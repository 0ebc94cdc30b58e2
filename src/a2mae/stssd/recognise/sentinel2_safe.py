"""Recognise Sentinel-2 products as ESA hands them out: `.SAFE` folders, whose XML says baseline, scale and offset.

Names and XML: Sentinel-2 Products Specification Document (product naming; `MTD_MSIL1C` and `MTD_MSIL2A`).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass

from a2mae.errors import plural
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.recognise.deliveries import Claimed, aside
from a2mae.stssd.recognise.facts import Fact, asked
from a2mae.stssd.recognise.look import Listing, look_into, spread_over
from a2mae.stssd.recognise.measure import day_of, product_from

_PRODUCT = re.compile(
    r"(?P<above>(?:.*/)?)(?P<name>S2[ABCD]_MSI(?P<level>L1C|L2A)_\d{8}T\d{6}_N(?P<baseline>\d{4})_R\d{3}_T\w{5}_\d{8}T\d{6})\.SAFE/"
)
_XML_BYTES = 5_000_000
_LOOKED = 4
_FORMAT = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, order=True)
class _Meaning:
    """What the XML of a product says of its counts.

    Attributes:
        level: `L1C` or `L2A`.
        named: Baseline in the product's name, four digits.
        baseline: NN.NN as the XML, or else the name, has it.
        scale: Reflectance per count; NaN where bands differ.
        offset: Reflectance of a stored zero, likewise.
        source: Where that stands.
    """

    level: str
    named: str
    baseline: str
    scale: float | None
    offset: float | None
    source: str


def recognise_safe(listing: Listing, found: Claimed) -> None:
    """Find `.SAFE` products.

    Args:
        listing: The folder.
        found: Takes what is found.
    """
    folders: dict[str, re.Match[str]] = {}
    files: dict[str, list[str]] = defaultdict(list)
    for name in listing.names:
        match = _PRODUCT.match(name)
        if match:
            folders[match[0]] = match
            files[match[0]].append(name)
    groups: dict[_Meaning, list[str]] = defaultdict(list)
    for folder, match in folders.items():
        groups[_meaning(listing, folder, match)].append(folder)
    for meaning in sorted(groups, key=lambda m: (m.level, m.named, m.baseline, str(m.offset))):
        _recognise(listing, meaning, {folder: files[folder] for folder in groups[meaning]}, found)
    if folders:
        pattern = r"(?:.*/)?S2[ABCD]_MSIL[12][AC]_\w+\.SAFE/.*"
        bands = "|".join(str(product.rule["regex"].value) for product in found.products)
        aside(
            _without_names(f"(?:{bands})"),
            pattern,
            "metadata, previews and other layers of .SAFE",
            listing.names,
            found,
        )


def _without_names(regex: str) -> str:
    """A regular expression whose fields are not captured: several stand in one."""
    return re.sub(r"\?P<\w+>", "?:", regex)


def _meaning(listing: Listing, folder: str, match: re.Match[str]) -> _Meaning:
    level, named = match["level"], match["baseline"]
    path = listing.root / folder / f"MTD_MSI{level}.xml"
    by_name = f"{named[:2]}.{named[2:]}"
    if not path.is_file():
        offset = -0.1 if named >= "0400" else 0.0
        return _Meaning(level, named, by_name, 1e-4, offset, f"baseline {by_name} in the names, without {path.name}")
    with path.open("rb") as file:
        text = file.read(_XML_BYTES).decode("utf-8", "replace")
    baseline = _first(r"<PROCESSING_BASELINE>\s*(\d\d\.\d\d)\s*<", text) or by_name
    quantification = _numbers(r"<(?:BOA_|)QUANTIFICATION_VALUE[^>]*>\s*([\d.]+)\s*<", text)
    offsets = _numbers(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?[\d.]+)\s*<", text)
    if len(quantification) != 1 or len(offsets) > 1 or not all(quantification):
        return _Meaning(
            level, named, baseline, None, None, f"{path.name} gives {sorted(quantification)}, {sorted(offsets)}"
        )
    (counts,) = quantification
    offset = next(iter(offsets), 0.0)
    told = f"offset {offset:g} and quantification {counts:g} in {path.name}"
    return _Meaning(level, named, baseline, 1 / counts, offset / counts, told)


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _numbers(pattern: str, text: str) -> set[float]:
    return {float(match) for match in re.findall(pattern, text)}


def _recognise(listing: Listing, meaning: _Meaning, files: dict[str, list[str]], found: Claimed) -> None:
    level = meaning.level
    ident = rf"(?P<scene>S2[ABCD]_MSI{level}_\d{{8}}T\d{{6}}_N{meaning.named}_R\d{{3}}_T\w{{5}}_\d{{8}}T\d{{6}})"
    if sum(1 for product in found.products if f"N{meaning.named}_" in str(product.rule["regex"].value)):
        # Same baseline by name, other offsets by XML: only the names themselves tell them apart.
        ident = (
            "(?P<scene>" + "|".join(sorted(folder.rsplit(".SAFE", 1)[0].rsplit("/", 1)[-1] for folder in files)) + ")"
        )
    inside = r"R\d0m/" if level == "L2A" else ""
    size = r"_\d0m" if level == "L2A" else ""
    token = r"(?P<band>B\d[\dA]|SCL)" if level == "L2A" else r"(?P<band>B\d[\dA])"
    regex = (
        rf"(?:.*/)?{ident}\.SAFE/GRANULE/[^/]+/IMG_DATA/{inside}T\w{{5}}_(?P<date>\d{{8}}T\d{{6}})_{token}{size}\.jp2"
    )
    pattern = re.compile(regex)
    scenes: dict[str, dict[str, list[str]]] = {}
    days: dict[str, str] = {}
    for folder, names in files.items():
        bands: dict[str, list[str]] = defaultdict(list)
        for name in names:
            match = pattern.fullmatch(name)
            if match:
                bands[match["band"]].append(name)
                days[name] = day_of(match["date"], _FORMAT)
        if bands:
            scenes[folder] = bands
    known = BUILTIN_SENSORS[f"sentinel-2-{level.lower()}"]
    tokens = [b for b in known.band_names if sum(b in bands for bands in scenes.values()) * 2 >= len(scenes) > 0]
    found.names.update(days)
    if not tokens:
        found.notes.append(
            f"{plural(len(files), '.SAFE folder')} of {level} without bands where they belong"
            " (GRANULE/*/IMG_DATA): unpack the product as a whole"
        )
        return
    finest = "B02" if "B02" in tokens else tokens[0]
    some = spread_over(list(scenes), _LOOKED)
    looked, why = look_into(listing.root, [min(scenes[folder][finest]) for folder in some if finest in scenes[folder]])
    found.unusable |= why
    if not looked:
        return
    by_name = f"the names of {plural(len(files), '.SAFE folder')}"
    factors = f"baseline {meaning.baseline}, {meaning.source}"
    rule = {
        "regex": Fact(regex, by_name),
        "sensor": Fact(known.id, by_name),
        "bands": Fact({band: band for band in tokens}, "the band's word in each name"),
        "date_format": Fact(_FORMAT, "time of acquisition in the names"),
        "units": Fact("reflectance", f"Sentinel-2 {level}"),
        "scale": asked(factors, 1e-4) if meaning.scale is None else Fact(meaning.scale, factors),
        "offset": asked(factors, -0.1) if meaning.offset is None else Fact(meaning.offset, factors),
        "nodata": Fact(0, "0 is nodata in Sentinel-2's products"),
        "processing_baseline": Fact(meaning.baseline, meaning.source),
    }
    opaque = "../QI_DATA/MSK_CLASSI_B00.jp2"
    if level == "L2A" and all("SCL" in bands for bands in scenes.values()):
        rule["mask"] = Fact({"kind": "scl", "token": "SCL"}, "scene classification beside the bands")
    elif level == "L1C" and all(
        (listing.root / os.path.dirname(next(iter(bands.values()))[0]) / opaque).is_file() for bands in scenes.values()
    ):
        mask = {"kind": "binary", "file": opaque, "band_index": 1}
        rule["mask"] = Fact(mask, "opaque clouds of MSK_CLASSI; thin cirrus is not masked")
    else:
        rule["cloud_test"] = Fact("brightness", "no cloud mask for every scene: clouds are told by brightness")
    name = f"sentinel-2-{level.lower()}-n{meaning.named}"
    title = f"Sentinel-2 {level}, baseline {meaning.baseline} (ESA)"
    found.products.append(product_from(name, title, rule, days, list(looked.values()), scenes=len(scenes)))

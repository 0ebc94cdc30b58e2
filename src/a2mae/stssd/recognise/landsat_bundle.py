"""Recognise Landsat scenes that come with their MTL file: level, edition, date, scale and offset stand in it."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from a2mae.errors import RejectedError
from a2mae.stssd.ingest.landsat_mtl import LandsatMetadata, read_mtl
from a2mae.stssd.recognise.deliveries import Claimed, aside
from a2mae.stssd.recognise.facts import Fact, known_sensors
from a2mae.stssd.recognise.look import Listing, look_into, spread_over
from a2mae.stssd.recognise.measure import product_from

_FAMILIES = {"landsat-4": "tm", "landsat-5": "tm", "landsat-7": "etm", "landsat-8": "oli", "landsat-9": "oli"}
_BAND = r"(?:SR_)?B\d\d?|QA_PIXEL|BQA"
_MASKS = {"02": ("QA_PIXEL", "qa_pixel"), "01": ("BQA", "bqa_c1"), "": ("BQA", "bqa")}
_MOST_SPELLED = 200
_LOOKED = 6


@dataclass(frozen=True)
class _Bundle:
    mtl: str
    metadata: LandsatMetadata
    collection: str
    bands: Mapping[str, str]

    @property
    def kind(self) -> tuple[str, int, str]:
        return _FAMILIES[self.metadata.platform], self.metadata.level, self.collection


def recognise_bundles(listing: Listing, rest: Collection[str], found: Claimed) -> None:
    """Find Landsat scenes with an MTL file among the files that nobody has claimed.

    Args:
        listing: The folder.
        rest: Paths that are not claimed.
        found: Takes what is found.
    """
    groups: dict[tuple[str, int, str], list[_Bundle]] = defaultdict(list)
    left = {name for name in rest if name not in found.names}
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in left:
        by_folder[os.path.dirname(name)].append(name)
    for mtl in sorted(name for name in left if name.upper().endswith("MTL.TXT")):
        stem = mtl[: -len("MTL.txt")]
        bands = {}
        for name in by_folder[os.path.dirname(mtl)]:
            match = re.fullmatch(rf"({_BAND})\.(?i:tiff?)", name[len(stem) :]) if name.startswith(stem) else None
            if match:
                bands[match[1]] = name
        if not bands:
            continue
        try:
            metadata = read_mtl(listing.root / mtl)
        except RejectedError as error:
            found.unusable[mtl] = error.detail
            continue
        if metadata.platform not in _FAMILIES:
            found.notes.append(f"{mtl}: no sensor is known for {metadata.platform or 'its spacecraft'}")
            continue
        bundle = _Bundle(mtl, metadata, _collection(listing, mtl), bands)
        groups[bundle.kind].append(bundle)
    for kind, bundles in sorted(groups.items()):
        _recognise(listing, kind, bundles, left, found)


def _collection(listing: Listing, mtl: str) -> str:
    with (listing.root / mtl).open(encoding="utf-8", errors="replace") as file:
        match = re.search(r"COLLECTION_NUMBER\s*=\s*\"?0?(\d)", file.read(1_000_000))
    return f"0{match[1]}" if match else ""


def _recognise(
    listing: Listing, kind: tuple[str, int, str], bundles: list[_Bundle], left: Collection[str], found: Claimed
) -> None:
    family, level, collection = kind
    sensor = known_sensors()[f"landsat-{family}-c2-l2" if level == 2 else f"landsat-{family}-toa"]
    counts = Counter(token for bundle in bundles for token in bundle.bands)
    bands = {}
    for name in sensor.band_names:
        number = name.removeprefix("SR_B").removeprefix("B")
        fitting = [t for t in (name, f"B{number}") if counts[t] * 2 >= len(bundles)]
        if fitting and number in bundles[0].metadata.reflectance:
            bands[fitting[0]] = name
    if not bands:
        return
    token, mask_kind = _MASKS[collection]
    wanted = [*bands, *([token] if counts[token] == len(bundles) else [])]
    stems = sorted({bundle.mtl[: -len("MTL.txt")].rsplit("/", 1)[-1] for bundle in bundles})
    scene = "|".join(map(re.escape, stems)) if len(stems) <= _MOST_SPELLED else r"[^/]*?"
    regex = rf"(?:.*/)?(?P<scene>{scene})(?P<band>{'|'.join(wanted)})\.(?i:tiff?)"
    pattern = re.compile(regex)
    days: dict[str, str] = {}
    for bundle in bundles:
        day = f"{bundle.metadata.datetime:%Y-%m-%d}"
        days |= {name: day for name in bundle.bands.values() if pattern.fullmatch(name)}
    some = spread_over(bundles, _LOOKED)
    first = next(iter(bands))
    looked, why = look_into(listing.root, [bundle.bands[first] for bundle in some if first in bundle.bands])
    found.names.update(days)
    found.unusable |= why
    if not looked:
        return
    edition = f"Collection {int(collection)}" if collection else "before the collections"
    told = f"MTL file of a level-{level} product, {edition}"
    suffix = {"MTL.txt"} & {bundle.mtl[-len("MTL.txt") :] for bundle in bundles} or {bundles[0].mtl[-len("MTL.txt") :]}
    rule = {
        "regex": Fact(regex, "the names beside the MTL files"),
        "sensor": Fact(sensor.id, f"{bundles[0].metadata.platform}, {told}"),
        "bands": Fact(bands, "the band's word in each name"),
        "landsat_mtl": Fact(
            "{scene}" + suffix.pop(), "date, scale and offset" + ("" if level == 2 else ", corrected for the sun")
        ),
        "units": Fact("reflectance", "REFLECTANCE_MULT and _ADD of the MTL file"),
        "nodata": Fact(0, "0 is fill in Landsat's products"),
    }
    if counts[token] == len(bundles):
        rule["mask"] = Fact({"kind": mask_kind, "token": token}, f"{token} beside the bands; {edition}")
    else:
        rule["cloud_test"] = Fact("brightness", "no quality band for every scene: clouds are told by brightness")
    name = sensor.id if not any(p.name == sensor.id for p in found.products) else f"{sensor.id}-{len(found.products)}"
    title = f"{sensor.title}, {edition} (USGS)"
    found.products.append(product_from(name, title, rule, days, list(looked.values()), scenes=len(bundles)))
    others = rf"(?:.*/)?(?:{scene})(?:MTL\.(?i:txt)|{_BAND}|[A-Za-z_]*)(?:\.\w+)+|(?:.*/)?(?:{scene})MTL\.(?i:txt)"
    aside(regex, f"(?:{others})", "metadata and bands of Landsat that are not used", left, found)

"""Find products whose names no provider has given: dates and bands are found in the names, the rest in the files."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from a2mae.errors import plural
from a2mae.raster.header import NO_CRS
from a2mae.sensors import Units
from a2mae.stssd.recognise import words
from a2mae.stssd.recognise.deliveries import Claimed
from a2mae.stssd.recognise.facts import COMMON_NAMES, Aside, Fact, asked, known_sensors, round_gsd
from a2mae.stssd.recognise.look import MOST_OPENED, RASTERS, Glimpse, Listing, look_into, spread_over
from a2mae.stssd.recognise.measure import (
    day_of,
    factor_facts,
    oli_quality,
    product_from,
    qa_kind,
    sentinel2_offset,
)
from a2mae.stssd.recognise.names import Dated, band_in, dates_in, other_reading, pattern_of, shape_of

_PER_SHAPE = 6
_CLASS_FOLDERS = 3
_SMALL_PX = 512
_MASKS_BELOW = 300  # counts: classes and per cent are, reflectance of a band is not


@dataclass(frozen=True)
class _Name:
    """A path, and what was found in it."""

    path: str
    dates: tuple[Dated, ...]
    band: tuple[int, int] | None

    @property
    def token(self) -> str:
        return "" if self.band is None else self.path[slice(*self.band)]

    @property
    def without_band(self) -> str:
        return self.path if self.band is None else self.path[: self.band[0]] + "{band}" + self.path[self.band[1] :]

    @property
    def shape(self) -> tuple[object, ...]:
        """Names of one shape differ in numbers alone; the words of dates and bands do not count."""
        spans = [(d.start, d.end, "{date}") for d in self.dates] + ([(*self.band, "{band}")] if self.band else [])
        text, at = "", 0
        for start, end, field in sorted(spans):
            text += shape_of(self.path[at:start]) + field
            at = end
        return text + shape_of(self.path[at:]), tuple(d.date_format for d in self.dates)


def recognise_unnamed(listing: Listing, rest: Collection[str], found: Claimed) -> None:
    """Find products among the rasters that nobody has claimed.

    Args:
        listing: The folder.
        rest: Paths that are not claimed.
        found: Takes what is found.
    """
    rasters = sorted(n for n in rest if n not in found.names and n.lower().endswith(RASTERS))
    if not rasters:
        return
    names = _named(rasters)
    shapes: dict[tuple[object, ...], list[_Name]] = defaultdict(list)
    for name in names:
        shapes[name.shape].append(name)
    opened = _open_some(listing, shapes, found)
    groups: dict[tuple[object, ...], list[_Name]] = defaultdict(list)
    unread: Counter[str] = Counter()
    for members in shapes.values():
        looked = [opened[name.path] for name in members if name.path in opened]
        if not looked:
            unread["" if any(name.path in found.unusable for name in members) else members[0].path] += len(members)
            continue
        # Of files of one shape each goes with its like; those that were not opened with the most frequent.
        kinds = {name.path: _kind(listing, name, opened[name.path]) for name in members if name.path in opened}
        usual = Counter(kinds.values()).most_common(1)[0][0]
        for name in members:
            if name.path not in found.unusable:
                groups[kinds.get(name.path, usual)].append(name)
    if not groups and found.unusable and all(why.startswith(NO_CRS) for why in found.unusable.values()):
        found.unplaced = rasters
    folders = {os.path.dirname(name.path) for name in names}
    if not groups and len(folders) >= _CLASS_FOLDERS and len(names) >= 2 * len(folders):
        found.notes.append(
            f"images in {plural(len(folders), 'folder')}, none with a place on Earth: data of a task whose classes are"
            " the folders' names look like this: a2mae labels PATH"
        )
    left = {path for path in unread if path}
    if left:
        found.notes.append(
            f"{plural(sum(unread[p] for p in left), 'file')} of too many kinds of names were not looked into, the first"
            f" {min(left)}: no rule is proposed for them"
        )
    for members in sorted(groups.values(), key=lambda members: members[0].path):
        _recognise(listing, members, opened, rasters, found)


def _named(rasters: Sequence[str]) -> list[_Name]:
    """Find dates and bands; a word that names a band is one only where other files differ from this one by it alone."""
    names = [_Name(path, tuple(dates_in(path)), band_in(path)) for path in rasters]
    together = Counter(name.without_band for name in names if name.band)
    return [n if n.band is None or together[n.without_band] > 1 else _Name(n.path, n.dates, None) for n in names]


def _open_some(
    listing: Listing, shapes: Mapping[tuple[object, ...], Sequence[_Name]], found: Claimed
) -> dict[str, Glimpse]:
    """Look into some files of every shape: of those of one band each into every band of the first scenes."""
    chosen: list[str] = []
    for members in shapes.values():
        if members[0].band is None:
            chosen += [name.path for name in spread_over(members, _PER_SHAPE)]
            continue
        scenes = sorted({name.without_band for name in members})
        first = set(spread_over(scenes, 2))
        chosen += [name.path for name in members if name.without_band in first]
    if len(chosen) > MOST_OPENED:
        chosen = spread_over(chosen, MOST_OPENED)
    seen, why = look_into(listing.root, chosen)
    found.unusable |= why
    total = sum(len(members) for members in shapes.values())
    if len(chosen) < total:
        found.notes.append(f"{len(chosen)} of {plural(total, 'raster')} were looked into; ingest opens every one")
    return seen


def _kind(listing: Listing, name: _Name, glimpse: Glimpse) -> tuple[object, ...]:
    """What files of one product have in common."""
    header = glimpse.header
    formats = tuple(dated.date_format for dated in name.dates)
    if name.band is not None and header.count == 1:
        return "bands", shape_of(name.without_band), formats
    hint = words.hint_of(f"{listing.root.name}/{name.path}", " ".join(glimpse.tags.values()))
    labels = bool(words.looks_like_labels(name.path, glimpse))
    gsd = round_gsd(header.gsd_m)
    return hint, labels, header.count, header.dtype, gsd, header.descriptions, formats


def _recognise(
    listing: Listing, members: Sequence[_Name], opened: Mapping[str, Glimpse], rasters: Sequence[str], found: Claimed
) -> None:
    looked = [opened[name.path] for name in members if name.path in opened]
    paths = [name.path for name in members]
    found.names.update(paths)
    why = "" if members[0].band else words.looks_like_labels(looked[0].path, looked[0])
    if why:
        _set_aside(members, rasters, f"{why}; labels are for a task: a2mae labels FILE", found)
        return
    folders = _class_folders(listing, members, looked)
    if folders:
        _set_aside(
            members,
            rasters,
            f"images of {plural(len(folders), 'class folder')} without dates: data of a task: a2mae labels PATH",
            found,
        )
        return
    scenes: dict[str, list[_Name]] = defaultdict(list)
    for name in members:
        scenes[name.without_band].append(name)
    rule: dict[str, Fact] = {}
    hint = words.hint_of(f"{listing.root.name}/{members[0].path}", " ".join(looked[0].tags.values()))
    if members[0].band is not None:
        looked, unused = _facts_of_band_files(hint, scenes, opened, rule)
        if unused:
            _set_aside(unused, rasters, "bands that the rule does not use", found)
            aside = {name.path for name in unused}
            members = [name for name in members if name.path not in aside]
            rasters = [path for path in rasters if path not in aside]
    else:
        _facts_of_whole_files(hint, looked, rule)
    dated = _date_facts(members, rule)
    paths = [name.path for name in members]
    own = frozenset(paths)
    others = [path for path in rasters if path not in own]
    spans = {n.path: (n.dates[dated].start, n.dates[dated].end) if dated is not None else None for n in members}
    kind, text = pattern_of(paths, others, spans.__getitem__, {n.path: n.band for n in members}.__getitem__)
    rule = {kind: Fact(text, f"what the names of {plural(len(paths), 'file')} have in common"), **rule}
    if hint.platform:
        rule["platform"] = Fact(hint.platform, f"{hint.word!r} in its path")
    days = {n.path: day_of(_text(n, dated), n.dates[dated].date_format) if dated is not None else "" for n in members}
    title, more = _rule_name(text, hint), 2
    taken = {product.name for product in found.products}
    while title in taken:
        title, more = f"{_rule_name(text, hint)}-{more}", more + 1
    found.products.append(
        product_from(
            title, _title(hint, looked[0]), rule, days, looked, scenes=len(scenes), darkest=_darkest(looked, None)
        )
    )


def _text(name: _Name, dated: int) -> str:
    return name.path[name.dates[dated].start : name.dates[dated].end]


def _rule_name(pattern: str, hint: words.Hint) -> str:
    stem = os.path.splitext(pattern.rsplit("/", 1)[-1])[0] if not pattern.startswith("(?:") else ""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\{\w+\}", "", stem).lower()).strip("-")
    return (plain or hint.family or "scenes")[:40].strip("-")


def _title(hint: words.Hint, glimpse: Glimpse) -> str:
    header = glimpse.header
    return f"{hint.family or 'unknown sensor'}, {plural(header.count, 'band')} of {header.dtype}"


def _set_aside(members: Sequence[_Name], rasters: Sequence[str], why: str, found: Claimed) -> None:
    paths = {name.path for name in members}
    others = [path for path in rasters if path not in paths]
    found.asides.append(Aside(pattern_of(sorted(paths), others, lambda _: None, lambda _: None), why, len(paths)))


def _class_folders(listing: Listing, members: Sequence[_Name], looked: Sequence[Glimpse]) -> list[str]:
    """Folders of small images without dates whose names begin as their folder does: classes of a data set."""
    if any(name.dates for name in members) or max(max(glimpse.header.shape) for glimpse in looked) > _SMALL_PX:
        return []
    folders = {os.path.dirname(name.path) for name in members}
    named = {folder for folder in folders if folder}
    return sorted(named) if len(named) >= _CLASS_FOLDERS and len(members) >= 2 * len(named) else []


def _date_facts(members: Sequence[_Name], rule: dict[str, Fact]) -> int | None:
    """Decide where the date stands in the names; return its place among the dates found there, None without one."""
    if not members[0].dates:
        files = "" if len(members) == 1 else f" of the {len(members)} files, one for all of them"
        rule["datetime"] = asked(f"no date in the names{files}; it is not in the files")
        return None
    first = members[0].dates[0]
    texts = [_text(name, 0) for name in members]
    shown = f"{texts[0]!r}" + (f" to {max(texts)!r}" if len(set(texts)) > 1 else "")
    other = other_reading(texts, first.date_format)
    if other is not None:
        rule["date_format"] = asked(f"{shown} in the names: day or month first", first.date_format)
    elif len(first_dates := {_text(members[0], k) for k in range(len(members[0].dates))}) > 1:
        rule["date_format"] = asked(
            f"{len(first_dates)} dates in a name: {shown} is taken for that of the image", first.date_format
        )
    else:
        rule["date_format"] = Fact(first.date_format, f"{shown} in the names")
    return 0


def _facts_of_whole_files(hint: words.Hint, looked: Sequence[Glimpse], rule: dict[str, Fact]) -> None:
    """Decide what files of several bands hold."""
    header = looked[0].header
    family, bands, masks, level = words.described(header, hint)
    surface = any(text.upper().startswith("SR_B") for text in header.descriptions)
    rule["sensor"] = words.sensor_fact(family, level, hint, surface=surface, count=header.count, gsd_m=header.gsd_m)
    if any(bands):
        listed: list[str | None] = list(bands)
        rule["bands"] = Fact(listed, "described in the files: " + ", ".join(filter(None, header.descriptions)))
    elif family == "naip" and header.count == 4:
        rule["bands"] = Fact(["B3", "B2", "B1", "B4"], "NAIP of four bands is red, green, blue, near infrared")
    else:
        suggestion = words.band_suggestion(family, header.count)
        rule["bands"] = asked(
            f"{plural(header.count, 'band')} without a description", list(suggestion) if suggestion else None
        )
    places = [k for k, band in enumerate(bands) if band is not None]
    _value_facts(family, surface, looked, places or None, rule)
    if masks:
        word, index = next(iter(masks.items()))
        kind, scale = words.MASK_BANDS[word]
        rule["mask"] = Fact(
            {"kind": kind, "band_index": index, **({"scale": scale} if scale != 1 else {})}, f"band {word} of the files"
        )
        rule.pop("cloud_test", None)


def _facts_of_band_files(
    hint: words.Hint, scenes: Mapping[str, Sequence[_Name]], opened: Mapping[str, Glimpse], rule: dict[str, Fact]
) -> tuple[list[Glimpse], list[_Name]]:
    """Decide what files of one band each hold; return those that were looked into and are used, and the others."""
    counts = Counter(name.token for members in scenes.values() for name in members)
    tokens = [token for token, count in counts.items() if count * 2 >= len(scenes)]
    upper = {token.upper() for token in tokens}
    masks = [token for token in tokens if token.upper() in (*words.MASK_BANDS, "FMASK")]
    family, level = hint.family, hint.level
    if not family:
        if upper & {"B8A", "B12"}:
            family = "sentinel-2"
        elif "SR_B6" in upper:
            family = "landsat-oli"
        elif upper & {"VV", "VH"}:
            family = "sentinel-1"
    by_token = {n.token: opened[n.path] for members in scenes.values() for n in members if n.path in opened}
    quality = by_token.get("BQA")
    level1 = "bands B8 and B9 are those of level 1 alone" if {"B8", "B9"} & upper else ""
    if quality is not None and (told := oli_quality(quality.bands[0])):
        family, level1 = family or "landsat-oli", told
    if family == "sentinel-2" and not level:
        level = "l2a" if "SCL" in upper else "l1c" if "B10" in upper else ""
    surface = any(token.startswith("SR_B") for token in upper)
    rule["sensor"] = words.sensor_fact(family, level, hint, surface=surface)
    if family == "landsat-oli" and not surface and level1:
        rule["sensor"] = Fact("landsat-oli-toa", level1)
    placed = {
        token: band
        for token, band in _placed(tokens, words.sensor_in(family, level, surface=surface), family).items()
        if token in by_token
    }
    if placed:
        rule["bands"] = Fact(placed, "the band's word in each name")
    else:
        rule["bands"] = asked(
            "words in the names: " + ", ".join(tokens), {token: token for token in tokens if token not in masks}
        )
    used = [token for token in (placed or tokens) if token in by_token and token not in masks]
    looked = [by_token[token] for token in used] or list(by_token.values())
    _value_facts(family, surface, looked, None, rule)
    mask = next((token for token in masks if counts[token] == len(scenes) and token in by_token), None)
    if mask is not None:
        _mask_fact(mask, by_token[mask], rule)
    wanted = {*(placed or tokens), mask}
    return looked, [name for members in scenes.values() for name in members if placed and name.token not in wanted]


def _placed(tokens: Sequence[str], sensor: str | None, family: str) -> dict[str, str]:
    """Band words and the sensor's bands that they mean."""
    if sensor is None:
        common = {token: token.lower() for token in tokens if token.lower() in COMMON_NAMES}
        return common if len(common) > 1 else {}
    if family == "naip":
        order = {"1": "B3", "2": "B2", "3": "B1", "4": "B4"}  # as delivered: red first
        numbers = {token: re.sub(r"\D", "", token) for token in tokens}
        return {token: order[n] for token, n in numbers.items() if n in order} if len(tokens) == 4 else {}
    names: dict[str, str] = {}
    for band in known_sensors()[sensor].bands:
        plain = re.sub(r"^(SR_)?B0*", "B", band.name)
        names |= dict.fromkeys((band.name.lower(), plain.lower(), band.common_name.lower()), band.name)
    return {token: names[token.lower()] for token in tokens if names.get(token.lower())}


def _mask_fact(token: str, glimpse: Glimpse, rule: dict[str, Fact]) -> None:
    """Say how a mask in a file of its own is read."""
    if token.upper() in ("QA_PIXEL", "BQA"):
        told = qa_kind(glimpse.bands[0])
        where = {"kind": told.value or "qa_pixel", "token": token}
        rule["mask"] = Fact(where if told.known else None, f"{token}: {told.evidence}", where)
    elif token.upper() == "FMASK":
        rule["mask"] = asked(
            "Fmask is classes (fmask) or the bits of HLS (hls_fmask)", {"kind": "hls_fmask", "token": token}
        )
    else:
        rule["mask"] = Fact({"kind": words.MASK_BANDS[token.upper()][0], "token": token}, f"{token} beside the bands")
    rule.pop("cloud_test", None)


def _value_facts(
    family: str, surface: bool, looked: Sequence[Glimpse], places: Sequence[int] | None, rule: dict[str, Fact]
) -> None:
    """Decide units, scale, offset, nodata and how clouds are told."""
    header = looked[0].header
    spread = [v for glimpse in looked if (v := glimpse.spread(places)) is not None]
    dark, bright = (min(v.dark for v in spread), max(v.bright for v in spread)) if spread else (0.0, 0.0)
    shown = f"{header.dtype}, {dark:.4g} to {bright:.4g} (1st and 99th percentile)"
    optical = family == "sentinel-2" or family.startswith("landsat-")
    if header.dtype == "uint8":
        rule["units"] = Fact("dn", "8 bits: uncalibrated numbers, read as 0-1 of the full scale")
        rule |= factor_facts((1 / 255, 0.0), Units.DN, looked, "full scale of 8 bits")
        if optical:
            rule["sensor"] = asked(f"8 bits are a picture of {family}, not its reflectance: give it a name of its own")
    elif optical:
        rule["units"] = Fact("reflectance", "of optical satellites; the values are checked")
        _optical_factors(family, surface, looked, places, rule)
        rule["cloud_test"] = Fact("brightness", "no cloud mask is known: clouds are told by brightness")
    else:
        _unknown_factors(shown, header.is_float, dark, bright, rule)
    rule["nodata"] = _nodata(looked, optical=optical)


def _optical_factors(
    family: str, surface: bool, looked: Sequence[Glimpse], places: Sequence[int] | None, rule: dict[str, Fact]
) -> None:
    if family == "sentinel-2":
        facts = factor_facts((1e-4, 0.0), Units.REFLECTANCE, looked, "10,000 counts are reflectance 1")
        scale = facts["scale"].value
        if scale == 1e-4:
            facts["offset"] = sentinel2_offset(_darkest(looked, places), is_integer=looked[0].is_integer)
        rule |= facts
    elif surface:
        rule |= factor_facts((2.75e-5, -0.2), Units.REFLECTANCE, looked, "Landsat Collection 2 Level 2")
    else:
        facts = factor_facts((2e-5, -0.1), Units.REFLECTANCE, looked, "Landsat level 1")
        if facts["scale"].value == 2e-5:
            why = "level-1 counts: 2e-05 and -0.1, over the sine of the sun's elevation, which the MTL file tells"
            facts = {"scale": asked(why, 2e-5), "offset": asked(why, -0.1)}
        rule |= facts


def _darkest(looked: Sequence[Glimpse], places: Sequence[int] | None) -> float | None:
    """The lowest 1st percentile of a band; where nobody has named them, a band of the two lowest may be a mask."""
    named = places is not None or looked[0].header.count == 1
    found = [(v.dark, v.bright) for g in looked for k, v in enumerate(g.bands) if v and (places is None or k in places)]
    darks = sorted(dark for dark, bright in found if named or bright > _MASKS_BELOW)
    return darks[min(0 if named else 1, len(darks) - 1)] if darks else None


def _unknown_factors(shown: str, is_float: bool, dark: float, bright: float, rule: dict[str, Fact]) -> None:
    if is_float:
        radar = -60 < dark < -1 and bright < 40
        rule["units"] = asked(
            f"{shown}: units are not said", "backscatter_db" if radar else "reflectance" if bright < 2 else None
        )
        rule["scale"], rule["offset"] = Fact(1.0, "floats are what they say"), Fact(0.0, "floats are what they say")
    else:
        counts = 500 < bright < 20_000
        rule["units"] = asked(f"{shown}: units are not said", "reflectance" if counts else None)
        rule["scale"] = asked(shown, 1e-4 if counts else None)
        rule["offset"] = asked(shown, 0.0)
    rule["cloud_test"] = asked(
        "no mask is known: brightness finds clouds of reflectance, none looks for none", "brightness"
    )


def _nodata(looked: Sequence[Glimpse], *, optical: bool) -> Fact:
    declared = {glimpse.header.nodata[0] for glimpse in looked}
    if None not in declared:
        return Fact(
            "file", "declared in the files: " + ", ".join(sorted({f"{n:g}" for n in declared if n is not None}))
        )
    if looked[0].header.is_float:
        return Fact("nan", "floats: what is not finite is not seen")
    if optical:
        return Fact(0, "0 is nodata in products of Sentinel-2 and Landsat")
    fills = [glimpse.fill for glimpse in looked if glimpse.fill is not None]
    if fills:
        return asked(
            f"none is declared, and {fills[0]:g} stands in every band of more than a hundredth of a file", fills[0]
        )
    return Fact("none", "none is declared, and no number fills whole pixels")

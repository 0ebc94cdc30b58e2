"""What the words of a path, and the descriptions of a file's bands, say of the sensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from a2mae.raster.header import FileBands
from a2mae.raster.statements import described_bands
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.recognise.facts import COMMON_NAMES, Fact, asked, known_sensors
from a2mae.stssd.recognise.look import Glimpse

_EDGE, _END = r"(?<![a-z0-9])", r"(?![a-z0-9])"
_SATELLITES: tuple[tuple[str, str, str], ...] = (  # words, family, platform ("": of the family)
    (r"s2a|sentinel[-_ ]?2a", "sentinel-2", "sentinel-2a"),
    (r"s2b|sentinel[-_ ]?2b", "sentinel-2", "sentinel-2b"),
    (r"s2c|sentinel[-_ ]?2c", "sentinel-2", "sentinel-2c"),
    (r"s2|sentinel[-_ ]?2|s2_sr|s2msi", "sentinel-2", "sentinel-2"),
    (r"l9|lc09|landsat[-_ ]?9", "landsat-oli", "landsat-9"),
    (r"l8|lc08|landsat[-_ ]?8", "landsat-oli", "landsat-8"),
    (r"l7|le07|landsat[-_ ]?7", "landsat-etm", "landsat-7"),
    (r"l5|lt05|landsat[-_ ]?5", "landsat-tm", "landsat-5"),
    (r"l4|lt04|landsat[-_ ]?4", "landsat-tm", "landsat-4"),
    (r"s1[abc]?|sentinel[-_ ]?1[abc]?", "sentinel-1", ""),
    (r"naip", "naip", ""),
    (r"gf[-_ ]?1|gaofen[-_ ]?1", "gaofen-1", "gaofen-1"),
    (r"gf[-_ ]?2|gaofen[-_ ]?2", "gaofen-2", "gaofen-2"),
)
_L2A = re.compile(rf"{_EDGE}(?:l2a|msil2a|boa|s2_sr|sr_harmonized){_END}")
_L1C = re.compile(rf"{_EDGE}(?:l1c|msil1c|toa){_END}")
_LABELS = re.compile(
    r"(?<![a-z])(?:labels?|masks?|annotations?|classes|class(?:ification)?|ground_?truth|gt|landcover|lulc|cdl|worldcover"
    r"|segmentation)(?![a-z])"
)
_FEW_CLASSES = 40
_TEN_M = (8.0, 12.5)  # in degrees, pixels are narrower than they are high
MASK_BANDS = {
    "SCL": ("scl", 1.0),
    "QA_PIXEL": ("qa_pixel", 1.0),
    "BQA": ("bqa_c1", 1.0),
    "MSK_CLDPRB": ("probability", 0.01),
}
"""Descriptions of bands that are masks, as Earth Engine, Sentinel Hub and odc-stac export them: kind, scale."""


@dataclass(frozen=True)
class Hint:
    """What words say.

    Attributes:
        family: For example `sentinel-2` or `landsat-oli`; empty where nothing says it.
        platform: STAC platform; empty where nothing says it.
        level: `l1c`, `l2a` or empty.
        word: The word that said it.
    """

    family: str = ""
    platform: str = ""
    level: str = ""
    word: str = ""


def hint_of(path: str, tags: str = "") -> Hint:
    """Read the words of a path, and of a file's tags.

    Args:
        path: With the name of the folder that is looked at in front.
        tags: The texts of the tags.
    """
    text = path.lower()
    if "national agriculture imagery program" in tags.lower():
        return Hint("naip", "", "", "National Agriculture Imagery Program")
    level = "l2a" if _L2A.search(text) else "l1c" if _L1C.search(text) else ""
    # The name itself is nearer than its folders: the last that is found counts.
    found: list[tuple[int, Hint]] = []
    for words, family, platform in _SATELLITES:
        for match in re.finditer(f"{_EDGE}(?:{words}){_END}", text):
            found.append((match.end(), Hint(family, platform, level, match[0])))
    families = {hint.family for _, hint in found}
    name_at = text.rfind("/")
    named = [one for one in found if one[0] > name_at] if len(families) > 1 else found
    if not named or len({hint.family for _, hint in named}) > 1:
        return Hint(level=level)
    return max(named, key=lambda one: one[0])[1]


def looks_like_labels(path: str, glimpse: Glimpse) -> str:
    """Say why a raster is labels rather than a scene; empty where it is not.

    Args:
        path: Below the folder.
        glimpse: The file.
    """
    if glimpse.header.count != 1 or not glimpse.is_integer:
        return ""
    values = glimpse.bands[0]
    few = values is None or 0 < len(values.distinct) <= _FEW_CLASSES
    named = _LABELS.search(path.lower().replace("-", "_"))
    if few and named and values is not None:
        return f"labels: called {named[0]!r}, and {len(values.distinct)} different numbers"
    return ""


def described(header: FileBands, hint: Hint) -> tuple[str, list[str | None], dict[str, int], str]:
    """Read band descriptions.

    Args:
        header: Of a file with several bands.
        hint: What words say.

    Returns:
        Family (of the hint, or as the descriptions alone tell it, or empty); band of each place, None for those that
        are none; mask bands by their description, counted from 1; level.
    """
    texts = [text.strip() for text in header.descriptions]
    masks = {name: k for k, text in enumerate(texts, start=1) for name in MASK_BANDS if text.upper() == name}
    if not any(texts):
        return hint.family, [], masks, hint.level
    upper = {text.upper() for text in texts}
    family, level = hint.family, hint.level
    if not family:
        if any(text.startswith("SR_B") for text in upper):
            family = "landsat-oli" if "SR_B6" in upper else ""
        elif upper & {"B8A", "B12"}:
            family = "sentinel-2"
        elif upper & {"VV", "VH"}:
            family = "sentinel-1"
    if family == "sentinel-2" and not level:
        level = "l2a" if upper & {"SCL", "MSK_CLDPRB", "AOT", "WVP"} else "l1c" if "B10" in upper else ""
    sensor = sensor_in(family, level, surface=any(text.startswith("SR_B") for text in upper))
    if sensor is None:
        plain = [text.lower() if text.lower() in COMMON_NAMES else None for text in texts]
        return family, plain if any(plain) else [], masks, level
    found = described_bands(header, known_sensors()[sensor])
    return family, [None if band is None else band.name for band in found], masks, level


def sensor_in(family: str, level: str, *, surface: bool) -> str | None:
    """The sensor of a family whose band names are meant; None where the family is not known."""
    if family == "sentinel-2":
        return f"sentinel-2-{level or 'l2a'}"
    if family.startswith("landsat-"):
        return f"{family}-c2-l2" if surface else f"{family}-toa"
    if family == "sentinel-1":
        return "sentinel-1-rtc"
    return family if family in known_sensors() else None


def sensor_fact(family: str, level: str, hint: Hint, *, surface: bool, count: int = 0, gsd_m: float = 0.0) -> Fact:
    """Decide the sensor of files that no provider's naming tells.

    Args:
        family: As hint or descriptions tell it.
        level: Likewise.
        hint: For the evidence.
        surface: Bands are called as those of surface reflectance.
        count: Bands of a file that does not describe them.
        gsd_m: Its pixel size, metres.
    """
    by = f"{hint.word!r} in path or tags" if hint.word else "the descriptions of its bands"
    if family == "sentinel-2":
        if level:
            return Fact(f"sentinel-2-{level}", f"{by}, level {level.upper()}")
        return asked(f"{by}: Sentinel-2, and nothing says whether L1C or L2A", "sentinel-2-l2a")
    if family.startswith("landsat-"):
        if surface:
            return Fact(f"{family}-c2-l2", f"{by}; SR_: surface reflectance of Collection 2")
        return asked(f"{by}: Landsat, and nothing says which level", f"{family}-toa")
    if family == "sentinel-1":
        return asked(f"{by}: Sentinel-1, and nothing says how it was corrected", "sentinel-1-rtc")
    if family == "naip":
        return Fact("naip", by)
    if family in BUILTIN_SENSORS:
        return asked(f"{by}: {family}, and nothing says whether its units are those of the built-in sensor", family)
    usual = {12: "sentinel-2-l2a", 13: "sentinel-2-l1c"}.get(count)
    if usual is not None and _TEN_M[0] < gsd_m < _TEN_M[1]:
        return asked(f"nothing in names, bands and tags tells the sensor; {usual} has {count} bands, too", usual)
    return asked("nothing in names, bands and tags tells the sensor")


def band_suggestion(family: str, count: int) -> Sequence[str] | None:
    """The usual order of bands of a file that does not describe them; None where there is none."""
    if family in ("", "sentinel-2") and count in (12, 13):
        return BUILTIN_SENSORS["sentinel-2-l2a" if count == 12 else "sentinel-2-l1c"].band_names
    usual = {3: ("red", "green", "blue"), 4: ("red", "green", "blue", "nir")}
    return None if family else usual.get(count)

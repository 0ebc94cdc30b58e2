"""What the values of files say: whether a scale and an offset can be right, which number is nodata, what a mask is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from a2mae.plausibility import DARKEST_PERCENTILE
from a2mae.raster.footprints import known_crs, pixel_size_m
from a2mae.sensors import Units
from a2mae.stssd.recognise.facts import Fact, Product, asked
from a2mae.stssd.recognise.look import Glimpse, Values
from a2mae.stssd.recognise.names import read_date

_REFLECTANCE = (-0.3, 2.5)
_BRIGHT = (0.02, 3.0)
_QA = {  # numbers of clear land and water that the product guides list: kind, what it is
    "qa_pixel": ({21824, 21952, 5440, 5504, 30048}, "Landsat Collection 2"),
    "bqa_c1": ({2720, 2724, 672, 676}, "Landsat Collection 1"),
    "bqa": ({20480, 20484}, "Landsat 8 before the collections"),
}


def factor_facts(
    factors: tuple[float, float], units: Units, looked: Sequence[Glimpse], documented: str
) -> dict[str, Fact]:
    """Decide scale and offset of a product whose integers are documented.

    Args:
        factors: Scale and offset of its integers.
        units: Of the decoded values.
        looked: Some of its files.
        documented: Where the factors are from, for the evidence.

    Returns:
        `scale` and `offset`: the documented ones if the values agree, those of floats for floats; asked where the
        values are neither.
    """
    tags = {
        (scale, offset)
        for glimpse in looked
        for scale, offset in zip(glimpse.header.scales, glimpse.header.offsets, strict=True)
    }
    if tags != {(1.0, 0.0)}:
        said = Fact("file", f"tagged in the files: {_factors(tags)}")
        return {"scale": said, "offset": said}
    spread = [values for glimpse in looked if (values := glimpse.spread()) is not None]
    if not spread:
        return {"scale": asked("every value that was looked at is nodata", factors[0]), "offset": asked("the same")}
    dark, bright = min(v.dark for v in spread), max(v.bright for v in spread)
    shown = f"values {dark:.4g} to {bright:.4g} (1st and 99th percentile)"
    if units is not Units.REFLECTANCE:
        if _can_be(units, dark, bright, looked):
            return {
                "scale": Fact(factors[0], f"{documented}; {shown}"),
                "offset": Fact(factors[1], documented),
            }
        return {name: asked(f"{shown}: not what is {documented}", f) for name, f in _named(factors)}
    if not looked[0].is_integer and _REFLECTANCE[0] < dark and bright < _REFLECTANCE[1]:
        text = f"floats, {shown}: reflectance itself"
        return {"scale": Fact(1.0, text), "offset": Fact(0.0, text)}
    low, high = (value * factors[0] + factors[1] for value in (dark, bright))
    if looked[0].header.dtype != "uint8" and low > _REFLECTANCE[0] and _BRIGHT[0] < high < _BRIGHT[1]:
        text = f"{documented}; {shown} become {low:.2f} to {high:.2f}"
        return {"scale": Fact(factors[0], text), "offset": Fact(factors[1], text)}
    return {name: asked(f"{shown}: not what is {documented}", f) for name, f in _named(factors)}


def _named(factors: tuple[float, float]) -> list[tuple[str, float]]:
    return list(zip(("scale", "offset"), factors, strict=True))


def _factors(tags: set[tuple[float, float]]) -> str:
    return ", ".join(f"{scale:g} and {offset:g}" for scale, offset in sorted(tags)[:3])


def _can_be(units: Units, dark: float, bright: float, looked: Sequence[Glimpse]) -> bool:
    if units is Units.DN:
        return looked[0].header.dtype == "uint8"
    if units is Units.BACKSCATTER_LINEAR:
        return not looked[0].is_integer and dark >= 0 and bright < 1000
    return not looked[0].is_integer and -60 < dark < 0 and bright < 40


def sentinel2_offset(darkest: float | None, *, is_integer: bool) -> Fact:
    """Tell the offset of Sentinel-2 counts that do not say their processing baseline, by their dark pixels.

    Args:
        darkest: Lowest 1st percentile of a band, in counts of 1/10,000; None where nothing was seen.
        is_integer: Floats have no offset of counts.
    """
    if not is_integer:
        return Fact(0.0, "floats")
    if darkest is not None and (shifted := darkest * 1e-4 - 0.1) < DARKEST_PERCENTILE:
        return Fact(
            0.0,
            f"dark pixels have {darkest:.0f} counts (1st percentile): with the -0.1 of processing baseline 04.00 that"
            f" would be {shifted:.3f}, which no surface has",
        )
    return asked(
        f"dark pixels have {darkest or 0:.0f} counts: -0.1 (processing baseline 04.00 and later, from January"
        " 2022 on) and 0 (older, or harmonised by the provider) are both possible",
    )


def nodata_fact(documented: float | str, looked: Sequence[Glimpse], why: str) -> Fact:
    """Decide the nodata of a product: what files declare, else what is documented."""
    declared = {glimpse.header.nodata[0] for glimpse in looked}
    if declared == {None}:
        return Fact(documented, why) if documented != "file" else Fact("none", "none is declared")
    if None not in declared:
        return Fact("file", f"declared in the files: {', '.join(sorted(f'{n:g}' for n in declared if n is not None))}")
    return Fact(documented if documented != "file" else "file", f"{why}; only some files declare it")


def qa_kind(values: Values | None) -> Fact:
    """Tell how the bits of a Landsat quality band are read, by the numbers that clear ground has in each edition."""
    numbers = set() if values is None else {*values.distinct, int(values.median)}
    kinds = [kind for kind, (clear, _) in _QA.items() if clear & numbers]
    if len(kinds) == 1:
        clear, edition = _QA[kinds[0]]
        return Fact(kinds[0], f"{min(clear & numbers)} is clear in {edition}")
    return asked("its numbers fit none of Landsat's editions, or several: qa_pixel, bqa_c1 and bqa are read")


def day_of(text: str, date_format: str) -> str:
    """Write a date as its day, for example 2020-01-13; empty where it is none."""
    when = read_date(text, date_format)
    return "" if when is None else f"{when:%Y-%m-%d}"


def _gsd_m(glimpse: Glimpse) -> float:
    """The pixel size that is meant: degrees are made of metres from south to north, and narrow towards the poles."""
    header = glimpse.header
    degrees = known_crs(header.crs).is_geographic
    return pixel_size_m(header.transform, header.shape, header.crs)[1] if degrees else header.gsd_m


def oli_quality(values: Values | None) -> str:
    """Say why a quality band is that of a level-1 product of Landsat 8 or 9; empty where it does not tell."""
    numbers = set() if values is None else {*values.distinct, int(values.median)}
    found = numbers & {2720, 2724, 20480, 20484}
    return f"BQA holds {min(found)}, as clear ground in level 1 of Landsat 8 does" if found else ""


def product_from(
    name: str,
    title: str,
    rule: Mapping[str, Fact],
    days: Mapping[str, str],
    looked: Sequence[Glimpse],
    *,
    scenes: int,
    darkest: float | None = None,
) -> Product:
    """Put a product together from files that were looked into.

    Args:
        name: Of the rule.
        title: In words.
        rule: What is known.
        days: Each file's day, empty where it is not known.
        looked: At least one of its files.
        scenes: How many scenes the files make.
        darkest: Lowest 1st percentile of a band as stored.
    """
    read = sorted({day for day in days.values() if day})
    sides = []
    for glimpse in looked:
        header = glimpse.header
        width, height = pixel_size_m(header.transform, header.shape, header.crs)
        sides.append(min(width * header.shape[1], height * header.shape[0]))
    return Product(
        name=name,
        title=title,
        rule=rule,
        paths=tuple(days),
        scenes=scenes,
        dates=tuple(read),
        gsd_m=min(_gsd_m(glimpse) for glimpse in looked),
        side_m=min(sides),
        outlines=tuple((glimpse.header.footprint, days.get(glimpse.path, "")) for glimpse in looked),
        opened=len(looked),
        band_count=looked[0].header.count,
        darkest=darkest,
    )

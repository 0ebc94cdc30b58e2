"""What a file says of itself against what was stated: band order, scale and offset, pixel size.

One reading serves scenes, training images and maps: what the file says is used where nothing was stated, and a
contradiction is rejected with both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from a2mae.errors import RejectedError
from a2mae.raster.header import FileBands
from a2mae.sensors import BUILTIN_SENSORS, Band, Encoding, Sensor, Units

_WORD = re.compile(r"[A-Za-z0-9]+")
_NUMBERED = re.compile(r"([a-z]+)0*(\d+[a-z]?)")
_GSD_TOLERANCE = 0.05
"""Pixels of degrees and of national grids are within this of what their provider calls them."""


def described_bands(bands: FileBands, sensor: Sensor) -> tuple[Band | None, ...]:
    """Find the bands of a sensor that a file's descriptions name.

    `B04`, `B4` (as Earth Engine writes it), `SR_B4` and `B4, central wavelength 665 nm` are one band, and so is its
    common name. `B1`, `B2`, … in order are numbers of bands as many programs write them, and name none.

    Args:
        bands: What the file says.
        sensor: Whose bands they may be; with all of its bands where it is built in.

    Returns:
        A band for each of the file's, None where its description names none, or several.
    """
    words = [{_plain(word) for word in _WORD.findall(text)} for text in bands.descriptions]
    if all({f"b{number}", f"band{number}", str(number)} & found for number, found in enumerate(words, start=1)):
        return (None,) * bands.count
    known = {band.name: band for band in (*sensor.bands, *BUILTIN_SENSORS.get(sensor.id, sensor).bands)}
    named = []
    for text, found in zip(bands.descriptions, words, strict=True):
        fits = [known[text]] if text in known else [band for band in known.values() if _names(band) & found]
        named.append(fits[0] if len(fits) == 1 else None)
    return tuple(named)


def check_descriptions(bands: FileBands, stated: Sequence[str | None], sensor: Sensor, shown: str, where: str) -> None:
    """Reject a file whose descriptions name other bands than were stated.

    Args:
        bands: What the file says.
        stated: The sensor's band at each place of the file, None where one is skipped.
        sensor: Whose bands they are.
        shown: The file, for the message.
        where: What states the bands: a rule or a parameter.

    Raises:
        RejectedError: "band_order", with both sides.
    """
    said = described_bands(bands, sensor)
    for index, (name, found) in enumerate(zip(stated, said, strict=False), start=1):
        if name is not None and found is not None and found.name != name:
            raise RejectedError(
                "band_order",
                f"{shown} describes its band {index} as {bands.descriptions[index - 1]!r}, but {where} says that it is"
                f" {name}: correct the order there, or the descriptions of the file",
            )


def factors_of(
    bands: FileBands,
    index: int,
    stated: tuple[float | None, float | None],
    otherwise: tuple[float, float],
    *,
    shown: str,
    where: str,
) -> tuple[float, float]:
    """Decide by which scale and offset a band is decoded.

    Args:
        bands: What the file says.
        index: The band, counted from 1.
        stated: Scale and offset as the user has stated them, None where not.
        otherwise: Those of the format, for integers of which neither file nor user say anything; floats are physical.
        shown: The file, for the message.
        where: What states scale and offset, for the message.

    Returns:
        Those of the file's tags where it has any, else those stated, else the format's.

    Raises:
        RejectedError: "scale_tags" if tags and statement contradict each other, with both sides.
    """
    tags = bands.scales[index - 1], bands.offsets[index - 1]
    if tags == (1.0, 0.0):
        scale, offset = (1.0, 0.0) if bands.is_float else otherwise
        return scale if stated[0] is None else stated[0], offset if stated[1] is None else stated[1]
    for what, said, wanted in zip(("scale", "offset"), tags, stated, strict=True):
        if wanted is not None and not math.isclose(said, wanted, rel_tol=1e-6, abs_tol=1e-12):
            raise RejectedError(
                "scale_tags",
                f"{shown} is tagged with scale {tags[0]:g} and offset {tags[1]:g} (band {index}), but {where} says"
                f" {what} {wanted:g}: leave it out there, or correct the tags of the file",
            )
    return tags


def check_gsd(found_m: float, stated_m: float, shown: str, where: str) -> None:
    """Reject pixels of another size on the ground than was stated.

    Args:
        found_m: Metres, as the file's georeference gives them.
        stated_m: Metres, as stated.
        shown: The file, for the message.
        where: What states them, for the message.

    Raises:
        RejectedError: "gsd_mismatch", with both sides.
    """
    if not math.isclose(found_m, stated_m, rel_tol=_GSD_TOLERANCE):
        raise RejectedError(
            "gsd_mismatch",
            f"{shown} has pixels of {found_m:.4g} m on the ground, but {where} says {stated_m:g} m: correct it, or"
            " leave it out so that the files say it",
        )


def implied_fill(bands: FileBands, index: int, encoding: Encoding) -> int | None:
    """Tell which number stands for "not seen" where a band declares no nodata.

    Args:
        bands: What the file says.
        index: The band, counted from 1.
        encoding: Of the format.

    Returns:
        The format's nodata, which counts where all bands hold it; None for floats and for digital numbers, whose 0 is
        black.
    """
    if bands.is_float or encoding.units is Units.DN or bands.nodata[index - 1] is not None:
        return None
    return encoding.nodata


def _names(band: Band) -> set[str]:
    """The last word of a band's name (`B4` of `SR_B4`) and its common name."""
    return {_plain(word) for word in (*_WORD.findall(band.name)[-1:], band.common_name) if word}


def _plain(word: str) -> str:
    """`B04`, `b4` and `B4` as one."""
    word = word.lower()
    numbered = _NUMBERED.fullmatch(word)
    return numbered[1] + numbered[2] if numbered else word

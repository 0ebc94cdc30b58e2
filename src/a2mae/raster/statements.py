"""What a file says of itself against what was stated: band order, scale and offset, pixel size.

One reading serves scenes, training images and maps: what the file says is used where nothing was stated, and a
contradiction is rejected with both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from a2mae.errors import RejectedError
from a2mae.raster.header import NEVER_MEASURED, FileBands
from a2mae.scenes import BandAsset, decodes
from a2mae.sensors import BUILTIN_SENSORS, Band, Encoding, Sensor, Units

_WORD = re.compile(r"[A-Za-z0-9]+")
_NUMBERED = re.compile(r"([a-z]+)0*(\d+[a-z]?)")
_GSD_TOLERANCE = 0.05
"""Pixels of degrees and of national grids are within this of what their provider calls them."""


@dataclass(frozen=True)
class FileNumbers:
    """How the stored numbers of a file are read.

    Attributes:
        is_float: Whether they are floats.
        scale: Physical units per count.
        offset: Physical value of a stored zero.
        nodata: The number that stands for "not seen"; None where none does, or one that is never seen: NaN, or a float
            beyond what is measured.
    """

    is_float: bool
    scale: float
    offset: float
    nodata: float | None

    def __str__(self) -> str:
        """Return them for a message."""
        nodata = "no nodata" if self.nodata is None else f"nodata {self.nodata:g}"
        kind = "floats" if self.is_float else "integers"
        return f"{kind} of scale {self.scale:g}, offset {self.offset:g} and {nodata}"

    def agrees_with(self, other: FileNumbers) -> bool:
        """Whether equal numbers of both files are equal values. Floats and integers are not held against each other."""
        if self.is_float != other.is_float:
            return True
        pairs = ((self.scale, other.scale), (self.offset, other.offset), (self.nodata, other.nodata))
        return all(a == b or (a is not None and b is not None and _is_close(a, b)) for a, b in pairs)


def file_numbers(bands: FileBands, index: int, factors: tuple[float, float], encoding: Encoding) -> FileNumbers:
    """Describe how the numbers of a band are read.

    Args:
        bands: What the file says.
        index: The band, counted from 1.
        factors: Scale and offset by which it is decoded.
        encoding: Of the format, whose nodata counts where the file declares none.
    """
    nodata = bands.nodata[index - 1]
    if nodata is None:
        fill = implied_fill(bands, index, encoding)
        nodata = None if fill is None else float(fill)
    elif not abs(nodata) <= NEVER_MEASURED:
        nodata = None
    return FileNumbers(bands.is_float, *factors, nodata)


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


def is_name_of(text: str, band: Band, more: Sequence[str] = ()) -> bool:
    """Whether a text as a whole is the name of a band, its common name, or one of further names.

    Args:
        text: As a document has it, for example `B2` for B02.
        band: Of a sensor.
        more: What else it is called.
    """
    return _plain(text) in {*_names(band), *map(_plain, (band.name, *more))}


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
        RejectedError: "scale_tags" if tags and statement contradict each other, with both sides;
            "bad_metadata" if the tags decode no number.
    """
    tags = tagged_factors(bands, index, shown)
    if told := other_factors(bands, index, stated, shown, where):
        raise RejectedError("scale_tags", f"{told}: leave it out there, or correct the tags of the file")
    if tags == (1.0, 0.0):
        scale, offset = (1.0, 0.0) if bands.is_float else otherwise
        return scale if stated[0] is None else stated[0], offset if stated[1] is None else stated[1]
    return tags


def tagged_factors(bands: FileBands, index: int, shown: str) -> tuple[float, float]:
    """Read scale and offset of a band's tags.

    Args:
        bands: What the file says; 1 and 0 where it says nothing.
        index: The band, counted from 1.
        shown: The file, for the message.

    Raises:
        RejectedError: "bad_metadata" if they decode no number: a scale of 0, NaN, infinity.
    """
    scale, offset = bands.scales[index - 1], bands.offsets[index - 1]
    if not decodes(scale, offset):
        raise RejectedError(
            "bad_metadata",
            f"{shown} is tagged with scale {scale:g} and offset {offset:g} (band {index}), which decode no stored"
            " number: both must be finite, and scale not 0; correct the tags (gdal_edit -scale 1 -offset 0 says none)",
        )
    return scale, offset


def other_factors(
    bands: FileBands, index: int, stated: tuple[float | None, float | None], shown: str, where: str
) -> str:
    """Name both sides where a file's tags contradict the scale and offset that were stated.

    Args:
        bands: What the file says; 1 and 0 say nothing.
        index: The band, counted from 1.
        stated: Scale and offset, None where not.
        shown: The file.
        where: What states them.

    Returns:
        Both, the beginning of a sentence; empty where there is no contradiction.
    """
    tags = bands.scales[index - 1], bands.offsets[index - 1]
    for what, said, wanted in zip(("scale", "offset"), tags, stated, strict=True):
        if tags != (1.0, 0.0) and wanted is not None and not _is_close(said, wanted):
            return (
                f"{shown} is tagged with scale {tags[0]:g} and offset {tags[1]:g} (band {index}), but {where} says"
                f" {what} {wanted:g}"
            )
    return ""


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


def compared_nodata(bands: FileBands, gsd_m: float, asset: BandAsset, shown: str) -> float | None:
    """Hold what was stated of a file before anybody had opened it against the file, and give a band's nodata.

    Args:
        bands: What the file says.
        gsd_m: Its pixel size on the ground, metres.
        asset: The band, with `stated_by`.
        shown: The file, for the message.

    Returns:
        The asset's nodata; where none is stated, the file's.

    Raises:
        RejectedError: "scale_tags", "nodata_tags", "gsd_mismatch", with both sides.
    """
    index, where = asset.band_index, str(asset.stated_by)
    way = "set ingest.probe: all, so that headers are read before, or state the right one in a profile"
    if told := other_factors(bands, index, (asset.scale, asset.offset), shown, where):
        raise RejectedError("scale_tags", f"{told}: {way}")
    if not math.isclose(gsd_m, asset.gsd_m, rel_tol=_GSD_TOLERANCE):
        raise RejectedError(
            "gsd_mismatch",
            f"{shown} has pixels of {gsd_m:.4g} m on the ground, but {where} says {asset.gsd_m:g} m: set"
            " ingest.probe: all, so that headers are read before, or correct the item",
        )
    found = bands.nodata[index - 1]
    if found is None or not abs(found) <= NEVER_MEASURED:
        return asset.nodata
    if asset.nodata is not None and not _is_close(found, asset.nodata):
        raise RejectedError(
            "nodata_tags", f"{shown} declares nodata {found:g} (band {index}), but {where} says {asset.nodata:g}: {way}"
        )
    return found


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


def _is_close(one: float, other: float) -> bool:
    """Whether two numbers are one, written with other digits or as another type of float."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)


def _names(band: Band) -> set[str]:
    """The last word of a band's name (`B4` of `SR_B4`) and its common name."""
    return {_plain(word) for word in (*_WORD.findall(band.name)[-1:], band.common_name) if word}


def _plain(word: str) -> str:
    """`B04`, `b4` and `B4` as one."""
    word = word.lower()
    numbered = _NUMBERED.fullmatch(word)
    return numbered[1] + numbered[2] if numbered else word

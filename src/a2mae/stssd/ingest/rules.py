"""How files of a folder and items of a provider become scenes: rules, profiles, and the patterns of file names."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from a2mae.config import Parameters
from a2mae.scenes import CloudTest, MaskKind
from a2mae.sensors import Units

_ENDING = re.compile(r"\.[A-Za-z0-9]+$")
_DATE_PARTS = {
    "Y": r"\d{4}",
    "j": r"\d{1,3}",
    "f": r"\d{1,6}",
    "p": "[AaPp][Mm]",
    "z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%": "%",
    **dict.fromkeys("mdyHIMSUWV", r"\d{1,2}"),
    **dict.fromkeys("uw", r"\d"),
    **dict.fromkeys("aAbBZ", r"[^\W\d_]+"),
}
Nodata = float | Literal["file", "none", "nan", "inf", "-inf"]


class MaskRule(Parameters):
    """Where a product keeps its cloud mask."""

    kind: MaskKind = Field(description="How its numbers are read.")
    band_index: int | None = Field(default=None, ge=1, description="Band of the file, counted from 1.")
    file: str | None = Field(
        default=None,
        description="Path of the mask's own file, from the folder of the bands' on; fields of the rule's pattern as"
        " `{date}`.",
    )
    token: str | None = Field(default=None, description="Value of the `band` group of the file that is the mask.")
    asset: str | None = Field(default=None, description="STAC: key of the asset that is the mask.")
    scale: float = Field(default=1.0, gt=0, description="For `probability`: what brings the numbers to 0-1.")

    @model_validator(mode="after")
    def _kind_is_a_mask(self) -> MaskRule:
        index = None if self.file is not None else self.band_index  # a file of its own has bands, too
        if self.kind is MaskKind.NONE or sum(v is not None for v in (index, self.file, self.token, self.asset)) != 1:
            raise ValueError("mask: give a kind other than none and exactly one of band_index, file, token, asset")
        return self


class FilePattern(Parameters):
    """Which files of a folder are meant, by their paths below it."""

    files: str | None = Field(
        default=None,
        description="Pattern of paths below the folder: `*` within a name, `**` across folders, `{date}`, `{band}`,"
        " `{scene}` or any other named field.",
    )
    regex: str | None = Field(
        default=None, description="The same as a regular expression with named groups; instead of `files`."
    )

    @model_validator(mode="after")
    def _one_pattern(self) -> Self:
        if (self.files is None) == (self.regex is None):
            raise ValueError("give exactly one of 'files' and 'regex'")
        self.pattern()
        return self

    def pattern(self, fields: Mapping[str, str] | None = None) -> re.Pattern[str]:
        """The pattern over paths below the folder, with `/` between names.

        Args:
            fields: What fields of `files` match, where it is not any text.
        """
        return re.compile(self.regex if self.regex is not None else template_regex(str(self.files), fields))


class FolderRule(FilePattern):
    """Which files of a folder make scenes of which sensor."""

    name: str = Field(description="Shown in messages.")
    sensor: str = Field(description="Sensor id.")
    bands: tuple[str | None, ...] | dict[str, str] = Field(
        description="Several bands in a file: the sensor's band names in file order (null skips one). One band per"
        " file: mapping from the value of the `band` field to the sensor's band."
    )
    date_format: str = Field(
        default="%Y%m%d", description="strptime format of the `date` field; UTC unless it has a zone."
    )
    datetime: dt.datetime | None = Field(default=None, description="For files without a date in their name.")
    platform: str = Field(default="", description="STAC platform, for example landsat-8.")
    scale: float | Literal["file"] = Field(
        default="file", description="Physical units per count, or the file's own tag."
    )
    offset: float | Literal["file"] = Field(
        default="file", description="Physical value of a stored zero, or the file's tag."
    )
    nodata: Nodata = Field(default="file", description="Number, nan, inf, -inf, none, or what the file declares.")
    units: Units = Field(description="Of the decoded values; must be the sensor's.")
    mask: MaskRule | None = Field(default=None, description="Cloud mask, where the product has one.")
    cloud_test: CloudTest | None = Field(default=None, description="Without a mask: brightness or none (the default).")
    processing_baseline: str | None = Field(default=None, description="Sentinel-2 only.")
    landsat_mtl: str | None = Field(
        default=None,
        description="Name of the Landsat MTL.txt beside the files (fields allowed): date, scale and offset.",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> FolderRule:
        if isinstance(self.bands, dict) != ("band" in self.pattern().groupindex):
            raise ValueError(
                f"rule {self.name!r}: a {{band}} field in the pattern and a mapping in 'bands' belong together"
            )
        mask = self.mask
        if mask is not None and (
            mask.asset is not None
            or (mask.token is not None and not isinstance(self.bands, dict))
            or (mask.band_index is not None and mask.file is None and isinstance(self.bands, dict))
        ):
            raise ValueError(
                f"rule {self.name!r}: its mask cannot be found so. One band per file: token, the value of its {{band}}"
                " field. Several bands in a file: band_index. A file of its own beside them: file, for example"
                " SCL_{date}.tif"
            )
        if self.mask is not None and self.cloud_test not in (None, CloudTest.MASK):
            raise ValueError(f"rule {self.name!r}: with a mask, cloud_test is 'mask'")
        if self.mask is None and self.cloud_test is CloudTest.MASK:
            raise ValueError(f"rule {self.name!r}: cloud_test 'mask' needs a mask")
        return self

    def dated_pattern(self) -> re.Pattern[str]:
        """The pattern with a `{date}` that matches what `date_format` can read, and no less."""
        return self.pattern({"date": date_regex(self.date_format)})


class ExcludeRule(FilePattern):
    """Files that are no scenes, and why: they are counted, not listed one by one."""

    why: str = Field(description="Goes into the table of rejected scenes.")


class StacProfile(Parameters):
    """How the items of a provider become scenes of a sensor; wins over the built-in profiles."""

    name: str = Field(description="Shown in messages.")
    match: dict[str, str] = Field(
        min_length=1, description="Property (or `collection`, `id`) -> regular expression that its value matches fully."
    )
    sensor: str = Field(description="Sensor id.")
    bands: dict[str, str] = Field(
        default={},
        description="Sensor band -> asset key (`key:2`: the second band in it), where it is neither its name nor common"
        " name.",
    )
    scale: float | None = Field(
        default=None, description="Physical units per count; null: from the item's raster metadata."
    )
    offset: float | None = Field(default=None, description="Physical value of a stored zero; null: from the metadata.")
    nodata: Nodata = Field(
        default="file", description="Number, nan, inf, -inf, none, or what metadata or file declare."
    )
    units: Units | None = Field(default=None, description="Of the decoded values; null: the sensor's.")
    mask: MaskRule | None = Field(default=None, description="Cloud mask asset.")
    cloud_test: CloudTest | None = Field(default=None, description="Without a mask: brightness or none (the default).")

    @model_validator(mode="after")
    def _mask_is_an_asset(self) -> StacProfile:
        if self.mask is not None and self.mask.asset is None:
            raise ValueError(f"stac profile {self.name!r}: mask: give asset, the key of the asset that is the mask")
        return self


def template_regex(template: str, fields: Mapping[str, str] | None = None) -> str:
    """Translate a file pattern into a regular expression.

    `*` and `?` stay within a name, `**/` is any number of folders, `{name}` is a named field without `/`; a field that
    appears twice must have the same value. A file's ending may be in upper or lower case.

    Args:
        template: The pattern.
        fields: Regular expressions of fields; any text for the others.
    """
    stem, ending = (
        (template, "") if (found := _ENDING.search(template)) is None else (template[: found.start()], found[0])
    )
    out: list[str] = []
    seen: set[str] = set()
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\{[A-Za-z_]\w*\})", stem):
        if part == "**/":
            out.append(r"(?:[^/]+/)*")
        elif part == "**":
            out.append(r".*")
        elif part == "*":
            out.append(r"[^/]*")
        elif part == "?":
            out.append(r"[^/]")
        elif part.startswith("{") and part.endswith("}"):
            name = part[1:-1]
            out.append(f"(?P={name})" if name in seen else f"(?P<{name}>{(fields or {}).get(name, '[^/]+?')})")
            seen.add(name)
        else:
            out.append(re.escape(part))
    return "".join(out) + (f"(?i:{re.escape(ending)})" if ending else "")


def date_regex(date_format: str) -> str:
    """Translate a strptime format into a regular expression of what it reads."""
    parts = re.split(r"(%.)", date_format)
    return "".join(_DATE_PARTS.get(p[1], "[^/]+?") if p.startswith("%") else re.escape(p) for p in parts)


def nodata_value(nodata: Nodata, declared: float | None) -> float | None:
    """The stored number that stands for "nothing was seen".

    Args:
        nodata: As a rule or profile says it.
        declared: What the file or its metadata declare.
    """
    if nodata == "file":
        return declared
    return None if nodata == "none" else float(nodata)

"""Read the MTL.txt of a Landsat product: when it was taken, and how its counts become reflectance."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from a2mae.errors import InputError, RejectedError

_LINE = re.compile(r"^\s*([A-Z0-9_]+)\s*=\s*\"?([^\"\n]*?)\"?\s*$", re.MULTILINE)
_MAX_BYTES = 1_000_000
_MULT, _ADD = "REFLECTANCE_MULT_BAND_", "REFLECTANCE_ADD_BAND_"
_SURFACE = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"


@dataclass(frozen=True, slots=True)
class LandsatMetadata:
    """What is needed of an MTL file.

    Attributes:
        datetime: Scene centre, UTC.
        cloud_cover_pct: For the whole scene, None where not given.
        platform: STAC platform, for example `landsat-8`.
        level: Of the product: 1, or 2 for surface reflectance.
        reflectance: Band number -> (scale, offset); of level 1 corrected for the sun's elevation.
    """

    datetime: dt.datetime
    cloud_cover_pct: float | None
    platform: str
    level: int
    reflectance: dict[str, tuple[float, float]]


def read_mtl(path: Path) -> LandsatMetadata:
    """Read a Landsat MTL file, group by group: that of a level-2 product holds the factors of level 1, too.

    Surface reflectance is MULT x DN + ADD (Landsat 8-9 Collection 2 Level 2 Science Product Guide), top-of-atmosphere
    reflectance (MULT x DN + ADD) / sin(sun elevation) (Landsat 8 Data Users Handbook, section 5).

    Raises:
        RejectedError: "no_metadata" if it is absent or lacks what is needed.
    """
    try:
        if not path.is_file():
            raise InputError("it is not there")
        with path.open(encoding="utf-8", errors="replace") as file:
            groups = _groups(file.read(_MAX_BYTES))
        first = {key: value for entries in reversed(list(groups.values())) for key, value in entries.items()}
        level = 2 if groups.get("PRODUCT_CONTENTS", first).get("PROCESSING_LEVEL", "").startswith("L2") else 1
        time = re.sub(r"(\.\d{6})\d+", r"\1", first["SCENE_CENTER_TIME"].rstrip("Z"))
        when = dt.datetime.fromisoformat(f"{first['DATE_ACQUIRED']}T{time}").replace(tzinfo=dt.UTC)
        if level == 2:
            factors, sun = groups[_SURFACE], 1.0
        else:
            factors = {k: v for name, entries in groups.items() if name != _SURFACE for k, v in entries.items()}
            sun = math.sin(math.radians(float(first["SUN_ELEVATION"])))
        if not sun > 0:  # nor NaN
            raise InputError("the sun is below the horizon")
        bands = [key.removeprefix(_MULT) for key in factors if key.startswith(_MULT)]
        reflectance = {b: (float(factors[_MULT + b]) / sun, float(factors[_ADD + b]) / sun) for b in bands}
        cloud = float(first.get("CLOUD_COVER", "-1"))
    except (OSError, KeyError, ValueError) as error:
        raise RejectedError(
            "no_metadata", f"{path.name} is not a Landsat MTL file with date and factors: {error!r}"
        ) from error
    return LandsatMetadata(
        datetime=when,
        cloud_cover_pct=cloud if 0 <= cloud <= 100 else None,
        platform=first.get("SPACECRAFT_ID", "").lower().replace("_", "-"),
        level=level,
        reflectance=reflectance,
    )


def _groups(text: str) -> Mapping[str, Mapping[str, str]]:
    """Entries by the innermost group that they stand in, groups in the file's order."""
    found: dict[str, dict[str, str]] = {}
    inside = [""]
    for key, value in _LINE.findall(text):
        if key == "GROUP":
            inside.append(value)
        elif key == "END_GROUP":
            inside = inside[:-1] or [""]
        else:
            found.setdefault(inside[-1], {}).setdefault(key, value)
    return found

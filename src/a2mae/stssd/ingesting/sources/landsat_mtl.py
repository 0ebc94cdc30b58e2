"""Landsat's MTL.txt: when a scene was taken and how its counts become top-of-atmosphere reflectance."""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from pathlib import Path

from a2mae.stssd.refusals import RefusedError

_LINE = re.compile(r"^\s*([A-Z0-9_]+)\s*=\s*\"?([^\"\n]*?)\"?\s*$", re.MULTILINE)
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class LandsatMetadata:
    """What is needed of an MTL file.

    Attributes:
        datetime: Scene centre, UTC.
        cloud_cover_pct: For the whole scene, None where not given.
        platform: STAC platform, for example `landsat-8`.
        reflectance: Band number -> (scale, offset), corrected for the sun's elevation.
    """

    datetime: dt.datetime
    cloud_cover_pct: float | None
    platform: str
    reflectance: dict[str, tuple[float, float]]


def read_mtl(path: Path) -> LandsatMetadata:
    """Read an MTL file.

    Top-of-atmosphere reflectance is (MULT x DN + ADD) / sin(sun elevation), Landsat 8 Data Users Handbook, section 5.

    Raises:
        RefusedError: "no_metadata" if it is absent or lacks what is needed.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            entries = dict(_LINE.findall(file.read(_MAX_BYTES)))
        time = re.sub(r"(\.\d{6})\d+", r"\1", entries["SCENE_CENTER_TIME"].rstrip("Z"))
        when = dt.datetime.fromisoformat(f"{entries['DATE_ACQUIRED']}T{time}").replace(tzinfo=dt.UTC)
        sun = math.sin(math.radians(float(entries["SUN_ELEVATION"])))
        if sun <= 0:
            raise ValueError("the sun is below the horizon")
        prefix = "REFLECTANCE_MULT_BAND_"
        factors = {
            key.removeprefix(prefix): (
                float(value) / sun,
                float(entries[f"REFLECTANCE_ADD_BAND_{key.removeprefix(prefix)}"]) / sun,
            )
            for key, value in entries.items()
            if key.startswith(prefix)
        }
    except (OSError, KeyError, ValueError) as error:
        raise RefusedError(
            "no_metadata", f"{path.name} is not a Landsat MTL file with date and factors: {error!r}"
        ) from error
    cloud = float(entries.get("CLOUD_COVER", "-1"))
    return LandsatMetadata(
        datetime=when,
        cloud_cover_pct=cloud if cloud >= 0 else None,
        platform=entries.get("SPACECRAFT_ID", "").lower().replace("_", "-"),
        reflectance=factors,
    )

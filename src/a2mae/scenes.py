"""Scenes and their assets: what `ingest` finds and every later stage relies on.

A `Scene` is one acquisition of one sensor that can be used; its `BandAsset`s say where each band lies, on which grid,
and how its stored numbers become physical values. What cannot be used becomes a `RejectedScene` with its reason. Both
are rows of the scene table (`SCENE_COLUMNS`).
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from a2mae.errors import InputError, without_secrets
from a2mae.sensors import Sensor, Units, sensor_from_dict

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from affine import Affine
    from shapely.geometry.base import BaseGeometry


_LARGEST_FACTOR = 1e30  # float32 holds what it decodes


def decodes(scale: float, offset: float) -> bool:
    """Whether scale and offset make values of stored numbers: both are finite, and scale is not 0."""
    return 1 / _LARGEST_FACTOR <= abs(scale) <= _LARGEST_FACTOR and abs(offset) <= _LARGEST_FACTOR


class Role(StrEnum):
    """What an asset is for."""

    DATA = "data"
    """A band of the sensor."""
    CLOUD_MASK = "cloud_mask"
    """A band that marks clouds, shadows or fill; `BandAsset.mask` says how."""


class MaskKind(StrEnum):
    """How the numbers of a cloud mask are read."""

    NONE = "none"
    """Not a mask."""
    SCL = "scl"
    """Sentinel-2 scene classification, classes 0 (no data) to 11 (snow)."""
    QA_PIXEL = "qa_pixel"
    """Landsat Collection 2 `QA_PIXEL` bits: 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow."""
    BQA_C1 = "bqa_c1"
    """Landsat Collection 1 `BQA` bits: 0 fill, 4 cloud, 7-8 shadow confidence, 11-12 cirrus confidence."""
    BQA = "bqa"
    """Landsat 8 before Collection 1: bits 0 fill, 1 dropped frame, 12-13 cirrus and 14-15 cloud confidence."""
    FMASK = "fmask"
    """0 no data, 1 clear, 2 cloud, 3 shadow, 4 snow, 5 water (Geoscience Australia, HLS v1)."""
    HLS_FMASK = "hls_fmask"
    """Fmask of HLS v2.0, bits: 1 cloud, 2 adjacent to cloud or shadow, 3 cloud shadow; 255 is fill."""
    PROBABILITY = "probability"
    """Cloud probability; `scale` brings it to 0-1."""
    BINARY = "binary"
    """Anything but zero is cloud or shadow."""
    CLEAR = "clear"
    """1 is clear, anything else is not: the first band of Planet's UDM2."""


class CloudTest(StrEnum):
    """How clouds are found on a scene."""

    MASK = "mask"
    """By the asset of role `cloud_mask`."""
    BRIGHTNESS = "brightness"
    """By bright, white visible reflectance: for products that come without a mask."""
    NONE = "none"
    """Not at all: cloud-free by construction (aerial surveys) or insensitive (radar)."""


@dataclass(frozen=True, slots=True)
class BandAsset:
    """One band of a scene: `physical = stored * scale + offset` where `stored != nodata`.

    Attributes:
        band: `Band.name` of the scene's sensor; for a mask its provider's name.
        href: Local path (relative ones start at the project's root) or an `https`/`s3` address, already checked.
        band_index: Band inside the file, 1-based as in rasterio.
        scale: Physical units per count, after everything that the provider's metadata says.
        offset: Physical value of a stored zero.
        nodata: Stored value that means "nothing was seen"; may be NaN or infinite; None where none is declared.
        units: Of the decoded value.
        gsd_m: Pixel size in metres as stored (the resampled one where the provider resampled).
        role: Band or mask.
        mask: How a mask is read; `MaskKind.NONE` for bands.
        crs: "EPSG:…" or WKT of the file; None where only opening it would tell.
        shape: (rows, columns) of the file, None where not known.
        transform: Affine of the file's grid, six numbers in rasterio's order (a, b, c, d, e, f), None where not known.
        checksum: Multihash of the whole file in hex, as its item gives it (STAC `file:checksum`); None without.
        fill: Stored value that means "nothing was seen" where all bands of the file that are read hold it: that of a
            format whose files declare no nodata; None where there is none.
        alpha_is_data: The band of its file that is flagged as alpha holds data, so that it masks nothing.
        stated_by: What states scale, offset, nodata and pixel size of a file that nobody has opened yet: they are
            compared when it is read; None where they have been, or where the user's own word decides.
    """

    band: str
    href: str
    band_index: int
    scale: float
    offset: float
    nodata: float | None
    units: Units
    gsd_m: float
    role: Role = Role.DATA
    mask: MaskKind = MaskKind.NONE
    crs: str | None = None
    shape: tuple[int, int] | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    checksum: str | None = None
    fill: int | None = None
    alpha_is_data: bool = False
    stated_by: str | None = None

    def __post_init__(self) -> None:
        """Check that the values make sense together."""
        if self.band_index < 1:
            raise InputError(f"asset {self.band!r}: band_index counts from 1, found {self.band_index}")
        if not decodes(self.scale, self.offset):
            raise InputError(
                f"asset {self.band!r}: scale {self.scale:g} and offset {self.offset:g} decode no stored number; both"
                " are finite, and scale is not 0"
            )
        if not (math.isfinite(self.gsd_m) and self.gsd_m > 0):
            raise InputError(f"asset {self.band!r}: gsd_m must be positive metres, found {self.gsd_m}")
        if (self.role is Role.CLOUD_MASK) != (self.mask is not MaskKind.NONE):
            raise InputError(f"asset {self.band!r}: a cloud mask has a mask kind and a band has none")

    @property
    def affine(self) -> Affine | None:
        """`transform` as an `Affine`; None where it is not known."""
        from affine import Affine  # noqa: PLC0415 (only readers of pixels need it)

        return None if self.transform is None else Affine(*self.transform)


@dataclass(frozen=True, slots=True)
class Scene:
    """One usable acquisition.

    Attributes:
        scene_id: Unique in the table, safe as part of a file name.
        sensor: `Sensor.id`.
        datetime: UTC.
        platform: Provider's platform in STAC spelling, for example `landsat-8`; empty where not known.
        crs: Of the finest asset, "EPSG:…" or WKT.
        gsd_m: Of the finest asset, metres.
        geometry: Valid footprint, EPSG:4326.
        assets: The sensor's bands in the sensor's order, then the cloud mask if there is one; of a mosaic those of its
            parts, one part after the other.
        cloud_test: How clouds are found.
        cloud_cover_pct: Provider's figure for the scene, 0-100; None where not given.
        processing_baseline: Sentinel-2, for example "04.00"; None elsewhere.
        processed: When its provider processed it, UTC; None where not given. Tables do not hold it.
    """

    scene_id: str
    sensor: str
    datetime: dt.datetime
    platform: str
    crs: str
    gsd_m: float
    geometry: BaseGeometry
    assets: tuple[BandAsset, ...]
    cloud_test: CloudTest = CloudTest.NONE
    cloud_cover_pct: float | None = None
    processing_baseline: str | None = None
    processed: dt.datetime | None = None

    def __post_init__(self) -> None:
        """Check that the time has a zone and that the cloud test fits the assets."""
        if self.datetime.tzinfo is None:
            raise InputError(f"scene {self.scene_id!r}: datetime {self.datetime} has no time zone")
        if (self.cloud_test is CloudTest.MASK) != (self.mask is not None):
            raise InputError(f"scene {self.scene_id!r}: cloud_test 'mask' goes with exactly one cloud_mask asset")

    def rejected(self, reason: str, detail: str) -> RejectedScene:
        """The same scene as one that cannot be used.

        Args:
            reason: Short code, for example "cloud_cover".
            detail: The sentence a person reads.
        """
        return RejectedScene(self.scene_id, reason, detail, self.sensor, self.datetime, self.geometry)

    @property
    def parts(self) -> tuple[tuple[BandAsset, ...], ...]:
        """The assets of each part of a mosaic; any other scene has one part."""
        starts = [
            k for k, a in enumerate(self.assets) if k == 0 or (a.band, a.role) == (self.assets[0].band, Role.DATA)
        ]
        return tuple(self.assets[a:b] for a, b in zip(starts, [*starts[1:], len(self.assets)], strict=True))

    @property
    def bands(self) -> tuple[BandAsset, ...]:
        """The data bands (of the first part), in the sensor's order."""
        return tuple(asset for asset in self.parts[0] if asset.role is Role.DATA) if self.assets else ()

    @property
    def mask(self) -> BandAsset | None:
        """The cloud mask (of the first part), if there is one."""
        return next((asset for asset in self.assets if asset.role is Role.CLOUD_MASK), None)


@dataclass(frozen=True, slots=True)
class RejectedScene:
    """A scene, item or file that cannot be used.

    Attributes:
        scene_id: Item id, or the file's path below the folder.
        reason: Short code: "corrupt", "no_crs", "missing_band", "unknown_sensor", "bad_href", "no_date", "no_rule", ...
        detail: The sentence a person reads: what was found, what was expected, where to change it.
        sensor: `Sensor.id` where known.
        datetime: UTC where known.
        geometry: Footprint where known, EPSG:4326.
    """

    scene_id: str
    reason: str
    detail: str
    sensor: str | None = None
    datetime: dt.datetime | None = None
    geometry: BaseGeometry | None = None

    def __post_init__(self) -> None:
        """Leave out secrets of addresses, and escape what no table can hold: ids may have signs that are none."""
        for name in ("scene_id", "detail"):
            text = without_secrets(str(getattr(self, name))).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, text)


def _number_to_json(value: float | None) -> float | str | None:
    # JSON has no NaN and no infinities; nodata has both.
    return value if value is None or math.isfinite(value) else str(value)


def assets_to_json(assets: Iterable[BandAsset]) -> str:
    """Write assets as the `assets` column of the scene table: strict JSON, keys in a fixed order."""
    return json.dumps(
        [
            {
                "band": a.band,
                "href": a.href,
                "band_index": a.band_index,
                "scale": a.scale,
                "offset": a.offset,
                "nodata": _number_to_json(a.nodata),
                "units": a.units.value,
                "gsd_m": a.gsd_m,
                "role": a.role.value,
                "mask": a.mask.value,
                "crs": a.crs,
                "shape": a.shape,
                "transform": a.transform,
                **({} if a.checksum is None else {"checksum": a.checksum}),
                **({} if a.fill is None else {"fill": a.fill}),
                **({"alpha_is_data": True} if a.alpha_is_data else {}),
                **({} if a.stated_by is None else {"stated_by": a.stated_by}),
            }
            for a in assets
        ],
        allow_nan=False,
        separators=(",", ":"),
    )


def assets_from_json(text: str) -> tuple[BandAsset, ...]:
    """Read the `assets` column back.

    Raises:
        InputError: If the text is not what `assets_to_json` writes.
    """
    try:
        return tuple(
            BandAsset(
                **{
                    **entry,
                    "nodata": None if entry["nodata"] is None else float(entry["nodata"]),
                    "units": Units(entry["units"]),
                    "role": Role(entry["role"]),
                    "mask": MaskKind(entry["mask"]),
                    "shape": None if entry["shape"] is None else tuple(entry["shape"]),
                    "transform": None if entry["transform"] is None else tuple(entry["transform"]),
                }
            )
            for entry in json.loads(text)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"scene table: column 'assets' cannot be read ({error!r}); rerun the ingest pipeline"
        ) from error


def scenes_to_table(scenes: Iterable[Scene], rejected: Iterable[RejectedScene] = ()) -> gpd.GeoDataFrame:
    """Make the scene table: accepted scenes, then rejected ones (status "refused"), each sorted by id.

    Args:
        scenes: Usable scenes.
        rejected: Scenes that cannot be used.

    Returns:
        Columns of `SCENE_COLUMNS` and `geometry` in EPSG:4326.
    """
    # Parameters import this module's enums, and workers of a build its scenes: both start sooner without tables.
    import geopandas as gpd  # noqa: PLC0415

    from a2mae.tables import SCENE_COLUMNS, frame_of_rows  # noqa: PLC0415

    accepted = sorted(scenes, key=lambda scene: scene.scene_id)
    out = sorted(rejected, key=lambda scene: (scene.scene_id, scene.reason, scene.detail))
    rows: list[dict[str, object]] = [
        {
            "scene_id": s.scene_id,
            "sensor": s.sensor,
            "datetime": s.datetime,
            "platform": s.platform,
            "crs": s.crs,
            "gsd_m": s.gsd_m,
            "cloud_cover_pct": s.cloud_cover_pct,
            "processing_baseline": s.processing_baseline,
            "assets": assets_to_json(s.assets),
            "cloud_test": s.cloud_test.value,
            "status": "accepted",
            "reason": "",
        }
        for s in accepted
    ]
    rows += [
        {
            "scene_id": r.scene_id,
            "sensor": r.sensor,
            "datetime": r.datetime,
            "assets": "[]",
            "cloud_test": CloudTest.NONE.value,
            "status": "refused",
            "reason": r.reason,
        }
        for r in out
    ]
    frame = frame_of_rows(rows, SCENE_COLUMNS)
    geometry = [s.geometry for s in accepted] + [r.geometry for r in out]
    return gpd.GeoDataFrame(frame, geometry=gpd.GeoSeries(geometry, index=frame.index, crs=4326), crs=4326)


def scenes_from_table(table: pd.DataFrame) -> list[Scene]:
    """Read the accepted scenes of a scene table, in the table's order."""
    import pandas as pd  # noqa: PLC0415

    accepted = table[table["status"] == "accepted"]
    return [
        Scene(
            scene_id=row["scene_id"],
            sensor=row["sensor"],
            datetime=row["datetime"].to_pydatetime(),
            platform=row["platform"],
            crs=row["crs"],
            gsd_m=float(row["gsd_m"]),
            geometry=row["geometry"],
            assets=assets_from_json(row["assets"]),
            cloud_test=CloudTest(row["cloud_test"]),
            cloud_cover_pct=None if pd.isna(row["cloud_cover_pct"]) else float(row["cloud_cover_pct"]),
            processing_baseline=None if pd.isna(row["processing_baseline"]) else str(row["processing_baseline"]),
        )
        for row in accepted.to_dict("records")
    ]


def rejected_to_table(rejected: Iterable[RejectedScene]) -> pd.DataFrame:
    """Make the table of scenes that `ingest` rejected: rows of `REJECTED_COLUMNS`, sorted by id."""
    from a2mae.tables import REJECTED_COLUMNS, frame_of_rows  # noqa: PLC0415

    rows: list[dict[str, object]] = [
        {
            "scene_id": r.scene_id,
            "location_id": "",
            "sensor": r.sensor,
            "datetime": r.datetime,
            "stage": "ingest",
            "reason": r.reason,
            "detail": r.detail,
        }
        for r in sorted(rejected, key=lambda scene: (scene.scene_id, scene.reason, scene.detail))
    ]
    return frame_of_rows(rows, REJECTED_COLUMNS)


def sensors_to_json(sensors: Iterable[Sensor]) -> dict[str, object]:
    """Make the `sensors` dataset: the full description of every given sensor, by id."""
    return {sensor.id: sensor.to_dict() for sensor in sorted(sensors, key=lambda sensor: sensor.id)}


def sensors_from_json(data: Mapping[str, object]) -> dict[str, Sensor]:
    """Read the `sensors` dataset back.

    Raises:
        InputError: If a description is not one.
    """
    found: dict[str, Sensor] = {}
    for sensor_id, entry in data.items():
        if not isinstance(entry, Mapping):
            raise InputError(f"sensors: {sensor_id!r} is not a sensor description")
        found[sensor_id] = sensor_from_dict(entry)
    return found

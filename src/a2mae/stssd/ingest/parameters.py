"""Parameters of `ingest`: sources, rules for file names, profiles of STAC providers, locations."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from a2mae.config import Parameters
from a2mae.remote.policy import HrefPolicy, RemoteAccess
from a2mae.scenes import CloudTest, MaskKind
from a2mae.sensors import Sensor, Units, sensor_from_dict

Nodata = float | Literal["file", "none", "nan", "inf", "-inf"]


class HrefParameters(Parameters):
    """What a catalog may make us open."""

    schemes: tuple[Literal["file", "https", "http", "s3"], ...] = Field(
        default=("file", "https", "s3"), description="Schemes that hrefs may have; `file` stands for local paths."
    )
    roots: tuple[str, ...] = Field(
        default=(), description="Folders below which local files may lie, besides the catalog's own folder."
    )
    hosts: tuple[str, ...] = Field(default=(), description="Where not empty, the only hosts that may be asked.")
    allow_private: bool = Field(default=False, description="Allow loopback, link-local and private network addresses.")
    alternates: tuple[str, ...] = Field(
        default=(),
        description="Keys of an asset's `alternate` that are taken before its own href, in this order; without them"
        " alternates are taken where the href is s3 or not allowed.",
    )

    def policy(self, *folders: Path, local: bool = False) -> HrefPolicy:
        """Make the policy that says what may be opened.

        Args:
            folders: Further folders below which local files may lie.
            local: Local files may be opened, whatever the schemes.
        """
        schemes = frozenset(self.schemes) | ({"file"} if local else set())
        return HrefPolicy(
            schemes,
            (*folders, *map(Path, self.roots)),
            tuple(self.hosts),
            allow_private=self.allow_private,
            alternates=self.alternates,
        )


class ApiParameters(Parameters):
    """A search on a STAC API."""

    moved: ClassVar[Mapping[str, str]] = {
        "intersects": "bbox, and ingest.locations.mode: polygons with ingest.locations.polygons"
    }

    url: str = Field(default="", description="Root of the API.")
    collections: tuple[str, ...] = Field(default=(), description="Collections to search.")
    bbox: tuple[float, float, float, float] | None = Field(
        default=None, description="West, south, east, north in degrees; across the date line west is larger than east."
    )
    datetime: str | None = Field(default=None, description="Instant or interval, for example 2020-05-01/2020-09-30.")
    query: dict[str, Any] | None = Field(
        default=None, description="STAC `query` extension, for example {eo:cloud_cover: {lt: 30}}."
    )
    filter: str | dict[str, Any] | None = Field(default=None, description="CQL2 filter: text, or JSON as a mapping.")
    max_items: Annotated[int, Field(ge=1)] = Field(
        default=1000, description="Stop after so many items; a bound, not a page."
    )
    page_size: Annotated[int, Field(ge=1, le=10_000)] = Field(default=100, description="Items asked for at once.")
    timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(default=60.0, description="Of one request.")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(default=5, description="Retries of a request on 429 and 5xx.")
    replay: str | None = Field(
        default=None, description="A recorded stac_items.json: build from it without asking the API."
    )

    @field_validator("bbox")
    @classmethod
    def _on_earth(cls, bbox: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if bbox is not None:
            west, south, east, north = bbox
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                raise ValueError(f"bbox {list(bbox)} is not west, south, east, north in degrees")
        return bbox


class SourceParameters(Parameters):
    """Where scenes come from."""

    kind: Literal["stac_catalog", "stac_api", "folder"] = Field(default="stac_catalog", description="Which source.")
    catalog: str | None = Field(
        default=None, description="Path or address of a static STAC document; null: the simulated catalog of this run."
    )
    api: ApiParameters = Field(default=ApiParameters(), description="For kind stac_api.")
    signing: str = Field(
        default="none",
        description="`none`, or `package.module:function` (address -> signed address), applied when reading.",
    )
    max_items: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="A static catalog with more items is rejected."
    )
    max_document_mb: Annotated[float, Field(gt=0)] = Field(
        default=64.0, description="Largest JSON document that is read."
    )


class MaskRule(Parameters):
    """Where a product keeps its cloud mask."""

    kind: MaskKind = Field(description="How its numbers are read.")
    band_index: int | None = Field(default=None, ge=1, description="Band of the same file, counted from 1.")
    token: str | None = Field(default=None, description="Value of the `band` group of the file that is the mask.")
    asset: str | None = Field(default=None, description="STAC: key of the asset that is the mask.")
    scale: float = Field(default=1.0, gt=0, description="For `probability`: what brings the numbers to 0-1.")

    @model_validator(mode="after")
    def _kind_is_a_mask(self) -> MaskRule:
        if self.kind is MaskKind.NONE or sum(v is not None for v in (self.band_index, self.token, self.asset)) != 1:
            raise ValueError("mask: give a kind other than none and exactly one of band_index, token, asset")
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

    def pattern(self) -> re.Pattern[str]:
        """The pattern over paths below the folder, with `/` between names."""
        return re.compile(self.regex if self.regex is not None else template_regex(str(self.files)))


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
        if self.mask is not None and self.cloud_test not in (None, CloudTest.MASK):
            raise ValueError(f"rule {self.name!r}: with a mask, cloud_test is 'mask'")
        if self.mask is None and self.cloud_test is CloudTest.MASK:
            raise ValueError(f"rule {self.name!r}: cloud_test 'mask' needs a mask")
        return self


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
        default={}, description="Sensor band -> asset key, where it is neither its name nor common name."
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


class LocationParameters(Parameters):
    """Where footprints are cut."""

    mode: Literal["grid", "points", "polygons"] = Field(
        default="grid",
        description="grid: everywhere the scenes reach; polygons: the grid inside them; points: one on each.",
    )
    footprint_m: float = Field(
        default=1920.0, gt=0, le=100_000, description="Side of the square; a multiple of every GSD used."
    )
    spacing_m: float | None = Field(
        default=None, gt=0, description="Grid step; null: footprint_m, squares side by side."
    )
    points: tuple[tuple[float, float], ...] = Field(default=(), description="Longitude, latitude of each centre.")
    polygons: str | None = Field(default=None, description="GeoJSON file (EPSG:4326).")
    min_scenes: int = Field(default=2, ge=1, description="Scenes that must cover the whole square.")
    min_sensors: int = Field(default=1, ge=1, description="Different sensors among them.")
    sampling: Literal["uniform", "cities", "strata"] = Field(
        default="uniform",
        description="What the caps prefer: nothing; places near cities; every class of a land-cover raster alike.",
    )
    cities: str | None = Field(
        default=None, description="GeoJSON file of places, with `population` where known; for sampling cities."
    )
    city_radius_m: float = Field(default=20_000.0, gt=0, description="Standard deviation of the density around a city.")
    strata: str | None = Field(default=None, description="Raster of classes (any CRS); for sampling strata.")
    max_locations: int | None = Field(default=None, ge=1, description="Keep at most so many, drawn with the seed.")
    max_per_group: int | None = Field(
        default=None,
        ge=1,
        description="At most so many share the same scenes: a large scene does not crowd out the rest.",
    )
    seed: int = Field(default=0, ge=0, description="Of the draws.")
    min_distance_m: float = Field(default=0.0, ge=0, description="Least distance between centres.")

    @model_validator(mode="after")
    def _mode_has_its_input(self) -> LocationParameters:
        if self.mode == "points" and not self.points:
            raise ValueError("locations.mode 'points' needs locations.points: [[lon, lat], ...]")
        if self.mode == "polygons" and not self.polygons:
            raise ValueError("locations.mode 'polygons' needs locations.polygons: a GeoJSON file")
        if self.sampling == "cities" and not self.cities:
            raise ValueError("locations.sampling 'cities' needs locations.cities: a GeoJSON file of places")
        if self.sampling == "strata" and not (self.strata and self.max_locations):
            raise ValueError("locations.sampling 'strata' needs locations.strata (a raster) and max_locations")
        return self

    @field_validator("points")
    @classmethod
    def _on_earth(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for lon, lat in points:
            if not (-180 <= lon <= 180 and -90 <= lat <= 90):
                raise ValueError(f"locations.points: ({lon}, {lat}) is not (longitude, latitude) in degrees")
        return points


class IngestParameters(Parameters):
    """The `ingest` group."""

    folder: str | None = Field(default=None, description="Folder of GeoTIFFs; naming one makes it the source.")
    source: SourceParameters = Field(default=SourceParameters(), description="Where scenes come from.")
    rules: tuple[FolderRule, ...] = Field(default=(), description="File names -> scenes; the first that matches wins.")
    exclude: tuple[ExcludeRule, ...] = Field(
        default=(), description="Files that are no scenes; asked before the rules."
    )
    sensors: tuple[dict[str, Any], ...] = Field(
        default=(), description="Sensors of your own; an example is in conf/real_samples."
    )
    stac_profiles: tuple[StacProfile, ...] = Field(default=(), description="Providers that are not built in.")
    use_sensors: tuple[str, ...] = Field(
        default=(), description="Where not empty, only scenes of these sensors are used."
    )
    bands: dict[str, tuple[str, ...]] = Field(
        default={}, description="Sensor -> bands to keep, in order; absent: all of them."
    )
    max_cloud_cover_pct: float = Field(
        default=100.0, ge=0, le=100, description="Scenes that their provider calls cloudier are rejected."
    )
    datetime_start: dt.datetime | None = Field(default=None, description="Earliest acquisition.")
    datetime_end: dt.datetime | None = Field(default=None, description="Latest acquisition.")
    mosaics: bool = Field(
        default=True,
        description="Squares across the border of two scenes of one overpass are filled from both; false: they are"
        " no locations.",
    )
    sentinel2_offset: Literal["baseline", "flag"] = Field(
        default="baseline",
        description="baseline: -0.1 from processing baseline 04.00 on, whatever flags say; flag: none where the item"
        " says earthsearch:boa_offset_applied.",
    )
    probe: Literal["local", "all", "none"] = Field(
        default="local",
        description="Which files' headers are opened: local ones, remote ones too, or none (trust the metadata).",
    )
    workers: int = Field(default=8, ge=1, le=256, description="Threads that read headers.")
    hrefs: HrefParameters = Field(default=HrefParameters(), description="What a catalog may make us open.")
    locations: LocationParameters = Field(default=LocationParameters(), description="Where footprints are cut.")

    @field_validator("sensors")
    @classmethod
    def _sensors_read(cls, sensors: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for entry in sensors:
            sensor_from_dict(entry)
        return sensors

    @field_validator("datetime_start", "datetime_end")
    @classmethod
    def _utc(cls, value: dt.datetime | None) -> dt.datetime | None:
        return value.replace(tzinfo=dt.UTC) if value is not None and value.tzinfo is None else value

    @model_validator(mode="after")
    def _one_source(self) -> IngestParameters:
        if self.folder is not None and (self.source.kind == "stac_api" or self.source.catalog is not None):
            raise ValueError(
                f"ingest.folder = {self.folder!r} and a STAC source (ingest.source.kind = {self.source.kind!r},"
                f" catalog = {self.source.catalog!r}) are both given; leave one out"
            )
        return self

    @property
    def source_kind(self) -> Literal["stac_catalog", "stac_api", "folder"]:
        """`source.kind`, or `folder` where one is named."""
        return "folder" if self.folder is not None else self.source.kind

    def access(self) -> RemoteAccess:
        """How the pixels of the ingested scenes are reached."""
        return RemoteAccess(self.source.signing, self.hrefs.policy())

    def own_sensors(self) -> Mapping[str, Sensor]:
        """The user's sensors by id."""
        return {sensor.id: sensor for sensor in map(sensor_from_dict, self.sensors)}


def template_regex(template: str) -> str:
    """Translate a file pattern into a regular expression.

    `*` and `?` stay within a name, `**/` is any number of folders, `{name}` is a named field without `/`; a field that
    appears twice must have the same value.
    """
    out: list[str] = []
    seen: set[str] = set()
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\{[A-Za-z_]\w*\})", template):
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
            out.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
        else:
            out.append(re.escape(part))
    return "".join(out)


def nodata_value(nodata: Nodata, declared: float | None) -> float | None:
    """The stored number that stands for "nothing was seen".

    Args:
        nodata: As a rule or profile says it.
        declared: What the file or its metadata declare.
    """
    if nodata == "file":
        return declared
    return None if nodata == "none" else float(nodata)

"""Parameters of `ingest`: sources, what may be opened, locations; rules and profiles are in `rules`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from a2mae.config import OptionalPath, Parameters
from a2mae.errors import InputError
from a2mae.remote.policy import HrefPolicy, RemoteAccess
from a2mae.sensors import Sensor, sensor_from_dict
from a2mae.stssd.ingest.rules import ExcludeRule, FolderRule, StacProfile


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


def check_bbox(bbox: tuple[float, float, float, float]) -> None:
    """Reject a box that is none, or goes the long way round the globe: west and east may be exchanged.

    Args:
        bbox: West, south, east, north in degrees; across the date line west is larger than east.

    Raises:
        InputError: With what is expected.
    """
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
        raise InputError(f"bbox {list(bbox)} is not west, south, east, north in degrees")
    if west > east and west - east < 180:
        raise InputError(
            f"bbox {list(bbox)} is not west, south, east, north in degrees, or goes {east + 360 - west:g} degrees round"
            " the globe: across the date line a box is less than half of it; name two boxes for more"
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
            check_bbox(bbox)
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
    polygons: OptionalPath = Field(default=None, description="GeoJSON file (EPSG:4326).")
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
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of the draws.")
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

    folder: OptionalPath = Field(default=None, description="Folder of GeoTIFFs; naming one makes it the source.")
    source: SourceParameters = Field(default=SourceParameters(), description="Where scenes come from.")
    rules: tuple[FolderRule, ...] = Field(default=(), description="File names -> scenes; the first that matches wins.")
    exclude: tuple[ExcludeRule, ...] = Field(
        default=(), description="Files that are no scenes; asked before the rules."
    )
    sensors: tuple[dict[str, Any], ...] = Field(
        default=(), description="Sensors of your own; `a2mae init` describes those that it finds."
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

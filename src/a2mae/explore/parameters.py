"""Parameters of what comes of embeddings and maps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from a2mae.config import OnDiskPath, Parameters


class ReferenceParameters(Parameters):
    """Points whose true class is known, drawn at random within each class of a map."""

    task: Literal["segment", "detect_change", "detect_transitions"] = Field(
        description="whose map they were drawn from"
    )
    points: OnDiskPath = Field(description="GeoPackage, Shapefile, GeoParquet or GeoJSON of points")
    class_property: str = Field("class", description="the attribute of a point that names its true class")


class DeliverParameters(Parameters):
    """What is made of maps for people who open them in a GIS or a spreadsheet."""

    smallest_m2: float = Field(
        0.0, ge=0, description="smallest mapping unit of the polygons: less ground goes to the largest neighbour"
    )
    simplify_m: float = Field(
        0.0, ge=0, description="corners smaller than a square of about this side are cut off; 0: borders follow pixels"
    )
    zones: OnDiskPath = Field(None, description="polygons of your own: classes are counted in each; null: none")
    references: tuple[ReferenceParameters, ...] = Field(
        (), description="random points with their true classes: areas with intervals that hold for the map"
    )
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples of test places behind intervals of areas")
    seed: int = Field(0, ge=0, lt=2**63, description="of the resamples")


class SearchParameters(Parameters):
    """What is searched for in the embedding store, and what is shown."""

    level: Literal["image", "set"] = Field("image", description="rank images, or whole image sets")
    point: tuple[float, float] | None = Field(None, description="longitude and latitude of a place like which to find")
    examples: OnDiskPath = Field(None, description="points or polygons of places, in any CRS; null: none")
    example_property: str = Field(
        "wanted",
        description="the attribute that says 1 (wanted) or 0 (not wanted); where there is none, all are wanted",
    )
    chip: OnDiskPath = Field(None, description="a GeoTIFF that shows what is wanted, not of the archive; null: none")
    chip_sensor: str = Field("sentinel-2-l2a", description="whose image the chip is")
    ids: tuple[str, ...] = Field((), description="image or set ids that are wanted")
    not_ids: tuple[str, ...] = Field((), description="image or set ids that are not wanted")
    sensors: tuple[str, ...] = Field((), description="look at these sensors' images alone; empty: at all")
    top: int = Field(50, ge=1, description="hits")
    exclude_m: float = Field(0.0, ge=0, description="ground so near to an example is left out; its own always is")
    shown: int = Field(12, ge=0, le=100, description="hits on the contact sheet")

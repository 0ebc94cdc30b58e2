"""Kinds of landscape: how much of what a region has, what grows there and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Biome:
    """Composition and habits of a kind of landscape.

    Shares are of the land left over by what comes before in the order rivers, lakes, settlements, bare, forest, fields.

    Attributes:
        soil: Its soil, a key of `MATERIALS`.
        grass: Cover code name of what grows where nothing else does.
        bare_cover: "rock" or "sand".
        lake, urban, bare, forest, fields: Shares 0–1.
        conifer, orchard, wetland: Shares 0–1 of the forest, of the fields, of the land near water.
        river_width_m: Mean width of its rivers.
        relief_m: Standard deviation of elevation.
        parcel_m: Length and width of a typical block of fields.
        crops: Relative frequency of each crop, by cover name.
        growing_day: Day of the northern year on which the growing-season scenes are centred.
        dormant_day: The same for the other season.
    """

    soil: str
    grass: str = "meadow"
    bare_cover: str = "rock"
    lake: float = 0.02
    urban: float = 0.10
    bare: float = 0.04
    forest: float = 0.30
    conifer: float = 0.35
    fields: float = 0.65
    orchard: float = 0.08
    wetland: float = 0.35
    river_width_m: float = 45.0
    relief_m: float = 25.0
    parcel_m: tuple[float, float] = (420.0, 260.0)
    crops: Mapping[str, float] = field(default_factory=lambda: {"winter_cereal": 4.0, "maize": 3.0, "rapeseed": 2.0})
    growing_day: int = 165
    dormant_day: int = 300


BIOMES: Mapping[str, Biome] = MappingProxyType(
    {
        "temperate_plain": Biome(
            "loam", crops={"winter_cereal": 4, "maize": 2.5, "rapeseed": 2, "roots": 2, "fallow": 0.5}, wetland=0.45
        ),
        "alpine_foreland": Biome(
            *("loam", "meadow", "rock"),
            lake=0.05, urban=0.11, bare=0.09, forest=0.38, conifer=0.65, fields=0.5, orchard=0.12, relief_m=130,
            parcel_m=(260, 180), crops={"winter_cereal": 3, "maize": 3, "roots": 1, "fallow": 0.5},
        ),
        "boreal": Biome(
            *("dark_soil", "meadow", "rock"),
            lake=0.08, urban=0.07, bare=0.05, forest=0.55, conifer=0.6, fields=0.45, orchard=0.03, wetland=0.6,
            relief_m=45, crops={"winter_cereal": 3, "rapeseed": 1.5, "roots": 1, "fallow": 1},
            growing_day=190, dormant_day=285,
        ),
        "mediterranean": Biome(
            *("red_soil", "range", "sand"),
            lake=0.015, urban=0.12, bare=0.08, forest=0.20, conifer=0.45, fields=0.62, orchard=0.42, wetland=0.25,
            relief_m=60, parcel_m=(300, 220), river_width_m=35,
            crops={"winter_cereal": 4, "maize": 1, "fallow": 1.5, "roots": 1}, growing_day=125, dormant_day=245,
        ),
        "corn_belt": Biome(
            *("dark_soil", "meadow", "sand"),
            lake=0.02, urban=0.08, bare=0.03, forest=0.14, conifer=0.12, fields=0.85, orchard=0.04, wetland=0.35,
            relief_m=14, parcel_m=(800, 400), river_width_m=60,
            crops={"maize": 5, "roots": 4, "winter_cereal": 0.7, "fallow": 0.4}, growing_day=205, dormant_day=120,
        ),
        "steppe": Biome(
            *("loam", "range", "sand"),
            lake=0.015, urban=0.06, bare=0.18, forest=0.08, conifer=0.4, fields=0.5, orchard=0.08, wetland=0.3,
            relief_m=35, parcel_m=(600, 420),
            crops={"winter_cereal": 4, "fallow": 2, "maize": 1}, growing_day=140, dormant_day=250,
        ),
        "subtropical": Biome(
            *("red_soil", "meadow", "sand"),
            lake=0.04, urban=0.14, bare=0.04, forest=0.28, conifer=0.15, fields=0.62, orchard=0.25, wetland=0.5,
            relief_m=40, parcel_m=(240, 150), river_width_m=70,
            crops={"maize": 3, "roots": 3, "winter_cereal": 2, "fallow": 0.7}, growing_day=195, dormant_day=60,
        ),
        "river_delta": Biome(
            *("dark_soil", "meadow", "sand"),
            lake=0.07, urban=0.16, bare=0.04, forest=0.10, conifer=0.2, fields=0.75, orchard=0.12, wetland=0.75,
            relief_m=4, river_width_m=120, parcel_m=(280, 160),
            crops={"roots": 4, "maize": 2, "winter_cereal": 3, "fallow": 0.5}, growing_day=180, dormant_day=80,
        ),
    }
)  # fmt: skip
"""The built-in biomes by name."""

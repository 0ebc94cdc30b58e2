"""What is known of the products of a folder, each statement with its evidence; what is not known is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from a2mae.sensors import BUILTIN_SENSORS, Band, Encoding, Sensor, Units, sensor_from_dict

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

RULE_KEYS = (
    "files", "regex", "match", "sensor", "bands", "date_format", "datetime", "landsat_mtl", "platform", "units",
    "scale", "offset", "nodata", "mask", "cloud_test", "processing_baseline",
)  # fmt: skip
"""Keys of `FolderRule` and `StacProfile` that are proposed, in the order in which they are written."""
_SAME_GRID = 0.25
"""Pixels of degrees are narrower than they are high: up to this difference they are kept on the sensor's own grid."""
_ROUND = 0.02
TYPICAL_NM = {
    "coastal": (443, 20), "blue": (490, 65), "green": (560, 40), "yellow": (605, 20), "red": (660, 35),
    "rededge": (705, 20), "nir": (840, 100), "nir08": (865, 20), "nir09": (945, 20), "swir16": (1610, 90),
    "swir22": (2200, 180), "pan": (600, 200),
}  # fmt: skip
"""Usual centre and width of bands that are told by their common name alone, nanometres."""
COMMON_NAMES = tuple(TYPICAL_NM)
"""Names of bands of a sensor that is not known otherwise, as STAC has them."""


@dataclass(frozen=True)
class Fact:
    """A statement about a product.

    Attributes:
        value: What goes into the rule; None where it cannot be told.
        evidence: What it is told by, or why it cannot be.
        suggestion: What is likely where it cannot be told; None: nothing is.
    """

    value: object
    evidence: str
    suggestion: object = None

    @property
    def known(self) -> bool:
        """Whether the files say it."""
        return self.value is not None


def asked(evidence: str, suggestion: object = None) -> Fact:
    """Make the fact that something cannot be told."""
    return Fact(None, evidence, suggestion)


@dataclass(frozen=True, kw_only=True)
class Product:
    """Files that one rule turns into scenes.

    Attributes:
        name: Of the rule.
        title: What it is, in words.
        rule: Keys of `FolderRule`, or with `match` of `StacProfile`, and what is known of them; a key that is not
            there keeps its default.
        paths: Its files, below the folder.
        scenes: How many scenes they make.
        dates: Its days in order, as names or metadata have them; empty where none is known.
        gsd_m: Finest pixel size, metres.
        side_m: Shortest side of its smallest scene, metres.
        outlines: Of files that were looked at, EPSG:4326, with their days.
        opened: How many of its files were looked into.
        band_count: Bands in each of its files.
        darkest: Lowest 1st percentile of a band as stored; None where nothing was seen.
        described: Bands as STAC items describe them, by key of `bands`; none of files, and of sensors that are known.
    """

    name: str
    title: str
    rule: Mapping[str, Fact]
    paths: tuple[str, ...]
    scenes: int
    dates: tuple[str, ...]
    gsd_m: float
    side_m: float
    outlines: tuple[tuple[BaseGeometry, str], ...] = field(repr=False)
    opened: int
    band_count: int
    darkest: float | None
    described: Mapping[str, Band] = field(default_factory=dict)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Keys of the rule that cannot be told from the files."""
        return tuple(key for key in RULE_KEYS if key in self.rule and not self.rule[key].known)

    def band_names(self) -> tuple[str, ...] | None:
        """Names of its bands, in file order; None where they are not known."""
        bands = self.rule["bands"].value
        if bands is None:
            return None
        names = bands.values() if isinstance(bands, Mapping) else cast(Sequence[str | None], bands)
        return tuple(dict.fromkeys(str(name) for name in names if name is not None))


@dataclass(frozen=True)
class Aside:
    """Files that are no scenes.

    Attributes:
        pattern: `files` or `regex`, and its value.
        why: In words.
        count: How many files.
    """

    pattern: tuple[str, str]
    why: str
    count: int


@dataclass(frozen=True)
class Recognition:
    """What a folder holds.

    Attributes:
        root: The folder.
        products: What makes scenes.
        asides: What does not.
        unusable: Files that look like scenes and cannot be read: path and why.
        notes: What else is to be said: what was sampled, what to do with files that are not read.
        unplaced: Paths of rasters of which none says where it lies; empty where there are others.
    """

    root: Path
    products: tuple[Product, ...]
    asides: tuple[Aside, ...]
    unusable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    unplaced: tuple[str, ...] = ()


@cache
def known_sensors() -> Mapping[str, Sensor]:
    """Built-in sensors, and those of `sensors.yml` beside this module."""
    text = Path(__file__).with_name("sensors.yml").read_text(encoding="utf-8")
    return {**BUILTIN_SENSORS, **{sensor.id: sensor for sensor in map(sensor_from_dict, yaml.safe_load(text))}}


def sensor_of(product: Product, taken: Mapping[str, Sensor]) -> Sensor | None:
    """Find or describe the sensor of a product: a known one, with the bands and the pixel size that its files have.

    Args:
        product: The product.
        taken: Sensors of products before it, so that two of one id are the same sensor.

    Returns:
        None where sensor, bands or units are not known.
    """
    name, bands = product.rule["sensor"].value, product.band_names()
    if name is None or bands is None or not product.rule["units"].known:
        return None
    base = known_sensors().get(str(name)) or taken.get(str(name)) or _described(str(name), product)
    native_m = min((band.gsd_m for band in _stated_bands(product).values()), default=product.gsd_m)
    wanted = tuple(band.name for band in base.bands if band.name in bands or band.common_name in bands)
    sensor, suffix = base.subset(wanted), ""
    if len(wanted) < len(base.bands):
        suffix += f"-{len(wanted)}b"
    if abs(native_m / base.gsd_m - 1) > _SAME_GRID:
        gsd_m = round_gsd(native_m)
        suffix += f"-{gsd_m:g}m".replace(".", "p")
        sensor = dataclasses.replace(sensor, gsd_m=gsd_m)
    if not suffix:
        return base
    title = f"{base.title}, {', '.join(wanted)} at {sensor.gsd_m:g} m"
    ident, more = f"{base.id}{suffix}", 2
    while True:
        sensor = dataclasses.replace(sensor, id=ident, title=title)
        if taken.get(ident, sensor) == sensor:
            return sensor
        ident, more = f"{base.id}{suffix}-{more}", more + 1


def round_gsd(gsd_m: float) -> float:
    """Round a pixel size to the number that is meant: 4.998 is 5, 29.9 is 30."""
    for digits in (1, 2):
        rounded = float(f"{gsd_m:.{digits}g}")
        if abs(rounded / gsd_m - 1) <= _ROUND:
            return rounded
    return max(0.001, round(float(f"{gsd_m:.3g}"), 3))  # whole millimetres: squares are whole numbers of pixels


def _described(name: str, product: Product) -> Sensor:
    """A sensor that nobody knows: its bands are called as they were stated."""
    stated = _stated_bands(product)
    gsd_m = round_gsd(min((band.gsd_m for band in stated.values()), default=product.gsd_m))
    units = Units(str(product.rule["units"].value))
    radar = units in (Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR)
    found = []
    for band in product.band_names() or ():
        said = stated.get(band, Band(band, "", 0.0, 0.0, gsd_m))
        if not said.center_wavelength_nm and not radar and band in TYPICAL_NM:
            center_nm, width_nm = TYPICAL_NM[band]
            said = Band(band, band, float(center_nm), float(width_nm), said.gsd_m)
        found.append(said)
    return Sensor(name, name, gsd_m, tuple(found), _encoding(units, product))


def _stated_bands(product: Product) -> dict[str, Band]:
    """What STAC items state of the bands that are used, by the names that they are given."""
    bands = product.rule["bands"].value
    if not isinstance(bands, Mapping):
        return {}
    there = {str(name): product.described[token] for token, name in bands.items() if token in product.described}
    return {name: dataclasses.replace(band, name=name) for name, band in there.items()}


def _encoding(units: Units, product: Product) -> Encoding:
    """How the store holds a sensor that nobody knows."""
    if units is Units.REFLECTANCE:
        return Encoding("uint16", 1e-4, -0.1, 0, units)
    if units is not Units.DN:
        return Encoding("int16", 0.01, 0.0, -32768, Units.BACKSCATTER_DB)
    scale = product.rule["scale"].value
    eight = isinstance(scale, float) and scale > 1 / 300
    return Encoding("uint8", 1 / 255, 0.0, 0, units) if eight else Encoding("uint16", 1 / 65535, 0.0, 0, units)

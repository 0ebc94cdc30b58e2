"""Recognise STAC items: their sensor, the asset keys of its bands, and the meaning of the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from a2mae.errors import RejectedError
from a2mae.scenes import CloudTest, MaskKind
from a2mae.sensors import Sensor, Units
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.rules import Nodata, StacProfile
from a2mae.stssd.ingest.stac_fields import mapping

# Asset keys that providers use besides a band's name and common name.
_SENTINEL2_KEYS = {
    "B01": ("coastal", "B1"),
    "B02": ("blue", "B2"),
    "B03": ("green", "B3"),
    "B04": ("red", "B4"),
    "B05": ("rededge1", "B5"),
    "B06": ("rededge2", "B6"),
    "B07": ("rededge3", "B7"),
    "B08": ("nir", "B8"),
    "B8A": ("nir08", "rededge4"),
    "B09": ("nir09", "B9"),
    "B10": ("cirrus",),
    "B11": ("swir16",),
    "B12": ("swir22",),
}
_BASELINE = re.compile(r"_N(\d{2})(\d{2})_")


@dataclass(frozen=True)
class Profile:
    """How items become scenes of one sensor.

    Attributes:
        sensor: With the wanted bands.
        keys: Sensor band -> further asset keys.
        scale: Physical units per count, None for what metadata say.
        offset: Physical value of a stored zero, None for what metadata say.
        nodata: As in the parameters.
        units: Of the decoded values.
        mask_keys: Asset keys of the cloud mask, in order of preference.
        mask_kind: How it is read.
        mask_scale: For probabilities.
        cloud_test: Where there is no mask.
        platform: STAC spelling.
        baseline: Sentinel-2 processing baseline.
        stated_by: What states scale and offset, for messages.
        decides: Its scale and offset are the user's own word, which wins over item and tags.
    """

    sensor: Sensor
    keys: Mapping[str, Sequence[str]]
    units: Units
    scale: float | None = None
    offset: float | None = None
    nodata: Nodata = "file"
    mask_keys: tuple[str, ...] = ()
    mask_kind: MaskKind = MaskKind.NONE
    mask_scale: float = 1.0
    cloud_test: CloudTest = CloudTest.NONE
    platform: str = ""
    baseline: str | None = None
    stated_by: str = "its item"
    decides: bool = False


@dataclass(frozen=True)
class Recogniser:
    """Finds out how an item becomes a scene.

    Attributes:
        sensors: The sensors of the run.
        own: The user's profiles; they win.
        honour_flag: Believe `earthsearch:boa_offset_applied`.
    """

    sensors: SensorTable
    own: tuple[StacProfile, ...] = ()
    honour_flag: bool = False

    def profile(self, item: Mapping[str, object]) -> Profile:
        """Choose the profile of an item: the user's first, then those of well-known providers, then the sensor's own.

        Raises:
            RejectedError: "unknown_sensor", "labels", "no_level", "no_baseline", "units_mismatch".
        """
        properties = mapping(item.get("properties"))
        if any(str(key).startswith("label:") for key in properties):
            raise RejectedError("labels", "this item holds labels, not an image")
        facts = {**properties, "collection": item.get("collection"), "id": item.get("id")}
        platform = _platform(properties)
        for own in self.own:
            if all(re.fullmatch(pattern, str(facts.get(key, ""))) for key, pattern in own.match.items()):
                return self._own(own, platform)
        collection = str(item.get("collection") or "")
        if _is_sentinel2(platform, collection, properties):
            return self._sentinel2(item, properties, collection, platform)
        if platform.startswith("landsat-"):
            return self._landsat(properties, collection, platform)
        if collection == "sentinel-1-rtc":
            sensor = self.sensors.get(collection)
            linear = Units.BACKSCATTER_LINEAR
            return Profile(sensor, {}, linear, 1.0, 0.0, platform=platform, stated_by=f"collection {collection!r}")
        sensor = self.sensors.get(collection)  # a collection may be named as the sensor
        if sensor.encoding.units in (Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR):
            raise RejectedError(
                "units_unknown",
                f"items of {collection!r} do not say whether their backscatter is calibrated, in decibel or linear (the"
                " public sentinel-1-grd collections hold raw amplitudes in radar geometry: use sentinel-1-rtc); say it"
                " in a profile under ingest.stac_profiles: units: backscatter_db or backscatter_linear, scale, offset",
            )
        # Counts without units become 0-1 of full scale; that is what such a sensor's own scale says.
        dn = sensor.encoding.units is Units.DN
        scale, offset = (sensor.encoding.scale, sensor.encoding.offset) if dn else (None, None)
        test = CloudTest.BRIGHTNESS if sensor.encoding.units is Units.REFLECTANCE else CloudTest.NONE
        return Profile(
            sensor,
            {},
            sensor.encoding.units,
            scale,
            offset,
            mask_keys=tuple(MASK_KINDS),
            cloud_test=test,
            platform=platform,
            stated_by=f"sensor {collection!r}" if dn else "its item",
        )

    def _own(self, own: StacProfile, platform: str) -> Profile:
        sensor = self.sensors.get(own.sensor)
        mask = own.mask
        return Profile(
            sensor,
            {band: (key,) for band, key in own.bands.items()},
            own.units or sensor.encoding.units,
            own.scale,
            own.offset,
            own.nodata,
            (mask.asset,) if mask and mask.asset else (),
            mask.kind if mask else MaskKind.NONE,
            mask.scale if mask else 1.0,
            own.cloud_test or CloudTest.NONE,
            platform,
            stated_by="its item" if own.scale is None else f"stac profile {own.name!r}",
            decides=own.scale is not None,
        )

    def _sentinel2(
        self, item: Mapping[str, object], properties: Mapping[str, object], collection: str, platform: str
    ) -> Profile:
        level = sentinel2_level(item, properties, collection)
        if level is None:
            raise RejectedError("no_level", "a Sentinel-2 item that does not say whether it is L1C or L2A")
        sensor = self.sensors.get(f"sentinel-2-{level}")
        baseline = sentinel2_baseline(item, properties)
        if baseline is None:
            raise RejectedError(
                "no_baseline",
                "a Sentinel-2 item without a processing baseline: its offset cannot be told;"
                " add a profile with scale and offset under ingest.stac_profiles",
            )
        applied = self.honour_flag and properties.get("earthsearch:boa_offset_applied") is True
        shifted = tuple(int(part) for part in baseline.split(".")) >= (4, 0) and not applied
        return Profile(
            sensor,
            _SENTINEL2_KEYS,
            Units.REFLECTANCE,
            scale=1e-4,
            offset=-0.1 if shifted else 0.0,
            nodata=0.0,
            mask_keys=("SCL", "scl"),
            mask_kind=MaskKind.SCL,
            cloud_test=CloudTest.BRIGHTNESS,
            platform=platform,
            baseline=baseline,
            stated_by=f"processing baseline {baseline}",
        )

    def _landsat(self, properties: Mapping[str, object], collection: str, platform: str) -> Profile:
        families = {"4": "tm", "5": "tm", "7": "etm", "8": "oli", "9": "oli"}
        family = families.get(platform.removeprefix("landsat-"))
        named = re.search(r"c(\d)[-_]?l(\d)", collection.lower())
        number = str(properties.get("landsat:collection_number", named[1] if named else "")).lstrip("0")
        correction = str(properties.get("landsat:correction", f"L{named[2]}" if named else ""))
        level2 = correction.startswith("L2")
        if family is None or number != "2" or not level2:
            if collection and collection in self.sensors.own:
                sensor = self.sensors.get(collection)
                return Profile(sensor, {}, sensor.encoding.units, platform=platform)
            raise RejectedError(
                "unknown_sensor",
                f"{platform} collection {number or '?'} {properties.get('odc:product') or collection or ''} is not"
                " USGS Collection 2 Level 2; define its sensor under ingest.sensors and a profile under"
                " ingest.stac_profiles",
            )
        sensor = self.sensors.get(f"landsat-{family}-c2-l2")
        return Profile(
            sensor,
            {},
            Units.REFLECTANCE,
            scale=2.75e-5,
            offset=-0.2,
            nodata=0.0,
            mask_keys=("qa_pixel", "QA_PIXEL"),
            mask_kind=MaskKind.QA_PIXEL,
            cloud_test=CloudTest.BRIGHTNESS,
            platform=platform,
            stated_by="USGS Collection 2 Level 2",
        )


MASK_KINDS: Mapping[str, MaskKind] = {
    "scl": MaskKind.SCL,
    "qa_pixel": MaskKind.QA_PIXEL,
    "cloud_mask": MaskKind.BINARY,
    "cloud": MaskKind.BINARY,
}
"""Kind of a mask by the key of its asset, where the profile does not say it."""


def _platform(properties: Mapping[str, object]) -> str:
    text = str(properties.get("platform") or properties.get("eo:platform") or "")
    return text.strip().lower().replace("_", "-").replace(" ", "-")


def _is_sentinel2(platform: str, collection: str, properties: Mapping[str, object]) -> bool:
    constellation = str(properties.get("constellation", "")).lower().replace(" ", "-").replace("_", "-")
    return platform.startswith("sentinel-2") or constellation == "sentinel-2" or collection.startswith("sentinel-2-l")


def sentinel2_level(item: Mapping[str, object], properties: Mapping[str, object], collection: str) -> str | None:
    """Read the processing level, `l1c` or `l2a`, from the product's properties or else its ids; None where unknown."""
    texts: Iterable[str] = (
        str(properties.get("s2:product_type", "")),
        str(properties.get("processing:level", "")),
        str(properties.get("s2:product_uri", "")),
        str(properties.get("sentinel:product_id", "")),
        collection,
        str(item.get("id", "")),
    )
    for text in texts:
        upper = text.upper()
        if re.search(r"L2A|MSI2A|^L2$", upper):
            return "l2a"
        if re.search(r"L1C|MSI1C|^L1$", upper):
            return "l1c"
    return None


def sentinel2_baseline(item: Mapping[str, object], properties: Mapping[str, object]) -> str | None:
    """Read the processing baseline, "NN.NN", from its property or a product name, never from the date."""
    for key in ("s2:processing_baseline", "sentinel2:processing_baseline", "processing:version"):
        match = re.fullmatch(r"N?0?(\d{1,2})\.(\d{2})", str(properties.get(key, "")))
        if match:
            return f"{int(match[1]):02d}.{match[2]}"
    for text in (properties.get("s2:product_uri"), properties.get("sentinel:product_id"), item.get("id")):
        match = _BASELINE.search(f"{text}_")
        if match:
            return f"{match[1]}.{match[2]}"
    return None

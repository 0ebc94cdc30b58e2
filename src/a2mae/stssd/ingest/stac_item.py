"""Make a scene of a STAC item, whichever version of STAC and its extensions it is written in."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from a2mae.errors import RejectedError
from a2mae.raster.header import RasterHeader
from a2mae.raster.statements import check_descriptions, is_name_of, other_factors
from a2mae.remote.policy import HrefPolicy, is_remote, redact
from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene
from a2mae.sensors import BUILTIN_SENSORS, Band, Units
from a2mae.stssd.ingest.checks import (
    check_bands,
    check_gsd,
    check_id,
    check_units,
    common_footprint,
    costs_one_scene,
)
from a2mae.stssd.ingest.rules import nodata_value
from a2mae.stssd.ingest.stac_assets import band_entries, is_picture, is_raster, raster_fields
from a2mae.stssd.ingest.stac_fields import (
    checksum_of,
    cloud_cover_of,
    count_numbers,
    crs_of,
    datetime_of,
    factor_of,
    geometry_of,
    grid_of,
    gsd_of,
    mapping,
    nodata_of,
    processed_of,
    sequence,
    stated_within,
)
from a2mae.stssd.ingest.stac_profiles import MASK_KINDS, Profile, Recogniser

_NAMES = ("name", "common_name", "eo:common_name")
_MAX_ASSETS = 1_000
_MAX_WAYS = 20  # to one file
_MAX_BANDS = 10_000  # of all assets of an item
_MAX_VERTICES = 100_000


@dataclass(frozen=True)
class _Place:
    """A band inside an item: the asset's key and JSON, the band's 1-based index and its own metadata."""

    key: str
    asset: Mapping[str, object]
    index: int

    @property
    def raster(self) -> Mapping[str, object]:
        """`raster:bands` (before STAC 1.1) or `bands` (since) of this band, over the asset's own fields."""
        return raster_fields(self.asset, self.index)


@dataclass(frozen=True)
class _Item:
    """What the readers of an item's parts need.

    Attributes:
        properties: The item's.
        assets: By key.
        profile: What it was recognised as.
        crs: Of the item, where it gives one.
        policy: What hrefs may point at.
        base: Href of the item.
    """

    properties: Mapping[str, object]
    assets: Mapping[str, Mapping[str, object]]
    profile: Profile
    crs: str | None
    policy: HrefPolicy
    base: str

    def href(self, asset: Mapping[str, object]) -> str:
        """Choose the checked href of an asset, among its own and those under `alternate`.

        First the alternates that `ingest.hrefs.alternates` names, then its own. But `s3` asks for keys and mostly for
        money: another way that is allowed and there comes before it.
        """
        own = str(asset.get("href", ""))
        others = {k: str(mapping(v).get("href", "")) for k, v in mapping(asset.get("alternate")).items()}
        ways = [others[key] for key in self.policy.alternates if key in others]
        more = [others[key] for key in sorted(others)]
        ways += [*(way for way in more if not way.startswith("s3:")), own] if own.startswith("s3:") else [own, *more]
        for way in ways[:_MAX_WAYS]:
            with contextlib.suppress(RejectedError):
                checked = self.policy.check(way, base=self.base)
                if is_remote(checked) or os.path.isfile(checked):
                    return checked
        return self.policy.check(own, base=self.base)


@dataclass(frozen=True)
class ItemScene:
    """An item parsed as far as its JSON goes; `finish` adds what headers say.

    Attributes:
        scene: As described by the item; assets may lack crs, shape and transform, unknown factors are 1 and 0, and an
            unknown geometry is empty.
        profile: What it was recognised as.
        factors: Scale and offset of every band as item or profile state them, None where they do not.
        collection: The item's; empty where it names none.
    """

    scene: Scene
    profile: Profile
    factors: Mapping[str, tuple[float | None, float | None]]
    collection: str = ""


@costs_one_scene()
def parse_item(item: Mapping[str, object], *, recogniser: Recogniser, policy: HrefPolicy, base: str) -> ItemScene:
    """Read an item as far as its JSON goes.

    Args:
        item: The item's JSON, of STAC 1.0.0-beta.1 or later.
        recogniser: Finds the sensor.
        policy: What its hrefs may point at.
        base: Checked href of the item itself; relative hrefs start there.

    Raises:
        RejectedError: With the reason, if it cannot be used.
    """
    _check_size(item)
    properties = mapping(item.get("properties"))
    stated_id = item.get("id")
    if isinstance(stated_id, bool) or not isinstance(stated_id, str | int):
        raise RejectedError("bad_id", f"id is {str(stated_id)[:80]!r}, expected a text that names the item")
    scene_id = check_id(str(stated_id))
    if properties.get("deprecated") is True:
        raise RejectedError("deprecated", "its provider says deprecated: true, so there is a better version of it")
    profile = recogniser.profile(item)
    check_units(profile.sensor, profile.units, f"item {scene_id}")
    when = datetime_of(properties)
    assets = {str(k): mapping(v) for k, v in mapping(item.get("assets")).items()}
    parts = _Item(properties, assets, profile, crs_of(properties), policy, base)
    places = _places(parts)
    check_bands(profile.sensor, list(places), f"item {scene_id}")
    factors = {name: _stated_factors(profile, places[name]) for name in profile.sensor.band_names}
    bands = [_band(name, places[name], factors[name], parts) for name in profile.sensor.band_names]
    mask = _mask(parts)
    if all(a.transform is not None and a.crs is not None for a in bands):
        check_gsd(profile.sensor, bands)
    geometry = geometry_of(item, bands)
    scene = Scene(
        scene_id=scene_id,
        sensor=profile.sensor.id,
        datetime=when,
        platform=profile.platform,
        crs=str(min(bands, key=lambda a: a.gsd_m).crs or ""),
        gsd_m=min(a.gsd_m for a in bands),
        geometry=geometry,
        assets=(*bands, mask) if mask else tuple(bands),
        cloud_test=CloudTest.MASK if mask else profile.cloud_test,
        cloud_cover_pct=cloud_cover_of(properties),
        processing_baseline=profile.baseline,
        processed=processed_of(properties),
    )
    return ItemScene(scene, profile, factors, str(item.get("collection") or ""))


def _check_size(item: Mapping[str, object]) -> None:
    """Reject sizes that no provider writes, and texts that no table can hold, before anything is made of the item."""
    json.dumps(item, ensure_ascii=False, default=str).encode()  # lone surrogates, lists nested without end
    assets = mapping(item.get("assets"))
    lists = ("eo:bands", "bands", "raster:bands")
    bands = sum(len(sequence(mapping(asset).get(name))) for asset in assets.values() for name in lists)
    vertices = count_numbers(mapping(item.get("geometry")).get("coordinates"), enough=2 * _MAX_VERTICES + 1) // 2
    for found, most, what in ((len(assets), _MAX_ASSETS, "assets"), (bands, _MAX_BANDS, "bands")):
        if found > most:
            raise RejectedError("too_large", f"the item has {found} {what}, more than {most} are not looked at")
    if vertices >= _MAX_VERTICES:
        raise RejectedError("too_large", f"the item's geometry has {_MAX_VERTICES} vertices or more")


@costs_one_scene()
def finish(found: ItemScene, headers: Mapping[str, RasterHeader | RejectedError]) -> Scene:
    """Complete a scene with the headers of its files, where they were read, and check it.

    Args:
        found: The scene as its item describes it.
        headers: Header, or why there is none, by href.

    Raises:
        RejectedError: If a file is rejected or does not agree with the item.
    """
    told = contradiction(found, headers)
    if told and not found.profile.decides:
        flag = ", or set ingest.sentinel2_offset: flag where the provider says that the offset is taken off"
        raise RejectedError(
            "scale_tags",
            f"{told}: state the right ones in a profile under ingest.stac_profiles"
            f"{flag if found.profile.baseline else ''}",
        )
    assets = tuple(_completed(asset, headers.get(asset.href), found) for asset in found.scene.assets)
    bands = [a for a in assets if a.role is Role.DATA]
    gsd_m = check_gsd(found.profile.sensor, bands)
    geometry = found.scene.geometry
    opened = [header for a in bands if isinstance(header := headers.get(a.href), RasterHeader)]
    if opened:
        ground = common_footprint([header.footprint for header in opened])
        geometry = stated_within(geometry, ground, "its files")
    if geometry.is_empty:
        raise RejectedError(
            "no_footprint",
            "the item has neither a geometry on Earth nor projection fields, and no header was read;"
            " set ingest.probe: all",
        )
    finest = min(bands, key=lambda a: a.gsd_m)
    return replace(found.scene, assets=assets, gsd_m=gsd_m, crs=str(finest.crs), geometry=geometry)


def contradiction(found: ItemScene, headers: Mapping[str, RasterHeader | RejectedError]) -> str:
    """Name both sides where a file is tagged with another scale or offset than item or profile state.

    A file without tags contradicts nothing, and neither does an item that states 1 and 0, as many programs write where
    they know none.

    Args:
        found: The scene as its item describes it.
        headers: By href.

    Returns:
        Of the first such band; empty where there is none.
    """
    for asset in found.scene.bands:
        header = headers.get(asset.href)
        if isinstance(header, RasterHeader) and asset.band_index <= header.count:
            told = other_factors(
                header, asset.band_index, _meant(asset, found), redact(asset.href), found.profile.stated_by
            )
            if told:
                return told
    return ""


def _meant(asset: BandAsset, found: ItemScene) -> tuple[float | None, float | None]:
    """Scale and offset of a band as stated; an item's 1 and 0 state nothing."""
    stated = found.factors[asset.band]
    return (None, None) if stated == (1.0, 0.0) and found.profile.scale is None else stated


def _completed(asset: BandAsset, header: RasterHeader | RejectedError | None, found: ItemScene) -> BandAsset:
    """An asset with what its file's header adds to its item."""
    if isinstance(header, RejectedError):
        raise header
    name = f"asset {asset.band!r}"
    open_scale = asset.role is Role.DATA and found.factors[asset.band][0] is None
    if header is None:
        if asset.crs is None or asset.transform is None:
            raise RejectedError(
                "no_crs", f"{name} gives no projection and its header was not read; set ingest.probe: all"
            )
        if open_scale:
            raise RejectedError("no_scale", f"{name} gives no scale; set ingest.probe: all or add a stac profile")
        told = asset.role is Role.DATA and not found.profile.decides and found.profile.nodata != "none"
        return replace(asset, stated_by=found.profile.stated_by) if told else asset
    if asset.band_index > header.count:
        raise RejectedError("missing_band", f"{name}: no band {asset.band_index} in a file of {header.count}")
    index = asset.band_index - 1
    if asset.role is Role.DATA:
        stated = [*[None] * index, asset.band]
        check_descriptions(header, stated, found.profile.sensor, redact(asset.href), "its item")
    nodata = asset.nodata if asset.nodata is not None or asset.role is not Role.DATA else header.nodata[index]
    if found.profile.nodata == "none":
        nodata = None
    scale, offset = asset.scale, asset.offset
    if asset.role is Role.DATA:
        tags = header.scales[index], header.offsets[index]
        scale, offset = (tag if said is None else said for said, tag in zip(_meant(asset, found), tags, strict=True))
    if open_scale and (scale, offset) == (1.0, 0.0) and header.dtype.startswith(("int", "uint")):
        raise RejectedError(
            "no_scale",
            f"{name}: {header.dtype} counts without a scale in item or file; add a profile with"
            " scale and offset under ingest.stac_profiles",
        )
    return replace(
        asset,
        crs=header.crs,
        shape=header.shape,
        transform=header.transform[:6],
        gsd_m=header.gsd_m,
        nodata=nodata,
        scale=scale,
        offset=offset,
    )


def _places(parts: _Item) -> dict[str, _Place]:
    """Where each band of the sensor lies: by asset key first, then by the band names inside data assets."""
    assets, properties, profile = parts.assets, parts.properties, parts.profile
    keys = {key.rsplit(".", 1)[0].lower() if _is_extension(key) else key.lower(): key for key in assets}
    rasters = {key for key, asset in assets.items() if is_raster(asset)}
    found: dict[str, _Place] = {}
    for band in profile.sensor.bands:
        names = [*profile.keys.get(band.name, ()), band.name, *([band.common_name] if band.common_name else [])]
        for key, index in ((keys.get(stem.lower()), index) for name in names for stem, index in _readings(name)):
            if key in rasters:
                found[band.name] = _Place(key, assets[key], index)
                _check_name(found[band.name], band, parts)
                break
        else:
            # A band's own name before a common name, which several bands of an asset may share.
            for name in names:
                inside = [
                    (gsd_of(asset) or math.inf, key, index)
                    for key, asset in assets.items()
                    if key in rasters and not is_picture(key, asset)
                    for index, entry in enumerate(band_entries(asset, properties), start=1)
                    if name.lower() in _names(entry)
                ]
                if inside:
                    _, key, index = min(inside)
                    found[band.name] = _Place(key, assets[key], index)
                    break
    return found


def _check_name(place: _Place, band: Band, parts: _Item) -> None:
    """Reject an asset that is keyed as one band and says that it is another of the same sensor.

    The first of its names that is a band's decides: B06 and B8A of Sentinel-2 are often called `rededge`, as B05 is.

    Raises:
        RejectedError: "band_order", with both sides.
    """
    sensor, entries = parts.profile.sensor, band_entries(place.asset, parts.properties)
    known = {one.name: one for one in (*BUILTIN_SENSORS.get(sensor.id, sensor).bands, *sensor.bands)}
    entry = entries[place.index - 1] if place.index <= len(entries) else {}
    for text in (str(entry[key]) for key in _NAMES if entry.get(key)):
        fits = [one for one in known.values() if is_name_of(text, one, parts.profile.keys.get(one.name, ()))]
        if band in fits:
            return
        if fits:
            raise RejectedError(
                "band_order",
                f"asset {place.key!r} is taken for band {band.name}, but the item calls it {text!r}, which is"
                f" {fits[0].name}: correct the key or the name in the item",
            )


def _readings(name: str) -> tuple[tuple[str, int], ...]:
    """Key of an asset and band in it, as a profile may name them: `red`, or `analytic:3`."""
    key, _, number = name.rpartition(":")
    return ((name, 1), (key, int(number))) if key and number.isdigit() and len(number) < 4 else ((name, 1),)


def _is_extension(key: str) -> bool:
    return key.lower().endswith((".tif", ".tiff", ".jp2"))


def _names(entry: Mapping[str, object]) -> set[str]:
    return {str(entry[key]).lower() for key in _NAMES if entry.get(key)}


def _stated_factors(profile: Profile, place: _Place) -> tuple[float | None, float | None]:
    """Scale and offset of a band as the profile states them, else the item; None where neither does."""
    raster = place.raster
    scale = profile.scale if profile.scale is not None else factor_of(raster, "scale")
    return scale, profile.offset if profile.offset is not None else factor_of(raster, "offset")


def _band(name: str, place: _Place, factors: tuple[float | None, float | None], parts: _Item) -> BandAsset:
    profile, (scale, offset) = parts.profile, factors
    declared = nodata_of(place.raster.get("nodata"))
    sensor_band = profile.sensor.bands[profile.sensor.band_index(name)]
    grid = grid_of(place.asset, parts.properties, parts.crs, sensor_band.gsd_m)
    return BandAsset(
        band=name,
        href=parts.href(place.asset),
        band_index=place.index,
        scale=1.0 if scale is None else scale,
        offset=0.0 if offset is None else offset,
        nodata=nodata_value(profile.nodata, declared),
        units=profile.units,
        gsd_m=grid.gsd_m,
        crs=grid.crs,
        shape=grid.shape,
        transform=grid.transform,
        checksum=checksum_of(place.asset),
    )


def _mask(parts: _Item) -> BandAsset | None:
    assets, profile = parts.assets, parts.profile
    stems = {key.rsplit(".", 1)[0].lower() if _is_extension(key) else key.lower(): key for key in assets}
    key = next((stems[k.lower()] for k in profile.mask_keys if k.lower() in stems), None)
    if key is None or not is_raster(assets[key]):
        return None
    kind = profile.mask_kind
    if kind is MaskKind.NONE:
        kind = MASK_KINDS.get(key.rsplit(".", 1)[0].lower(), MaskKind.NONE)
    if kind is MaskKind.NONE:
        return None
    grid = grid_of(assets[key], parts.properties, parts.crs, profile.sensor.gsd_m)
    return BandAsset(
        band=key,
        href=parts.href(assets[key]),
        band_index=1,
        scale=profile.mask_scale,
        offset=0.0,
        nodata=None,
        units=Units.DN,
        gsd_m=grid.gsd_m,
        role=Role.CLOUD_MASK,
        mask=kind,
        crs=grid.crs,
        shape=grid.shape,
        transform=grid.transform,
        checksum=checksum_of(assets[key]),
    )

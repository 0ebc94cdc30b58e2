"""Tell what the assets of a STAC item are, and find what they say of their bands, in any version of STAC."""

from __future__ import annotations

from collections.abc import Mapping

from a2mae.stssd.ingest.stac_fields import mapping, sequence

_RASTER_TYPES = ("tif", "geotiff", "jp2", "jpeg2000")
_PICTURES = ("overview", "thumbnail", "visual", "metadata")


def raster_fields(asset: Mapping[str, object], index: int) -> Mapping[str, object]:
    """Read `raster:bands` (before STAC 1.1) or `bands` (since) of a band, over the asset's own fields.

    Args:
        asset: Its JSON.
        index: Of the band, from 1.
    """
    fields = {k.removeprefix("raster:"): v for k, v in asset.items()}
    for name in ("raster:bands", "bands"):
        entries = sequence(asset.get(name))
        if len(entries) >= index:
            fields |= {k.removeprefix("raster:"): v for k, v in mapping(entries[index - 1]).items()}
    return fields


def is_raster(asset: Mapping[str, object]) -> bool:
    """Whether an asset is a GeoTIFF or JPEG 2000, by its type or the ending of its address."""
    text = f"{asset.get('type') or ''} {str(asset.get('href', '')).partition('?')[0][-8:]}".lower()
    return any(kind in text for kind in _RASTER_TYPES)


def is_picture(key: str, asset: Mapping[str, object]) -> bool:
    """Whether an asset is a picture of the image or metadata, by its roles or its key."""
    roles = {str(role) for role in sequence(asset.get("roles"))}
    return bool(roles & set(_PICTURES)) or key.lower().startswith(("visual", "overview", "preview", "tci"))


def band_entries(asset: Mapping[str, object], properties: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Read what an item says of the bands of an asset, `eo:bands` or `bands`.

    Args:
        asset: Its JSON.
        properties: Of the item.
    """
    entries = sequence(asset.get("eo:bands")) or sequence(asset.get("bands"))
    # Before STAC 1.0 an asset lists positions in the item's own bands.
    table = sequence(properties.get("eo:bands"))
    return [
        mapping(table[entry]) if isinstance(entry, int) and 0 <= entry < len(table) else mapping(entry)
        for entry in entries
    ]

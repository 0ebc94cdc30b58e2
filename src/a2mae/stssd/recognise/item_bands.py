"""What STAC items state of the bands of their images, and the files of one item where they leave something out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from a2mae.errors import RejectedError
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.remote.policy import HrefPolicy, RemoteAccess
from a2mae.sensors import Band
from a2mae.stssd.ingest.checks import costs_one_scene
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac_assets import band_entries, is_picture, is_raster, raster_fields
from a2mae.stssd.ingest.stac_documents import Document
from a2mae.stssd.ingest.stac_fields import crs_of, factor_of, grid_of, mapping, number, sequence
from a2mae.stssd.recognise.facts import COMMON_NAMES, TYPICAL_NM

_MASK_ROLES = {"cloud", "cloud-shadow", "snow-ice", "water-mask", "land-water", "data-mask", "saturation", "qa"}
_MASK_WORDS = re.compile(r"(?<![a-z])(?:scl|f?mask|clouds?|cmask|qa|udm2?|quality)(?![a-z])")


@dataclass(frozen=True)
class StatedBand:
    """What an item states of one band.

    Attributes:
        token: Key of its asset; with `:N` the N-th band of an asset of several.
        band: Its name, wavelengths in nanometres (0 where none is stated) and pixel size (0 likewise).
        fields: `raster:bands` or `bands` of it.
        roles: Of its asset.
        href: Of its asset, as it stands.
        has_grid: CRS, shape and transform are stated.
    """

    token: str
    band: Band
    fields: Mapping[str, object] = field(repr=False)
    roles: frozenset[str]
    href: str
    has_grid: bool


@costs_one_scene()
def stated_bands(item: Mapping[str, object]) -> dict[str, StatedBand]:
    """Read what an item states of the bands of its image assets, masks left out, by token.

    Raises:
        RejectedError: If its metadata cannot be used.
    """
    properties = mapping(item.get("properties"))
    found: dict[str, StatedBand] = {}
    for key, value in mapping(item.get("assets")).items():
        asset = mapping(value)
        roles = frozenset(str(role) for role in sequence(asset.get("roles")))
        if not is_raster(asset) or is_picture(str(key), asset) or is_mask(str(key), roles):
            continue
        entries = band_entries(asset, properties)
        count = max(len(entries), len(sequence(asset.get("raster:bands"))), 1)
        crs = crs_of(asset) or crs_of(properties)
        grid = grid_of(asset, properties, crs, 0.0)
        for index in range(count):
            token = str(key) if count == 1 else f"{key}:{index + 1}"
            entry = entries[index] if index < len(entries) else {}
            fields = raster_fields(asset, index + 1)
            gsd_m = grid.gsd_m or _positive(fields, "spatial_resolution", "gsd") or _positive(properties, "gsd")
            band = _band(str(key) if count == 1 else token, entry, gsd_m)
            for name in ("scale", "offset"):
                factor_of(fields, name)  # a number that decodes nothing is no statement
            has_grid = grid.transform is not None
            found[token] = StatedBand(token, band, fields, roles, str(asset.get("href", "")), has_grid)
    return found


def _band(key: str, entry: Mapping[str, object], gsd_m: float) -> Band:
    name = str(entry.get("name") or key)
    common = str(entry.get("common_name") or entry.get("eo:common_name") or "")
    if not common:
        common = next((word for word in (name.lower(), key.lower()) if word in COMMON_NAMES), "")
    typical = TYPICAL_NM.get(common, (0, 0))
    center = _positive(entry, "center_wavelength", "eo:center_wavelength") * 1000  # STAC has micrometres
    width = _positive(entry, "full_width_half_max", "eo:full_width_half_max") * 1000
    if not center:
        center, width = float(typical[0]), float(typical[1])
    return Band(name, common, round(center, 3), round(width, 3), gsd_m)


def _positive(fields: Mapping[str, object], *keys: str) -> float:
    found = [value for key in keys if (value := number(fields.get(key))) is not None and value > 0]
    return found[0] if found else 0.0


def is_mask(key: str, roles: frozenset[str]) -> bool:
    """Whether an asset tells clouds or quality, by its roles or the words of its key."""
    return bool(roles & _MASK_ROLES) or _MASK_WORDS.search(key.lower().replace("_", "-")) is not None


def headers_of_item(
    wanted: Sequence[str],
    stated: Mapping[str, StatedBand],
    document: Document,
    parameters: IngestParameters,
    policy: HrefPolicy,
) -> tuple[dict[str, RasterHeader], str]:
    """Open the files of one item where it does not state all.

    Args:
        wanted: Tokens of its bands.
        stated: What it states of them.
        document: The item.
        parameters: How addresses are signed.
        policy: What its hrefs may point at.

    Returns:
        Headers by token, as far as the files can be opened; and why others cannot.
    """
    if all(map(_says_all, map(stated.__getitem__, wanted))):
        return {}, ""
    hrefs: dict[str, str] = {}
    for token in wanted:
        try:
            hrefs[token] = policy.check(stated[token].href, base=document.base)
        except RejectedError as error:
            return {}, f"may not be opened: {error.detail}"
    read = read_headers(hrefs.values(), RemoteAccess(parameters.source.signing, policy))
    headers = {token: header for token, href in hrefs.items() if isinstance(header := read[href], RasterHeader)}
    failed = [error.detail for error in read.values() if isinstance(error, RejectedError)]
    return headers, f"cannot be opened: {failed[0]}" if failed else ""


def _says_all(one: StatedBand) -> bool:
    """Whether an item leaves nothing of a band to its file; a scale of 1 is what many programs write without one."""
    fields = one.fields
    whole = all(fields.get(key) is not None for key in ("data_type", "scale", "nodata"))
    plain = (fields.get("scale"), fields.get("offset") or 0) == (1, 0) and "float" not in str(fields.get("data_type"))
    return bool(one.band.gsd_m) and one.has_grid and whole and not plain

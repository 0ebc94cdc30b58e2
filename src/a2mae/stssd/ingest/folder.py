"""Find the scenes of a folder of GeoTIFFs, as the rules in the configuration describe them."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from a2mae.errors import InputError, RejectedError
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.raster.statements import check_descriptions, factors_of
from a2mae.remote.policy import HrefPolicy
from a2mae.scenes import BandAsset, CloudTest, MaskKind, RejectedScene, Role, Scene
from a2mae.sensors import Units
from a2mae.stssd.ingest.checks import (
    Found,
    SensorTable,
    check_bands,
    check_date,
    check_gsd,
    check_units,
    common_footprint,
    costs_one_scene,
)
from a2mae.stssd.ingest.folder_files import Candidate, candidates, exclude, joined, walk
from a2mae.stssd.ingest.landsat_mtl import LandsatMetadata, read_mtl
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.rules import FolderRule, nodata_value

logger = logging.getLogger(__name__)

_MTL_BAND = re.compile(r"(\d+)$")


def read_folder(parameters: IngestParameters, sensors: SensorTable) -> Found:
    """Find the scenes of a folder.

    Args:
        parameters: `folder`, `rules` and `exclude` are used.
        sensors: The sensors of the run.

    Raises:
        InputError: If the folder is not given, not there or empty.
    """
    if not parameters.folder:
        raise InputError("source.kind is 'folder' but no folder is given: pass --params=ingest.folder=PATH")
    root = Path(parameters.folder)
    if not os.path.isdir(root):  # a text of any length
        raise InputError(f"ingest.folder: {parameters.folder!r} is not a folder; pass --params=ingest.folder=PATH")
    policy = HrefPolicy(frozenset({"file"}), (root, *map(Path, parameters.hrefs.roots)))
    found = Found()
    names = sorted(walk(root, policy, found))
    if not names and not found.rejected:
        raise InputError(f"ingest.folder: {parameters.folder!r} holds no file; point it at a folder of GeoTIFFs")
    hrefs: dict[str, str] = {}
    usable: list[Candidate] = []
    for candidate in candidates(exclude(names, parameters.exclude, found), parameters.rules, found):
        try:
            hrefs |= {path: policy.check_path(root / path) for path in candidate.paths}
            usable.append(candidate)
        except RejectedError as rejection:
            found.rejected.append(_rejected(candidate, rejection))
    by_href = read_headers(hrefs.values(), workers=parameters.workers)
    opened = {path: _Opened(href, by_href[href]) for path, href in hrefs.items()}
    headers = {path: by_href[href] for path, href in hrefs.items()}
    wanted = {rule.name: _wanted(rule, sensors) for rule in parameters.rules}
    for candidate in joined(usable, headers, wanted):
        try:
            found.scenes.append(_scene(candidate, root, policy, opened, sensors))
        except RejectedError as rejection:
            found.rejected.append(_rejected(candidate, rejection))
    flagged = {scene.sensor for scene in found.scenes if any(asset.alpha_is_data for asset in scene.bands)}
    if flagged:
        logger.warning(
            "files of %s flag a band as alpha that their rule names: it is read as data, and masks nothing",
            ", ".join(sorted(flagged)),
        )
    return found


@dataclass(frozen=True)
class _Opened:
    """A file: its checked href, and its header or why there is none."""

    href: str
    found: RasterHeader | RejectedError

    @property
    def header(self) -> RasterHeader:
        """What it says about itself.

        Raises:
            RejectedError: If it cannot be read.
        """
        if isinstance(self.found, RejectedError):
            raise self.found
        return self.found


def _wanted(rule: FolderRule, sensors: SensorTable) -> frozenset[str]:
    """Values of the `band` field that make a whole scene of a rule."""
    if not isinstance(rule.bands, dict):
        return frozenset()
    try:
        names = sensors.get(rule.sensor).band_names
    except RejectedError:  # told for each of its scenes
        names = tuple(rule.bands.values())
    mask = [] if rule.mask is None or rule.mask.token is None else [rule.mask.token]
    return frozenset([*(token for token, band in rule.bands.items() if band in names), *mask])


def _rejected(candidate: Candidate, rejection: RejectedError) -> RejectedScene:
    return RejectedScene(candidate.scene_id, rejection.reason, rejection.detail, candidate.rule.sensor)


@costs_one_scene()
def _scene(
    candidate: Candidate, root: Path, policy: HrefPolicy, files: Mapping[str, _Opened], sensors: SensorTable
) -> Scene:
    rule = candidate.rule
    sensor = sensors.get(rule.sensor)
    check_units(sensor, rule.units, f"rule {rule.name!r}")
    # Of a band that comes at several pixel sizes the finest.
    opened = {
        token: min((files[path] for path in paths), key=lambda file: file.header.gsd_m)
        for token, paths in candidate.files.items()
    }
    mtl = _metadata(candidate, policy, root)
    places = _places(rule, opened)
    for name, (token, index) in places.items():
        file = opened[token]
        stated = [None] * (index - 1) + [name]
        check_descriptions(file.header, stated, sensor, file.href, f"rule {rule.name!r}")
    check_bands(sensor, list(places), f"rule {rule.name!r}")
    assets = []
    for name in sensor.band_names:
        token, index = places[name]
        assets.append(_band(rule, name, token, index=index, file=opened[token], mtl=mtl))
    gsd_m = check_gsd(sensor, assets)
    mask = _mask(rule, opened, None if candidate.mask_file is None else files[candidate.mask_file])
    finest = min(assets, key=lambda asset: asset.gsd_m)
    used = {token for name, (token, _) in places.items() if name in sensor.band_names}
    return Scene(
        scene_id=candidate.scene_id,
        sensor=sensor.id,
        datetime=_datetime(candidate, mtl),
        platform=rule.platform or (mtl.platform if mtl else ""),
        crs=str(finest.crs),
        gsd_m=gsd_m,
        geometry=common_footprint([opened[token].header.footprint for token in sorted(used)]),
        assets=(*assets, mask) if mask else tuple(assets),
        cloud_test=CloudTest.MASK if mask else rule.cloud_test or CloudTest.NONE,
        cloud_cover_pct=mtl.cloud_cover_pct if mtl else None,
        processing_baseline=rule.processing_baseline,
    )


def _places(rule: FolderRule, opened: Mapping[str, _Opened]) -> dict[str, tuple[str, int]]:
    """Sensor band -> (token of its file, band index)."""
    if isinstance(rule.bands, dict):
        return {band: (token, 1) for token, band in rule.bands.items() if token in opened}
    count = opened[""].header.count
    if count != len(rule.bands):
        raise RejectedError(
            "missing_band",
            f"rule {rule.name!r} lists {len(rule.bands)} bands but the file has {count};"
            " list every band of the file under ingest.rules (null for those to skip)",
        )
    return {band: ("", index) for index, band in enumerate(rule.bands, start=1) if band is not None}


def _band(
    rule: FolderRule, name: str, token: str, *, index: int, file: _Opened, mtl: LandsatMetadata | None
) -> BandAsset:
    header = file.header
    if index > header.count:
        raise RejectedError("missing_band", f"{name}: the file has {header.count} bands, not {index}")
    scale, offset = _factors(rule, name, token, index=index, file=file, mtl=mtl)
    return BandAsset(
        band=name,
        href=file.href,
        band_index=index,
        scale=scale,
        offset=offset,
        nodata=nodata_value(rule.nodata, header.nodata[index - 1]),
        units=rule.units,
        gsd_m=header.gsd_m,
        crs=header.crs,
        shape=header.shape,
        transform=header.transform[:6],
        alpha_is_data=_names_alpha(rule, header),
    )


def _names_alpha(rule: FolderRule, header: RasterHeader) -> bool:
    """Whether the band that the file flags as alpha is one that the rule names, as NAIP's near infrared is."""
    if header.alpha is None or isinstance(rule.bands, dict):
        return False
    is_mask = rule.mask is not None and rule.mask.band_index == header.alpha
    return is_mask or rule.bands[header.alpha - 1] is not None


def _factors(
    rule: FolderRule, name: str, token: str, *, index: int, file: _Opened, mtl: LandsatMetadata | None
) -> tuple[float, float]:
    header = file.header
    if mtl is not None:
        number = _MTL_BAND.search(token) or _MTL_BAND.search(name)
        if token.upper().startswith("SR_") and mtl.level != 2:
            raise RejectedError(
                "no_scale", f"{name}: {token} is surface reflectance, but the MTL file is of a level-1 product"
            )
        if number is None or number[1] not in mtl.reflectance:
            raise RejectedError("no_scale", f"{name}: the MTL file has no reflectance factors for {token or name!r}")
        return mtl.reflectance[number[1]]
    stated = (None if rule.scale == "file" else rule.scale, None if rule.offset == "file" else rule.offset)
    scale, offset = factors_of(header, index, stated, (1.0, 0.0), shown=file.href, where=f"rule {rule.name!r}")
    untagged = rule.scale == "file" and (scale, offset) == (1.0, 0.0)
    if untagged and header.dtype.startswith(("int", "uint")) and rule.units is not Units.BACKSCATTER_DB:
        raise RejectedError(
            "no_scale",
            f"{name}: {header.dtype} counts of sensor {rule.sensor!r} without a scale in the file;"
            f" give scale and offset in rule {rule.name!r}",
        )
    return scale, offset


def _mask(rule: FolderRule, opened: Mapping[str, _Opened], own: _Opened | None) -> BandAsset | None:
    """The cloud mask: a band of the file, a file among those of the bands, or a file of its own."""
    if rule.mask is None:
        return None
    token, index = rule.mask.token or "", rule.mask.band_index or 1
    if own is None and token not in opened:
        raise RejectedError("missing_band", f"rule {rule.name!r}: the cloud mask {token!r} is not beside the bands")
    file = opened[token] if own is None else own
    href, header = file.href, file.header
    if index > header.count:
        raise RejectedError(
            "missing_band", f"rule {rule.name!r}: no band {index} for the mask in a file of {header.count}"
        )
    return BandAsset(
        band=token or f"mask_{index}",
        href=href,
        band_index=index,
        scale=rule.mask.scale if rule.mask.kind is MaskKind.PROBABILITY else 1.0,
        offset=0.0,
        nodata=None,  # 0 is clear in a mask, whatever the file declares for its bands
        units=Units.DN,
        gsd_m=header.gsd_m,
        role=Role.CLOUD_MASK,
        mask=rule.mask.kind,
        crs=header.crs,
        shape=header.shape,
        transform=header.transform[:6],
    )


def _metadata(candidate: Candidate, policy: HrefPolicy, root: Path) -> LandsatMetadata | None:
    if candidate.mtl_file is None:
        return None
    policy.check_path(root / candidate.mtl_file)
    return read_mtl(root / candidate.mtl_file)


def _datetime(candidate: Candidate, mtl: LandsatMetadata | None) -> dt.datetime:
    rule = candidate.rule
    if mtl is not None:
        return check_date(mtl.datetime)
    if rule.datetime is not None:
        return rule.datetime if rule.datetime.tzinfo else rule.datetime.replace(tzinfo=dt.UTC)
    text = candidate.fields.get("date")
    if text is None:
        raise RejectedError(
            "no_date",
            f"rule {rule.name!r} has no {{date}} field; add one to its pattern, or datetime: or landsat_mtl: to it",
        )
    try:
        when = dt.datetime.strptime(text, rule.date_format)
    except ValueError as error:
        raise RejectedError(
            "no_date", f"{text!r} is not {rule.date_format!r}; change date_format of rule {rule.name!r}"
        ) from error
    return check_date(when)

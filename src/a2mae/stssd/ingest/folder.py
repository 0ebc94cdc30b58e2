"""Find the scenes of a folder of GeoTIFFs: rules in the configuration say which names make which scenes.

Landsat files may have an MTL.txt beside them, which says when the scene was taken and how its counts become
top-of-atmosphere reflectance.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2mae.errors import InputError, RejectedError
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.raster.statements import check_descriptions, factors_of
from a2mae.remote.policy import HrefPolicy
from a2mae.scenes import BandAsset, CloudTest, MaskKind, RejectedScene, Role, Scene
from a2mae.sensors import Units
from a2mae.stssd.ingest.checks import Found, SensorTable, check_bands, check_gsd, check_units, common_footprint
from a2mae.stssd.ingest.parameters import ExcludeRule, FolderRule, IngestParameters, nodata_value

logger = logging.getLogger(__name__)

_LINE = re.compile(r"^\s*([A-Z0-9_]+)\s*=\s*\"?([^\"\n]*?)\"?\s*$", re.MULTILINE)
_MAX_BYTES = 1_000_000
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
    if not root.is_dir():
        raise InputError(f"ingest.folder: {parameters.folder!r} is not a folder; pass --params=ingest.folder=PATH")
    names = sorted(_walk(root))
    if not names:
        raise InputError(f"ingest.folder: {parameters.folder!r} holds no file; point it at a folder of GeoTIFFs")
    policy = HrefPolicy(frozenset({"file"}), (root, *map(Path, parameters.hrefs.roots)))
    found = Found()
    names = _exclude(names, parameters.exclude, found)
    candidates = _candidates(names, parameters.rules, found)
    hrefs: dict[str, str] = {}
    usable: list[_Candidate] = []
    for candidate in candidates:
        try:
            hrefs |= {name: policy.check_path(root / name) for name in candidate.files.values()}
            usable.append(candidate)
        except RejectedError as rejection:
            found.rejected.append(_rejected(candidate, rejection))
    headers = read_headers(hrefs.values(), workers=parameters.workers)
    for candidate in usable:
        try:
            found.scenes.append(_scene(candidate, root, hrefs, headers, sensors))
        except RejectedError as rejection:
            found.rejected.append(_rejected(candidate, rejection))
    flagged = {scene.sensor for scene in found.scenes if any(asset.alpha_is_data for asset in scene.bands)}
    if flagged:
        logger.warning(
            "files of %s flag a band as alpha that their rule names: it is read as data, and masks nothing",
            ", ".join(sorted(flagged)),
        )
    return found


@dataclass(frozen=True, slots=True)
class LandsatMetadata:
    """What is needed of an MTL file.

    Attributes:
        datetime: Scene centre, UTC.
        cloud_cover_pct: For the whole scene, None where not given.
        platform: STAC platform, for example `landsat-8`.
        reflectance: Band number -> (scale, offset), corrected for the sun's elevation.
    """

    datetime: dt.datetime
    cloud_cover_pct: float | None
    platform: str
    reflectance: dict[str, tuple[float, float]]


def read_mtl(path: Path) -> LandsatMetadata:
    """Read a Landsat MTL file.

    Top-of-atmosphere reflectance is (MULT x DN + ADD) / sin(sun elevation), Landsat 8 Data Users Handbook, section 5.

    Raises:
        RejectedError: "no_metadata" if it is absent or lacks what is needed.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            entries = dict(_LINE.findall(file.read(_MAX_BYTES)))
        time = re.sub(r"(\.\d{6})\d+", r"\1", entries["SCENE_CENTER_TIME"].rstrip("Z"))
        when = dt.datetime.fromisoformat(f"{entries['DATE_ACQUIRED']}T{time}").replace(tzinfo=dt.UTC)
        sun = math.sin(math.radians(float(entries["SUN_ELEVATION"])))
        if sun <= 0:
            raise InputError("the sun is below the horizon")
        prefix = "REFLECTANCE_MULT_BAND_"
        factors = {
            key.removeprefix(prefix): (
                float(value) / sun,
                float(entries[f"REFLECTANCE_ADD_BAND_{key.removeprefix(prefix)}"]) / sun,
            )
            for key, value in entries.items()
            if key.startswith(prefix)
        }
    except (OSError, KeyError, ValueError) as error:
        raise RejectedError(
            "no_metadata", f"{path.name} is not a Landsat MTL file with date and factors: {error!r}"
        ) from error
    cloud = float(entries.get("CLOUD_COVER", "-1"))
    return LandsatMetadata(
        datetime=when,
        cloud_cover_pct=cloud if cloud >= 0 else None,
        platform=entries.get("SPACECRAFT_ID", "").lower().replace("_", "-"),
        reflectance=factors,
    )


@dataclass(frozen=True)
class _Candidate:
    """Files that a rule takes for one scene.

    Attributes:
        scene_id: Made of the path.
        rule: The rule.
        fields: Values of the fields of its pattern, without `band`.
        files: Value of the `band` field ("" where a file holds all bands) -> path below the folder.
    """

    scene_id: str
    rule: FolderRule
    fields: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def folder(self) -> str:
        return os.path.dirname(next(iter(self.files.values())))


@dataclass(frozen=True)
class _Opened:
    """A file of a candidate: its token, checked href and header."""

    token: str
    href: str
    header: RasterHeader


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in files:
            yield Path(folder, name).relative_to(root).as_posix()


def _exclude(names: Sequence[str], rules: Sequence[ExcludeRule], found: Found) -> list[str]:
    patterns = [rule.pattern() for rule in rules]
    counts: Counter[int] = Counter()
    kept = []
    for name in names:
        hit = next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(name)), None)
        if hit is None:
            kept.append(name)
        else:
            counts[hit] += 1
    for index, count in sorted(counts.items()):
        rule = rules[index]
        name = str(rule.files or rule.regex)
        found.rejected.append(RejectedScene(name, "excluded", f"{count} files match {name!r}: {rule.why}"))
    return kept


def _candidates(names: Sequence[str], rules: Sequence[FolderRule], found: Found) -> list[_Candidate]:
    patterns = [(rule.pattern(), rule) for rule in rules]
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], dict[str, str]] = defaultdict(dict)
    by_name = {rule.name: rule for rule in rules}
    out: list[_Candidate] = []
    taken: Counter[str] = Counter()
    for name in names:
        hit = next(((rule, m) for pattern, rule in patterns if (m := pattern.fullmatch(name))), None)
        if hit is None:
            detail = "no rule under ingest.rules matches this file and none under ingest.exclude leaves it out"
            found.rejected.append(RejectedScene(name, "no_rule", detail))
            continue
        rule, match = hit
        taken[rule.name] += 1
        fields = {key: value for key, value in match.groupdict().items() if value is not None}
        if not isinstance(rule.bands, dict):
            out.append(_Candidate(_safe_id(str(Path(name).with_suffix(""))), rule, fields, {"": name}))
            continue
        token = fields.pop("band")
        if token not in rule.bands and (rule.mask is None or token != rule.mask.token):
            detail = f"rule {rule.name!r} matches, but its bands have no {token!r}: this file is not used"
            found.rejected.append(RejectedScene(name, "band_not_used", detail, rule.sensor))
            continue
        groups[rule.name, os.path.dirname(name), tuple(sorted(fields.items()))][token] = name
    for rule in rules:
        if not taken[rule.name]:
            logger.warning(
                "ingest.rules: rule %r takes no file: none below ingest.folder that an earlier rule or ingest.exclude"
                " leaves matches its pattern %r",
                rule.name,
                rule.files or rule.regex,
            )
    for (rule_name, folder, fields_), files in groups.items():
        scene_id = _safe_id("/".join([*filter(None, [folder]), rule_name, *(value for _, value in fields_)]))
        out.append(_Candidate(scene_id, by_name[rule_name], dict(fields_), dict(sorted(files.items()))))
    return out


def _safe_id(path: str) -> str:
    """A path as a plain id; what had to be replaced is told apart by a hash."""
    plain = path.replace("/", "__")
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", plain).lstrip("._+-") or "scene"
    if safe != plain or len(safe) > 200:
        safe = f"{safe[:180]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    return safe


def _rejected(candidate: _Candidate, rejection: RejectedError) -> RejectedScene:
    return RejectedScene(candidate.scene_id, rejection.reason, rejection.detail, candidate.rule.sensor)


def _scene(
    candidate: _Candidate,
    root: Path,
    hrefs: Mapping[str, str],
    headers: Mapping[str, RasterHeader | RejectedError],
    sensors: SensorTable,
) -> Scene:
    rule = candidate.rule
    sensor = sensors.get(rule.sensor)
    check_units(sensor, rule.units, f"rule {rule.name!r}")
    opened: dict[str, _Opened] = {}
    for token, name in candidate.files.items():
        header = headers[hrefs[name]]
        if isinstance(header, RejectedError):
            raise header
        opened[token] = _Opened(token, hrefs[name], header)
    mtl = _metadata(candidate, root)
    places = _places(rule, opened)
    for name, (token, index) in places.items():
        file = opened[token]
        stated = [None] * (index - 1) + [name]
        check_descriptions(file.header, stated, sensor, file.href, f"rule {rule.name!r}")
    check_bands(sensor, list(places), f"rule {rule.name!r}")
    assets = []
    for name in sensor.band_names:
        token, index = places[name]
        assets.append(_band(rule, name, index, opened[token], mtl))
    gsd_m = check_gsd(sensor, assets)
    mask = _mask(rule, opened)
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


def _band(rule: FolderRule, name: str, index: int, file: _Opened, mtl: LandsatMetadata | None) -> BandAsset:
    header = file.header
    if index > header.count:
        raise RejectedError("missing_band", f"{name}: the file has {header.count} bands, not {index}")
    scale, offset = _factors(rule, name, index, file, mtl)
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
    rule: FolderRule, name: str, index: int, file: _Opened, mtl: LandsatMetadata | None
) -> tuple[float, float]:
    header, token = file.header, file.token
    if mtl is not None:
        number = _MTL_BAND.search(token) or _MTL_BAND.search(name)
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


def _mask(rule: FolderRule, opened: Mapping[str, _Opened]) -> BandAsset | None:
    if rule.mask is None:
        return None
    token, index = (rule.mask.token, 1) if rule.mask.token is not None else ("", rule.mask.band_index or 1)
    if token not in opened:
        raise RejectedError("missing_band", f"rule {rule.name!r}: the cloud mask {token!r} is not beside the bands")
    href, header = opened[token].href, opened[token].header
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


def _metadata(candidate: _Candidate, root: Path) -> LandsatMetadata | None:
    template = candidate.rule.landsat_mtl
    if template is None:
        return None
    name = template
    for key, value in candidate.fields.items():
        name = name.replace("{" + key + "}", value)
    path = root / candidate.folder / name
    HrefPolicy(frozenset({"file"}), (root,)).check_path(path)
    return read_mtl(path)


def _datetime(candidate: _Candidate, mtl: LandsatMetadata | None) -> dt.datetime:
    rule = candidate.rule
    if mtl is not None:
        return mtl.datetime
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
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)

"""Simulate an Earth: plan the scenes, render them in worker processes, describe them, and close with the manifest."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from a2mae.errors import A2maeError
from a2mae.files import PART, file_digest
from a2mae.parallel import run_all
from a2mae.remote.storage import Folder, Parts
from a2mae.simulate.delivery.catalog import make_item, write_catalog
from a2mae.simulate.delivery.files import write_asset, write_heights, write_land_cover, write_mask
from a2mae.simulate.delivery.manifest import (
    MANIFEST,
    FileFacts,
    Manifest,
    RegionEntry,
    SceneEntry,
    SceneFacts,
    class_entries,
    hash_of_files,
    read_manifest,
    write_manifest,
)
from a2mae.simulate.delivery.truth import TREE_STEP_M, region_truth, write_scene_truth
from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.ground.landscape import Landscape, make_landscape, with_changes
from a2mae.simulate.parameters import SENSORS, AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.region import Region
from a2mae.simulate.render import render
from a2mae.simulate.scenes import ScenePlan, plan_scenes

_LOG = logging.getLogger(__name__)

_SKY_NAMES = {0: "clear", 1: "cloud", 2: "cloud_shadow"}
_CHANGE_NAMES = {0: "unchanged", 1: "changed"}
_WORK = ".work"  # facts of finished scenes; gone when the run is complete


def simulate(parameters: SimulateParameters, folder: Path) -> Manifest:
    """Simulate the Earth into a folder.

    A folder that already holds this very simulation is left as it is; one that was cut short is completed; one of other
    parameters or of other code is replaced.

    Args:
        parameters: What to simulate.
        folder: Where; made if absent. Only what a simulation writes there is ever removed.

    Returns:
        The manifest, as written last into the folder.

    Raises:
        A2maeError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise A2maeError(
            f"cannot write the simulation to {folder}: {error}; set data_root in conf/base/globals.yml"
        ) from error
    fingerprint = _fingerprint(parameters)
    complete = _complete(folder, fingerprint)
    if complete is not None:
        _LOG.info("simulated Earth is already there: %d scenes, nothing to do", len(complete.scenes))
        return complete

    regions = [
        Region.place(asked, footprint_m=parameters.footprint_m, margin_m=parameters.margin_m)
        for asked in parameters.regions
    ]
    plans = [(region, scene) for region in regions for scene in plan_scenes(parameters, region)]
    # Region by region, so that a worker keeps its ground.
    jobs = [
        _Job(parameters, folder, fingerprint, region, scene)
        for region in regions
        for scene in (None, *(scene for owner, scene in plans if owner is region))
    ]
    _prepare(folder, jobs)
    made = run_all(_make, jobs, workers=parameters.workers)
    facts = {one.name: one for one in tqdm(made, total=len(jobs), desc="simulate")}

    items = [(scene.sensor_id, make_item(region, scene, facts[scene.id])) for region, scene in plans]
    items.sort(key=lambda entry: (SENSORS.index(entry[0]), entry[1].id))
    described = [*write_catalog(folder, items), write_scene_truth(folder, plans, facts)]
    files = {file.path: file.sha256 for one in facts.values() for file in one.files}
    files |= {path: file_digest(folder / path) for path in described}
    manifest = Manifest(
        seed=parameters.seed,
        fingerprint=fingerprint,
        content_hash=hash_of_files(files),
        classes=class_entries(),
        regions=tuple(_region_entry(parameters, region, facts[region.name]) for region in regions),
        scenes=tuple(_scene_entry(scene) for _, scene in plans),
        files=dict(sorted(files.items())),
    )
    write_manifest(folder, manifest)
    shutil.rmtree(folder / _WORK)
    size = sum((folder / path).stat().st_size for path in files) / 1e6
    _LOG.info("simulated %d scenes of %d regions, %.0f MB, in %s", len(plans), len(regions), size, folder)
    return manifest


@dataclass(frozen=True)
class _Job:
    """A scene to make; without one, the truth of its region."""

    parameters: SimulateParameters
    folder: Path
    fingerprint: str
    region: Region
    scene: ScenePlan | None

    @property
    def name(self) -> str:
        return self.region.name if self.scene is None else self.scene.id

    @property
    def parts(self) -> Parts:
        return Parts(Folder(str(self.folder / _WORK)), self.fingerprint)


def _fingerprint(parameters: SimulateParameters) -> str:
    """SHA-256 of what decides the bytes: parameters (but not the number of workers) and this package's code."""
    hasher = hashlib.sha256(parameters.model_dump_json(exclude={"workers"}).encode())
    package = Path(__file__).parent
    sensors = package.parent / "sensors.py"
    for source in (*sorted(package.rglob("*.py")), sensors, sensors.with_suffix(".yml")):
        hasher.update(source.name.encode() + source.read_bytes())
    return hasher.hexdigest()


def _complete(folder: Path, fingerprint: str) -> Manifest | None:
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        _LOG.warning("%s", error)
        return None
    if manifest.fingerprint != fingerprint:
        return None
    for path, sha256 in manifest.files.items():
        if not (folder / path).is_file() or file_digest(folder / path) != sha256:
            _LOG.warning("%s is not what was written: the simulation is made again", folder / path)
            return None
    return manifest


def _prepare(folder: Path, jobs: Sequence[_Job]) -> None:
    """Remove the manifest, and whatever another simulation left; keep the finished scenes of this one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    if all(job.parts.get(job.name) is None for job in jobs):
        for name in (*SENSORS, "truth", _WORK):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "catalog.json").unlink(missing_ok=True)
    for name in (*SENSORS, "truth", _WORK):
        for torn in (folder / name).rglob(f".*{PART}"):  # never given its name: a run was killed
            torn.unlink()


@lru_cache(maxsize=1)
def _ground(seed: int, region: Region, change_share: float) -> Landscape:
    landscape = make_landscape(seed, region.name, BIOMES[region.parameters.biome], region.side_m / 2 + region.margin_m)
    return with_changes(landscape, seed, share=change_share)


def _make(job: _Job) -> SceneFacts:
    """Make a scene or a region's truth, unless it is there already: known, and every file there with its size."""
    known = job.parts.get(job.name)
    if known is not None:
        facts = SceneFacts.model_validate_json(known)
        paths = {job.folder / file.path: file.size for file in facts.files}
        if all(path.is_file() and path.stat().st_size == size for path, size in paths.items()):
            return facts
    landscape = _ground(job.parameters.seed, job.region, job.parameters.change_share)
    made = _make_truth(job, landscape) if job.scene is None else _make_scene(job, landscape, job.scene)
    content = made.model_dump_json()
    job.parts.put(job.name, content.encode())
    # As they will be read back, so that a run and a continued run describe a scene alike.
    return SceneFacts.model_validate_json(content)


def _file(folder: Path, path: str) -> FileFacts:
    return FileFacts(path=path, size=(folder / path).stat().st_size, sha256=file_digest(folder / path))


def _make_scene(job: _Job, landscape: Landscape, scene: ScenePlan) -> SceneFacts:
    folder = job.folder
    rendered = render(job.parameters.seed, job.region, landscape, scene)
    files = []
    for asset in rendered.assets:
        path = f"{scene.sensor_id}/{scene.id}/{asset.key}.tif"
        write_asset(folder / path, asset)
        details = {
            "key": asset.key,
            "bands": tuple(band.name for band in asset.bands),
            "roles": asset.roles,
            "dtype": str(asset.pixels.dtype),
            "nodata": asset.encoding.nodata,
            "scale": asset.encoding.scale,
            "offset": asset.encoding.offset,
            "grid": asset.grid,
        }
        files.append(_file(folder, path).model_copy(update=details))
    path = _clouds_path(scene)
    write_mask(folder / path, rendered.sky, rendered.sky_grid, _SKY_NAMES)
    files.append(_file(folder, path))
    return SceneFacts(
        name=scene.id,
        cloud_fraction=rendered.cloud_fraction,
        shadow_fraction=rendered.shadow_fraction,
        nodata_fraction=rendered.nodata_fraction,
        files=tuple(files),
    )


def _make_truth(job: _Job, landscape: Landscape) -> SceneFacts:
    truth = region_truth(job.region, landscape, gsd_m=job.parameters.truth_gsd_m)
    paths = _truth_paths(job.region)
    write_land_cover(job.folder / paths["before"], truth.before, truth.grid)
    write_land_cover(job.folder / paths["after"], truth.after, truth.grid)
    write_mask(job.folder / paths["change"], truth.change, truth.grid, _CHANGE_NAMES)
    write_heights(job.folder / paths["trees_before"], truth.trees_before, truth.grid, step_m=TREE_STEP_M)
    write_heights(job.folder / paths["trees_after"], truth.trees_after, truth.grid, step_m=TREE_STEP_M)
    return SceneFacts(
        name=job.region.name,
        changed_share=round(float(np.mean(truth.change)), 6),
        files=tuple(_file(job.folder, path) for path in paths.values()),
    )


def _truth_paths(region: Region) -> dict[str, str]:
    base = f"truth/{region.name}"
    return {
        "before": f"{base}/land_cover_before.tif",
        "after": f"{base}/land_cover_after.tif",
        "change": f"{base}/change.tif",
        "trees_before": f"{base}/tree_height_before.tif",
        "trees_after": f"{base}/tree_height_after.tif",
    }


def _clouds_path(scene: ScenePlan) -> str:
    return f"truth/clouds/{scene.id}.tif"


def _region_entry(parameters: SimulateParameters, region: Region, facts: SceneFacts) -> RegionEntry:
    asked, paths = region.parameters, _truth_paths(region)
    return RegionEntry(
        name=region.name,
        biome=asked.biome,
        lon=asked.lon,
        lat=asked.lat,
        crs=f"EPSG:{region.epsg}",
        footprints=asked.footprints,
        footprint_m=region.footprint_m,
        bounds_m=region.block(10, margin_m=0).bounds_m,
        land_cover={"before": paths["before"], "after": paths["after"]},
        change=paths["change"],
        tree_height={"before": paths["trees_before"], "after": paths["trees_after"]},
        truth_gsd_m=float(parameters.truth_gsd_m),
        changed_share=facts.changed_share,
    )


def _scene_entry(scene: ScenePlan) -> SceneEntry:
    return SceneEntry.model_validate(
        {
            "scene_id": scene.id,
            "region": scene.region,
            "sensor": scene.sensor_id,
            "datetime": scene.when.isoformat(),
            "period": scene.period,
            "season": scene.season,
            "item": f"{scene.sensor_id}/{scene.id}/{scene.id}.json",
            "clouds": _clouds_path(scene),
            "refuse": scene.refuse,
        }
    )


def tiny_parameters(seed: int = 0) -> SimulateParameters:
    """Describe one temperate region of 2 x 2 footprints: Sentinel-2 and Landsat before and after, Gaofen-1 once."""
    before, after = AcquisitionParameters(period="before"), AcquisitionParameters(period="after")
    return SimulateParameters(
        seed=seed,
        workers=1,
        change_share=0.08,
        regions=(
            RegionParameters(
                name="tiny", lon=12.3, lat=51.9, biome="temperate_plain", footprints=2, gaofen1_footprints=2
            ),
        ),
        acquisitions={
            "sentinel-2-l2a": (before, after.model_copy(update={"cloud": 0.12})),
            "landsat-oli-c2-l2": (before, after),
            "gaofen-1": (after,),
        },
    )


def write_tiny_world(path: Path, seed: int = 0) -> Manifest:
    """Simulate a world small enough for a test or a first look (about 2 s, 7 MB).

    Args:
        path: Folder; `path / "catalog.json"` is the STAC catalog.
        seed: Another seed is another landscape.

    Returns:
        The manifest.
    """
    return simulate(tiny_parameters(seed), path)

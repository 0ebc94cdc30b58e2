"""The whole simulation: plan, render in worker processes, describe, and close with the manifest.

The whole simulation: plan, render in worker processes, describe, and close with the manifest.

A world small enough for a test's fixture.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from a2mae.files import PART, file_digest, whole_file
from a2mae.parallel import SpawnWithoutMain, end_with_parent
from a2mae.simulate.delivery.catalog import make_item, write_catalog
from a2mae.simulate.delivery.files import write_asset, write_land_cover, write_mask
from a2mae.simulate.delivery.manifest import (
    MANIFEST,
    Manifest,
    RegionEntry,
    SceneEntry,
    class_entries,
    hash_of_files,
    read_manifest,
    write_manifest,
)
from a2mae.simulate.delivery.truth import WORK, FileFacts, SceneFacts, finished, record, region_truth
from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.ground.landscape import Landscape, make_landscape, with_changes
from a2mae.simulate.parameters import SENSORS, AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.region import Region
from a2mae.simulate.render import render
from a2mae.simulate.scenes import Scene, plan_scenes

_LOG = logging.getLogger(__name__)

_SKY_NAMES = {0: "clear", 1: "cloud", 2: "cloud_shadow"}
_CHANGE_NAMES = {0: "unchanged", 1: "changed"}


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
        OSError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write the simulation to {folder}: {error}; set data_root in conf/base/globals.yml"
        ) from error
    fingerprint = _fingerprint(parameters)
    complete = _complete(folder, fingerprint)
    if complete is not None:
        _LOG.info("simulated Earth is already there: %d scenes, nothing to do", len(complete.scenes))
        return complete
    _prepare(folder, fingerprint)

    regions = {
        asked.name: Region.place(asked, footprint_m=parameters.footprint_m, margin_m=parameters.margin_m)
        for asked in parameters.regions
    }
    plans = [(region, scene) for region in regions.values() for scene in plan_scenes(parameters, region)]
    jobs: list[tuple[SimulateParameters, str, str, str]] = []
    for region in regions.values():
        jobs.append((parameters, str(folder), region.name, ""))
        jobs += [(parameters, str(folder), region.name, scene.id) for owner, scene in plans if owner is region]
    facts = {made.name: made for made in tqdm(_work(jobs, parameters.workers), total=len(jobs), desc="simulate")}

    items = [(scene.sensor_id, make_item(region, scene, facts[scene.id])) for region, scene in plans]
    items.sort(key=lambda entry: (SENSORS.index(entry[0]), entry[1].id))
    described = write_catalog(folder, items)
    described.append(_write_scene_truth(folder, plans, facts))
    files = {file.path: file.sha256 for made in facts.values() for file in made.files}
    files |= {path: file_digest(folder / path) for path in described}
    manifest = Manifest(
        seed=parameters.seed,
        fingerprint=fingerprint,
        content_hash=hash_of_files(files),
        classes=class_entries(),
        regions=tuple(_region_entry(parameters, region, facts[region.name]) for region in regions.values()),
        scenes=tuple(_scene_entry(scene) for _, scene in plans),
        files=dict(sorted(files.items())),
    )
    write_manifest(folder, manifest)
    shutil.rmtree(folder / WORK)
    size = sum((folder / path).stat().st_size for path in files) / 1e6
    _LOG.info("simulated %d scenes of %d regions, %.0f MB, in %s", len(plans), len(regions), size, folder)
    return manifest


def _fingerprint(parameters: SimulateParameters) -> str:
    """sha256 of what decides the bytes: parameters (but not the number of workers) and this package's code."""
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
    if manifest.fingerprint != fingerprint or not all((folder / path).is_file() for path in manifest.files):
        return None
    return manifest


def _prepare(folder: Path, fingerprint: str) -> None:
    """Remove the manifest, and whatever another simulation left; keep the finished scenes of this one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    plan = folder / WORK / "plan"
    if not (plan.exists() and plan.read_text(encoding="utf-8") == fingerprint):
        for name in (*SENSORS, "truth", WORK):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "catalog.json").unlink(missing_ok=True)
        with whole_file(plan) as temporary:
            temporary.write_text(fingerprint, encoding="utf-8")
    for name in (*SENSORS, "truth", WORK):
        for torn in (folder / name).rglob(f".*{PART}"):  # never given its name: a run was killed
            torn.unlink()


def _work(jobs: Sequence[tuple[SimulateParameters, str, str, str]], workers: int) -> Iterator[SceneFacts]:
    if workers == 1 or len(jobs) < 4:
        yield from map(_make, jobs)
        return
    # Spawned, not forked: safe beside threads and W&B.
    with ProcessPoolExecutor(workers, mp_context=SpawnWithoutMain(), initializer=end_with_parent) as pool:
        yield from pool.map(_make, jobs)


@lru_cache(maxsize=1)
def _ground(seed: int, region: Region, change_share: float) -> Landscape:
    landscape = make_landscape(seed, region.name, BIOMES[region.parameters.biome], region.side_m / 2 + region.margin_m)
    return with_changes(landscape, seed, share=change_share)


def _make(job: tuple[SimulateParameters, str, str, str]) -> SceneFacts:
    """Make one scene, or a region's truth where no scene is named, unless it is there already."""
    parameters, where, region_name, scene_id = job
    folder = Path(where)
    known = finished(folder, scene_id or region_name)
    if known is not None:
        return known
    asked = next(region for region in parameters.regions if region.name == region_name)
    region = Region.place(asked, footprint_m=parameters.footprint_m, margin_m=parameters.margin_m)
    landscape = _ground(parameters.seed, region, parameters.change_share)
    if scene_id:
        scene = next(scene for scene in plan_scenes(parameters, region) if scene.id == scene_id)
        facts = _make_scene(parameters, folder, region, landscape, scene)
    else:
        facts = _make_truth(parameters, folder, region, landscape)
    return record(folder, facts)


def _file(folder: Path, path: str) -> FileFacts:
    return FileFacts(path=path, size=(folder / path).stat().st_size, sha256=file_digest(folder / path))


def _make_scene(
    parameters: SimulateParameters, folder: Path, region: Region, landscape: Landscape, scene: Scene
) -> SceneFacts:
    rendered = render(parameters.seed, region, landscape, scene)
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


def _make_truth(parameters: SimulateParameters, folder: Path, region: Region, landscape: Landscape) -> SceneFacts:
    truth = region_truth(region, landscape, gsd_m=parameters.truth_gsd_m)
    paths = _truth_paths(region)
    write_land_cover(folder / paths["before"], truth.before, truth.grid)
    write_land_cover(folder / paths["after"], truth.after, truth.grid)
    write_mask(folder / paths["change"], truth.change, truth.grid, _CHANGE_NAMES)
    return SceneFacts(
        name=region.name,
        changed_share=round(float(np.mean(truth.change)), 6),
        files=tuple(_file(folder, path) for path in paths.values()),
    )


def _truth_paths(region: Region) -> dict[str, str]:
    base = f"truth/{region.name}"
    return {
        "before": f"{base}/land_cover_before.tif",
        "after": f"{base}/land_cover_after.tif",
        "change": f"{base}/change.tif",
    }


def _clouds_path(scene: Scene) -> str:
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
        truth_gsd_m=float(parameters.truth_gsd_m),
        changed_share=facts.changed_share,
    )


def _scene_entry(scene: Scene) -> SceneEntry:
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


_SCENE_TRUTH = pa.schema(
    [
        ("scene_id", pa.string()),
        ("region", pa.string()),
        ("sensor", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("period", pa.string()),
        ("season", pa.string()),
        ("true_shift_x_m", pa.float64()),  # content lies this far east of where the georeference says
        ("true_shift_y_m", pa.float64()),  # and this far north
        ("shift_crs", pa.string()),  # the zone whose metres and axes these are: the region's own
        ("cloud_fraction", pa.float64()),
        ("shadow_fraction", pa.float64()),
        ("nodata_fraction", pa.float64()),
        ("processing_baseline", pa.string()),
        ("refuse", pa.string()),
    ]
)


def _write_scene_truth(folder: Path, plans: Iterable[tuple[Region, Scene]], facts: dict[str, SceneFacts]) -> str:
    path = "truth/scenes.parquet"
    rows = [
        {
            "scene_id": scene.id,
            "region": scene.region,
            "sensor": scene.sensor_id,
            "datetime": scene.when,
            "period": scene.period,
            "season": scene.season,
            "true_shift_x_m": scene.shift_m[0],
            "true_shift_y_m": scene.shift_m[1],
            "shift_crs": f"EPSG:{region.epsg}",
            "cloud_fraction": facts[scene.id].cloud_fraction,
            "shadow_fraction": facts[scene.id].shadow_fraction,
            "nodata_fraction": facts[scene.id].nodata_fraction,
            "processing_baseline": scene.baseline or None,
            "refuse": scene.refuse,
        }
        for region, scene in plans
    ]
    with whole_file(folder / path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCENE_TRUTH), temporary)
    return path


def tiny_parameters(seed: int = 0) -> SimulateParameters:
    """One temperate region of 2 x 2 footprints: Sentinel-2 and Landsat before and after, Gaofen-1 once."""
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
    """Write the tiny world (about 2 s, 10 MB) and return its manifest.

    Args:
        path: Folder; `path / "catalog.json"` is the STAC catalog.
        seed: Another seed is another landscape.
    """
    return simulate(tiny_parameters(seed), path)

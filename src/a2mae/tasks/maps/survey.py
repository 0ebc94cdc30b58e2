"""Which rasters are embedded and mapped, by default scenes of the scene table, and what is written about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from a2mae.files import write_json
from a2mae.models.checkpoint import load_encoder
from a2mae.sensors import BUILTIN_SENSORS, Sensor, get_sensor, sensor_from_dict
from a2mae.stssd.scenes import Scene, scenes_from_table
from a2mae.tasks.device import computing
from a2mae.tasks.learning.checkpoint import Finetuned, bands_per_view, encoder_normalisation, model_digest
from a2mae.tasks.maps.alignment import aligned
from a2mae.tasks.maps.class_map import map_raster
from a2mae.tasks.maps.embed import Windows, embed_raster, write_block_vectors
from a2mae.tasks.maps.rasters import Raster, mosaic, raster_from_file, raster_from_scene
from a2mae.tasks.parameters import EmbedParameters, MapParameters
from a2mae.tasks.samples.inputs import plan_bands
from a2mae.tasks.samples.task_data import Task, TaskDataError

HALF_A_YEAR = 180
"""Days: dates nearer than this differ by season more than by change."""


@dataclass(frozen=True)
class SceneChoice:
    """The scenes that maps are made of by default.

    Attributes:
        before: The earlier one, None where there is no pair.
        after: The later one: it is embedded and segmented.
    """

    before: Scene | None
    after: Scene


def choose_scenes(scenes: pd.DataFrame, sensor: str) -> SceneChoice:
    """The last scene of a sensor, and the one of the same ground that is nearest to it in season but years before.

    Args:
        scenes: Scene table.
        sensor: Sensor id.

    Raises:
        TaskDataError: If no accepted scene of the sensor is there.
    """
    found = [scene for scene in scenes_from_table(scenes) if scene.sensor == sensor]
    if not found:
        raise TaskDataError(
            f"no raster is named and no accepted scene of {sensor!r} is in the scene table: name a raster, or another"
            f" sensor of {', '.join(sorted(set(scenes['sensor'].dropna())))}"
        )
    earlier = {scene.scene_id: _earlier(scene, found) for scene in found}
    # One with an earlier date before one without, then the least cloudy: maps of clouds show nothing.
    after = min(
        found,
        key=lambda s: (
            not earlier[s.scene_id],
            round((s.cloud_cover_pct or 0) / 10),
            -s.datetime.timestamp(),
            s.scene_id,
        ),
    )
    day = after.datetime.timetuple().tm_yday
    before = min(
        earlier[after.scene_id],
        key=lambda s: (_gap(s.datetime.timetuple().tm_yday, day), s.scene_id),
        default=None,
    )
    return SceneChoice(before, after)


def _earlier(after: Scene, scenes: Sequence[Scene]) -> list[Scene]:
    """Scenes of the same ground, at least half a year older."""
    return [
        scene
        for scene in scenes
        if (after.datetime - scene.datetime).days > HALF_A_YEAR
        and scene.geometry.intersection(after.geometry).area > 0.8 * after.geometry.area
    ]


def _gap(first: int, second: int) -> int:
    return min(abs(first - second), 365 - abs(first - second))


@dataclass(frozen=True)
class EmbeddingSource:
    """A raster about to be embedded; `write` does it.

    Attributes:
        options: The `embed` group.
        pretrained: Model directory.
        scenes: Scene table, for the default raster.
        sensors: Sensors in use, by id, as `ingest` describes them.
    """

    options: EmbedParameters
    pretrained: Path
    scenes: pd.DataFrame
    sensors: Mapping[str, object]

    def write(self, folder: Path) -> None:
        """Write `embeddings.tif`, `embeddings.parquet` and `embeddings.json` (what they are)."""
        with computing(self.options.device, self.options.threads) as device:
            self._write(folder, device)

    def _write(self, folder: Path, device: torch.device) -> None:
        options = self.options
        sensor = _sensor(options.sensor, self.sensors)
        encoder = load_encoder(self.pretrained)
        width = bands_per_view(encoder)
        taught = encoder_normalisation(self.pretrained)
        plan = plan_bands(sensor, options.bands, taught, bands_per_view=width, location=options.location)
        if options.raster is not None:
            raster = raster_from_file(Path(options.raster), sensor, plan.bands)
        elif options.scene_ids:
            raster = _mosaic(self.scenes, options.scene_ids, sensor, plan.bands)
        else:
            scene = choose_scenes(self.scenes, sensor.id).after
            raster = raster_from_scene(scene, sensor, plan.bands)
        path = embed_raster(
            encoder,
            plan,
            raster,
            folder / "embeddings.tif",
            Windows(options.tile_px, options.overlap_px, options.batch_size),
            device=device,
            quantise=options.quantise,
            model_hash=model_digest(self.pretrained),
        )
        blocks = write_block_vectors(path, options.block_patches, folder / "embeddings.parquet")
        about = {
            "raster": raster.name,
            "sensor": sensor.id,
            "bands": list(plan.bands),
            "dimensions": encoder.num_features * plan.views,
            "patch_px": encoder.patch_size,
            "block_patches": options.block_patches,
            "blocks": blocks,
        }
        write_json(folder / "embeddings.json", about)


@dataclass(frozen=True)
class MapSource:
    """A raster, or a pair, about to be mapped by a finetuned model; `write` does it.

    Attributes:
        options: Which rasters, how they are cut.
        device: Where to run.
        threads: Of torch and BLAS; 0: as many as there are cores.
        finetuned: A segmenter or a change detector.
        scenes: Scene table, for the default rasters.
        sensors: Sensors in use, by id.
    """

    options: MapParameters
    device: str
    threads: int
    finetuned: Finetuned
    scenes: pd.DataFrame
    sensors: Mapping[str, object]

    def write(self, path: Path) -> None:
        """Write the map as a COG.

        Raises:
            TaskDataError: If a change map has one date only.
        """
        options = self.options
        windows = Windows(options.tile_px, options.overlap_px, options.batch_size)
        digest = _state_digest(self.finetuned)
        with computing(self.device, self.threads) as device:
            map_raster(
                self.finetuned,
                self._rasters(),
                path,
                windows,
                device=device,
                model_hash=digest,
                probabilities=path.with_name(f"{path.stem}_probabilities.tif") if options.probabilities else None,
            )

    def _rasters(self) -> list[Raster]:
        """The raster, or the earlier and the later one on each other."""
        first, *later = self._dates()
        return [first, *(aligned(first, raster, self.options.registration) for raster in later)]

    def _dates(self) -> list[Raster]:
        options, plan, spec = self.options, self.finetuned.plan, self.finetuned.spec
        buffer_m = options.cloud_buffer_m if options.mask_clouds else None
        sensor_id = options.sensor or plan.sensors[0]
        trained = Sensor(sensor_id, spec.source, spec.gsd_m, spec.bands, spec.encoding)
        as_trained = plan.sensors == (sensor_id,)
        # Pictures of a folder are of no sensor that ingest or the program knows.
        known = sensor_id in self.sensors or sensor_id in BUILTIN_SENSORS
        sensor = trained if as_trained and not known else _sensor(sensor_id, self.sensors)
        pair = spec.task is Task.DETECT_CHANGE
        if options.raster is not None:
            if pair and options.raster_before is None:
                raise TaskDataError("a change map needs two dates: set detect_change.map.raster_before")
            paths = [options.raster_before, options.raster] if pair else [options.raster]
            # Files like those of the training have their order of bands, and their integers mean the same.
            stated = trained if as_trained else None
            return [raster_from_file(Path(str(path)), sensor, plan.bands, stated=stated) for path in paths]
        if options.scene_ids:
            if pair and not options.scene_ids_before:
                raise TaskDataError("a change map needs two dates: set detect_change.map.scene_ids_before")
            dates = [options.scene_ids_before, options.scene_ids] if pair else [options.scene_ids]
            return [_mosaic(self.scenes, ids, sensor, plan.bands, cloud_buffer_m=buffer_m) for ids in dates]
        choice = choose_scenes(self.scenes, sensor.id)
        if not pair:
            return [raster_from_scene(choice.after, sensor, plan.bands, cloud_buffer_m=buffer_m)]
        if choice.before is None:
            raise TaskDataError(
                f"a change map needs two dates of one place: scene {choice.after.scene_id} has no earlier one of"
                f" {sensor.id}; set detect_change.map.raster and raster_before"
            )
        dates_of = (choice.before, choice.after)
        return [raster_from_scene(scene, sensor, plan.bands, cloud_buffer_m=buffer_m) for scene in dates_of]


def _mosaic(
    table: pd.DataFrame,
    scene_ids: Sequence[str],
    sensor: Sensor,
    bands: Sequence[str],
    *,
    cloud_buffer_m: float | None = None,
) -> Raster:
    """Scenes of the scene table (what the STAC search found) as one raster, the first on top."""
    known = {scene.scene_id: scene for scene in scenes_from_table(table)}
    unknown = [name for name in scene_ids if name not in known]
    if unknown:
        raise TaskDataError(f"not accepted scenes of the scene table: {', '.join(unknown)}")
    strangers = sorted({known[name].sensor for name in scene_ids} - {sensor.id})
    if strangers:
        raise TaskDataError(f"scene_ids must be of {sensor.id}, found {', '.join(strangers)}")
    return mosaic([raster_from_scene(known[name], sensor, bands, cloud_buffer_m=cloud_buffer_m) for name in scene_ids])


def _sensor(sensor_id: str, known: Mapping[str, object]) -> Sensor:
    described = known.get(sensor_id)
    return sensor_from_dict(described) if isinstance(described, Mapping) else get_sensor(sensor_id)


def _state_digest(finetuned: Finetuned) -> str:
    digest = hashlib.sha256()
    for name, value in finetuned.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()

"""Which rasters are embedded and mapped, and what is written about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from a2mae.files import write_json
from a2mae.models.checkpoint import load_encoder
from a2mae.remote.fetch import RemoteAccess
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import Task, TaskDataError
from a2mae.tasks.finetune.finetuned import Finetuned, bands_per_view, encoder_normalisation, model_digest
from a2mae.tasks.finetune.train import computing
from a2mae.tasks.inference.class_map import aligned, map_raster
from a2mae.tasks.inference.embed import Windows, embed_raster, write_block_vectors
from a2mae.tasks.inference.plausible import warn_of_values
from a2mae.tasks.inference.rasters import EMBED, OF_SCENES, Layer, Raster, keys_of_map, raster_from_file
from a2mae.tasks.inference.scenes import Mapped, SceneRasters, choose_scenes, scenes_of, sensor_named
from a2mae.tasks.parameters import EmbedParameters, MapParameters


@dataclass(frozen=True)
class EmbeddingSource:
    """A raster about to be embedded; `write` does it.

    Attributes:
        options: The `embed` group.
        pretrained: Model directory.
        scenes: Scene table, for the default raster.
        sensors: Sensors in use, by id, as `ingest` describes them.
        access: How the scenes' files are reached.
    """

    options: EmbedParameters
    pretrained: Path
    scenes: pd.DataFrame | None
    sensors: Mapping[str, object]
    access: RemoteAccess

    def write(self, folder: Path) -> None:
        """Write `embeddings.tif`, `embeddings.parquet` and `embeddings.json` (what they are).

        `layers` in the last: by which scale and offset the bands of each file or scene's part were read, the uppermost
        first.
        """
        with computing(self.options.device, self.options.threads) as device:
            self._write(folder, device)

    def _write(self, folder: Path, device: torch.device) -> None:
        options = self.options
        sensor = sensor_named(options.sensor, self.sensors)
        encoder = load_encoder(self.pretrained)
        width = bands_per_view(encoder)
        taught = encoder_normalisation(self.pretrained)
        plan = plan_bands(sensor, options.bands, taught, bands_per_view=width, location=options.location)
        if options.raster is not None:
            raster = raster_from_file(
                Path(options.raster), sensor, plan.bands, scale=options.scale, offset=options.offset, keys=EMBED
            )
        else:
            scenes = scenes_of(self.scenes, EMBED)
            rasters = SceneRasters(scenes, self.access)
            if options.scene_ids:
                raster = rasters.of(options.scene_ids, sensor, plan.bands)
            else:
                raster = rasters.one(choose_scenes(scenes, sensor.id).after, sensor, plan.bands)
        warn_of_values(raster, plan, OF_SCENES if options.raster is None else EMBED.advice)
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
            "units": raster.layers[0].assets[0].units.value,
            "layers": [_encodings(layer) for layer in raster.layers],
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
        access: How the scenes' files are reached.
        scores: The model's, of the test split; written into the map's tags, so that it says what it is worth.
    """

    options: MapParameters
    device: str
    threads: int
    finetuned: Finetuned
    scenes: pd.DataFrame | None
    sensors: Mapping[str, object]
    access: RemoteAccess
    scores: Mapping[str, object] = field(default_factory=dict)

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
                scores=self.scores,
                probabilities=path.with_name(f"{path.stem}_probabilities.tif") if options.probabilities else None,
            )

    def _rasters(self) -> list[Raster]:
        """The raster, or the earlier and the later one on each other."""
        dates, plan = self._dates(), self.finetuned.plan
        advice = OF_SCENES if self.options.raster is None else keys_of_map(self.finetuned.spec.task).advice
        for raster in dates:
            warn_of_values(raster, plan, advice)
        first, *later = dates
        return [first, *(aligned(first, raster, self.options.registration) for raster in later)]

    def _dates(self) -> list[Raster]:
        """As they are provided: files that are named, scenes that are named, or scenes that are chosen."""
        options, plan, spec = self.options, self.finetuned.plan, self.finetuned.spec
        pair = spec.task is Task.DETECT_CHANGE
        mapped = Mapped(spec, plan.sensors, plan.bands, self.sensors)
        if options.raster is not None:
            return mapped.rasters(options)
        sensor, _ = mapped.sensor(options)
        scenes = scenes_of(self.scenes, keys_of_map(spec.task))
        rasters = SceneRasters(scenes, self.access, options.cloud_buffer_m if options.mask_clouds else None)
        if options.scene_ids:
            dates = [options.scene_ids_before, options.scene_ids] if pair else [options.scene_ids]
            return [rasters.of(scene_ids, sensor, plan.bands) for scene_ids in dates]
        choice = choose_scenes(scenes, sensor.id)
        if not pair:
            return [rasters.one(choice.after, sensor, plan.bands)]
        if choice.before is None:
            raise TaskDataError(
                f"a change map needs two dates of one place: scene {choice.after.scene_id} has no earlier one of"
                f" {sensor.id}; set detect_change.map.raster and raster_before"
            )
        return [rasters.one(scene, sensor, plan.bands) for scene in (choice.before, choice.after)]


def _encodings(layer: Layer) -> dict[str, list[float]]:
    """By which scale and offset each band of a file or of a scene's part was read."""
    return {"scale": [asset.scale for asset in layer.assets], "offset": [asset.offset for asset in layer.assets]}


def _state_digest(finetuned: Finetuned) -> str:
    digest = hashlib.sha256()
    for name, value in finetuned.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()

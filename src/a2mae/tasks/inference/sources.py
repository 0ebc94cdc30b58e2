"""Decide which rasters are embedded and mapped, and write what comes of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from a2mae.config import Precision, WorkerParameters
from a2mae.files import write_json
from a2mae.models.checkpoint import load_encoder
from a2mae.models.sources import weights_digest
from a2mae.plausibility import strange_bands
from a2mae.sensors import Sensor
from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.inputs import InputPlan, plan_bands
from a2mae.tasks.finetune.encoders import bands_per_view, encoder_normalisation
from a2mae.tasks.finetune.finetuned import Finetuned, load_task_model
from a2mae.tasks.finetune.train import computing
from a2mae.tasks.inference.embed import embed_raster, write_block_vectors
from a2mae.tasks.inference.files import EMBED, Mapped, RasterKeys, bands_of, keys_of_map, raster_from_file, sensor_named
from a2mae.tasks.inference.raster_map import aligned, map_raster
from a2mae.tasks.inference.rasters import Raster, sample_of
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.strips import Workers
from a2mae.tasks.parameters import EmbedParameters, MapParameters
from a2mae.tasks.tiling import Windows

logger = logging.getLogger(__name__)

_OF_SCENES = "check scale and offset of the rule or item by which ingest has read them"


@dataclass(frozen=True)
class EmbeddingSource:
    """A raster to be embedded by a pretrained encoder.

    Attributes:
        options: The `embed` group.
        pretrained: Model directory.
        scenes: Where the default raster comes from.
    """

    options: EmbedParameters
    pretrained: Path
    scenes: SceneRasters

    def write(self, folder: Path) -> None:
        """Write `embeddings.tif`, `embeddings.parquet` and `embeddings.json`, which says what they are.

        `layers` in the last gives scale and offset of the bands of each file or part of a scene, the uppermost first.
        """
        with computing(self.options.device, self.options.threads) as device:
            self._write(folder, device)

    def _write(self, folder: Path, device: torch.device) -> None:
        options = self.options
        sensor = sensor_named(options.sensor, self.scenes.sensors)
        encoder = load_encoder(self.pretrained)
        width = bands_per_view(encoder)
        taught = encoder_normalisation(self.pretrained)
        plan = plan_bands(sensor, options.bands, taught, bands_per_view=width, location=options.location)
        scenes = self.scenes if options.mask_clouds else replace(self.scenes, clouds=None)
        if options.raster is not None:
            raster = raster_from_file(
                Path(options.raster), sensor, plan.bands, scale=options.scale, offset=options.offset
            )
        elif options.scene_ids:
            raster = scenes.named(options.scene_ids, sensor, plan.bands, EMBED)
        else:
            raster = scenes.one(scenes.choose(sensor.id, EMBED).after, sensor, plan.bands)
        warn_of_values(raster, plan, _OF_SCENES if options.raster is None else EMBED.advice)
        digest = weights_digest(self.pretrained)
        path = embed_raster(
            encoder,
            plan,
            raster,
            folder / "embeddings.tif",
            Windows(options.tile_px, options.overlap_px, options.batch_size),
            device=device,
            precision=options.precision,
            quantise=options.quantise,
            model_hash=digest,
            workers=Workers(self.pretrained, load_encoder, options.device, options.threads, options),
        )
        blocks = write_block_vectors(path, options.block_patches, folder / "embeddings.parquet")
        about = {
            "model": digest,
            "raster": raster.name,
            "sensor": sensor.id,
            "bands": list(plan.bands),
            "units": sensor.encoding.units.value,
            "layers": [
                {"scale": [asset.scale for asset in bands], "offset": [asset.offset for asset in bands]}
                for bands in raster.files
            ],
            "dimensions": encoder.num_features * plan.views,
            "views": plan.views,
            "patch_px": encoder.patch_size,
            "block_patches": options.block_patches,
            "blocks": blocks,
        }
        write_json(folder / "embeddings.json", about)


@dataclass(frozen=True)
class MapSource:
    """A raster, or a pair, to be mapped by a finetuned model.

    Attributes:
        options: Which rasters, and how they are cut.
        device: Where to run.
        threads: Threads of torch and BLAS; 0: as many as there are cores.
        finetuned: A segmenter or a change detector.
        scenes: Where the default rasters come from.
        scores: The model's scores on the test split; written into the map's tags, so that it says what it is worth.
        inputs: Which images make up a set.
        precision: What the model computes in.
        workers: Compute a raster that is large enough to be shared; None: it is computed here.
    """

    options: MapParameters
    device: str
    threads: int
    finetuned: Finetuned
    scenes: SceneRasters
    scores: Mapping[str, object] = field(default_factory=dict)
    inputs: InputParameters = field(default_factory=lambda: InputParameters.model_validate({}))
    precision: Precision = "auto"
    workers: WorkerParameters | None = None

    def write(self, path: Path, confidence: Path | None = None) -> None:
        """Write the map as a COG.

        Args:
            path: Of the map.
            confidence: Also write the probability of the mapped class to this COG.

        Raises:
            TaskDataError: If a change map has one date only.
        """
        options = self.options
        windows = Windows(options.tile_px, options.overlap_px, options.batch_size)
        digest = _state_digest(self.finetuned)
        with computing(self.device, self.threads) as device:
            dates = self._dates()
            map_raster(
                self.finetuned,
                self._on_each_other([raster for date in dates for raster in date]),
                path,
                windows,
                device=device,
                precision=self.precision,
                model_hash=digest,
                scores=self.scores,
                confidence=confidence,
                probabilities=path.with_name(f"{path.stem}_probabilities.tif") if options.probabilities else None,
                before=len(dates[0]),
                workers=self._crew(),
            )

    def _crew(self) -> Workers | None:
        """Those who may compute the map; a model that lies nowhere cannot be read by others."""
        folder = self.finetuned.folder
        if self.workers is None or folder is None:
            return None
        return Workers(folder, load_task_model, self.device, self.threads, self.workers)

    def _on_each_other(self, rasters: list[Raster]) -> list[Raster]:
        """The rasters, the later ones moved onto the first."""
        advice = _OF_SCENES if self.options.raster is None else keys_of_map(self.finetuned.spec.task).advice
        for raster in rasters:
            warn_of_values(raster, self.finetuned.plan, advice)
        first, *later = rasters
        moved = [  # light and radar have no band to compare
            aligned(first, one, self.options.registration) if len(one.bands) == len(first.bands) else one
            for one in later
        ]
        return [first, *moved]

    def _dates(self) -> list[list[Raster]]:
        """The rasters of each date: files that are named, scenes that are named, or scenes that are chosen."""
        options, plan, spec = self.options, self.finetuned.plan, self.finetuned.spec
        pair, keys = spec.task.kind.dates == 2, keys_of_map(spec.task)
        known = tuple(one.id for one in spec.set_sensors) or plan.sensors
        mapped = Mapped(spec, known, plan.bands, self.scenes.sensors)
        if options.raster is not None:
            return [[raster] for raster in mapped.rasters(options)]
        sensor, _ = mapped.sensor(options)
        scenes = self.scenes if options.mask_clouds else replace(self.scenes, clouds=None)
        named = [options.scene_ids_before, options.scene_ids] if pair else [options.scene_ids]
        if spec.set_sensors:
            return self._sets(scenes, sensor, named, keys)
        if options.scene_ids:
            return [[scenes.named(scene_ids, sensor, plan.bands, keys)] for scene_ids in named]
        chosen = scenes.choose(sensor.id, keys).dates(len(named), keys)
        return [[scenes.one(scene, sensor, plan.bands)] for scene in chosen]

    def _sets(
        self, scenes: SceneRasters, sensor: Sensor, named: Sequence[Sequence[str]], keys: RasterKeys
    ) -> list[list[Raster]]:
        """The scenes that are named, or those that are mapped by default with others of their ground and period."""
        spec = self.finetuned.spec
        chosen = scenes.sets_of(
            sensor.id, [one.id for one in spec.set_sensors], named, self.inputs,
            most=self.finetuned.model.config.images or 1, keys=keys,
        )  # fmt: skip
        dates = []
        for one in chosen:
            rasters = []
            for scene in one:
                own = sensor_named(scene.sensor, scenes.sensors)
                rasters.append(scenes.one(scene, own, bands_of(own, spec, self.finetuned.plan.bands)))
            logger.info("%s map of an image set: %s", spec.task, ", ".join(raster.name for raster in rasters))
            dates.append(rasters)
        return dates


def warn_of_values(raster: Raster, plan: InputPlan, advice: str) -> None:
    """Warn where values are not what an encoder was taught; a wrong scale or offset shows here first.

    One window in which something was seen is looked at; a raster of which nothing is seen there is passed over.

    Args:
        raster: With the plan's bands in its order.
        plan: Bands and normalisation; it knows the raster's sensor.
        advice: What to change, the end of a sentence.
    """
    seen = sample_of(raster)
    if not seen.size:
        return
    index = plan.sensors.index(raster.sensor.id)
    taught = [(mean, std) for mean, std in zip(plan.mean[index], plan.std[index], strict=True) if std > 0]
    mean, std = zip(*taught, strict=True)
    found = strange_bands(seen, raster.bands, raster.sensor.encoding.units, mean, std)
    if found:
        encodings = dict.fromkeys((asset.scale, asset.offset) for bands in raster.files for asset in bands)
        logger.warning(
            "%s: %s. Decoded by scale and offset %s; %s",
            raster.name,
            "; ".join(found),
            ", ".join(f"{scale:g} and {offset:g}" for scale, offset in encodings),
            advice,
        )


def _state_digest(finetuned: Finetuned) -> str:
    digest = hashlib.sha256()
    for name, value in finetuned.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()

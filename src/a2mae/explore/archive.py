"""Embed every image and image set of an archive; what has been embedded before is not computed again."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm

from a2mae.errors import InputError, plural
from a2mae.explore.set_vectors import SetEmbedder, members_of_sets
from a2mae.explore.store import EmbeddingStore, StoreAbout, about_begun, begin_store
from a2mae.files import digest_of
from a2mae.models.checkpoint import load_encoder
from a2mae.models.encoder import Encoder
from a2mae.models.precision import precision_kept, precision_of
from a2mae.models.sources import weights_digest
from a2mae.parallel import run_all
from a2mae.sensors import UnknownBandError
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.inputs import InputPlan, TaskBatch, plan_bands
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.evaluation.features import EncoderFeatures, coarser
from a2mae.tasks.finetune.encoders import bands_per_view, encoder_normalisation
from a2mae.tasks.finetune.train import computing, device_named
from a2mae.tasks.parameters import EmbedParameters

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

_PART_ROWS = 4096
_DECIDES = [
    *("scene_id", "sensor", "datetime", "gsd_m", "shift_x_m", "shift_y_m"),
    *("valid_fraction", "dark_value", "bright_value"),
]
"""Columns of the image table that change where an image's pixels do."""


@dataclass(frozen=True)
class Archive:
    """Images with their tables.

    Attributes:
        store: The image-set store.
        images: Image table.
        sets: Set table with footprints.
    """

    store: ImageSetStore
    images: pd.DataFrame
    sets: gpd.GeoDataFrame


@dataclass(frozen=True)
class _Task:
    """Rows whose vectors one worker computes.

    Attributes:
        options: The `embed` group.
        pretrained: Model directory, which every worker reads.
        about: Of the store that the vectors are for: the model's digest, precision, pooling.
        store: The image-set store.
        sensor: Of the images; empty where the rows are those of image sets, in the order of `members_of_sets`.
        rows: What is embedded.
    """

    options: EmbedParameters
    pretrained: Path
    about: StoreAbout
    store: ImageSetStore
    sensor: str
    rows: pd.DataFrame


def embed_archive(options: EmbedParameters, pretrained: Path, archive: Archive, folder: Path) -> EmbeddingStore:
    """Embed the images and sets of an archive into a store; a stopped run goes on, a second one adds what is new.

    `embed.workers` processes, or those of a Dask cluster, compute the vectors, and this one writes them. The bytes are
    the same with any number of them, and where a run was stopped. Workers of a cluster need the model directory and the
    image-set store under the same names; where this machine has an accelerator, it computes alone.

    A set's vector is the mean of those of its images, or with `inputs.images` of 2 or more what the encoder reads in up
    to so many of them in one sequence; then there may be one for each period. Images of sensors that the encoder was
    not pretrained on, or that lack one of the bands, and those of which nothing was seen have none; they are counted in
    the log.

    Args:
        options: The `embed` group.
        pretrained: Model directory.
        archive: What is embedded.
        folder: Of the store.

    Returns:
        The store.

    Raises:
        InputError: If no image can be embedded.
    """
    model, images = weights_digest(pretrained), archive.images
    encoder, plans = _ready(pretrained, model, options, archive.store)
    usable = images[images["sensor"].isin(list(plans)) & (images["valid_fraction"] > 0)].reset_index(drop=True)
    if usable.empty:
        raise InputError(
            f"no image of {archive.store.url} can be embedded: embed.bands are {', '.join(options.bands)}, and of its"
            f" sensors ({', '.join(archive.store.sensors)}) none has them all and was pretrained on; set embed.bands to"
            " such bands"
        )
    if len(usable) < len(images):
        left_out = images.loc[~images["image_id"].isin(usable["image_id"]), "sensor"].value_counts()
        told = ", ".join(f"{count} of {sensor}" for sensor, count in sorted(left_out.items()))
        logger.warning("embed: images without a vector, their sensor is new to the encoder or lacks a band: %s", told)
    views = next(iter(plans.values())).views
    about = StoreAbout(
        model=model,
        dimensions=encoder.num_features * views * (2 if options.pool == "mean_std" else 1),
        dtype="int8" if options.quantise else "float16",
        pool=options.pool,
        bands=options.bands,
        location=options.location,
        tile_px=options.tile_px,
    )
    device = device_named(options.device)
    kept = (
        precision_kept(lambda one: replace(about, precision=one), about_begun(folder), device)
        if options.precision == "auto"
        else precision_of(options.precision, device)
    )
    about = replace(about, precision=kept)
    usable = _in_parts(_described(usable, archive.sets), "sensor")
    members = members_of_sets(usable, options.inputs) if options.inputs.is_set else None
    if members is not None and members.empty:
        raise InputError(
            f"embed.inputs: no image of {archive.store.url} that can be embedded is {options.inputs}"
            f"{' and of ' + ', '.join(options.inputs.sensors) if options.inputs.sensors else ''}: widen the window"
        )
    grouped = _in_parts(_sets_of(usable if members is None else members, options.inputs), "level")
    wanted = {("image", str(key)): str(content) for key, content in zip(usable["id"], usable["content"], strict=True)}
    wanted |= {("set", str(key)): str(content) for key, content in zip(grouped["id"], grouped["content"], strict=True)}
    store = begin_store(folder, about)
    gone = store.keep(wanted)
    there = store.contents()
    new = usable[[("image", key) not in there for key in usable["id"]]]
    new_sets = grouped[[("set", key) not in there for key in grouped["id"]]]
    of = partial(_Task, options, pretrained, about, archive.store)
    tasks = {
        f"image {sensor} {part}": of(str(sensor), rows) for (sensor, part), rows in new.groupby(["sensor", "part"])
    }
    written = dict(zip(tasks, (task.rows for task in tasks.values()), strict=True))
    if members is not None:
        for part, rows in new_sets.groupby("part"):
            tasks[f"set {part}"] = of("", members[members["member_of"].isin(rows["id"])])
            written[f"set {part}"] = rows
    pieces = sorted(tasks.items(), key=lambda item: -len(item[1].rows))
    # For less than a file workers would start longer than they work; an accelerator is not shared.
    alone = sum(len(task.rows) for task in tasks.values()) <= _PART_ROWS or device.type != "cpu"
    workers = 1 if alone and options.dask_scheduler is None else options.workers
    finished = run_all(_embed_task, pieces, workers=workers, dask_scheduler=options.dask_scheduler)
    for name, vectors in tqdm(finished, total=len(pieces), desc="embed", unit="part", disable=len(pieces) < 2):
        _add(store, written[name], vectors)
    if len(new_sets) and members is None:
        _add(store, new_sets, _means(store, usable, new_sets))
    logger.info(
        "embeddings: %s and %s embedded, %s kept, %d removed; %d dimensions, %s",
        plural(len(new), "image"), plural(len(new_sets), "set"), f"{len(there):,}", gone, about.dimensions, about.dtype,
    )  # fmt: skip
    return store


def _embed_task(piece: tuple[str, _Task]) -> tuple[str, Floats]:
    """Compute the vectors of a piece of work, in whatever process."""
    name, task = piece
    options = task.options
    # One thread in each worker, if nothing else is said: a sum of two halves is rounded otherwise than one sum.
    with computing(options.device, options.threads or 1) as device:
        encoder, plans = _ready(task.pretrained, task.about.model, options, task.store)
        encoder = encoder.to(device)
        if not task.sensor:
            return name, SetEmbedder(encoder, plans, options, task.store, task.about.precision).vectors(task.rows)
        _, *shape = task.store.shape(task.sensor)
        relative_gsd = min(1.0, options.tile_px / max(shape))
        embedder = Embedder(encoder, plans[task.sensor], task.about, relative_gsd=relative_gsd)
        return name, _vectors(embedder, task.store, task.rows, options.batch_size)


_READY: dict[tuple[str, str], tuple[Encoder, dict[str, InputPlan]]] = {}
"""The model that this process has read last, by its digest and the options."""


def _ready(
    pretrained: Path, model: str, options: EmbedParameters, store: ImageSetStore
) -> tuple[Encoder, dict[str, InputPlan]]:
    """Read a model and how images enter it, once in every process.

    Raises:
        InputError: If a worker finds another model under this name than the process that hands out the work.
    """
    key = model, digest_of([options.model_dump(mode="json"), str(store.url)])
    if key not in _READY:
        if weights_digest(pretrained) != model:
            raise InputError(f"{pretrained} is another model on this worker: give all workers the same one")
        encoder = load_encoder(pretrained)
        _READY.clear()
        _READY[key] = encoder, _plans(options, pretrained, store, encoder)
    return _READY[key]


def _in_parts(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Number the file that each row belongs to, whatever is there already: a stopped run goes on with the same ones."""
    return rows.assign(part=rows.groupby(key).cumcount() // _PART_ROWS)


def _plans(
    options: EmbedParameters, pretrained: Path, archive: ImageSetStore, encoder: Encoder
) -> dict[str, InputPlan]:
    """How the images of each sensor enter the encoder; sensors that cannot are left out."""
    taught, width = encoder_normalisation(pretrained), bands_per_view(encoder)
    plans = {}
    for name in archive.sensors:
        sensor = archive.sensor(name)
        if name not in taught:
            continue
        try:
            plans[name] = plan_bands(sensor, options.bands, taught, bands_per_view=width, location=options.location)
        except (UnknownBandError, TaskDataError) as error:
            logger.info("embed: %s is left out of the embedding store: %s", name, error)
    return plans


def _described(images: pd.DataFrame, sets: gpd.GeoDataFrame) -> pd.DataFrame:
    """Give images the columns of the store."""
    of_set = sets.set_index("set_id")
    decides = images[_DECIDES].astype(str)
    return images.assign(
        id=images["image_id"],
        level="image",
        split=of_set["split"].reindex(images["set_id"]).to_numpy(),
        geometry=of_set.geometry.reindex(images["set_id"]).to_wkb().to_numpy(),
        content=[digest_of(row)[:16] for row in decides.to_numpy().tolist()],
    )


def _sets_of(images: pd.DataFrame, inputs: InputParameters) -> pd.DataFrame:
    """Gather the rows of the sets from those of their images."""
    key = "member_of" if inputs.is_set else "set_id"
    ordered = images.sort_values([key, "id"], kind="stable")
    grouped = ordered.groupby(key, sort=True)
    first = grouped.first()
    how = [inputs.model_dump(mode="json")] if inputs.is_set else []
    return first.assign(
        id=first.index,
        level="set",
        sensor=grouped["sensor"].agg(lambda names: "+".join(sorted(set(names)))),
        datetime=grouped["datetime"].min(),
        content=grouped["content"].agg(lambda contents: digest_of([*contents, *how])[:16]),
    ).reset_index()


def _add(store: EmbeddingStore, rows: pd.DataFrame, vectors: Floats) -> None:
    names = ("id", "level", "set_id", "location_id", "sensor", "datetime", "split", "lon", "lat", "content")
    store.add({name: rows[name].tolist() for name in names}, rows["geometry"].tolist(), vectors)


def _means(store: EmbeddingStore, images: pd.DataFrame, sets: pd.DataFrame) -> Floats:
    """Average the vectors of each set's images, as they are stored."""
    place = {name: row for row, name in enumerate(sets["set_id"])}
    of_image = dict(zip(images["id"], images["set_id"], strict=True))
    total, count = np.zeros((len(sets), store.about.dimensions), np.float64), np.zeros(len(sets))
    for block in store.blocks("image", ["id"]):
        rows = np.array([place.get(of_image.get(name, ""), -1) for name in block.rows["id"].to_pylist()])
        known = rows >= 0
        np.add.at(total, rows[known], block.vectors[known])
        np.add.at(count, rows[known], 1)
    return (total / np.maximum(count, 1)[:, None]).astype(np.float32)


class Embedder:
    """Turns images of one sensor into vectors."""

    def __init__(self, encoder: Encoder, plan: InputPlan, about: StoreAbout, *, relative_gsd: float) -> None:
        """Take an encoder and how images enter it.

        Args:
            encoder: On its device.
            plan: Of one sensor.
            about: How tokens become a vector of the store, and what the encoder computes in.
            relative_gsd: 0.5 averages images to half their side, with their GSD; 1 leaves them as they are.
        """
        self._device = next(encoder.parameters()).device
        self._features = EncoderFeatures(
            encoder,
            pool=about.pool,
            bands_per_view=plan.bands_per_view,
            precision=about.precision,
        )
        self.plan, (self.sensor,) = plan, plan.sensors
        self._patch, self._relative_gsd = encoder.patch_size, relative_gsd
        self._mean, self._std = (np.asarray(values[0], np.float32)[:, None, None] for values in (plan.mean, plan.std))

    def __call__(
        self,
        pixels: Floats,
        valid: npt.NDArray[np.bool_],
        *,
        gsd_m: Floats,
        days: Sequence[float] | None,
        lonlat: npt.NDArray[np.float64],
    ) -> Floats:
        """Compute `(N, D)`.

        Args:
            pixels: `(N, C, H, W)`: the plan's bands in its order, physical units.
            valid: `(N, H, W)`.
            gsd_m: `(N,)`.
            days: Since 1970-01-01 UTC; None: not known.
            lonlat: `(N, 2)`: of the centres, degrees.
        """
        images = np.where(valid[:, None], (pixels - self._mean) / self._std, np.float32(0)).astype(np.float32)
        if self._relative_gsd == 1:  # whole patches; else `coarser` sees to that
            images = np.pad(images, [(0, 0), (0, 0), *((0, max(self._patch - side, 0)) for side in images.shape[2:])])
            height, width = (side - side % self._patch for side in images.shape[2:])
            images = np.ascontiguousarray(images[..., :height, :width])
        batch = TaskBatch(
            images=torch.from_numpy(images)[:, None],
            gsd_m=torch.from_numpy(gsd_m),
            lonlat_deg=torch.from_numpy(lonlat) if self.plan.location else None,
            day=None if days is None else torch.tensor(days, dtype=torch.float32)[:, None],
            wavelength_nm=torch.tensor(self.plan.center_wavelength_nm, dtype=torch.float32),
            targets=torch.zeros(len(images), dtype=torch.int64),
        )
        return self._features(coarser(batch.to(self._device), self._relative_gsd, self._patch)).cpu().numpy()


def _vectors(embedder: Embedder, archive: ImageSetStore, rows: pd.DataFrame, batch_size: int) -> Floats:
    """Embed images of the store."""
    parts = []
    for start in range(0, len(rows), batch_size):
        part = rows.iloc[start : start + batch_size]
        numbers = part["row"].to_numpy(np.int64)
        pixels, valid = archive.read_physical(embedder.sensor, numbers, list(embedder.plan.bands))
        days = [moment.timestamp() / 86400 for moment in _times(part["datetime"])]
        gsd_m, lonlat = part["gsd_m"].to_numpy(np.float32), part[["lon", "lat"]].to_numpy(np.float64)
        parts.append(embedder(pixels, valid, gsd_m=gsd_m, days=days, lonlat=lonlat))
    return np.concatenate(parts)


def _times(column: Sequence[dt.datetime] | pd.Series) -> Iterator[dt.datetime]:
    yield from (moment.to_pydatetime() if isinstance(moment, pd.Timestamp) else moment for moment in column)

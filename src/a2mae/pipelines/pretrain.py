"""The `pretrain` stage: image sets to a pretrained model, trained in a process of its own.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd
from kedro.pipeline import Pipeline, node

from a2mae.errors import A2maeError, InputError
from a2mae.provenance.code import commit_of
from a2mae.training.parameters import PretrainParameters

if TYPE_CHECKING:
    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.training.data.index import SetIndex
    from a2mae.training.spec import RunSpec, SensorSpec

logger = logging.getLogger(__name__)

Statistics = Mapping[str, Mapping[str, Mapping[str, float]]]
_RGB = ("red", "green", "blue")


class NothingToTrainOnError(InputError):
    """No image set is both kept and in the training split."""


class OtherRunError(A2maeError, RuntimeError):
    """The model is that of another run."""


def pretrain(
    *,
    images: pd.DataFrame,
    pruned_sets: pd.DataFrame,
    band_statistics: Statistics,
    image_sets: object,
    pretrain_run: Path,
    parameters: PretrainParameters,
) -> tuple[Path, dict[str, object], pd.DataFrame]:
    """Train a model on the kept sets of the training split.

    An unfinished run of the same specification and data in `pretrain_run` goes on; anything else starts afresh. The log
    says which.

    Args:
        images: Image table.
        pruned_sets: Set table after pruning.
        band_statistics: `{sensor: {band: {mean, std, ...}}}` in physical units.
        image_sets: The open image-set store.
        pretrain_run: Where the training works.
        parameters: The group `pretrain`.

    Returns:
        The model directory, its metrics, and the curves of the run.

    Raises:
        NothingToTrainOnError: If no set is left.
        CheckpointError: If the weights to start from cannot be read, or do not fit.
        TrainingFailedError: If the training process fails; with its message.
        OtherRunError: If another run has changed the specification meanwhile.
    """
    import json

    from a2mae.models.checkpoint import read_config
    from a2mae.training.data.index import TRAIN
    from a2mae.training.launch import launch
    from a2mae.training.spec import SPEC_FILE

    store = cast("ImageSetStore", image_sets)
    _check_places(images, parameters)
    sensors, index = build_run_index(
        images, pruned_sets, bands_by_sensor(store), needed=needed_bands(store, parameters)
    )
    _warn_of_untrained(images, pruned_sets, sensors, index)
    spec = build_spec(
        sensors,
        index,
        band_statistics=band_statistics,
        store=store,
        run_dir=pretrain_run,
        parameters=parameters,
    )
    _check_start(pretrain_run, spec, store)
    spec.write(pretrain_run)
    logger.info(
        "pretrain: %s (%s) on %d image sets of %s, %s, %d steps of %d sets",
        spec.method,
        spec.model.name,
        len(index.sets_of(TRAIN)),
        ", ".join(sensors),
        _held_out(index),
        spec.optimizer.steps,
        spec.optimizer.batch_size,
    )
    model_dir = launch(pretrain_run)
    trained = read_config(model_dir).get("run_identity")
    if trained != spec.identity:
        raise OtherRunError(
            f"{model_dir} was trained by another specification than this run asked for: another run has written"
            f" {pretrain_run / SPEC_FILE} meanwhile. Run it again, one run at a time"
        )
    metrics = json.loads((model_dir / "metrics.json").read_text(encoding="utf-8"))
    same_place = metrics["same_place_accuracy"]
    logger.info(
        "pretrain: loss %.4f, %s, effective rank %.1f, same-place kNN %s",
        metrics["loss"],
        _loss_on_fixed_sets(metrics),
        metrics["effective_rank"],
        "not measured" if same_place is None else f"{same_place:.3f}",
    )
    return model_dir, metrics, pd.read_csv(model_dir / "run" / "metrics.csv")


_TELLS_PLACES = ("a2mae", "satmae")
"""Methods whose model is told where and when an image was taken."""


def _check_places(images: pd.DataFrame, parameters: PretrainParameters) -> None:
    """Refuse images without a place and a date where the model is told both."""
    unknown = images[["datetime", "lon", "lat"]].isna().any(axis=1).sum()
    if unknown and parameters.method in _TELLS_PLACES:
        raise InputError(
            f"pretrain.method: {parameters.method} tells the model where and when an image was taken, and"
            f" {unknown} of {len(images)} images do not say it: set it to mae or scale_mae"
        )


def _check_start(run_dir: Path, spec: RunSpec, store: ImageSetStore) -> None:
    """Refuse weights to start from that do not fit the model, before the training starts."""
    if spec.start is None:
        return
    import torch

    from a2mae.models import create_model
    from a2mae.training.start import plan_of

    with torch.device("meta"):
        model = create_model(spec.model.name, **spec.model_options)
    sensors = [store.sensor(entry.id) for entry in spec.data.sensors]
    plan_of(run_dir, spec, model, [[band.center_wavelength_nm for band in sensor.bands] for sensor in sensors])


def _warn_of_untrained(
    images: pd.DataFrame, pruned_sets: pd.DataFrame, sensors: Sequence[str], index: SetIndex
) -> None:
    """Name the sensors of the data set of which the model will see no pixel."""
    import numpy as np

    from a2mae.training.data.index import TRAIN

    training = np.repeat(np.asarray(index.split) == TRAIN, np.diff(index.offsets))
    trained = {sensors[code] for code in np.unique(np.asarray(index.sensor)[training])}
    missing = sorted(set(images.loc[images["set_id"].isin(pruned_sets["set_id"]), "sensor"]) - trained)
    if missing:
        logger.warning(
            "pretrain: never trained on: %s (all its image sets are in the splits 'val' and 'test', were pruned or lack"
            " the bands that are drawn); more places or another 'tag.split' would change that",
            ", ".join(missing),
        )


def _held_out(index: SetIndex) -> str:
    """Say how many sets are held out, in the words of the log."""
    from a2mae.training.data.index import HELD_OUT

    count = len(index.sets_of(HELD_OUT))
    return f"{count} held out" if count else "none held out (no places in the split 'val')"


def _loss_on_fixed_sets(metrics: Mapping[str, float | None]) -> str:
    """Say the loss on places held out, or what stands in for it, by its name."""
    if metrics["held_out_loss"] is not None:
        return f"held-out loss {metrics['held_out_loss']:.4f}"
    return f"{metrics['training_sets_loss']:.4f} on fixed training sets (no places are held out)"


def bands_by_sensor(store: ImageSetStore) -> dict[str, tuple[str, ...]]:
    """List the bands of each sensor of a store, in its order."""
    return {name: store.sensor(name).band_names for name in store.sensors}


def needed_bands(store: ImageSetStore, parameters: PretrainParameters) -> dict[str, tuple[str, ...]]:
    """List the bands an image must have to be trained on: red, green and blue where `sampling.bands` is `rgb`."""
    if parameters.sampling.bands != "rgb":
        return {}
    needed = {}
    for name, bands in bands_by_sensor(store).items():
        sensor = store.sensor(name)
        known = {band.common_name for band in sensor.bands} | set(bands)
        if known.issuperset(_RGB):  # of a sensor without, the training says so
            needed[name] = tuple(bands[sensor.band_index(colour)] for colour in _RGB)
    return needed


def build_run_index(
    images: pd.DataFrame,
    pruned_sets: pd.DataFrame,
    bands: Mapping[str, Sequence[str]],
    *,
    needed: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], SetIndex]:
    """Cut the tables into arrays: the kept sets of the training split, and those of `val` to measure on.

    Args:
        images: Image table.
        pruned_sets: Set table after pruning.
        bands: The stored bands of each sensor, in order.
        needed: Bands without which images of a sensor are left out (all have at least one).

    Returns:
        Sensor ids in the order of the index's codes, and the index.

    Raises:
        NothingToTrainOnError: If no set is both kept and in the training split, or none of their images can be used.
    """
    import numpy as np

    from a2mae.stssd.coregister.tables import bands_of_images, with_bands
    from a2mae.training.data.index import HELD_OUT, TRAIN, build_index

    sets = pruned_sets[pruned_sets["kept"] & pruned_sets["split"].isin(["train", "val"])].sort_values("set_id")
    if not (sets["split"] == "train").any():
        counts = pruned_sets.groupby(["split", "kept"]).size().to_dict()
        raise NothingToTrainOnError(
            f"no image set is both kept and in the split 'train' (sets by split and kept: {counts});"
            " look at keep_reason in pruned_sets.parquet and loosen 'prune', 'tag' or 'coregister'"
        )
    used = images[images["set_id"].isin(sets["set_id"])]
    mask = bands_of_images(used, bands)
    if mask is not None:
        usable = with_bands(used, mask, bands, needed or {})
        if not usable.all():
            logger.warning(
                "pretrain: %d of %d images are left out: they lack bands that are drawn (column 'bands' of"
                " images.parquet)",
                np.count_nonzero(~usable),
                len(usable),
            )
        used, mask = used[usable], mask[usable]
        if not sets.loc[sets["set_id"].isin(used["set_id"]), "split"].eq("train").any():
            raise NothingToTrainOnError(
                "no image of the split 'train' has the bands that are drawn; change 'pretrain.sampling.bands', or the"
                " bands of the recipes in 'coregister.recipes'"
            )
    sensors = sorted(used["sensor"].unique())
    places = {location: code for code, location in enumerate(sorted(sets["location_id"].unique()))}
    days = (used["datetime"] - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(days=1)
    codes = [np.zeros(8) if code is None else code for code in used["geosot"]]  # pictures without a place have none
    index = build_index(
        set_id=sets["set_id"].to_numpy().astype(np.bytes_),
        location=sets["location_id"].map(places).to_numpy(np.int64),
        split=np.where(sets["split"] == "train", TRAIN, HELD_OUT).astype(np.uint8),
        image_set=pd.Index(sets["set_id"]).get_indexer(used["set_id"]).astype(np.int64),
        row=used["row"].to_numpy(np.int64),
        sensor=used["sensor"].map({name: code for code, name in enumerate(sensors)}).to_numpy(np.int16),
        gsd_m=used["gsd_m"].to_numpy(np.float64),
        day=days.fillna(0).to_numpy(np.float32),
        lonlat_deg=used[["lon", "lat"]].fillna(0).to_numpy(np.float64),
        geosot=np.stack(codes).astype(np.uint32),
        is_anchor=used["is_anchor"].to_numpy(bool),
        bands=mask,
    )
    return sensors, index


def build_spec(
    sensors: list[str],
    index: SetIndex,
    *,
    band_statistics: Statistics,
    store: ImageSetStore,
    run_dir: Path,
    parameters: PretrainParameters,
) -> RunSpec:
    """Resolve parameters and data into a run specification, and write the index beside it.

    A run that was begun goes on in its precision; of a new one `auto` is decided here.

    Args:
        sensors: Sensor ids in the order of the index.
        index: The sets.
        band_statistics: As for `pretrain`.
        store: The store.
        run_dir: The run directory.
        parameters: The group `pretrain`.
    """
    import torch

    from a2mae.models.precision import precision_kept
    from a2mae.training.data.index import INDEX_FILE, TRAIN
    from a2mae.training.spec import DataSpec, identity_begun, relative_url, resolve
    from a2mae.training.start import pin_start
    from a2mae.training.teacher import pin_teacher

    data = DataSpec(
        store=relative_url(run_dir, store.url),
        store_hash=store.manifest_hash,
        index=INDEX_FILE,
        index_hash=index.write(run_dir / INDEX_FILE),
        sensors=tuple(_sensor_spec(name, store, band_statistics) for name in sensors),
    )
    start = None if parameters.start is None else pin_start(parameters.start, run_dir)
    teacher = None if parameters.teacher is None else pin_teacher(parameters.teacher, run_dir)
    sets = len(index.sets_of(TRAIN))
    wanted = parameters.numerics.precision
    spec = resolve(
        parameters, data,
        sets=sets, code_commit=_code_commit(), precision="32-true" if wanted == "auto" else wanted,
        start=start, teacher=teacher,
    )  # fmt: skip
    if wanted != "auto":
        return spec
    on_cpu = parameters.hardware.accelerator == "cpu" or not torch.cuda.is_available()
    here = torch.device("cpu" if on_cpu else "cuda")
    kept = precision_kept(lambda one: spec.in_precision(one).identity, identity_begun(run_dir), here)
    return spec.in_precision(kept)


def _sensor_spec(name: str, store: ImageSetStore, statistics: Statistics) -> SensorSpec:
    from a2mae.training.spec import SensorSpec

    bands = store.sensor(name).band_names
    missing = [band for band in bands if band not in statistics.get(name, {})]
    if missing:
        raise InputError(
            f"band_statistics.json has no {', '.join(missing)} of {name}: run the tag stage again on this store"
        )
    deviations = [float(statistics[name][band]["std"]) for band in bands]
    constant = [band for band, std in zip(bands, deviations, strict=True) if not std > 0]
    if constant:
        logger.warning("constant bands of %s: %s; they are centred but not scaled", name, ", ".join(constant))
    deviations = [std if std > 0 else 1.0 for std in deviations]
    mean = tuple(float(statistics[name][band]["mean"]) for band in bands)
    return SensorSpec(id=name, bands=bands, mean=mean, std=tuple(deviations))


def _code_commit() -> str:
    """The commit that last changed this stage's code, for the model's description."""
    return commit_of("a2mae.pipelines.pretrain")


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
    return Pipeline(
        [
            node(
                pretrain,
                inputs={
                    **{
                        name: name
                        for name in ("images", "pruned_sets", "band_statistics", "image_sets", "pretrain_run")
                    },
                    "parameters": "params:pretrain",
                },
                outputs=["pretrained_model", "pretrain_metrics", "pretrain_curves"],
                name="pretrain",
                tags="pretrain",
            )
        ]
    )

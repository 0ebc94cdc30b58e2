"""`a2mae check`: one page before hours are spent, from counts, a few locations and a few measured steps."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from a2mae.commands.project import check_pipeline
from a2mae.errors import InputError, plural
from a2mae.parallel import cores

if TYPE_CHECKING:
    from a2mae.scenes import Scene
    from a2mae.sensors import Sensor
    from a2mae.stssd.forecast import Forecast
    from a2mae.stssd.parameters import CoregisterParameters
    from a2mae.tasks.data_parameters import PicturesParameters
    from a2mae.training.parameters import PretrainParameters

_TABLES = ("scenes.parquet", "locations.parquet", "sensors.json")
_STEPS = 2
_BYTES_PER_WEIGHT = 16
"""Weight, gradient and two moments of AdamW in float32."""
_FEW_SETS = 100


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check` to the commands of `a2mae`."""
    about = "before hours are spent: what an environment will make, how long it takes, and what looks wrong"
    parser = commands.add_parser(
        "check",
        help=about,
        description=about,
        epilog="for example:\n  a2mae check --env lake",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env", default="mine", help="the environment, after its stage ingest (%(default)s)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_pipeline()
    import geopandas as gpd  # noqa: PLC0415 (`--help` is instant)

    from a2mae.commands.project import configuration, find_project  # noqa: PLC0415
    from a2mae.config import validated  # noqa: PLC0415
    from a2mae.scenes import scenes_from_table, sensors_from_json  # noqa: PLC0415
    from a2mae.stssd.forecast import forecast  # noqa: PLC0415
    from a2mae.stssd.ingest.parameters import IngestParameters  # noqa: PLC0415
    from a2mae.stssd.parameters import CoregisterParameters  # noqa: PLC0415
    from a2mae.tasks.data_parameters import PicturesParameters  # noqa: PLC0415
    from a2mae.training.parameters import PretrainParameters  # noqa: PLC0415

    logging.getLogger("rasterio").setLevel(logging.ERROR)  # what GDAL notes of a file, the build logs
    project = find_project(Path.cwd())
    if project is None:
        raise InputError(f"{Path.cwd()} lies in no project: a2mae init PATH makes one")
    loader, _ = configuration(project, options.env)
    groups, data_root = loader["parameters"], loader["globals"]["data_root"]
    ingest = validated(IngestParameters, groups, "ingest")
    coregister = validated(CoregisterParameters, groups, "coregister")
    pretrain = validated(PretrainParameters, groups, "pretrain")
    tables = project / data_root / "02_intermediate"
    if "pictures" in groups["chain"]:
        _of_pictures(validated(PicturesParameters, groups, "pictures"), pretrain)
        sys.stdout.write(f"\nnext: kedro run --env={options.env}\n")
        return
    missing = [name for name in _TABLES if not (tables / name).is_file()]
    if missing:
        raise InputError(
            f"{tables} has no {missing[0]}: find the scenes first, kedro run --env={options.env} --pipelines=ingest"
        )
    scenes_table = gpd.read_parquet(tables / "scenes.parquet")
    sensors = sensors_from_json(json.loads((tables / "sensors.json").read_text("utf-8")))
    found = forecast(
        scenes_table, gpd.read_parquet(tables / "locations.parquet"), sensors, coregister, access=ingest.access()
    )
    weights, seconds = measure_steps(pretrain, max(len(sensor.bands) for sensor in sensors.values()))
    free = shutil.disk_usage(project).free
    for line in page(found, coregister, pretrain, weights=weights, seconds=seconds, free_bytes=free):
        sys.stdout.write(line + "\n")
    strange = list(wrong(found, scenes_from_table(scenes_table), sensors))
    sys.stdout.write("\nlooks wrong:\n" if strange else "\nnothing looks wrong\n")
    for line in strange:
        sys.stdout.write(f"  {line}\n")
    sys.stdout.write(f"\nnext: kedro run --env={options.env}\n")


def _of_pictures(pictures: PicturesParameters, pretrain: PretrainParameters) -> None:
    """Write what a training on pictures will be."""
    from a2mae.tasks.datasets.picture_sets import find_pictures  # noqa: PLC0415

    _, source, files = find_pictures(pictures)
    weights, seconds = measure_steps(pretrain, len(source.spec.bands))
    sys.stdout.write(_line("pictures", f"{len(files):,}, of all splits", "pictures") + "\n")
    for line in of_training(pretrain, len(files), "picture", weights=weights, seconds=seconds):
        sys.stdout.write(line + "\n")


def page(
    found: Forecast,
    coregister: CoregisterParameters,
    pretrain: PretrainParameters,
    *,
    weights: int,
    seconds: float,
    free_bytes: int,
) -> Iterator[str]:
    """Write the page.

    Args:
        found: What a build will make.
        coregister: Parameters.
        pretrain: Parameters.
        weights: Of the model.
        seconds: Of a training step.
        free_bytes: On the disk.

    Yields:
        Lines: what, how much, and the key that changes it.
    """
    sets = sum(found.sets.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.sets.items()) or "none"
    kept = found.kept / found.tried if found.tried else 0.0
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.rejected.items()))
    workers = coregister.workers or cores()
    building = found.locations * found.seconds / workers / 3600
    yield _line("scenes", ", ".join(f"{count:,} {sensor}" for sensor, count in found.scenes.items()), "ingest.rules")
    yield _line("places", f"{found.locations:,}", "ingest.locations")
    yield _line("sets", f"at most {sets:,} ({kinds})", "coregister.recipes")
    yield _line(
        "quality gate",
        f"{kept:.0%} of {plural(found.tried, 'image')} at {plural(found.surveyed, 'place')} are kept"
        + (f"; {reasons}" if reasons else ""),
        "coregister.quality, coregister.clouds",
    )
    yield _line(
        "disk",
        f"at most {_size(found.bytes)} before compression, for {sum(found.images.values()):,} images;"
        f" {_size(free_bytes)} are free",
        "data_root in globals.yml",
    )
    yield _line("building", f"{_hours(building)} by {plural(workers, 'worker')}", "coregister.workers")
    yield from of_training(pretrain, sets, "set", weights=weights, seconds=seconds)


def of_training(pretrain: PretrainParameters, sets: int, noun: str, *, weights: int, seconds: float) -> Iterator[str]:
    """Write the part of the page that is about the training.

    Args:
        pretrain: Parameters.
        sets: How many there are to draw from.
        noun: What they are.
        weights: Of the model.
        seconds: Of a training step.

    Yields:
        Lines, as `page`.
    """
    sampling, optimizer = pretrain.sampling, pretrain.optimizer
    steps = optimizer.steps or (optimizer.epochs or 0) * max(1, sets // optimizer.batch_size)
    yield _line(
        "training",
        f"{steps:,} steps of {optimizer.batch_size} samples of {plural(sampling.images, 'image')},"
        f" {steps * optimizer.batch_size / max(1, sets):,.1f} times every {noun}",
        "pretrain.optimizer, pretrain.sampling",
    )
    yield _line(
        "model",
        f"{pretrain.model_name}: {weights / 1e6:.1f} M weights, {_size(weights * _BYTES_PER_WEIGHT)} with gradients and"
        " optimiser",
        "pretrain.model",
    )
    yield _line(
        "time", f"{seconds:.2f} s per step on this machine, {_hours(steps * seconds / 3600)}", "pretrain.hardware"
    )


def wrong(found: Forecast, scenes: list[Scene], sensors: Mapping[str, Sensor]) -> Iterator[str]:
    """Say what looks wrong, each with the key to change.

    Args:
        found: What a build will make.
        scenes: Usable ones.
        sensors: By id.
    """
    from a2mae.plausibility import OFFSET_ADVICE, implausible_ranges, suspicious_offsets  # noqa: PLC0415
    from a2mae.scenes import CloudTest  # noqa: PLC0415
    from a2mae.sensors import Units  # noqa: PLC0415

    if not found.sets:
        yield "no place has what a recipe asks for: coregister.recipes, ingest.locations.footprint_m"
    elif sum(found.sets.values()) < _FEW_SETS:
        count = sum(found.sets.values())
        yield f"{plural(count, 'set')} are few to learn from: more scenes, or a smaller ingest.locations.spacing_m"
    for sensor in sorted(set(found.scenes) - set(found.images)):
        yield f"{sensor} is in no set and is never trained on: coregister.recipes"
    if found.tried and not found.kept:
        yield "no image of the sample passes the quality gate: coregister.quality, coregister.clouds, ingest.rules.mask"
    for row in suspicious_offsets(found.looked).itertuples():
        yield f"{row.scene_id}: dark pixels lie {row.away:.3f} off; {OFFSET_ADVICE}"
    for row in implausible_ranges(found.looked, sensors.values()).itertuples():
        yield f"{row.scene_id}: values {row.dark_value:.4g} to {row.bright_value:.4g}; {row.advice}"
    unlooked = sorted(
        {
            scene.sensor
            for scene in scenes
            if scene.cloud_test is CloudTest.NONE and sensors[scene.sensor].encoding.units is Units.REFLECTANCE
        }
    )
    for sensor in unlooked:
        yield f"nobody looks for clouds in {sensor}: cloud_test: brightness, or mask, in its rule of ingest.rules"


def measure_steps(parameters: PretrainParameters, most_bands: int) -> tuple[int, float]:
    """Build the model and train it for some steps on random numbers.

    Args:
        parameters: The `pretrain` group.
        most_bands: Bands of the sensor that has most of them, for `sampling.bands: all`.

    Returns:
        How many weights it has; median seconds of a step on this machine's CPU.

    Raises:
        InputError: If the model cannot be built.
    """
    import torch  # noqa: PLC0415 (seconds)

    from a2mae.models import create_model  # noqa: PLC0415
    from a2mae.models.batch import ImageSetBatch  # noqa: PLC0415

    sampling, rng = parameters.sampling, torch.Generator().manual_seed(0)
    bands = {"rgb": 3, "draw": sampling.bands_drawn}.get(sampling.bands, most_bands)
    try:
        model = create_model(parameters.model_name, **{"in_chans": bands, **parameters.model_options})
    except (TypeError, ValueError) as error:
        raise InputError(f"pretrain.model: {error}") from error
    b, k, side = parameters.optimizer.batch_size, sampling.images, sampling.image_size
    batch = ImageSetBatch(
        pixels=torch.randn(b, k, bands, side, side, generator=rng),
        gsd_m=torch.full((b, k), 10.0),
        geosot_bits=torch.zeros(b, k, 256),
        sensor_id=torch.zeros(b, k, dtype=torch.int64),
        day=torch.full((b, k), 18_000.0),
        same_source_as_anchor=torch.ones(b, k, dtype=torch.bool),
        valid=torch.ones(b, k, side, side, dtype=torch.bool),
        wavelength_nm=torch.full((b, k, bands), 600.0),
        lonlat_deg=torch.zeros(b, k, 2, dtype=torch.float64),
        index=torch.arange(b),
    )
    model.fit_features(batch, 0)
    optimizer = torch.optim.AdamW(model.parameters())
    seconds = []
    for _ in range(1 + _STEPS):
        before = time.perf_counter()
        optimizer.zero_grad()
        model(batch, generator=rng).loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - before)
    return sum(weight.numel() for weight in model.parameters()), sorted(seconds[1:])[_STEPS // 2]


def _line(what: str, told: str, key: str) -> str:
    return f"{what:13} {told}   [{key}]"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _hours(hours: float) -> str:
    return (
        f"{hours * 3600:.0f} seconds"
        if hours < 1 / 30
        else f"{hours * 60:.0f} minutes"
        if hours < 2
        else f"{hours:.1f} hours"
    )

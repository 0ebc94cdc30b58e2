"""A small real store, its index and a specification: two sensors, eight places, real structure in the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2mae.sensors import get_sensor
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.training.data.index import INDEX_FILE, SetIndex, build_index
from a2mae.training.parameters import HardwareParameters, LoggingParameters, SamplingParameters
from a2mae.training.spec import DataSpec, ModelSpec, OptimizerSpec, RunSpec, SensorSpec, relative_url

FOOTPRINT_M = 480
SENSORS = ("landsat-oli-c2-l2", "sentinel-2-l2a")
PLACES, TRAIN_PLACES, DATES = 8, 6, 2


def ground(place: int, date: int, size: int) -> np.ndarray:
    """Reflectance of a place `(size, size)`: stripes of its own, a field, brighter on the second date."""
    centre = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(centre, centre, indexing="ij")
    wave = np.sin(2 * np.pi * (x * (1 + place % 3) + y * (place % 4) + place / 7))
    return 0.2 + 0.05 * wave + 0.1 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06) + 0.03 * date


def write_store(path: Path, first_place: int = 0) -> ImageSetStore:
    """Write the images of `PLACES` places from `first_place` on."""
    plans = []
    for name in SENSORS:
        sensor = get_sensor(name)
        size = int(FOOTPRINT_M / sensor.gsd_m)
        plans.append(SensorPlan(sensor, PLACES * DATES, size, size, rows_per_shard=8))
    writer = StoreWriter.create(path, plans, fingerprint="test")
    by_id = {plan.sensor.id: plan for plan in plans}
    for shard in writer.shards():
        plan = by_id[shard.sensor]
        encoding = plan.sensor.encoding
        pixels, valid = [], []
        for row in range(shard.start, shard.stop):
            surface = ground(first_place + row // DATES, row % DATES, plan.height)
            bands = np.stack([surface * (0.5 + 0.1 * band) for band in range(plan.shape[1])])
            noise = np.random.default_rng(row).normal(0, 0.002, bands.shape)
            pixels.append(np.round((bands + noise - encoding.offset) / encoding.scale).astype(encoding.dtype))
            seen = np.ones((plan.height, plan.width), bool)
            if row % 5 == 0:
                seen[: plan.height // 4] = False
            valid.append(seen)
        writer.write(shard, np.stack(pixels), np.stack(valid))
    writer.finish()
    return ImageSetStore.open(path)


def make_index(*, train_places: int = TRAIN_PLACES) -> SetIndex:
    """One set per place: two dates of each of the two sensors."""
    images = [(place, code, date) for place in range(PLACES) for code in range(len(SENSORS)) for date in range(DATES)]
    place, code, date = (np.asarray(column) for column in zip(*images, strict=True))
    gsd = np.asarray([get_sensor(name).gsd_m for name in SENSORS])
    return build_index(
        set_id=np.asarray([f"set-{p}".encode() for p in range(PLACES)]),
        location=np.arange(PLACES, dtype=np.int64),
        split=np.where(np.arange(PLACES) < train_places, 0, 1).astype(np.uint8),
        image_set=place.astype(np.int64),
        row=(place * DATES + date).astype(np.int64),
        sensor=code.astype(np.int16),
        gsd_m=gsd[code],
        day=(18000 + 100 * date + code).astype(np.float32),
        lonlat_deg=np.stack([10.0 + place, 50.0 - place], axis=1),
        geosot=np.random.default_rng(0).integers(0, 2**32, (len(images), 8)).astype(np.uint32),
        is_anchor=(code == 1) & (date == 0),
    )


def make_spec(run_dir: Path, store: ImageSetStore, method: str = "a2mae", **changes) -> RunSpec:
    """Write the index into the run directory and specify a run of a minute model; `changes` are fields of any part."""
    run_dir.mkdir(parents=True, exist_ok=True)
    digest = make_index().write(run_dir / INDEX_FILE)
    sensors = tuple(
        SensorSpec(
            id=name,
            bands=get_sensor(name).band_names,
            mean=tuple(0.12 + 0.01 * i for i in range(len(get_sensor(name).bands))),
            std=(0.06,) * len(get_sensor(name).bands),
        )
        for name in SENSORS
    )
    spec = RunSpec(
        method=method,
        model=ModelSpec(
            name=f"{method}_vit_tiny_patch8",
            options={
                "embed_dim": 64,
                "depth": 2,
                "num_heads": 2,
                "decoder_dim": 32,
                "decoder_depth": 1,
                "decoder_num_heads": 2,
            },
        ),
        data=DataSpec(
            store=relative_url(run_dir, store.url),
            store_hash=store.manifest_hash,
            index=INDEX_FILE,
            index_hash=digest,
            sensors=sensors,
        ),
        sampling=SamplingParameters(images=3, image_size=32),
        optimizer=OptimizerSpec(learning_rate=1e-3, steps=12, warmup_steps=2, batch_size=4, clip_norm=1.0),
        hardware=HardwareParameters(accelerator="cpu", threads=1),
        logging=LoggingParameters(interval=3, checkpoint_interval=5, reconstructions=2),
        seed=7,
    )
    for name, value in changes.items():
        for part in ("sampling", "optimizer", "numerics", "hardware", "logging", "data"):
            group = getattr(spec, part)
            if name in type(group).model_fields:
                spec = spec.replace(**{part: group.replace(**{name: value})})
                break
        else:
            spec = spec.replace(**{name: value})
    spec.write(run_dir)
    return spec

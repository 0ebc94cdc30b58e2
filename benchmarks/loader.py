"""How fast are training samples read? The store's loader, the same samples from memory, and the source GeoTIFFs.

The script writes its own sources: two dates of Sentinel-2 (12 bands, 10 m) and of Landsat (7 bands, 30 m) over one
area, one cloud-optimised GeoTIFF per band as providers do, pixels of 1/f texture with noise. The image-set store holds
the same pixels, cut at footprints of 1,920 m. Every side reads the same draws: 3 images of a set, 3 bands each, whole
footprints, and every side's pixels are checked to be the same.

    store       this project's loader (`a2mae.training.data.loader`), what training runs
    memory      the same code on arrays held in memory: what is left when reading costs nothing
    zarr        the same store read through Zarr instead of our own reader of shards
    rasterio    windows of the GeoTIFFs, every file kept open
    torchgeo    the same windows through torchgeo's RasterDataset, one per sensor

GDAL's block cache is bounded at 64 MB: an archive does not fit into it. Then: memory of a loader process over 60
epochs; the same at 100 times the sets (the shards hard-linked 100 times: rows, shard files and index grow, the page
cache does not); what it costs to compare every shard with its digest, and to find that it has been compared; and
steps of a ViT-S from the store and from memory in turn. Ratios are of CPU time, so that a shared machine does not
decide them; samples/s are of the clock.

Usage: python benchmarks/loader.py [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import torch
import torchgeo
import zarr
from rasterio.windows import Window
from torch.utils.data import DataLoader, Dataset
from torchgeo.datasets import RasterDataset
from tqdm import tqdm

from a2mae.sensors import get_sensor
from a2mae.stssd.store.shards import ZarrReader
from a2mae.stssd.store.store import COMPARED, COPY, ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.training.data.index import INDEX_FILE, build_index
from a2mae.training.data.loader import BatchDataset, SampleReader
from a2mae.training.data.prepare import packed
from a2mae.training.engine import make_fabric
from a2mae.training.launch import StopRequest
from a2mae.training.loop import Trainer
from a2mae.training.parameters import HardwareParameters, SamplingParameters
from a2mae.training.spec import DataSpec, ModelSpec, OptimizerSpec, RunSpec, SensorSpec, relative_url

SENSORS = ("landsat-oli-c2-l2", "sentinel-2-l2a")
FOOTPRINT_M, DATES, BATCH = 1920, 2, 16
DAYS = ("20200512", "20200815")
GDAL = {"GDAL_CACHEMAX": 64 * 2**20, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


def main() -> None:
    """Write the data, take every side in turn, print tables and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer places and rounds: under a minute")
    quick = parser.parse_args().quick
    side = 4 if quick else 8
    results: dict[str, float] = {}
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, zarr {zarr.__version__}, rasterio"
        f" {rasterio.__version__}, torchgeo {torchgeo.__version__}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, side)
        run_dir = root / "run"
        spec = write_run(run_dir, root / "store.zarr", side * side)
        sides: dict[str, Dataset] = {
            "store": BatchDataset(run_dir, spec),
            "memory": MemoryDataset(run_dir, spec),
            "zarr": ZarrDataset(run_dir, spec),
            "rasterio": GeoTiffDataset(run_dir, spec, root / "scenes", RasterioScenes),
            "torchgeo": GeoTiffDataset(run_dir, spec, root / "scenes", TorchgeoScenes),
        }
        check_same_pixels(sides)
        print(f"\n{side * side} sets of 4 images; samples/s, median of rounds, sides in turn; CPU ms per sample")
        for name, (rate, cpu_ms) in in_turn(sides, rounds=3 if quick else 5).items():
            print(f"  {name:9s} one process {rate:8.0f}/s  {cpu_ms:7.2f} ms")
            results |= {f"{name}_per_s": rate, f"{name}_cpu_ms": cpu_ms}
        others = ("zarr", "rasterio", "torchgeo")
        results |= {f"times_{name}": results[f"{name}_cpu_ms"] / results["store_cpu_ms"] for name in others}
        over = ", ".join(f"{results[f'times_{name}']:.1f}x {name}" for name in others)
        print(f"  store over the others, samples per CPU second: {over}")
        if not quick:
            for name in ("store", "rasterio", "torchgeo"):
                results[f"{name}_two_workers_per_s"] = rate = with_workers(
                    sides[name], 2, steps=40 if name != "store" else 400
                )
                print(f"  {name:9s} two workers {rate:8.0f}/s")
        bare, compared, again = first_reading(root / "store.zarr", rounds=5 if quick else 15)
        results |= {"compared_over_bare": compared / bare, "compared_before_over_bare": again / bare}
        print(
            f"\nevery image once, by a store that is just opened: {1e3 * bare:.0f} CPU ms, {1e3 * compared:.0f} ms with"
            f" every shard compared with its digest ({compared / bare - 1:+.1%}, once for a store), {1e3 * again:.0f}"
            f" ms where a process before has ({again / bare - 1:+.1%})"
        )
        slope, start = memory_slope(run_dir, spec, epochs=5 if quick else 60)
        results["worker_kib_per_epoch"] = slope
        print(f"\nmemory of a loader process: {start:.0f} MiB of its own, {slope:+.1f} KiB per epoch")
        times = 10 if quick else 100
        grow(root / "store.zarr", root / "grown.zarr", times)
        grown = write_run(root / "grown", root / "grown.zarr", side * side * times)
        pair = {"today": sides["store"], "grown": BatchDataset(root / "grown", grown)}
        found = in_turn(pair, rounds=5 if quick else 21)
        results["grown_ratio"] = found["today"][1] / found["grown"][1]
        results["grown_ratio_wall"] = found["grown"][0] / found["today"][0]
        print(f"{times} times the sets: {results['grown_ratio']:.3f} of the samples per CPU second")
        results["vit_s_ratio"] = vit_small(root / "vit", root / "store.zarr", side * side, steps=2 if quick else 5)
        print(f"ViT-S from the store: {results['vit_s_ratio']:.3f} of its speed from memory")
    print("RESULT " + " ".join(f"{name}={value:.4g}" for name, value in results.items()))


# -- data ----------------------------------------------------------------------------------------------------------


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """`(size, size)` 1/f field of mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32)) / np.maximum(frequency, 1 / size) ** 1.3
    field = np.fft.irfft2(spectrum, (size, size)).astype(np.float32)
    return (field - field.mean()) / field.std()


def write_data(root: Path, side: int) -> None:
    """COGs per sensor, date and band, and the store with the same pixels."""
    (root / "scenes").mkdir()
    rng = np.random.default_rng(0)
    plans = [SensorPlan(s, side * side * DATES, *(int(FOOTPRINT_M / s.gsd_m),) * 2) for s in map(get_sensor, SENSORS)]
    # So many images per shard that the shards of a grown store are whole ones.
    plans = [dataclasses.replace(plan, rows_per_shard=side * 2) for plan in plans]
    scenes: dict[str, np.ndarray] = {}
    for plan in plans:
        size, bands = plan.height * side, len(plan.sensor.bands)
        fields = [texture(rng, size) for _ in range(3)]
        out = np.empty((DATES, bands, size, size), np.uint16)
        for date, band in tqdm(np.ndindex(DATES, bands), total=DATES * bands, desc=f"write {plan.sensor.id}"):
            mix = sum(w * f for w, f in zip(rng.dirichlet((1, 1, 1)), fields, strict=True))
            out[date, band] = np.clip(3000 + 700 * mix + rng.normal(0, 40, mix.shape), 1, 10000)
            path = root / "scenes" / f"{plan.sensor.id}_{DAYS[date]}_{plan.sensor.bands[band].name}.tif"
            transform = rasterio.transform.from_origin(600_000, 5_000_000, plan.sensor.gsd_m, plan.sensor.gsd_m)
            profile = {"driver": "COG", "compress": "DEFLATE", "predictor": 2, "blocksize": 512, "dtype": "uint16"}
            with rasterio.open(
                path, "w", **profile, count=1, width=size, height=size, crs="EPSG:32631", transform=transform
            ) as file:
                file.write(out[date, band], 1)
        scenes[plan.sensor.id] = out
    writer = StoreWriter.create(root / "store.zarr", plans, fingerprint="benchmark")
    size_of = {plan.sensor.id: plan.height for plan in plans}
    for shard in writer.shards():
        cut = size_of[shard.sensor]
        images = [scenes[shard.sensor][d, :, y : y + cut, x : x + cut] for d, y, x in places(shard, side, cut)]
        writer.write(shard, np.stack(images), np.ones((len(images), cut, cut), bool))
    writer.finish()


def places(shard: object, side: int, cut: int) -> list[tuple[int, int, int]]:
    """Date, top and left of each row of a shard: the dates of a place stand together."""
    rows = range(shard.start, shard.stop)
    return [(row % DATES, row // DATES // side * cut, row // DATES % side * cut) for row in rows]


def write_run(run_dir: Path, store: Path, sets: int, **changes: object) -> RunSpec:
    """A run directory over `sets` sets of the store; whole footprints, three bands of each of three images."""
    run_dir.mkdir()
    sensors = [get_sensor(name) for name in SENSORS]
    place, code, date = (a.ravel() for a in np.indices((sets, len(SENSORS), DATES)))
    zeros = np.zeros(len(place))
    digest = build_index(
        set_id=np.char.mod(b"set-%d", np.arange(sets)),
        location=np.arange(sets, dtype=np.int64),
        split=np.zeros(sets, np.uint8),
        image_set=place.astype(np.int64),
        row=(place * DATES + date).astype(np.int64),
        sensor=code.astype(np.int16),
        gsd_m=np.asarray([sensor.gsd_m for sensor in sensors])[code],
        day=zeros.astype(np.float32),
        lonlat_deg=np.stack([zeros + 3, zeros + 45], axis=1),
        geosot=np.zeros((len(place), 8), np.uint32),
        is_anchor=date == 0,
    ).write(run_dir / INDEX_FILE)
    opened = ImageSetStore.open(store)
    described = tuple(
        SensorSpec(id=s.id, bands=s.band_names, mean=(0.2,) * len(s.bands), std=(0.07,) * len(s.bands)) for s in sensors
    )
    spec = RunSpec(
        method="a2mae",
        model=ModelSpec(name="a2mae_vit_small_patch16", options={"decoder_depth": 2}),
        data=DataSpec(
            store=relative_url(run_dir, os.fspath(store)),
            store_hash=opened.manifest_hash,
            index=INDEX_FILE,
            index_hash=digest,
            sensors=described,
        ),
        sampling=SamplingParameters(images=3, image_size=96, whole_probability=1.0, bands="draw", bands_drawn=3),
        optimizer=OptimizerSpec(learning_rate=1e-4, steps=10**6, warmup_steps=1, batch_size=BATCH),
        hardware=HardwareParameters(accelerator="cpu"),
    )
    spec.write(run_dir)
    return spec


def grow(store: Path, target: Path, times: int) -> None:
    """The store with `times` as many rows: every shard file is linked so often."""
    manifest = json.loads((store / "manifest.json").read_text())
    target.mkdir()
    (target / "zarr.json").write_text((store / "zarr.json").read_text())
    shards = {}
    for key, entry in manifest["shards"].items():
        sensor, array, _, number, *rest = key.split("/")
        count = sum(other.startswith(f"{sensor}/{array}/") for other in manifest["shards"])
        for copy in range(times):
            name = "/".join([sensor, array, "c", str(int(number) + copy * count), *rest])
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(store / key, target / name)
            shards[name] = entry
    for sensor, entry in manifest["sensors"].items():
        entry["shape"][0] *= times
        for array in ("pixels", "valid"):
            described = json.loads((store / sensor / array / "zarr.json").read_text())
            described["shape"][0] *= times
            (target / sensor / array / "zarr.json").write_text(json.dumps(described))
    (target / "manifest.json").write_text(json.dumps({**manifest, "shards": shards}))


# -- sides ---------------------------------------------------------------------------------------------------------


class MemoryStore:
    """The part of a store that the loader reads, from arrays in memory."""

    def __init__(self, store: ImageSetStore) -> None:
        self.shape = store.shape
        self._arrays = {name: store.read(name, np.arange(store.count(name))) for name in store.sensors}

    def read_each(self, sensor: str, rows: np.ndarray, bands: np.ndarray, window: tuple[int, ...]) -> tuple:
        """As `ImageSetStore.read_each`."""
        (pixels, valid), (y0, y1, x0, x1) = self._arrays[sensor], window
        return pixels[rows[:, None], bands, y0:y1, x0:x1], valid[rows, y0:y1, x0:x1]


class MemoryDataset(BatchDataset):
    """The loader's own code on a store in memory."""

    def __getitem__(self, step: int) -> object:
        if self._reader is None:
            self._reader = SampleReader(self._run_dir, self._spec)
            self._reader.store = MemoryStore(self._reader.store)
        return super().__getitem__(step)


class ZarrDataset(BatchDataset):
    """The loader's own code on the same shards, read through Zarr."""

    def __getitem__(self, step: int) -> object:
        if self._reader is None:
            self._reader = SampleReader(self._run_dir, self._spec)
            store = self._reader.store
            store._open_array = lambda name: ZarrReader(zarr.open_array(f"{store.url}/{name}", mode="r"))
        return super().__getitem__(step)


class RasterioScenes:
    """Windows of the COGs; every file stays open."""

    def __init__(self, scenes: Path) -> None:
        self._environment = rasterio.Env(**GDAL)
        self._environment.__enter__()
        self._files = {path.stem: rasterio.open(path) for path in scenes.iterdir()}

    def read(self, sensor: str, day: str, bands: list[str], window: tuple[int, int, int], gsd_m: float) -> np.ndarray:
        """`(C, H, W)` of one image."""
        top, left, size = window
        parts = [self._files[f"{sensor}_{day}_{band}"].read(1, window=Window(left, top, size, size)) for band in bands]
        return np.stack(parts)


class TorchgeoScenes:
    """The same windows through torchgeo."""

    def __init__(self, scenes: Path) -> None:
        self._environment = rasterio.Env(**GDAL)
        self._environment.__enter__()
        self._sets = {name: _torchgeo_class(name)(scenes) for name in SENSORS}

    def read(self, sensor: str, day: str, bands: list[str], window: tuple[int, int, int], gsd_m: float) -> np.ndarray:
        """`(C, H, W)` of one image."""
        (top, left, size), scenes = window, self._sets[sensor]
        scenes.bands = bands
        x, y = 600_000 + left * gsd_m, 5_000_000 - top * gsd_m
        day_start = pd.Timestamp(day)
        query = (
            slice(x, x + size * gsd_m),
            slice(y - size * gsd_m, y),
            slice(day_start, day_start + pd.Timedelta(hours=23)),
        )
        return scenes[query]["image"].numpy()


def _torchgeo_class(sensor: str) -> type[RasterDataset]:
    names = get_sensor(sensor).band_names

    class Scenes(RasterDataset):
        filename_glob = f"{sensor}_*_{names[0]}.tif"
        filename_regex = rf"^{sensor}_(?P<date>\d{{8}})_(?P<band>\w+)\.tif$"
        date_format = "%Y%m%d"
        separate_files = True
        all_bands = names

    return Scenes


class GeoTiffDataset(BatchDataset):
    """The same draws, every image read from the source files."""

    def __init__(self, run_dir: Path, spec: RunSpec, scenes: Path, kind: type) -> None:
        super().__init__(run_dir, spec)
        self._scenes, self._kind, self._side = scenes, kind, int(len(SampleReader(run_dir, spec).positions) ** 0.5)
        self._opened: RasterioScenes | TorchgeoScenes | None = None

    def __getitem__(self, step: int) -> list[np.ndarray]:
        if self._reader is None or self._opened is None:
            self._reader, self._opened = SampleReader(self._run_dir, self._spec), self._kind(self._scenes)
        reader, out = self._reader, []
        for key in reader.keys(step * BATCH, (step + 1) * BATCH):
            draw = reader.draw(*key)
            for image, bands in zip(draw.images.tolist(), draw.bands.tolist(), strict=True):
                sensor, row = get_sensor(SENSORS[int(reader.index.sensor[image])]), int(reader.index.row[image])
                size = int(FOOTPRINT_M / sensor.gsd_m)
                window = (row // DATES // self._side * size, row // DATES % self._side * size, size)
                names = [sensor.band_names[band] for band in bands]
                out.append(self._opened.read(sensor.id, DAYS[row % DATES], names, window, sensor.gsd_m))
        return out

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_opened": None}


def check_same_pixels(sides: dict[str, Dataset]) -> None:
    """Every side gives the same pixels, or there is nothing to compare."""
    expected = [np.empty(0)] * (BATCH * 3)
    for group in sides["store"][0].images:
        for slot, pixels in zip(group.slot.tolist(), group.pixels.numpy(), strict=True):
            expected[slot] = pixels
    for group in (*sides["memory"][0].images, *sides["zarr"][0].images):
        for slot, pixels in zip(group.slot.tolist(), group.pixels.numpy(), strict=True):
            np.testing.assert_array_equal(pixels, expected[slot])
    for name in ("rasterio", "torchgeo"):
        for pixels, wanted in zip(sides[name][0], expected, strict=True):
            np.testing.assert_array_equal(pixels.astype(wanted.dtype), wanted)


# -- measuring -----------------------------------------------------------------------------------------------------


def in_turn(sides: dict[str, Dataset], rounds: int) -> dict[str, tuple[float, float]]:
    """Samples/s and CPU milliseconds per sample of each side in this process, sides in turn, medians."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, data in sides.items():
            steps = range(turn * 5, turn * 5 + 5)
            before = time.perf_counter(), time.process_time()
            for step in steps:
                data[step]
            if turn:  # the first round opens files and fills caches
                wall[name].append((time.perf_counter() - before[0]) / (5 * BATCH))
                cpu[name].append((time.process_time() - before[1]) / (5 * BATCH))
    return {name: (1 / statistics.median(wall[name]), 1e3 * statistics.median(cpu[name])) for name in sides}


def first_reading(url: Path, rounds: int) -> tuple[float, float, float]:
    """CPU seconds of reading every image once: medians of rounds, in turn.

    Returns:
        Bare; with every shard compared with its digest; and where they have been compared by another process.
    """
    sides = ("bare", "first", "again")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    record = Path(f"{url}.work") / COPY / COMPARED
    time.sleep(2)  # files that have just been written are not remembered
    for turn in range(rounds + 1):
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            if side == "again":
                everything(ImageSetStore.open(str(url)))
            else:
                record.unlink(missing_ok=True)
            store = ImageSetStore.open(str(url))
            if side == "bare":
                store.__dict__["_sums"] = {}  # what shards are compared with
            before = time.process_time()
            everything(store)
            if turn:  # the first round fills the page cache
                seconds[side].append(time.process_time() - before)
    bare, first, again = (statistics.median(seconds[side]) for side in sides)
    return bare, first, again


def everything(store: ImageSetStore) -> None:
    """Read every image of a store once."""
    for sensor in store.sensors:
        for start in range(0, store.count(sensor), BATCH):
            store.read(sensor, np.arange(start, min(start + BATCH, store.count(sensor))))


def loader_of(data: Dataset, steps: int, workers: int) -> DataLoader:
    """A DataLoader as training makes it."""
    return DataLoader(
        data,
        batch_size=None,
        sampler=range(steps),
        num_workers=workers,
        multiprocessing_context="spawn",
        prefetch_factor=2,
        collate_fn=packed if isinstance(data, BatchDataset) else None,
    )


def with_workers(data: Dataset, workers: int, steps: int) -> float:
    """Samples/s of spawned workers, from the batch on at which all of them are at work."""
    batches = iter(loader_of(data, steps + 8, workers))
    for _ in range(8):
        next(batches)
    before = time.perf_counter()
    for _ in batches:
        pass
    return steps * BATCH / (time.perf_counter() - before)


def memory_slope(run_dir: Path, spec: RunSpec, epochs: int) -> tuple[float, float]:
    """KiB per epoch by which a loader process's own memory grows (after two epochs), and its MiB then."""
    sets = len(SampleReader(run_dir, spec).positions)
    per_epoch = max(1, sets // BATCH)
    batches = iter(loader_of(BatchDataset(run_dir, spec), per_epoch * epochs, workers=1))
    (worker,) = batches._workers
    own = []
    for _ in tqdm(range(epochs), desc="epochs"):
        for _ in range(per_epoch):
            next(batches)
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        own.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
    print("  KiB of its own after each epoch: " + " ".join(map(str, own)))
    return float(np.polyfit(range(len(own[2:])), own[2:], 1)[0]), own[2] / 1024


def vit_small(run_dir: Path, store: Path, sets: int, steps: int) -> float:
    """Speed of training a ViT-S from the store over that from memory: whole steps, reading included, in turn."""
    spec = write_run(run_dir, store, sets)
    trainer = Trainer(make_fabric(spec), run_dir, spec, resume=False)
    sides: dict[str, Dataset] = {"store": BatchDataset(run_dir, spec), "memory": MemoryDataset(run_dir, spec)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in tqdm(range(steps + 1), desc="ViT-S"):
        for name, data in sides.items():
            before = time.process_time()
            trainer.train_step(data[step], StopRequest())
            seconds[name].append(time.process_time() - before)
    return statistics.median(seconds["memory"][1:]) / statistics.median(seconds["store"][1:])


if __name__ == "__main__":
    main()

"""Read the batches of a run by their number, as stored integers.

A batch depends on its number alone, so the loader has no state: to resume at step 4,711 is to ask for batch 4,711.
Loader processes are spawned with paths and settings only, and open store and index themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from a2mae.errors import A2maeError, InputError
from a2mae.files import file_digest
from a2mae.parallel import end_with_parent
from a2mae.sensors import UnknownBandError
from a2mae.stssd.store.store import ImageSetStore
from a2mae.training.data.draw import Draw, band_choices_of, bands_of, draw_sample, epoch_order
from a2mae.training.data.index import TRAIN, SetIndex
from a2mae.training.data.prepare import BandTables, PackedBatch, RawBatch, RawImages, band_tables, packed
from a2mae.training.data.taught import TEACHER_FILE, TeacherFeatures
from a2mae.training.spec import RunSpec, SpecificationError, resolve_url

_LOG = logging.getLogger(__name__)

LOOK_S, GIVEN_UP_S = 30, 600
"""After how long without a batch the cause is looked for, and how long is waited where none is found."""
_SHARED, _ENOUGH_SHARED = "/dev/shm", 512 * 2**20  # noqa: S108 (looked at, not written to)
_READ_WHOLE_UP_TO = 512  # side, pixels: of larger images only the part under the window is read


class DataMismatchError(InputError):
    """Store, index and specification do not belong together."""


class LoaderDiedError(A2maeError, RuntimeError):
    """A loader process ended before its batch was read."""


class SampleReader:
    """Read any sample of a run.

    Attributes:
        index: The sets.
        positions: `(n,)` the sets trained on, as positions in the index.
    """

    def __init__(self, run_dir: Path, spec: RunSpec) -> None:
        """Open store and index.

        Args:
            run_dir: The run directory.
            spec: Its specification.

        Raises:
            StoreError: If the store is missing, torn or of another version.
            DataMismatchError: If store or index are not those of the specification, or there is no set to train on.
        """
        self.spec = spec
        self._run_dir = run_dir
        self._teacher: TeacherFeatures | None = None
        path = run_dir / spec.data.index
        self.index = SetIndex.open(path)
        if file_digest(path) != spec.data.index_hash:
            raise DataMismatchError(f"{path} is not the index of this specification: run the pretrain stage again")
        self.store = ImageSetStore.open(resolve_url(run_dir, spec.data.store))
        if self.store.manifest_hash != spec.data.store_hash:
            raise DataMismatchError(
                f"{self.store.url} has changed since this run was specified: its hash is"
                f" {self.store.manifest_hash[:12]}…, 'data.store_hash' says {spec.data.store_hash[:12]}…."
                " Run the pretrain stage again, or restore the store"
            )
        self._sensors = [self.store.sensor(entry.id) for entry in spec.data.sensors]
        for sensor, entry in zip(self._sensors, spec.data.sensors, strict=True):
            if sensor.band_names != entry.bands:
                raise DataMismatchError(
                    f"sensor {sensor.id!r}: the store has bands {', '.join(sensor.band_names)},"
                    f" the specification {', '.join(entry.bands)}"
                )
        rgb: list[tuple[int, ...]] = []
        if spec.sampling.bands == "rgb":
            try:
                rgb = [self._rgb(code) for code in range(len(self._sensors))]
            except UnknownBandError as error:
                raise SpecificationError(f"'sampling.bands' is 'rgb', but {error}") from error
        self._choices = band_choices_of(spec.sampling, [len(sensor.bands) for sensor in self._sensors], rgb)
        self.positions = self.index.sets_of(TRAIN)
        if not len(self.positions):
            raise DataMismatchError(
                "no image set is left to train on: none is both kept and in the split 'train'."
                " Look at pruned_sets.parquet (columns kept, keep_reason, split) and loosen 'prune' or 'coregister'"
            )
        self._order = functools.lru_cache(maxsize=2)(functools.partial(epoch_order, spec.seed))

    def tables(self) -> BandTables:
        """Make the tables by which stored integers are normalised."""
        entries = self.spec.data.sensors
        return band_tables(
            [(sensor.encoding.scale, sensor.encoding.offset) for sensor in self._sensors],
            [entry.mean for entry in entries],
            [entry.std for entry in entries],
            [[band.center_wavelength_nm for band in sensor.bands] for sensor in self._sensors],
        )

    def draw(self, epoch: int, position: int) -> Draw:
        """Draw one sample: the set at a position of the index, in an epoch."""
        return draw_sample(
            self.index, self.spec.sampling, self._choices, seed=self.spec.seed, epoch=epoch, position=position
        )

    def keys(self, start: int, stop: int) -> list[tuple[int, int]]:
        """List `(epoch, position of the set)` of the samples `start` to `stop` of the run."""
        count = len(self.positions)
        return [
            (sample // count, int(self.positions[self._order(sample // count, count)[sample % count]]))
            for sample in range(start, stop)
        ]

    def read(self, keys: list[tuple[int, int]]) -> RawBatch:
        """Read the samples with these keys, with a teacher's features where the run has one."""
        draws = [self.draw(epoch, position) for epoch, position in keys]
        found = self.gather(draws, [position for _, position in keys])
        if self.spec.teacher is None:
            return found
        self._teacher = self._teacher or TeacherFeatures(self._run_dir / TEACHER_FILE)
        return dataclasses.replace(found, teacher=self._teacher.of(draws))

    def gather(self, draws: list[Draw], positions: list[int]) -> RawBatch:
        """Read what has been drawn.

        Args:
            draws: B draws of K images each.
            positions: Their sets.
        """
        images = np.stack([draw.images for draw in draws])
        sensor = self.index.sensor[images]
        slots = np.arange(images.size).reshape(images.shape)
        groups: list[RawImages] = []
        for code in np.unique(sensor):
            chosen = slots[sensor == code]
            _, height, width = self.store.shape(self._sensors[code].id)
            if max(height, width) <= _READ_WHOLE_UP_TO:
                groups.append(self._read_group(int(code), chosen, images, draws, (0, height, 0, width)))
            else:
                for slot in chosen:
                    part = _under(draws[slot // images.shape[1]].window, height, width, self.spec.sampled_size)
                    groups.append(self._read_group(int(code), np.asarray([slot]), images, draws, part))
        index = self.index
        return RawBatch(
            images=tuple(groups),
            window=torch.tensor([draw.window for draw in draws], dtype=torch.float64),
            flips=torch.tensor([draw.flips for draw in draws]),
            gsd_m=torch.from_numpy(np.asarray(index.gsd_m[images], np.float64)),
            sensor_id=torch.from_numpy(sensor.astype(np.int64)),
            day=torch.from_numpy(np.asarray(index.day[images])),
            lonlat_deg=torch.from_numpy(np.asarray(index.lonlat_deg[images])),
            geosot=torch.from_numpy(index.geosot[images].astype(np.int64)),
            index=torch.tensor(positions),
        )

    def fixed_bands(self, image: int) -> NDArray[np.int64]:
        """List the bands of an image in a fixed sample: red, green, blue where three are drawn, else the first."""
        sampling, sensor = self.spec.sampling, int(self.index.sensor[image])
        choices = bands_of(self.index, self._choices, image)
        if sampling.bands != "draw":
            return choices
        choices = choices[choices >= 0]
        if sampling.bands_drawn == 3:
            try:
                shown = np.asarray(self._rgb(sensor), np.int64)
            except UnknownBandError:
                return np.resize(choices, 3)  # radar has no red, green and blue
            if np.isin(shown, choices).all():
                return shown
        return np.resize(choices, sampling.bands_drawn)

    def colours(self, image: int) -> NDArray[np.int64] | None:
        """List red, green and blue of an image; None where it lacks one (radar)."""
        try:
            shown = np.asarray(self._rgb(int(self.index.sensor[image])), np.int64)
        except UnknownBandError:
            return None
        return shown if self.index.bands is None or self.index.bands[image][shown].all() else None

    def _rgb(self, code: int) -> tuple[int, ...]:
        return tuple(self._sensors[code].band_index(name) for name in ("red", "green", "blue"))

    def _read_group(
        self,
        code: int,
        chosen: NDArray[np.int64],
        images: NDArray[np.int64],
        draws: list[Draw],
        part: tuple[int, int, int, int],
    ) -> RawImages:
        """Read one part of some images of one sensor, each with its own bands."""
        name = self._sensors[code].id
        per_sample = images.shape[1]
        bands = np.stack([draws[slot // per_sample].bands[slot % per_sample] for slot in chosen])
        top, _, left, _ = part
        rows = np.asarray(self.index.row[images.ravel()[chosen]], np.int64)
        pixels, valid = self.store.read_each(name, rows, bands, part)
        _, height, width = self.store.shape(name)
        return RawImages(
            sensor=code,
            grid=(height, width),
            origin=(top, left),
            pixels=torch.from_numpy(pixels),
            valid=torch.from_numpy(valid),
            bands=torch.from_numpy(bands),
            slot=torch.from_numpy(chosen),
            fully_valid=bool(valid.all()),
        )


class BatchDataset(Dataset[RawBatch]):
    """The batches of one process of a run by step number; picklable, since it opens nothing before it is read."""

    def __init__(self, run_dir: Path, spec: RunSpec, *, rank: int = 0, world_size: int = 1) -> None:
        """Describe the batches of one of `world_size` processes.

        Args:
            run_dir: The run directory.
            spec: Its specification.
            rank: This process.
            world_size: All processes; they share each global batch, in order.

        Raises:
            SpecificationError: If the batch cannot be shared evenly.
        """
        if spec.optimizer.batch_size % world_size:
            raise SpecificationError(
                f"'optimizer.batch_size' ({spec.optimizer.batch_size}) must be divisible by the number of processes"
                f" ({world_size}): change 'hardware.devices' or the batch size"
            )
        self._run_dir, self._spec, self._rank, self._world_size = run_dir, spec, rank, world_size
        self._reader: SampleReader | None = None

    def __getitem__(self, step: int) -> RawBatch:
        """Read this process's share of the batch of a step; steps count from 0."""
        if self._reader is None:
            self._reader = SampleReader(self._run_dir, self._spec)
        size = self._spec.optimizer.batch_size
        share = size // self._world_size
        start = step * size + self._rank * share
        return self._reader.read(self._reader.keys(start, start + share))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reader": None}


def make_loader(
    dataset: BatchDataset, start: int, stop: int, *, workers: int, pin_memory: bool
) -> DataLoader[RawBatch]:
    """Make a loader of the batches from step `start` to `stop`, which `next_batch` takes.

    Args:
        dataset: The batches.
        start: First step.
        stop: One past the last step.
        workers: Loader processes. They are spawned, because forked ones grow with every Python object they touch, and
            end with the process that they load for, however that ends.
        pin_memory: Copy batches into page-locked memory for a GPU.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
        timeout=LOOK_S if workers else 0,
        worker_init_fn=_begin if workers else None,
        collate_fn=cast(Any, packed) if workers else None,  # typed for lists of samples
    )


def next_batch(loader: Iterator[RawBatch | PackedBatch]) -> RawBatch:
    """Take the next batch.

    Args:
        loader: An iterator over what `make_loader` gives.

    Raises:
        LoaderDiedError: If the pipe to a loader process broke, see also `dead_loaders_told`, or no batch comes: where
            shared memory is short, a loader process cannot hand its batch over and does not say so.
    """
    since = time.monotonic()
    while True:
        try:
            found: RawBatch | PackedBatch = next(loader)
            return found.unpacked() if isinstance(found, PackedBatch) else found
        except (ConnectionError, EOFError) as error:
            if "Caught " in str(error):  # raised in a loader process, which lives
                raise
            raise _died(error) from error
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
            waited = time.monotonic() - since
            if _shared_memory_left() < _ENOUGH_SHARED or waited > GIVEN_UP_S:
                raise _silent(waited) from error
            _LOG.warning("no batch since %.0f s: the store is slow, or the loader processes stand still", waited)


@contextlib.contextmanager
def dead_loaders_told() -> Iterator[None]:
    """Raise `LoaderDiedError` for a loader process that is killed while the block runs.

    torch reports that from a signal handler, so its error comes up at any line of the main process, also in the middle
    of writing a checkpoint.

    Raises:
        LoaderDiedError: If a loader process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        # The error of a killed process has its pid; what was raised in a living one says "Caught".
        if isinstance(error, LoaderDiedError) or "Caught " in str(error) or "DataLoader worker (pid" not in str(error):
            raise
        raise _died(error) from error


def _begin(_worker: int) -> None:
    end_with_parent()


def _shared_memory_left() -> int:
    """Bytes that are free where processes hand arrays to one another."""
    try:
        found = os.statvfs(_SHARED)
    except OSError:  # no Linux
        return _ENOUGH_SHARED
    return found.f_bavail * found.f_frsize


def _silent(waited: float) -> LoaderDiedError:
    return LoaderDiedError(
        f"no batch came from the loader processes for {waited:.0f} s. They hand batches over in {_SHARED}, which has"
        f" {_shared_memory_left() / 2**20:,.0f} MB free: make it larger (docker run --shm-size=2g), or read in the"
        " training process by 'hardware.workers': 0. Start the run again: it goes on from its newest checkpoint"
    )


def _died(error: Exception) -> LoaderDiedError:
    return LoaderDiedError(
        f"a loader process ended: {error}. Where it was killed, the system may be out of memory: lower"
        " 'hardware.workers' or the batch size. Start the run again: it goes on from its newest checkpoint"
    )


def _under(window: tuple[float, float, float], height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Find the stored pixels that a window needs when it is resized to `size`: `(y0, y1, x0, x1)`, rim included."""
    left, top, side = window
    stretches = []
    for start, length in ((top, height), (left, width)):
        rim = max(1.0, side * length / size) + 1
        stretches += [max(0, int(start * length - rim)), min(length, int((start + side) * length + rim) + 1)]
    return stretches[0], stretches[1], stretches[2], stretches[3]

"""From task data to what an encoder takes: chosen bands, normalised as in its pretraining, with their metadata."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.layers.bands import ABSENT_NM
from a2mae.sensors import BUILTIN_SENSORS, Band, Sensor, UnknownBandError
from a2mae.tasks.datasets.store_bands import same_band
from a2mae.tasks.datasets.task_data import StoredArrays, TaskData, TaskDataError

logger = logging.getLogger(__name__)

MOST_BANDS = 1_000
_LARGEST, _SMALLEST = 1e9, 1e-9
Normalisation = Mapping[str, Mapping[str, Sequence[float]]]
"""`{sensor: {band: [mean, std]}}` in physical units, as a model directory's `config.json` has it."""


@dataclass(frozen=True)
class InputPlan:
    """Which bands an encoder sees and how they are normalised; saved with every finetuned model.

    Attributes:
        bands: Names in the data, view after view.
        bands_per_view: The patch embedding's width: more bands go in as several views whose features are joined, fewer
            are filled up with absent ones, as pretraining fills up a sensor of few bands.
        center_wavelength_nm: Of each band.
        sensors: Sensor ids that `mean` and `std` are given for.
        mean: Per sensor and band, physical units.
        std: Per sensor and band; 0 for a band that images of the sensor lack among those of an image set.
        normalised_by: Per sensor: "model" (statistics of pretraining) or "data" (statistics of the training split).
        location: Tell the encoder where an image lies; a held-out place's code is one that no training has seen.
    """

    bands: tuple[str, ...]
    bands_per_view: int
    center_wavelength_nm: tuple[float, ...]
    sensors: tuple[str, ...]
    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]
    normalised_by: tuple[str, ...]
    location: bool = False

    def __post_init__(self) -> None:
        """Reject what no images can be given by: a model directory may be anybody's."""
        if not (self.bands and 1 <= self.bands_per_view <= MOST_BANDS):
            raise InputError(f"bands must be named and bands_per_view 1 to {MOST_BANDS:,}, found {self.bands_per_view}")
        if len(self.center_wavelength_nm) != len(self.bands) or not np.isfinite(self.center_wavelength_nm).all():
            raise InputError(f"center_wavelength_nm must be a number for each of the {len(self.bands)} bands")
        if not (self.sensors and len(self.sensors) == len(self.mean) == len(self.std) == len(self.normalised_by)):
            raise InputError("mean, std and normalised_by must be given for each of the sensors")
        for mean, std in zip(self.mean, self.std, strict=True):
            if not len(mean) == len(std) == len(self.bands):
                raise InputError(f"mean and std must have a number for each of the {len(self.bands)} bands")
            if not any(std):
                raise InputError("every std of a sensor is 0, which says that it lacks all bands")
            for centre, spread in zip(mean, std, strict=True):
                # A spread of 0 is that of a band which a sensor of a set lacks; less than this is no spread of pixels.
                if not (abs(centre) < _LARGEST and (spread == 0 or _SMALLEST < spread < _LARGEST)):
                    raise InputError(
                        f"mean {centre:g} and std {spread:g} are of no pixels: images cannot be normalised"
                    )

    @property
    def views(self) -> int:
        """How many times the encoder runs per image."""
        return max(len(self.bands) // self.bands_per_view, 1)

    @property
    def wavelength_nm(self) -> tuple[float, ...]:
        """Centre wavelength of everything that the encoder is given, absent bands too."""
        return (*self.center_wavelength_nm, *[ABSENT_NM] * self._absent)

    def filled_up(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Add absent bands, which are 0, to normalised images `(..., C, H, W)`."""
        if not self._absent:
            return images
        return np.pad(images, [(0, 0)] * (images.ndim - 3) + [(0, self._absent), (0, 0), (0, 0)])

    def wavelengths_of(self, sensor: int) -> tuple[float, ...]:
        """Return `wavelength_nm` as an image of a sensor has it: bands that it lacks are absent ones, too.

        Args:
            sensor: Position in `sensors`; -1 for an image that is missing.
        """
        has = [std > 0 for std in self.std[sensor]] if sensor >= 0 else [False] * len(self.bands)
        own = [nm if there else ABSENT_NM for nm, there in zip(self.center_wavelength_nm, has, strict=True)]
        return (*own, *[ABSENT_NM] * self._absent)

    @property
    def _absent(self) -> int:
        return self.views * self.bands_per_view - len(self.bands)

    def to_dict(self) -> dict[str, object]:
        """Return it JSON-ready; `config.read_back` reads it."""
        return dataclasses.asdict(self)


def plan_inputs(
    data: TaskData,
    bands: Sequence[str],
    normalisation: Normalisation,
    *,
    bands_per_view: int | None,
    location: bool = False,
    group: str = "",
) -> InputPlan:
    """Decide how task data enters an encoder.

    The encoder's own statistics are used for a sensor that it was pretrained on; for any other (EuroSAT's 8-bit
    pictures, say) those of the data's training split, which cannot mix units up. Which was used is recorded.

    Args:
        data: The task data.
        bands: Names or common names.
        normalisation: The encoder's statistics.
        bands_per_view: How many bands the encoder takes at once; None for any number.
        location: Tell the encoder where an image lies.
        group: Parameters whose `bands` these are, for messages; empty: the task's.

    Raises:
        TaskDataError: If more bands than `bands_per_view` are no multiple of it, a band is absent, or the encoder knows
            the sensor but not the band.
    """
    group = group or data.spec.task
    width = view_width(bands, bands_per_view, group)
    positions = [data.spec.band_index(name, group) for name in bands]
    chosen = [data.spec.bands[position] for position in positions]
    statistics: dict[str, _Statistics] = {}
    for sensor in data.sensors:
        lacks = data.spec.lacks(sensor)
        if sensor in normalisation:
            statistics[sensor] = _pretrained(normalisation, sensor, chosen, group, lacks)
            continue
        found = training_statistics(data, positions, sensor)
        statistics[sensor] = (
            "data",
            [_LACKING if band.name in lacks else pair for band, pair in zip(chosen, found, strict=True)],
        )
        if normalisation:  # else there is no pretrained encoder
            logger.info(
                "%s: %s is new to the encoder, %r is normalised by its training split (the encoder knows %s)",
                group,
                sensor,
                data.spec.source,
                ", ".join(normalisation),
            )
    return _plan(chosen, width, statistics, location=location)


def plan_bands(
    sensor: Sensor,
    bands: Sequence[str],
    normalisation: Normalisation,
    *,
    bands_per_view: int | None,
    location: bool = False,
) -> InputPlan:
    """Decide how a raster of a sensor enters an encoder that was pretrained on that sensor.

    Args:
        sensor: Whose raster it is.
        bands: Names or common names.
        normalisation: The encoder's statistics.
        bands_per_view: How many bands the encoder takes at once; None for any number.
        location: Tell the encoder where an image lies.

    Raises:
        TaskDataError: If the encoder was not pretrained on the sensor or band, or the number of bands does not fit.
    """
    if sensor.id not in normalisation:
        raise TaskDataError(
            f"the encoder was not pretrained on {sensor.id!r}, so it has no statistics to normalise it by; it knows"
            f" {', '.join(normalisation)}: set embed.sensor to one of these, or pretrain with the sensor"
        )
    width = view_width(bands, bands_per_view, "embed")
    chosen = [sensor.bands[sensor.band_index(name)] for name in bands]
    return _plan(chosen, width, {sensor.id: _pretrained(normalisation, sensor.id, chosen, "embed")}, location=location)


_Statistics = tuple[str, Sequence[tuple[float, float]]]
"""Where they come from ("model" or "data"), then mean and deviation per band."""
_LACKING = 0.0, 0.0
"""Mean and deviation of a band that images of a sensor do not have."""


def view_width(bands: Sequence[str], bands_per_view: int | None, group: str) -> int:
    """Say how many bands go into the encoder at once; fewer than that are filled up with absent ones.

    Args:
        bands: Names or common names.
        bands_per_view: How many bands the encoder takes; None for any number.
        group: Parameters whose `bands` these are, for messages.

    Raises:
        TaskDataError: If there are none, or more than a view takes that do not fill whole views.
    """
    width = bands_per_view or len(bands)
    if not bands or (len(bands) > width and len(bands) % width):
        raise TaskDataError(
            f"{group}: the encoder takes {width} bands at a time; found {len(bands)} ({', '.join(bands)}). Name at"
            f" most {width}, or a multiple of it, in parameter '{group}.bands'"
        )
    return width


def _plan(bands: Sequence[Band], width: int, statistics: Mapping[str, _Statistics], *, location: bool) -> InputPlan:
    return InputPlan(
        bands=tuple(band.name for band in bands),
        bands_per_view=width,
        center_wavelength_nm=tuple(band.center_wavelength_nm for band in bands),
        sensors=tuple(statistics),
        mean=tuple(tuple(mean for mean, _ in pairs) for _, pairs in statistics.values()),
        std=tuple(tuple(std for _, std in pairs) for _, pairs in statistics.values()),
        normalised_by=tuple(source for source, _ in statistics.values()),
        location=location,
    )


def _pretrained(
    normalisation: Normalisation, sensor: str, bands: Sequence[Band], group: str, lacks: Sequence[str] = ()
) -> _Statistics:
    """Mean and deviation of bands as pretraining had them; a band may have another name at another sensor."""
    statistics = normalisation[sensor]
    pairs = []
    for band in bands:
        name = band.name
        if name in lacks:
            pairs.append(_LACKING)
            continue
        if sensor in BUILTIN_SENSORS:
            known = BUILTIN_SENSORS[sensor]
            for wanted in filter(None, (band.common_name, band.name)):
                try:
                    name = known.bands[same_band(known, wanted)].name
                    break
                except UnknownBandError:
                    continue
        if name not in statistics:
            raise TaskDataError(
                f"the encoder was pretrained on {sensor!r} without band {name!r}; it knows {', '.join(statistics)}."
                f" Choose other bands in {group}.bands, or pretrain with it"
            )
        mean, std = statistics[name]
        pairs.append((float(mean), float(std)))
    return "model", pairs


def training_statistics(data: TaskData, positions: Sequence[int], sensor: str) -> list[tuple[float, float]]:
    """Compute mean and deviation per band over valid training pixels of one sensor.

    At most 2,000 samples are read, evenly chosen.

    Args:
        data: The task data.
        positions: Of the bands.
        sensor: Sensor id.

    Raises:
        TaskDataError: If no training sample is of the sensor.
    """
    uses = data.image_sensors == sensor  # (N, T)
    rows = np.flatnonzero((data.samples["split"] == "train").to_numpy() & uses.any(axis=1))
    if not rows.size:
        raise TaskDataError(f"{data.spec.task}: no training samples of sensor {sensor!r} to normalise it by")
    rows = rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, 2000)).astype(np.int64))]
    total, squares, count = np.zeros(len(positions)), np.zeros(len(positions)), 0.0
    for block in np.array_split(rows, -(-rows.size // 256)):
        read = data.read(block, positions)
        weight = read.valid & uses[block][:, :, None, None]
        pixels = read.images.astype(np.float64) * weight[:, :, None]
        total += pixels.sum((0, 1, 3, 4))
        squares += (pixels**2).sum((0, 1, 3, 4))
        count += float(weight.sum())
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 1e-12))
    return [(float(m), float(s)) for m, s in zip(mean, std, strict=True)]


@dataclass(frozen=True)
class TaskBatch:
    """What a task model takes.

    Attributes:
        images: `(B, T, C, H, W)` float32, normalised per sensor and band, 0 where not valid.
        gsd_m: `(B,)` metres per pixel.
        lonlat_deg: `(B, 2)` centre in degrees; None where any sample's is not known or the plan leaves it out.
        day: `(B, T)` days since 1970-01-01; None where any is not known.
        wavelength_nm: `(C,)` centre wavelengths; of image sets `(B, T, C)`, absent ones where an image lacks a band.
        targets: `(B,)` or `(B, H, W)` classes (int64), or values (float32).
        valid: `(B, T, H, W)` of image sets: where each image shows something, False all over where it is missing; None
            where samples are no sets. Of a pair of sets the first half of T is the set before.
    """

    images: Tensor
    gsd_m: Tensor
    lonlat_deg: Tensor | None
    day: Tensor | None
    wavelength_nm: Tensor
    targets: Tensor
    valid: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> TaskBatch:
        """Turn or mirror the images, and where they are valid."""
        valid = None if self.valid is None else move(self.valid)
        return dataclasses.replace(self, images=move(self.images), valid=valid)

    def of_date(self, date: int, dates: int) -> TaskBatch:
        """Return the image sets of one of the dates.

        Args:
            date: Which, from 0.
            dates: How many there are.
        """
        assert self.valid is not None, "a batch of image sets"
        size = self.images.shape[1] // dates
        part = slice(date * size, (date + 1) * size)
        return dataclasses.replace(
            self,
            images=self.images[:, part],
            day=None if self.day is None else self.day[:, part],
            wavelength_nm=self.wavelength_nm[:, part],
            valid=self.valid[:, part],
        )

    @property
    def pixels(self) -> Tensor:
        """The image of one date `(B, C, H, W)`; of an image set the mean of what its images show, band by band."""
        if self.valid is None:
            return self.images[:, 0]
        seen = self.valid[:, :, None] & (self.wavelength_nm >= 0)[..., None, None]  # (B, T, C, H, W)
        return (self.images * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)

    def to(self, device: torch.device) -> TaskBatch:
        """Move the batch to another device."""
        return TaskBatch(
            images=self.images.to(device),
            gsd_m=self.gsd_m.to(device),
            lonlat_deg=None if self.lonlat_deg is None else self.lonlat_deg.to(device),
            day=None if self.day is None else self.day.to(device),
            wavelength_nm=self.wavelength_nm.to(device),
            targets=self.targets.to(device),
            valid=None if self.valid is None else self.valid.to(device),
        )


class TaskInputs:
    """Batches of one data set for one encoder; a small data set is kept in memory."""

    def __init__(self, data: TaskData, plan: InputPlan, *, cache_mb: float = 512) -> None:
        """Prepare.

        Args:
            data: The task data.
            plan: Bands and normalisation.
            cache_mb: Data sets whose chosen bands are smaller than this are kept in memory.
        """
        self.data = data
        self.plan = plan
        self._bands = [data.spec.band_index(name) for name in plan.bands]
        times, _, height, width = data.image_shape
        item = np.dtype(data.spec.encoding.dtype).itemsize
        size_mb = len(data.samples) * times * len(self._bands) * height * width * item / 1e6
        self._cached: StoredArrays | None = None
        if size_mb <= cache_mb:
            self._cached = data.read_stored(np.arange(len(data.samples)), self._bands)
        table = data.samples
        position = {sensor: index for index, sensor in enumerate(plan.sensors)} | {"": -1}
        self._sensor = np.vectorize(position.__getitem__, otypes=[np.int64])(data.image_sensors)
        self._day = _known(data.image_days)
        self._lonlat = _known(table[["lon", "lat"]].to_numpy(np.float64)) if plan.location else None
        self._gsd_m = table["gsd_m"].to_numpy(np.float32)
        self._mean = np.asarray(plan.mean, np.float32)
        std = np.asarray(plan.std, np.float32)
        self._std = np.where(std > 0, std, np.float32(np.inf))  # bands that a sensor lacks become 0
        numbers = [*range(len(plan.sensors)), -1]
        self._wavelength_nm = np.array([plan.wavelengths_of(number) for number in numbers], np.float32)

    def batch(self, rows: npt.NDArray[np.int64]) -> TaskBatch:
        """Read samples by row number, normalised."""
        if self._cached is None:
            read = self.data.read(rows, self._bands)
        else:
            read = self.data.decode(self._cached.take(rows))
        sensor = self._sensor[rows]  # (N, T)
        images = (read.images - self._mean[sensor][..., None, None]) / self._std[sensor][..., None, None]
        images *= read.valid[:, :, None]
        is_set = bool(self.data.spec.set_sensors)
        wavelength_nm = self._wavelength_nm[sensor] if is_set else np.asarray(self.plan.wavelength_nm, np.float32)
        return TaskBatch(
            images=torch.from_numpy(self.plan.filled_up(images)),
            gsd_m=torch.from_numpy(self._gsd_m[rows]),
            lonlat_deg=None if self._lonlat is None else torch.from_numpy(self._lonlat[rows]),
            day=None if self._day is None else torch.from_numpy(self._day[rows]).float(),
            wavelength_nm=torch.from_numpy(wavelength_nm),
            targets=torch.from_numpy(read.targets if read.targets.dtype.kind == "f" else read.targets.astype(np.int64)),
            valid=torch.from_numpy(read.valid) if is_set else None,
        )


def _known(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    return values if np.isfinite(values).all() else None

"""Draw what a sample is made of, from `(seed, epoch, position)` alone.

Nothing here reads pixels. Because a draw depends on three integers only, a resumed run, a run with another number of
loader processes and a run on another number of machines see the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from a2mae.training.data.index import SetIndex
from a2mae.training.parameters import SamplingParameters


class Stream(IntEnum):
    """Independent streams of random numbers: drawing from one does not shift another."""

    ORDER = 0
    SAMPLE = 1
    STEP = 2
    HELD_OUT = 3


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Make a generator of random numbers that depend on the arguments alone.

    Args:
        seed: The run's seed.
        stream: What they are for.
        key: For example epoch and position.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key), spawn_key=(int(stream),))))


@dataclass(frozen=True)
class Draw:
    """One sample, as drawn.

    Attributes:
        images: `(K,)` int64, positions of the images in the index; the first is the anchor.
        bands: `(K, C)` int64, indices into the bands of each image's sensor; -1 where it has no further band.
        window: Left, top and side of the square that is seen, as shares of the footprint's side.
        flips: Mirror left-right, mirror up-down, transpose; the same for all images.
    """

    images: NDArray[np.int64]
    bands: NDArray[np.int64]
    window: tuple[float, float, float]
    flips: tuple[bool, bool, bool]


def draw_sample(
    index: SetIndex,
    sampling: SamplingParameters,
    band_choices: Sequence[NDArray[np.int64]],
    *,
    seed: int,
    epoch: int,
    position: int,
) -> Draw:
    """Draw one sample of a set (docs/methods.md, A²-MAE).

    Args:
        index: The sets.
        sampling: The rules.
        band_choices: Per sensor, the bands that may be drawn (`band_choices_of`).
        seed: The run's seed.
        epoch: How often the data have been gone through.
        position: The set's position in the index.
    """
    rng = generator(seed, Stream.SAMPLE, epoch, position)
    members = np.arange(index.offsets[position], index.offsets[position + 1])
    images = _draw_images(members, index, sampling, rng)
    bands = np.stack([_draw_bands(bands_of(index, band_choices, int(image)), sampling, rng) for image in images])
    window = (0.0, 0.0, 1.0)
    # All are drawn whether needed or not, so that the probability does not shift what follows.
    whole, side, left, top = rng.random(4)
    if whole >= sampling.whole_probability:
        side = sampling.crop_fraction_min + side * (1 - sampling.crop_fraction_min)
        window = (left * (1 - side), top * (1 - side), side)
    mirror_x, mirror_y, transpose = (rng.random(3) < 0.5) & sampling.flips
    return Draw(images, bands, window, (bool(mirror_x), bool(mirror_y), bool(transpose)))


def band_choices_of(
    sampling: SamplingParameters, sensor_bands: Sequence[int], rgb: Sequence[Sequence[int]]
) -> list[NDArray[np.int64]]:
    """List the bands of each sensor that a sample may take.

    Args:
        sampling: The rules.
        sensor_bands: Number of bands of each sensor.
        rgb: Red, green and blue band of each sensor; read only where the rule is `rgb`.
    """
    if sampling.bands == "rgb":
        return [np.asarray(indices, np.int64) for indices in rgb]
    choices = [np.arange(count, dtype=np.int64) for count in sensor_bands]
    if sampling.bands == "all":
        width = max(sensor_bands)
        return [np.pad(choice, (0, width - len(choice)), constant_values=-1) for choice in choices]
    return choices


def bands_of(index: SetIndex, band_choices: Sequence[NDArray[np.int64]], image: int) -> NDArray[np.int64]:
    """List the bands of its sensor's choices that an image has, with -1 in the place of those it lacks.

    Args:
        index: The sets.
        band_choices: Per sensor.
        image: Position in the index.
    """
    choices: NDArray[np.int64] = band_choices[int(index.sensor[image])]
    if index.bands is None:
        return choices
    has: NDArray[np.bool_] = index.bands[image][choices] & (choices >= 0)
    return np.asarray(np.where(has, choices, -1), dtype=np.int64)


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Draw the order in which an epoch goes through `count` sets."""
    return generator(seed, Stream.ORDER, epoch).permutation(count)


def _draw_images(
    members: NDArray[np.int64], index: SetIndex, sampling: SamplingParameters, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the anchor, then image 2 from a sensor drawn at random, image 3 from the other one, and so on in turn."""
    tagged = members[index.is_anchor[members]]
    candidates = tagged if sampling.anchor == "table" and len(tagged) else members
    anchor = int(rng.choice(candidates))
    sources = rng.permutation(np.unique(index.sensor[members]))
    rest = rng.permutation(members[members != anchor])
    chosen = [anchor]
    for turn in range(sampling.images - 1):
        # With one sensor at the place there is no other one for image 3: the fallback applies.
        source = sources[turn % max(2, len(sources))] if turn % max(2, len(sources)) < len(sources) else None
        free = [int(image) for image in rest if int(image) not in chosen]
        of_source = [image for image in free if source is not None and index.sensor[image] == source]
        if of_source:
            chosen.append(of_source[0])
        elif free and sampling.fallback == "other_date":
            chosen.append(free[0])
        else:
            chosen.append(anchor)
    return np.asarray(chosen, np.int64)


def _draw_bands(
    choices: NDArray[np.int64], sampling: SamplingParameters, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw without replacement, in random order; an image with fewer bands than asked for gives them again in turn."""
    if sampling.bands != "draw":
        return choices
    return np.resize(rng.permutation(choices[choices >= 0]), sampling.bands_drawn)

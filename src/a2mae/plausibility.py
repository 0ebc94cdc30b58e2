"""Check whether values can be what they are called: the offsets, scales and units of scenes, files and data sets.

A wrong offset, scale or unit is the commonest mistake with a new source, and every later stage would take it for
ground. All thresholds stand here. Where two look alike, the statistic that each is held against differs, and is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import InputError, plural
from a2mae.sensors import Sensor, Units

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_OFFSET_RANGE = (0.08, 0.12)
"""Around the 0.1 by which Sentinel-2's processing baseline 04.00 moved counts."""
DARKEST_PERCENTILE = -0.05
"""Least 1st percentile of a scene's darkest band: atmospheric correction takes deep shadow a little below zero."""
_DARK_BULK, _DARK_SHARE = -0.02, 0.1
"""At most this share of a band's pixels lies below this: water and shadow as a whole stay nearer to zero than the
darkest percent does."""
_BRIGHTEST_TOO_DARK = 0.05
"""The 99th percentile of the brightest band is above this wherever there is land."""
_DARKEST_TOO_BRIGHT = 1.0
"""The 1st percentile of the darkest of red, near and short-wave infrared is below this even over snow and cloud."""
_BRIGHTEST_TOO_BRIGHT = 3.0
"""The 99th percentile of the brightest band is below this even with sunlit snow on a slope, and glint."""
_MEDIAN_TOO_BRIGHT = 2.0
"""The median is below this even over snow: percent, bytes and counts are above."""
DATA_SET_TOO_DARK = 0.005
"""The median over the images of a data set is above this; a single raster may be all deep water, and only has to be
above zero."""
_FARTHEST_MEDIAN = 4.0
"""Deviations from the mean that an encoder was taught: half of a place's pixels lie beyond for no land cover."""
NOTED_CLIPPED, MOST_CLIPPED = 0.01, 0.5
"""Shares of a band's seen pixels beyond what the stored integers hold: from these on it is said, and rejected."""
MOST_UNIFORM = 0.1
"""Larger shares of an image that hold one number in each band are fill of some program, not ground."""
_FEWEST_STEPS = 4
"""Steps of the store's encoding between a scene's 1st and 99th percentile."""
OFFSET_ADVICE = (
    "an offset of 0.1 applied twice or not at all looks like this: check scale and offset in the scene table, and"
    " ingest.sentinel2_offset"
)
TOO_DARK = (
    "reflectance is 0 to 1, and land reaches 0.1 and more (bytes, percent and counts look like this; scenes of nothing"
    " but deep water, too)"
)
RANGE_ADVICE = f"{TOO_DARK}: check scale, offset and units of the rule or item"
FLAT_ADVICE = (
    "the store tells hardly any of these values apart: check the rule's scale and offset against the scale of the"
    " sensor's encoding (nothing but open water or cloud looks like this, too)"
)


def warn_of_offsets(images: pd.DataFrame) -> None:
    """Warn of every scene whose dark pixels contradict its offset.

    Args:
        images: Image table.
    """
    for scene in suspicious_offsets(images).itertuples():
        logger.warning(
            "Scene %s (%s, baseline %s): its dark pixels lie %.3f from those of the other scenes of the sensor at the"
            " same places, or from zero; %s",
            scene.scene_id,
            scene.sensor,
            scene.processing_baseline,
            scene.away,
            OFFSET_ADVICE,
        )


def suspicious_offsets(images: pd.DataFrame) -> pd.DataFrame:
    """Find Sentinel-2 scenes whose dark pixels are off by the 0.1 that processing baseline 04.00 moved counts by.

    Args:
        images: Image table.

    Returns:
        One row per scene: `scene_id`, `sensor`, `processing_baseline`, `dark_value` (median of its images,
        reflectance) and `away`: median difference of its dark values to the median of the sensor's other scenes at the
        same locations; for scenes that are darker than surfaces can be, whatever the others are, the dark value.
    """
    columns = ["scene_id", "location_id", "sensor", "processing_baseline", "dark_value"]
    looked = images.loc[images["sensor"].str.startswith("sentinel-2"), columns]
    looked = looked.drop_duplicates(["scene_id", "location_id"]).dropna(subset="dark_value")
    groups = np.asarray(looked.groupby(["sensor", "location_id"], sort=False).ngroup(), np.int64)
    looked = looked.assign(away=_from_others(looked["dark_value"].to_numpy(np.float64), groups))
    scenes = looked.groupby("scene_id", sort=True, as_index=False).agg(
        sensor=("sensor", "first"),
        processing_baseline=("processing_baseline", "first"),
        dark_value=("dark_value", "median"),
        away=("away", "median"),
    )
    differs = scenes["away"].abs().between(*_OFFSET_RANGE)
    impossible = (scenes["dark_value"] < DARKEST_PERCENTILE) & ~differs
    away = scenes["away"].mask(impossible, scenes["dark_value"])
    return scenes.assign(away=away)[differs | impossible].reset_index(drop=True)


def _from_others(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Every value less the median of the others of its group; NaN if it is alone."""
    order = np.lexsort((values, groups))
    sorted_values, sorted_groups = values[order], groups[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    count = np.diff(starts, append=len(values))
    first, others = np.repeat(starts, count), np.repeat(count - 1, count)
    rank = np.arange(len(values)) - first

    def without_itself(place: NDArray[np.int64]) -> NDArray[np.float64]:
        place = place + (place >= rank)  # of the group in order, itself left out
        return np.asarray(sorted_values[np.minimum(first + place, len(values) - 1)])

    middle = (without_itself(np.maximum(others - 1, 0) // 2) + without_itself(others // 2)) / 2
    result = np.full(len(values), np.nan)
    result[order] = np.where(others > 0, sorted_values - middle, np.nan)
    return result


def implausible_ranges(images: pd.DataFrame, sensors: Iterable[Sensor]) -> pd.DataFrame:
    """Find scenes that cannot be reflectance though they are called so, or that the store holds as nearly one value.

    Args:
        images: Image table.
        sensors: Sensors of the images; images of others are passed over.

    Returns:
        One row per scene: `scene_id`, `sensor`, `dark_value` (least of its images), `bright_value` (largest) and
        `advice`: what to check.
    """
    known = {sensor.id: sensor.encoding for sensor in sensors}
    reflecting = [name for name, encoding in known.items() if encoding.units is Units.REFLECTANCE]
    looked = images[images["sensor"].isin(list(known))]
    scenes = looked.groupby("scene_id", sort=True, as_index=False).agg(
        sensor=("sensor", "first"), dark_value=("dark_value", "min"), bright_value=("bright_value", "max")
    )
    steps = scenes["sensor"].map({name: abs(encoding.scale) for name, encoding in known.items()}).astype(float)
    flat = scenes["bright_value"] - scenes["dark_value"] < _FEWEST_STEPS * steps
    wrong = (scenes["bright_value"] < _BRIGHTEST_TOO_DARK) | (scenes["dark_value"] > _DARKEST_TOO_BRIGHT)
    wrong |= scenes["bright_value"] > _BRIGHTEST_TOO_BRIGHT
    wrong &= scenes["sensor"].isin(reflecting)
    scenes["advice"] = np.where(flat, FLAT_ADVICE, RANGE_ADVICE)
    return scenes[wrong | flat].reset_index(drop=True)


def warn_of_ranges(images: pd.DataFrame, sensors: Iterable[Sensor]) -> None:
    """Warn once per sensor and kind of mistake: a rule that is wrong is wrong for all of its files.

    Args:
        images: Image table.
        sensors: Sensors of the images.
    """
    for (sensor, advice), scenes in implausible_ranges(images, sensors).groupby(["sensor", "advice"], sort=True):
        logger.warning(
            "%s of %s, the first %s, with values from %.4g to %.4g; %s",
            plural(len(scenes), "scene"),
            sensor,
            scenes["scene_id"].iloc[0],
            scenes["dark_value"].min(),
            scenes["bright_value"].max(),
            advice,
        )


def uniform_share(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> float:
    """Return the share of an image's valid pixels that hold the least number of every band, or the greatest.

    Args:
        pixels: `(B, H, W)` as stored; of fewer than three bands none is looked at: theirs may be equal by chance.
        valid: `(H, W)`.
    """
    seen = pixels[:, valid]
    if len(seen) < 3 or not seen.size:
        return 0.0
    return max(float((seen == end[:, None]).all(axis=0).mean()) for end in (seen.min(axis=1), seen.max(axis=1)))


def warn_of_fill(found: Mapping[str, float]) -> None:
    """Warn of scenes whose files hold fill that they do not declare as nodata.

    Args:
        found: The largest `uniform_share` among the images of each such scene.
    """
    if not found:
        return
    first = min(found)
    logger.warning(
        "%s: up to %.0f%% of an image is one number in each band, the first %s: fill that its file does not declare"
        " looks like this; state it as nodata of the rule or profile",
        plural(len(found), "scene"),
        100 * max(found.values()),
        first,
    )


@dataclass(frozen=True)
class Clipped:
    """Values that the store cannot hold, of some images of a sensor.

    Attributes:
        px: Valid pixels of each band beyond what the encoding holds.
        of: How many valid pixels there are.
    """

    px: tuple[int, ...]
    of: int


def check_clipped(found: Iterable[tuple[Sensor, Clipped]]) -> None:
    """Warn of values beyond what a sensor's encoding holds: the store has its least or greatest number in their place.

    Args:
        found: Sensors, and what was clipped of some of their images.

    Raises:
        InputError: If that is more than half of a band.
    """
    sums: dict[str, tuple[Sensor, NDArray[np.int64], int]] = {}
    for sensor, counts in found:
        _, px, of = sums.get(sensor.id, (sensor, np.zeros(len(sensor.bands), np.int64), 0))
        sums[sensor.id] = sensor, px + np.asarray(counts.px, np.int64), of + counts.of
    for sensor, px, of in sums.values():
        shares = px / max(of, 1)
        over = [
            f"{share:.0%} of {name}"
            for name, share in zip(sensor.band_names, shares, strict=True)
            if share > NOTED_CLIPPED
        ]
        if not over:
            continue
        encoding = sensor.encoding
        info = np.iinfo(encoding.dtype)
        low, high = (limit * encoding.scale + encoding.offset for limit in (info.min, info.max))
        told = (
            f"{sensor.id}: {', '.join(over)} is beyond {low:g} to {high:g}, which is what the store holds"
            f" ({encoding.dtype} of scale {encoding.scale:g}, {encoding.units}), and is clipped: check scale and offset"
            " of the rule or item, or describe a sensor with another encoding under ingest.sensors"
        )
        if shares.max() > MOST_CLIPPED:
            raise InputError(told)
        logger.warning("%s", told)


def impossible_reflectance(low: float, high: float, median: float, *, darkest_median: float = 0.0) -> str:
    """Say in words why values cannot be reflectance, by their median.

    Args:
        low: Smallest value.
        high: Largest value.
        median: Their median.
        darkest_median: What the median has to be above: 0 for one raster, `DATA_SET_TOO_DARK` for a data set.

    Returns:
        What was found and what was expected; empty if they can be.
    """
    if darkest_median < median < _MEDIAN_TOO_BRIGHT:
        return ""
    return f"the values are {low:.4g} to {high:.4g} with median {median:.4g}; reflectance is 0 to 1"


def too_dark(bright_value: float) -> bool:
    """Return whether a 99th percentile of reflectance is too dark for anything but deep water."""
    return bright_value < _BRIGHTEST_TOO_DARK


def strange_bands(
    seen: NDArray[np.float32], bands: Sequence[str], units: Units, mean: Sequence[float], std: Sequence[float]
) -> list[str]:
    """Say in words which bands do not hold what an encoder was taught.

    Args:
        seen: Physical values of seen pixels, `(C, N)`, N at least 1.
        bands: Names of the bands.
        units: Units of the values.
        mean: Mean of each band as the encoder was taught.
        std: Standard deviation of each band, likewise.

    Returns:
        A phrase for each band that does not; empty if all do.
    """
    found = []
    for values, band, taught, deviation in zip(seen, bands, mean, std, strict=True):
        median = float(np.median(values))
        away = (median - taught) / deviation
        below = float(np.mean(values < _DARK_BULK))
        if units is Units.REFLECTANCE and below > _DARK_SHARE:
            found.append(f"{below:.0%} of {band} is below {_DARK_BULK}, where no reflectance is")
        elif abs(away) > _FARTHEST_MEDIAN:
            found.append(
                f"the median of {band} is {median:.4g}, {away:+.1f} deviations from the mean {taught:.4g}"
                " that the encoder was taught"
            )
    return found

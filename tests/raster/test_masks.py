"""What a mask's numbers mean, and numbers that cannot mean what the rule says."""

import numpy as np
import pytest

from a2mae.errors import ReadError
from a2mae.raster.masks import PixelClass, decode_mask
from a2mae.scenes import MaskKind

CLEAR, CLOUD, NODATA = PixelClass.CLEAR, PixelClass.CLOUD, PixelClass.NODATA


def decode(values, **options):
    return decode_mask(np.asarray([values]), MaskKind.PROBABILITY, **options)[0].tolist()


def test_a_probability_is_cloud_from_its_threshold():
    assert decode([0.0, 0.39, 0.4, 1.0, np.nan]) == [CLEAR, CLEAR, CLOUD, CLOUD, NODATA]
    assert decode(np.uint8([0, 39, 41, 100]), scale=0.01) == [CLEAR, CLEAR, CLOUD, CLOUD]
    assert decode(np.uint8([0, 255]), scale=1 / 255) == [CLEAR, CLOUD]


def test_a_byte_of_fill_beside_per_cent_is_not_seen():
    assert decode(np.uint8([10, 90, 255]), scale=0.01) == [CLEAR, CLOUD, NODATA]


@pytest.mark.parametrize(
    ("highest", "scale", "message"),
    [
        (100, 1.0, r"values to 100 \(times scale 1\): set scale: 0\.01 on the mask in its rule"),
        (255, 1.0, r"values to 255 \(times scale 1\): set scale: 0\.00392157"),
        (10_000, 0.01, r"values to 10000 \(times scale 0\.01\): set scale: what brings them to 0-1"),
    ],
)
def test_numbers_above_one_are_no_probability(highest, scale, message):
    with pytest.raises(ReadError, match=message) as caught:
        decode([0, 1, highest], scale=scale)
    assert caught.value.reason == "mask_scale"

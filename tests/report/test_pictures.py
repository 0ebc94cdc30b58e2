"""Pictures show what their captions say."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from a2mae.report import pictures
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.palette import class_colour


def decoded(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_class_maps_come_back_exactly():
    classes = np.arange(14, dtype=np.uint8).repeat(3).reshape(6, 7)
    shown = pictures.classes_to_bytes(classes)
    assert np.array_equal(decoded(pictures.to_data_uri(shown, exact=True)), shown)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 14


def test_ignored_pixels_are_grey():
    shown = pictures.classes_to_bytes(np.array([[0, 255]], np.uint8))
    assert tuple(shown[0, 1]) == pictures.INVALID_RGB and tuple(shown[0, 0]) == class_colour(0)


def test_classes_take_the_colours_that_their_data_brings():
    shown = pictures.classes_to_bytes(
        np.array([[0, 1, 255]], np.uint8), colours=np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    )
    assert shown[0].tolist() == [[1, 2, 3], [4, 5, 6], list(pictures.INVALID_RGB)]


def test_large_pictures_are_reduced_and_keep_their_shape():
    assert decoded(pictures.to_data_uri(np.zeros((100, 400, 3), np.uint8), max_px=40)).shape == (10, 40, 3)


def test_true_colour_where_the_sensor_has_it():
    sentinel = BUILTIN_SENSORS["sentinel-2-l2a"]
    assert [sentinel.bands[i].name for i in pictures.display_bands(sentinel)] == ["B04", "B03", "B02"]
    assert pictures.display_bands(BUILTIN_SENSORS["sentinel-1-rtc"]) == (0, 1, 1)


@given(
    pixels=hnp.arrays(np.float32, (3, 6, 5), elements=st.floats(-1, 2, width=32)),
    valid=hnp.arrays(bool, (6, 5)),
)
def test_stretch_marks_every_invalid_pixel(pixels, valid):
    shown = pictures.stretch(pixels, valid)
    assert shown.shape == (6, 5, 3) and shown.dtype == np.uint8
    assert (shown[~valid] == pictures.INVALID_RGB).all()


@given(hidden=hnp.arrays(bool, (3, 2)))
def test_seen_and_predicted_patches_part_the_picture(hidden):
    image, predicted = np.full((12, 8, 3), 10, np.uint8), np.full((12, 8, 3), 200, np.uint8)
    mask = pictures.upsample_patches(hidden, (12, 8))
    assert mask.sum() == 16 * hidden.sum()
    filled = pictures.fill_hidden(image, predicted, hidden)
    assert (filled[mask] == 200).all() and (filled[~mask] == 10).all()
    seen = pictures.blank_hidden(image, hidden)
    assert (seen[~mask] == 10).all() and (seen[mask] == pictures.INVALID_RGB).all()
    tinted = pictures.draw_hidden(image, hidden)
    assert (tinted[~mask] == 10).all() and (tinted[mask] != 10).any(axis=-1).all()


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match="does not tile"):
        pictures.upsample_patches(np.ones((3, 3), bool), (10, 9))

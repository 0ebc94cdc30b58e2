"""What a mask says, and what it does not: unknown ground is never background, and 255 is not guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from a2mae.tasks.data_parameters import DataParameters
from a2mae.tasks.datasets.masks import Masks
from a2mae.tasks.datasets.pictures import ImageFile
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, IGNORE, TaskDataError
from helpers.labelled_scenes import save

NAMES = ("ground", "roof", "water")
IMAGE = ImageFile(np.zeros((3, 12, 10), np.uint8), np.ones((12, 10), bool), None, 10.0)


def read(path: Path, labels: FolderLabels) -> np.ndarray:
    return Masks(labels, "segment.data").read(path, IMAGE, path)


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int16", "int32", "float32", "float64"]),
    values=st.lists(st.integers(0, 250), min_size=3, max_size=3, unique=True),
    ignore=st.sets(st.integers(0, 250), max_size=2),
    seed=st.integers(0, 99),
)
def test_every_value_is_its_class_and_the_others_are_unknown(tmp_path_factory, dtype, values, ignore, seed) -> None:
    ignore -= set(values)
    stored = np.random.default_rng(seed).choice([*values, *ignore, 255], (12, 10)).astype(dtype)
    unknown = np.isin(stored, [*ignore, 255])
    if dtype.startswith("float"):
        stored[2, 3:5] = (np.nan, 1e38)
        unknown[2, 3:5] = True
    path = save(tmp_path_factory.mktemp("mask") / "a.tif", stored)
    found = read(path, FolderLabels(NAMES, values=tuple(values), ignore=tuple(ignore)))
    np.testing.assert_array_equal(found == IGNORE, unknown)
    for number, value in enumerate(values):
        np.testing.assert_array_equal(found == number, (stored == value) & ~unknown)


def test_masks_that_count_from_one(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4, (12, 10)).astype(np.uint8)
    path = save(tmp_path / "a.tif", stored)
    with pytest.raises(TaskDataError, match=r"labels 3 are outside .*segment\.data\.first_class"):
        read(path, FolderLabels(NAMES))
    data = DataParameters.model_validate({"class_names": NAMES, "first_class": 1, "ignore": [0]})
    assert (data.first_class, data.ignore) == (1, (0,))
    np.testing.assert_array_equal(
        read(path, FolderLabels(NAMES, values=(1, 2, 3), ignore=(0,))), np.where(stored, stored - 1, IGNORE)
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"ignore": [0]}, "ignore names 0, which is the value of a class: .* set first_class: 1"),
        ({"class_values": [1, 2]}, "class_values must be 3 different numbers"),
        ({"class_values": [1, 2, 3], "first_class": 1}, "first_class or class_values, not both"),
        (
            {"class_names": [False, True]},
            "found False, expected a name: no, off or false without quotes is a truth value",
        ),
    ],
)
def test_what_cannot_be_meant_is_rejected_before_anything_is_read(data, message) -> None:
    with pytest.raises(ValidationError, match=message):
        DataParameters.model_validate({"class_names": NAMES, **data})


def test_palettes_are_numbers_alpha_is_unknown_and_colours_are_rejected(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3, (12, 10)).astype(np.uint8)
    palette = Image.fromarray(stored).convert("P")
    palette.putdata(stored.ravel())
    palette.putpalette([10, 10, 10, 200, 0, 0, 0, 0, 200])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png", FolderLabels(NAMES)), stored)
    alpha = np.full((12, 10), 255, np.uint8)
    alpha[:3] = 0
    Image.fromarray(np.stack([stored, alpha], axis=-1), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read(tmp_path / "la.png", FolderLabels(NAMES)), np.where(alpha, stored, IGNORE))
    Image.fromarray(np.stack([stored * 80] * 3, axis=-1)).save(tmp_path / "rgb.png")
    with pytest.raises(TaskDataError, match=r"rgb\.png: 3 bands; a mask has one band of class numbers"):
        read(tmp_path / "rgb.png", FolderLabels(NAMES))


def test_black_and_white_is_asked_about(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).choice([0, 255], (12, 10)).astype(np.uint8)
    path = save(tmp_path / "a.tif", stored)
    for labels, known in (
        (FolderLabels(NAMES[:2]), False),
        (FolderLabels(NAMES[:2], values=(0, 255)), True),
        (FolderLabels(NAMES[:2], ignore=(255,)), True),
    ):
        masks = Masks(labels, "segment.data")
        found = masks.read(path, IMAGE, path)
        if known:
            masks.check_all()
            white = 1 if 255 in labels.values else IGNORE
            np.testing.assert_array_equal(found, np.where(stored, white, 0))
        else:
            with pytest.raises(TaskDataError, match=r"write 1, or set segment\.data\.class_values: \[0, 255\]"):
                masks.check_all()


def test_black_and_white_beside_numbers_is_not_guessed(tmp_path: Path) -> None:
    """In labels of change 255 is changed where nothing else is, and unknown beside 1: never both in one data set."""
    white = save(tmp_path / "a.tif", np.random.default_rng(0).choice([0, 255], (12, 10)).astype(np.uint8))
    numbers = save(tmp_path / "b.tif", np.random.default_rng(0).choice([0, 1, 255], (12, 10)).astype(np.uint8))
    for order in ((white, numbers), (numbers, white)):
        masks = Masks(FolderLabels(CHANGE_CLASSES), "detect_change.data", white_is_second=True)
        masks.read(order[0], IMAGE, order[0])
        with pytest.raises(TaskDataError, match=r"whether 255 is a class or unknown cannot be told"):
            masks.read(order[1], IMAGE, order[1])

"""Rasters of labels on the grid of an image: masks of class numbers, and values.

What says nothing, and what is unknown, is `IGNORE` or NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2mae.errors import RejectedError, plural
from a2mae.raster.statements import tagged_factors
from a2mae.raster.whole import WholeRaster, read_whole
from a2mae.tasks.datasets.pictures import ImageFile
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.task_data import IGNORE, TaskDataError, same_names


class Masks:
    """Reads the masks of a data set, and finds out whether they are pictures in black and white.

    Many tools write 0 and 255 for two classes, and many take 255 for "unknown": which of the two a mask means cannot
    be told from it alone.
    """

    def __init__(self, labels: FolderLabels, group: str, *, white_is_second: bool = False) -> None:
        """Prepare to read.

        Args:
            labels: What the masks' values stand for.
            group: The parameters that say so, for messages.
            white_is_second: 255 is the second class in masks that hold 0 and 255 alone.
        """
        self._labels = labels
        self._group = group
        self._white_is_second = white_is_second
        self._open = IGNORE not in (*labels.values, *labels.ignore)  # nobody has said what 255 is
        self._white: str | None = None
        self._other: tuple[str, int] | None = None

    def read(self, path: Path, picture: ImageFile, image: Path) -> npt.NDArray[np.uint8]:
        """Read the class numbers of a mask.

        Args:
            path: Of the mask.
            picture: Its image.
            image: Path of that.

        Returns:
            `(H, W)`; `IGNORE` where the mask holds nodata, NaN, nothing (by a mask or alpha band of its own), a value
            of `labels.ignore`, or 255 where that is no class.

        Raises:
            ReadError: If it cannot be opened or decoded.
            TaskDataError: If it has several bands, lies elsewhere than its image, calls one of the classes nodata, or
                holds fractions or numbers of no class.
        """
        try:
            raster = read_whole(path, 1)
        except RejectedError as rejection:
            raise TaskDataError(rejection.detail) from rejection
        colored = len(raster.stored) in (3, 4) and bool(self._labels.colors)
        if len(raster.stored) != 1 and not colored:
            raise TaskDataError(
                f"{path}: {raster.bands.count} bands; a mask has one band of class numbers (a palette may colour them),"
                f" or three of the classes' colours: for these name that of each class in {self._group}.class_colors"
            )
        check_grids(picture, raster, image, path)
        if colored:
            return self._of_colors(path, raster)
        self.check_nodata(path, raster.bands.nodata[0])
        return self.numbers(str(path), raster.stored[0], raster.seen)

    def _of_colors(self, path: Path, raster: WholeRaster) -> npt.NDArray[np.uint8]:
        """Read the classes of a mask of red, green and blue; what an alpha band hides is unknown."""
        labels = self._labels
        if alike := same_names(labels.class_names, lambda name: str(labels.colors[labels.class_names.index(name)])):
            raise TaskDataError(
                f"{path} has three bands, which are read by the classes' colours, and {self._group}.class_colors gives"
                f" {' and '.join(alike)} one colour (unchanged ground is white): give each its own"
            )
        red, green, blue = (band.astype(np.int64) for band in raster.stored[:3])
        stored = (red * 256 + green) * 256 + blue
        seen = raster.seen if len(raster.stored) == 3 else raster.seen & (raster.stored[3] > 0)
        numbers = np.full(stored.shape, IGNORE, np.uint8)
        colors = [(red * 256 + green) * 256 + blue for red, green, blue in labels.colors]
        for number, color in enumerate(colors):
            numbers[stored == color] = number
        strange = seen & ~np.isin(stored, colors)
        if strange.any():
            found, counts = np.unique(stored[strange], return_counts=True)
            classes = ", ".join(f"{name} #{color:06x}" for name, color in zip(labels.class_names, colors, strict=True))
            raise TaskDataError(
                f"{path}: {plural(int(strange.sum()), 'pixel')} of no class's colour, most of"
                f" #{found[counts.argmax()]:06x} (the classes are {classes}): name its class in"
                f" {self._group}.class_colors, and write the mask without loss (PNG, GeoTIFF) and blended edges"
            )
        numbers[~seen] = IGNORE
        return numbers

    def check_nodata(self, path: Path, nodata: float | None) -> None:
        """Reject a mask that calls one of the classes nodata.

        Args:
            path: Of the mask, for the message.
            nodata: As the file declares it.

        Raises:
            TaskDataError: With the class.
        """
        labels = self._labels
        if nodata is not None and nodata in labels.values:
            name = labels.class_names[labels.values.index(int(nodata))]
            raise TaskDataError(
                f"{path} says nodata {nodata:g}, which is class {name!r}: its pixels would be in neither training nor"
                f" score. Write the mask with nodata {IGNORE} or none: a scene's profile brings its own"
            )

    def numbers(self, shown: str, stored: npt.NDArray[Any], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        """Turn the values of a mask, or of one label, into class numbers.

        Args:
            shown: What holds them, for messages.
            stored: Values `(H, W)` or 0-d.
            seen: Of that shape: where they say something.

        Returns:
            As `read` does.

        Raises:
            TaskDataError: For fractions, and numbers of no class.
        """
        self._check(shown, stored[seen])
        numbers = np.full(stored.shape, IGNORE, np.uint8)
        for number, value in enumerate(self._labels.values):
            if value not in self._labels.ignore:
                numbers[stored == value] = number
        if self._white_is_second and self._open and self._white == shown:
            numbers[stored == IGNORE] = 1
        numbers[~seen] = IGNORE
        return numbers

    def _check(self, shown: str, seen: npt.NDArray[Any]) -> None:
        """Reject values of no class, and remember which masks hold 0 and 255 alone."""
        labels = self._labels
        found = np.unique(seen)
        fractions = found[found != np.floor(found)]
        strange = found[~np.isin(found, (*labels.values, *labels.ignore, IGNORE))]
        if fractions.size:
            raise TaskDataError(
                f"{shown}: labels {_listed(fractions)} are fractions, and a mask holds class numbers: a mask that was"
                " resampled (bilinear, cubic) or scaled to 0-1 looks like this; write it with nearest neighbour"
            )
        if strange.size:
            values = ", ".join(f"{value} {name}" for value, name in zip(labels.values, labels.class_names, strict=True))
            raise TaskDataError(
                f"{shown}: labels {_listed(strange)} are outside the {len(labels.values)} values {values} ({IGNORE} is"
                f" ignored): set {self._group}.first_class or {self._group}.class_values to the masks' own, or"
                f" {self._group}.ignore to those that are unknown"
            )
        if not self._open:
            return
        known = [int(value) for value in found if value != IGNORE]
        if IGNORE in found and not any(known):
            self._white = shown
        if any(known):
            self._other = shown, next(filter(None, known))
        if self._white_is_second and self._white and self._other:
            other, value = self._other
            raise TaskDataError(
                f"{self._white} holds 0 and 255 alone, {other} holds {value}: whether 255 is a class or unknown cannot"
                f" be told; set {self._group}.class_values: [0, {value}] and {self._group}.ignore: [255], or write the"
                " masks alike"
            )

    def add(self, other: Masks) -> None:
        """Take over what another reader of the same masks has found in them."""
        self._white, self._other = self._white or other._white, self._other or other._other

    def check_all(self) -> None:
        """Reject a data set in which nothing but 0 and 255 was found, once all of its masks were read.

        Raises:
            TaskDataError: It names a mask and both ways to say what 255 is.
        """
        if self._white is None or self._other is not None or self._white_is_second:
            return
        second = self._labels.class_names[1]
        raise TaskDataError(
            f"{self._white} and all other masks hold 0 and 255 alone: 255 is ignored, so nothing would be {second!r}."
            f" If they are pictures in black and white, write 1, or set {self._group}.class_values: [0, 255]; if 255 is"
            f" unknown indeed, set {self._group}.ignore: [255]"
        )


def read_values(path: Path, picture: ImageFile, image: Path) -> npt.NDArray[np.float32]:
    """Read the values of a raster on the grid of an image, by the scale and offset that it is tagged with.

    Args:
        path: Of the raster.
        picture: Its image.
        image: Path of that.

    Returns:
        `(H, W)`; NaN where the raster holds nodata, NaN or nothing (by a mask or alpha band of its own).

    Raises:
        ReadError: If it cannot be opened or decoded.
        TaskDataError: If it has several bands, or lies elsewhere than its image.
    """
    try:
        raster = read_whole(path, 1)
        scale, offset = tagged_factors(raster.bands, 1, str(path))
    except RejectedError as rejection:
        raise TaskDataError(rejection.detail) from rejection
    if len(raster.stored) != 1:
        raise TaskDataError(f"{path}: {raster.bands.count} bands; a raster of values has one")
    check_grids(picture, raster, image, path)
    values = raster.stored[0].astype(np.float32) * np.float32(scale)
    return np.where(raster.seen, values + np.float32(offset), np.float32(np.nan))


def check_grids(first: ImageFile | WholeRaster, second: ImageFile | WholeRaster, path: Path, other: Path) -> None:
    """Reject two files that are not pixel on pixel; one without a place is held against its size alone.

    Args:
        first: An image.
        second: Its mask, or its later date.
        path: Of the first, for messages.
        other: Of the second.

    Raises:
        TaskDataError: With what differs.
    """
    shape, other_shape = (np.shape(one.valid if isinstance(one, ImageFile) else one.seen) for one in (first, second))
    grid, other_grid = first.grid, second.grid
    if shape != other_shape:
        (h, w), (rows, columns) = shape, other_shape
        raise TaskDataError(f"{other}: {rows} x {columns} pixels, but {path.name} of it has {h} x {w}")
    if grid is None or other_grid is None:
        return
    if grid.crs != other_grid.crs:
        raise TaskDataError(f"{other} is in {other_grid.crs}, {path} in {grid.crs}: bring them onto one grid")
    one, two = grid.affine, other_grid.affine
    if not one.almost_equals(two, precision=abs(one.a) / 100):
        raise TaskDataError(
            f"{other} starts at {two.c:g}, {two.f:g} with pixels of {two.a:g}, {path} at {one.c:g}, {one.f:g} with"
            f" {one.a:g}: bring them onto one grid"
        )


def _listed(values: npt.NDArray[Any]) -> str:
    return ", ".join(f"{value:g}" for value in values[:8]) + (" …" if values.size > 8 else "")

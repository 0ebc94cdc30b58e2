"""Parameters of task data: where samples come from and what their labels stand for."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from a2mae.config import OnDiskPath, Parameters
from a2mae.errors import InputError, did_you_mean


def _hex_colour(value: object) -> str:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value
    hint = "; write the quotes, without them # begins a comment of YAML" if value is None else ""
    raise InputError(f"found {value!r}, expected a colour as red, green and blue in hexadecimal, as '#1f6fb4'{hint}")


def _class_name(value: object) -> object:
    if isinstance(value, bool):
        word = "yes, on or true" if value else "no, off or false"
        raise InputError(f"found {value}, expected a name: {word} without quotes is a truth value in YAML, quote it")
    if not isinstance(value, str):
        raise InputError(f"found {value!r}, expected a name: put a number or null that is one in quotes")
    return value


HexColour = Annotated[str, BeforeValidator(_hex_colour)]
"""A colour as `#rrggbb`; anything else is rejected with an example."""
ClassName = Annotated[str, BeforeValidator(_class_name)]
"""The name of a class; a bare `yes` or `no` of YAML is none."""
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**32)]
"""A number of a mask's pixel."""


SEASONS = ("winter", "spring", "summer", "autumn")
"""Of three months each, the first one's in December in the north and in June in the south."""
PER_YEAR = "per year"


def nearer_than_halfway(when: dt.datetime, date: dt.datetime, gap: dt.timedelta) -> bool:
    """Tell whether an image may stand in the set of one of two dates: it is nearer than half way to the other.

    Args:
        when: Of the image.
        date: The one of the two.
        gap: Between the two, of either sign.
    """
    return 2 * abs(when - date) < abs(gap)


def _check_named_once(key: str, found: tuple[str, ...]) -> None:
    if len(set(found)) < len(found):
        raise ValueError(f"{key} must be named once each, found {', '.join(found)}: leave out what is there twice")


class InputParameters(Parameters):
    """What a sample is: one image, or a set of images of one place."""

    images: int = Field(1, description="of a place in a sample, at most; 1: every image is a sample of its own")
    sensors: tuple[str, ...] = Field(
        (), description="whose images make up a set, the first one's grid is that of the labels; empty: as `data` says"
    )
    window: tuple[dt.date, dt.date] | str | None = Field(
        None, description="images of a set: [first day, last day], a season, per year (one set a year); null: all"
    )
    join: Literal["attention", "mean"] = Field(
        "attention", description="how the tokens of one place are joined over the images of a set"
    )

    @model_validator(mode="before")
    @classmethod
    def _window_is_known(cls, values: object) -> object:
        window = values.get("window") if isinstance(values, Mapping) else None
        named = (*SEASONS, PER_YEAR)
        if window is None or window in named or (isinstance(window, list | tuple) and len(window) == 2):
            return values
        near = did_you_mean(window, named) if isinstance(window, str) else ""
        raise ValueError(
            f"window must be [first day, last day] or one of {', '.join(named)}, found {window!r}"
            + (f": {near.strip()}" if near else "")
        )

    @model_validator(mode="after")
    def _a_set_has_several_images(self) -> InputParameters:
        if not 1 <= self.images <= 32:
            raise ValueError(f"images must lie between 1 (no sets) and 32, found {self.images}")
        stated = [key for key in ("sensors", "window") if getattr(self, key)]
        if self.images == 1 and stated:
            told = " and ".join(stated)
            raise ValueError(
                f"{told} choose the images of a set, and images is 1: set it to 2 or more, or leave {told} out"
            )
        _check_named_once("sensors", self.sensors)
        if isinstance(self.window, tuple) and self.window[1] < self.window[0]:
            raise ValueError(f"window must not end ({self.window[1]}) before it starts ({self.window[0]}): swap them")
        return self

    @property
    def is_set(self) -> bool:
        """Whether a sample is a set of images."""
        return self.images > 1

    @property
    def one_period(self) -> bool:
        """Whether all images of a place are of one period."""
        return self.window is None or isinstance(self.window, tuple)

    def period(self, day: dt.date, lat: float) -> str | None:
        """Name the period whose images make up one set.

        Args:
            day: Of an image.
            lat: Of its place, degrees: the south has its seasons half a year later.

        Returns:
            The year of a season or of the calendar, or the same for all; None where the day is in no window.
        """
        if isinstance(self.window, tuple):
            return "window" if self.window[0] <= day <= self.window[1] else None
        if self.window == PER_YEAR:
            return str(day.year)
        if self.window is None:
            return "all"
        month = (day.month % 12 + (6 if lat < 0 else 0)) % 12  # 0 is the first month of winter
        if SEASONS[month // 3] != self.window:
            return None
        return f"{self.window} {day.year + (day.month == 12)}"

    def __str__(self) -> str:
        """Say which images make up a set, as part of a sentence."""
        if isinstance(self.window, tuple):
            return f"from {self.window[0]} to {self.window[1]}"
        return {None: "of all days", PER_YEAR: "of one year"}.get(self.window, f"of one {self.window}")


class CutParameters(Parameters):
    """How samples are cut from the image-set store."""

    sensors: tuple[str, ...] = Field(
        ("sentinel-2-l2a",), min_length=1, description="whose images are used; all are brought to the first one's grid"
    )
    bands: tuple[str, ...] = Field(
        ("blue", "green", "red", "nir", "swir16", "swir22"),
        min_length=1,
        description="common names of the bands that are stored; every sensor must have them",
    )
    chip_px: int = Field(96, ge=16, le=1024, description="side of a sample on the first sensor's grid, pixels")
    min_valid: float = Field(0.8, ge=0, le=1, description="usable share of a sample, else it is left out")
    pairs_per_place: int = Field(2, ge=1, description="two dates: pairs per place at most")
    inputs: InputParameters = Field(
        default_factory=lambda: InputParameters.model_validate({}), description="one image per sample, or an image set"
    )
    max_train: int | None = Field(None, ge=1, description="label budget: training samples at most; null: all")
    max_test: int | None = Field(None, ge=1, description="test and validation samples at most, each; null: all")

    @model_validator(mode="after")
    def _named_once(self) -> CutParameters:
        for key, found in (("sensors", self.sensors), ("bands", self.bands)):
            _check_named_once(key, found)
        return self


class SimulatedDataParameters(CutParameters):
    """How samples are cut where the simulated truth gives the labels."""

    moved: ClassVar[Mapping[str, str]] = {"stride_px": "chip_px alone: samples do not overlap"}

    min_purity: float = Field(0.5, gt=0, le=1, description="classification: share of the sample that its class covers")
    cross_sensor: bool = Field(False, description="change: pairs may come from two sensors")


class ArchiveParameters(CutParameters):
    """How samples are cut where labels of one's own lie on the image sets."""

    start: dt.date | None = Field(None, description="images of this day and later ones; null: from the first")
    end: dt.date | None = Field(None, description="images of this day and earlier ones; null: up to the last")
    allow_future: bool = Field(
        False, description="labels may be later than the image, so that what will be is learnt from what is"
    )

    @model_validator(mode="after")
    def _window_is_one(self) -> ArchiveParameters:
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"end ({self.end}) must not be before start ({self.start})")
        return self


class TorchgeoParameters(Parameters):
    """How a data set of torchgeo that is not known by name becomes task data; units and labels are as `data` says."""

    moved: ClassVar[Mapping[str, str]] = {"first_class": "data.first_class", "unlabelled": "data.ignore"}

    splits: dict[str, Literal["train", "val", "test"]] = Field(
        {},
        description="torchgeo's split -> ours; empty: its class takes none, scenes are split by a hash of their names",
    )
    arguments: dict[str, str | int | float | bool | tuple[str, ...]] = Field(
        {}, description="further ones of its class, as its bands"
    )
    multi_label: bool = Field(False, description="classification: labels are 0 or 1 for every class")

    @model_validator(mode="after")
    def _train_and_test(self) -> TorchgeoParameters:
        if self.splits and not {"train", "test"} <= set(self.splits.values()):
            raise ValueError(f"splits must lead to train and test, found {', '.join(self.splits.values())}")
        reserved = {"root", "split", "download", "transforms"} & self.arguments.keys()
        if reserved:
            raise ValueError(f"arguments must leave out what is decided elsewhere: {', '.join(sorted(reserved))}")
        return self


class FilesParameters(Parameters):
    """What image files hold, where they do not say it themselves, and what is cut of them."""

    format: str = Field("rgb_bytes", description="what the folder's files hold: rgb_bytes, eurosat_ms, or a sensor id")
    file_bands: tuple[str, ...] = Field(
        (), description="bands in the files' order; empty: as they are described, else all of the format's"
    )
    gsd_m: float | None = Field(
        None, gt=0, description="metres per pixel; null: as the files are georeferenced, else the format's"
    )
    scale: float | None = Field(
        None,
        ge=1e-12,
        le=1e12,
        description="physical units per count of the files; null: as they are tagged, else the format's",
    )
    offset: float | None = Field(
        None,
        ge=-1e12,
        le=1e12,
        description="physical value of a file's zero; null: as they are tagged, else the format's",
    )
    chip_px: int | None = Field(None, ge=16, le=2048, description="scenes are cut to this side; null: as the first is")
    resize: bool = Field(
        False,
        description="of whole images: the middle square becomes chip_px, its GSD with it; false: cut",
    )


class PicturesParameters(FilesParameters):
    """Which files are pictures to pretrain on."""

    folder: OnDiskPath = Field(
        None, description="pictures, in folders of any depth; train/, val/ and test/ or labels.csv may say the splits"
    )
    max_files: int | None = Field(None, ge=10, description="use so many, spread by a hash of their names; null: all")


class DataParameters(FilesParameters):
    """Where a task's data comes from."""

    folder: OnDiskPath = Field(
        None,
        description="a folder per class or labels.csv; images/ with masks/ or labels/; A/ B/ label/; im1/ im2/ label1/"
        " label2/; a data set's root",
    )
    labels: OnDiskPath = Field(
        None,
        description="labels on this environment's own image sets: polygons or points (.gpkg, .shp, .parquet, .geojson,"
        " .csv of lon, lat) or a raster of class numbers or values",
    )
    dataset: str | None = Field(None, description="a benchmark by torchgeo's class name, which lies in `folder`")
    torchgeo: TorchgeoParameters | None = Field(
        None,
        description="how to read a data set of torchgeo that has no mapping here; its numbers are as `format` says",
    )
    class_names: tuple[ClassName, ...] = Field(
        (), description="what the masks' values 0, 1, … stand for; the classes of a labels.csv, empty: all it names"
    )
    first_class: int = Field(
        0, ge=0, le=255, description="masks, torchgeo: the value of the first class, as 1 where 0 is none"
    )
    class_values: tuple[MaskValue, ...] = Field(
        (), description="likewise: the value of each class, as [0, 255]; empty: counted from first_class"
    )
    ignore: tuple[MaskValue, ...] = Field(
        (), description="likewise: values that stand for no class, beside 255: neither trained on nor scored"
    )
    class_colors: dict[str, HexColour] = Field(
        {},
        description="class name -> '#rrggbb' in maps and pictures; the other classes have colours of the program's."
        " Where all are named, masks of three bands are read by them",
    )
    multi_label: bool | None = Field(
        None, description="labels.csv: an image may have any number of classes; null: unless every line names just one"
    )
    class_property: str = Field("class", description="polygons: the attribute of a feature that holds its class name")
    value_property: str = Field(
        "value", description="values: the column of labels.csv or the attribute of a feature; names what is estimated"
    )
    units: str = Field("", max_length=32, description="of the values, as m or t/ha; they stand beside every figure")
    outside: str = Field(
        "unknown", description="polygons: class of the ground in none of them; unknown: neither trained on nor scored"
    )
    groups: OnDiskPath = Field(
        None, description="a CSV with the column `name` (of images or places) and others, as event: scores by group"
    )
    buffer_m: float | None = Field(
        None, gt=0, description="points and lines stand for the ground within so many metres; null: they are rejected"
    )
    archive: ArchiveParameters = Field(
        default_factory=lambda: ArchiveParameters.model_validate({}), description="cut where `labels` lie"
    )
    simulated: SimulatedDataParameters = Field(
        default_factory=lambda: SimulatedDataParameters.model_validate({}), description="cut from the simulated truth"
    )

    @property
    def inputs(self) -> InputParameters:
        """What a sample is: as its cut says; files have one image, or two of a pair."""
        if self.folder is not None or self.dataset is not None:
            return InputParameters.model_validate({})
        return (self.simulated if self.labels is None else self.archive).inputs

    @model_validator(mode="after")
    def _classes_are_told_apart(self) -> DataParameters:
        _check_named_once("class_names", self.class_names)
        return self

    @model_validator(mode="after")
    def _values_are_those_of_classes(self) -> DataParameters:
        classes = len(self.class_names) or 2  # of a change
        if self.class_values and (len(set(self.class_values)) != classes or len(self.class_values) != classes):
            raise ValueError(f"class_values must be {classes} different numbers, one per class")
        if self.class_values and self.first_class:
            raise ValueError("state first_class or class_values, not both")
        both = set(self.ignore) & set(self.class_values or range(self.first_class, self.first_class + classes))
        if both:
            raise ValueError(
                f"ignore names {', '.join(map(str, sorted(both)))}, which is the value of a class: where masks count"
                " classes from 1, set first_class: 1"
            )
        return self

    @model_validator(mode="after")
    def _labels_have_one_place(self) -> DataParameters:
        if self.labels is not None and (self.folder is not None or self.dataset is not None):
            other = "folder" if self.folder is not None else "dataset"
            raise ValueError(f"labels lie on the image sets, and {other} names other images: set one of them to null")
        return self

    @model_validator(mode="after")
    def _files_are_no_sets(self) -> DataParameters:
        if self.archive.inputs.is_set and (self.folder is not None or self.dataset is not None):
            named = "folder" if self.folder is not None else "dataset"
            raise ValueError(
                f"archive.inputs makes sets of {self.archive.inputs.images} images of this environment's image sets,"
                f" and a sample of {named} is as its files are: leave archive.inputs out, or set {named} to null"
            )
        return self

    @model_validator(mode="after")
    def _outside_is_a_class(self) -> DataParameters:
        if self.outside not in ("unknown", *self.class_names):
            known = ", ".join(self.class_names) or "none"
            raise ValueError(f"outside must be unknown or one of class_names ({known}), found '{self.outside}'")
        return self

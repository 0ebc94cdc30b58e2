"""The base of all parameter groups, and the groups that several stages share.

A group is closed and frozen: a mistyped key is refused with the nearest real one before any node runs. Groups live
apart from the code they steer, so that listing pipelines imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from a2mae.errors import InputError, did_you_mean, names_nothing


@dataclass(frozen=True)
class OnDisk:
    """Marks a field whose value names a file or folder of the user's."""


TO_STATE = "???"
"""Stands in a file of parameters where somebody has to state a value before the stage can run (`a2mae init`)."""

ComputePrecision = Literal["32-true", "bf16-mixed"]
"""What a model computes in."""
Precision = Literal["auto", "32-true", "bf16-mixed"]
"""The same before it is decided: `auto` is, where the model runs (`models.precision`)."""


def _path(value: str) -> str:
    if why := names_nothing(value):
        raise ValueError(f"{value!a} {why}")
    return value


def _path_or_none(value: str | None) -> str | None:
    if value is not None and (why := names_nothing(value)):
        raise ValueError(f"{value!a} {why}, or null where no file is meant")
    return value


OptionalPath = Annotated[str | None, AfterValidator(_path_or_none)]
"""A text that can be a path; None: not used."""
OnDiskPath = Annotated[OptionalPath, OnDisk()]
"""A file or folder of the user's that must be there when a run starts; None: not used."""
NeededPath = Annotated[str, AfterValidator(_path), OnDisk()]
"""The same where there is no group without it."""


def problems_of(error: ValidationError) -> str:
    """Say what is wrong, each with its place in the file."""
    told = []
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            told.append(f"{place!r} is missing")
        elif problem["type"] == "value_error":  # one of ours, which says what it found
            told.append(f"{place!r}: {message}" if place else message)
        else:
            told.append(f"{place!r}: {message}, found {type(problem['input']).__name__} {problem['input']!r:.60}")
    return "; ".join(told)


_Kind = TypeVar("_Kind")
_reader: Callable[..., TypeAdapter[Any]] = lru_cache(TypeAdapter)


def read_back(kind: type[_Kind], found: object, source: str) -> _Kind:
    """Make a dataclass of what `dataclasses.asdict` and JSON have left of it; the file may be anybody's.

    Args:
        kind: The dataclass.
        found: What the file holds.
        source: Of it, for the message: the file and the place in it.

    Raises:
        InputError: Naming each field that is missing, unknown, of another type, or has a value that cannot be meant.
    """
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a type of a dataclass
    if unknown := [key for key in found if key not in fields] if isinstance(found, dict) else []:
        raise InputError(f"{source}: {unknown[0]!r:.80} is unknown; there are {', '.join(fields)}")
    try:
        return cast(_Kind, _reader(kind).validate_json(json.dumps(found), strict=True))
    except ValidationError as error:
        raise InputError(f"{source}: {problems_of(error)}") from error


_Group = TypeVar("_Group", bound="Parameters")


def validated(kind: type[_Group], groups: Mapping[str, object], name: str, **given: object) -> _Group:
    """Validate a group of parameters outside of a run of Kedro, which tells by itself what is wrong.

    Args:
        kind: Its model.
        groups: Parameters by group, as Kedro reads them.
        name: Of the group.
        given: Values that stand before those of the group.

    Raises:
        InputError: If the group is not there, or has a value that cannot be.
    """
    values = groups.get(name)
    if not isinstance(values, Mapping):
        raise InputError(f"the parameter group {name} is missing, or holds no keys: conf/base states it")
    try:
        return kind.model_validate({**values, **given})
    except ValidationError as error:
        raise InputError(f"{name}: {problems_of(error)}") from error


class Parameters(BaseModel):
    """A validated group of parameters; subclasses declare its fields.

    Kedro validates the annotated arguments of all nodes when the run starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    moved: ClassVar[Mapping[str, str]] = {}
    """Former keys, and what has taken their place."""

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_neighbours(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 (whatever the YAML held)
        """Name unknown keys with their neighbours, together with everything else that is wrong in the group."""
        if not isinstance(values, dict):
            return handler(values)
        fields = list(cls.model_fields)
        problems = [_problem(cls._unknown(key, fields), values[key]) for key in values if key not in fields]
        to_state = [key for key, value in values.items() if value == TO_STATE and key in fields]
        if to_state:
            owner = f"{values['name']!r}: " if isinstance(values.get("name"), str) else ""
            told = "; ".join(f"'{key}' ({cls.model_fields[key].description})" for key in to_state)
            raise ValueError(f"{owner}still to be stated in place of {TO_STATE}: {told}")
        known = {key: _from_home(value) for key, value in values.items() if key in fields}
        if not problems:
            return handler(known)
        try:
            handler(known)
        except ValidationError as error:
            meant = " ".join(str(problem["type"]) for problem in problems)
            problems += [
                _problem(one["msg"], one["input"], one["loc"])
                for one in error.errors(include_url=False)
                if one["type"] != "missing" or f"did you mean {one['loc'][0]!r}" not in meant
            ]
        raise ValidationError.from_exception_data(cls.__name__, problems)

    @classmethod
    def _unknown(cls, key: str, fields: Sequence[str]) -> str:
        if key in cls.moved:
            return f"parameter '{key}' is gone; set {cls.moved[key]}"
        return f"unknown parameter '{key}': {did_you_mean(key, fields)}{cls.__name__} has {', '.join(fields)}"

    def named_paths(self) -> Iterator[tuple[str, str]]:
        """Yield every `OnDiskPath` that is set, here and in groups within: its key with dots, and its value."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Parameters):
                yield from ((f"{name}.{key}", path) for key, path in value.named_paths())
            elif isinstance(value, tuple):
                for index, item in enumerate(value):
                    if isinstance(item, Parameters):
                        yield from ((f"{name}.{index}.{key}", path) for key, path in item.named_paths())
            elif value is not None and any(isinstance(mark, OnDisk) for mark in field.metadata):
                yield name, value


class WorkerParameters(Parameters):
    """Who does work that falls into many pieces; the result has the same bytes whoever does it."""

    workers: int = Field(default=0, ge=0, le=256, description="Local processes; 0: one per core.")
    dask_scheduler: str | None = Field(
        default=None, description="Dask cluster to use instead: its address, tcp://…, or `local`"
    )


def _problem(message: str, value: object, place: tuple[str | int, ...] = ()) -> InitErrorDetails:
    return InitErrorDetails(
        type=PydanticCustomError("value_error", "{told}", {"told": message.removeprefix("Value error, ")}),
        loc=place,
        input=value,
    )


def _from_home(value: object) -> object:
    """Replace the `~` that begins a path, which only a shell would; lists are gone through."""
    if isinstance(value, list | tuple):
        return [_from_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


@lru_cache(maxsize=64)
def load_function(spec: str, where: str) -> Callable[..., Any]:
    """Import a function that a parameter names.

    Args:
        spec: `package.module:function`.
        where: The parameter, for messages.

    Raises:
        InputError: If it cannot be imported or is no function.
    """
    module, _, name = spec.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{where}: {spec!r} cannot be imported as package.module:function ({error}); install its package, or"
            " put its folder on PYTHONPATH"
        ) from error
    if not callable(function):
        raise InputError(f"{where}: {spec!r} is not a function")
    return function  # type: ignore[no-any-return]


class MaskFunctionParameters(Parameters):
    """A function of the user's own that tells clouds (`a2mae.raster.masks.MaskInput` says what it is given)."""

    sensors: tuple[str, ...] = Field(min_length=1, description="Sensor ids or patterns such as `sentinel-2-*`.")
    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:function, MaskInput -> (H, W) array."
    )
    bands: tuple[str, ...] = Field(
        default=(), description="Bands that it is given, by name or common name; empty: all of the sensor's."
    )

    @field_validator("function")
    @classmethod
    def _importable(cls, function: str) -> str:
        load_function(function, "coregister.clouds.functions")
        return function


class CloudParameters(Parameters):
    """How clouds and shadows are told."""

    probability_threshold: float = Field(default=0.4, ge=0, le=1, description="Cloud probability that counts as cloud.")
    brightness_threshold: float = Field(
        default=0.35, gt=0, description="Brightness test: least reflectance of the darkest visible band of a cloud."
    )
    whiteness_threshold: float = Field(
        default=0.3, gt=0, description="Brightness test: largest spread of the visible bands relative to their mean."
    )
    buffer_m: float = Field(default=30.0, ge=0, description="Clouds and shadows are widened by this many metres.")
    functions: tuple[MaskFunctionParameters, ...] = Field(
        default=(),
        description="Functions of your own instead of masks and tests; the first that fits a sensor is used.",
    )


class RegistrationParameters(Parameters):
    """When images are moved, and how far at most. Pixels are those of the coarser sensor of a pair."""

    enabled: bool = Field(default=True, description="False keeps every provider's position (flagged nominal).")
    max_shift_px: float = Field(
        default=3.5, gt=0, le=16, description="Search range; a peak at its edge is not believed."
    )
    max_error_px: float = Field(
        default=0.2, gt=0, description="Largest jackknife standard error that counts as registered."
    )
    min_significance: float = Field(
        default=5.5, ge=0, description="Height of the peak above the other lags, in their standard deviations."
    )
    min_known_fraction: float = Field(
        default=0.15, gt=0, le=1, description="Share of the footprint that both must show clearly."
    )
    pool_locations: int = Field(
        default=3, ge=1, description="A scene's shift is the median over its locations where at least so many agree."
    )

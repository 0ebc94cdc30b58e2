"""JSON to frozen dataclasses and back, strictly: what is not understood is refused with its place in the file.

Training runs where pydantic is not installed, so the few rules that its run specification needs are here: closed keys,
exact types, and the bounds that a field declares as `field(metadata={"ge": 1})`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")
Scalar = str | int | float | bool | None
"""What an open mapping (a model's options) may hold."""


class SpecificationError(ValueError):
    """A specification that cannot be meant; the message names the key, what was found and what is expected."""


def to_json(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Turn a dataclass into plain JSON values.

    Args:
        value: A dataclass instance or a value of one of its fields.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: object, *, at: str = "") -> T:
    """Build a dataclass from JSON values.

    Args:
        kind: A frozen dataclass whose fields are scalars, `Literal`s, tuples, scalar mappings or such dataclasses.
        data: What the JSON file held.
        at: Where in the file `data` stands, for messages.

    Raises:
        SpecificationError: If a key is unknown or missing, a value has another type or is out of bounds.
    """
    if not isinstance(data, Mapping):
        raise SpecificationError(f"{repr(at) if at else 'the specification'} must be an object, found {_name(data)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SpecificationError(f"unknown key {_join(at, str(key))!r}: {hint}keys here are {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    values: dict[str, object] = {}
    for name, field in fields.items():
        place = _join(at, name)
        if name in data:
            values[name] = _value(hints[name], data[name], place)
            _check_bounds(values[name], field.metadata, place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SpecificationError(f"key {place!r} is missing")
    return kind(**values)


def check_bounds(instance: object, *, at: str = "") -> None:
    """Check the declared bounds of a dataclass built in Python, and of those inside it.

    Raises:
        SpecificationError: If a value is out of bounds.
    """
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, field.name)
        _check_bounds(value, field.metadata, _join(at, field.name))
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                check_bounds(item, at=_join(at, field.name))


def _value(hint: Any, data: object, at: str) -> object:  # noqa: ANN401 (a type hint has no type of its own)
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _value(hint, data, at)
    if origin is Literal:
        if data not in arguments:
            raise SpecificationError(f"{at!r} must be one of {', '.join(map(repr, arguments))}, found {data!r}")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise SpecificationError(f"{at!r} must be a list, found {_name(data)}")
        inner = arguments[:1] * len(data) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(data):
            raise SpecificationError(f"{at!r} must have {len(inner)} entries, found {len(data)}")
        return tuple(_value(kind, item, f"{at}[{i}]") for i, (kind, item) in enumerate(zip(inner, data, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise SpecificationError(f"{at!r} must be an object, found {_name(data)}")
        for key, item in data.items():
            if not isinstance(item, (str, int, float, bool, type(None))):
                raise SpecificationError(
                    f"{_join(at, str(key))!r} must be a string, number or flag, found {_name(item)}"
                )
        return dict(data)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), data, at=at)
    if hint is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        if not math.isfinite(data):
            raise SpecificationError(f"{at!r} must be a finite number, found {data!r}")
        return float(data)
    if type(data) is not hint:
        raise SpecificationError(f"{at!r} must be {hint.__name__}, found {_name(data)}")
    return data


def _check_bounds(value: object, metadata: Mapping[Any, Any], at: str) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, (int, float)):
            continue
        for rule, (sign, holds) in _RULES.items():
            if rule in metadata and not holds(item, metadata[rule]):
                raise SpecificationError(f"{at!r} must be {sign} {metadata[rule]}, found {item}")


_RULES: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _name(data: object) -> str:
    return f"{type(data).__name__} {data!r:.60}"

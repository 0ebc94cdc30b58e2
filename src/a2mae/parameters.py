"""The base of every parameter group: closed, frozen, and helpful when a key is mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, model_validator


@dataclass(frozen=True)
class OnDisk:
    """Marks a field whose value names a file or folder of the user's."""


OnDiskPath = Annotated[str | None, OnDisk()]
"""A file or folder of the user's that must be there when a run starts; None: not used."""


class Parameters(BaseModel):
    """A validated group of parameters.

    Subclasses declare their fields; a key that no field has is refused with the nearest real keys, before any node
    runs (Kedro validates the annotated arguments of all nodes when the run starts).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_neighbours(cls, values: Any) -> Any:  # noqa: ANN401 (pydantic hands in whatever the YAML held)
        if isinstance(values, dict):
            fields = list(cls.model_fields)
            for key in values:
                if key not in fields:
                    near = difflib.get_close_matches(str(key), fields, n=1)
                    hint = f"did you mean '{near[0]}'? " if near else ""
                    raise ValueError(f"unknown parameter '{key}': {hint}{cls.__name__} has {', '.join(fields)}")
        return values

    def named_paths(self) -> Iterator[tuple[str, str]]:
        """Every `OnDiskPath` that is set, here and in groups within: its key with dots, and its value."""
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

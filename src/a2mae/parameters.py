"""The base of every parameter group: closed, frozen, and helpful when a key is mistyped."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


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

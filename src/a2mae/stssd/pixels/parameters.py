"""Parameters of clouds and shadows: apart from the code they steer, so that listing pipelines stays light."""

from __future__ import annotations

from pydantic import Field, field_validator

from a2mae.parameters import Parameters
from a2mae.stssd.extensions import load_function


class MaskFunctionParameters(Parameters):
    """A function of the user's own that tells clouds (`a2mae.stssd.pixels.masks.MaskInput` says what it is given)."""

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

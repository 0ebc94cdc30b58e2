"""Parameters of clouds and registration: apart from the code they steer, so that listing pipelines stays light."""

from __future__ import annotations

from pydantic import Field, field_validator

from a2mae.parameters import Parameters
from a2mae.stssd.extensions import load_function


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


class MaskFunctionParameters(Parameters):
    """A function of the user's own that tells clouds (`a2mae.stssd.masks.MaskInput` says what it is given)."""

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

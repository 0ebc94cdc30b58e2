"""Parameters of clouds and registration: apart from the code they steer, so that listing pipelines stays light."""

from __future__ import annotations

from pydantic import Field

from a2mae.parameters import Parameters


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

"""Parameters of registration: apart from the code they steer, so that listing pipelines stays light."""

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

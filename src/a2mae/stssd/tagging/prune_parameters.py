"""The `prune` group of parameters."""

from __future__ import annotations

from pydantic import Field

from a2mae.parameters import Parameters


class PruneParameters(Parameters):
    """Balance the training sets by what they show."""

    enabled: bool = Field(default=True, description="False keeps every set (clusters are still found).")
    clusters: int = Field(default=64, ge=1, description="At most so many; never more than a fifth of the sets.")
    keep_fraction: float = Field(
        default=0.8, gt=0, le=1, description="Share of the training sets to keep: decides the cap per cluster."
    )
    max_per_cluster: int | None = Field(default=None, ge=1, description="The cap itself; null: from keep_fraction.")
    hard_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Of a full cluster's places, the share for its hardest sets; the rest is drawn.",
    )
    homogeneous_quantile: float = Field(
        default=0.25, ge=0, le=1, description="Clusters below this quantile of heterogeneity keep hard sets only."
    )
    seed: int = Field(default=0, ge=0, description="Of clustering and drawing.")

"""Which datasets of the builder a chain makes: stages that can do without them read what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BUILT = {"tag": ("image_sets", "images", "sets", "locations"), "simulate": ("simulation", "simulation_folder")}
"""What the builder and the simulation write, by the stage of the chain; tasks cut their samples from it."""
SURVEYED = {"ingest": ("scenes", "sensors")}
"""Likewise, what maps are drawn of."""


def of_chain(made: Mapping[str, Sequence[str]], chain: Sequence[str] | None) -> tuple[str, ...]:
    """The datasets that a chain makes: labels of one's own and a pretrained model need no image sets.

    Args:
        made: Datasets by stage.
        chain: Stages of the environment; None: all.
    """
    return tuple(name for stage, names in made.items() if chain is None or stage in chain for name in names)

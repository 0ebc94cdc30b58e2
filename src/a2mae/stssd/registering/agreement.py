"""Comparisons of one pair of scenes at several places measure the same number: what they agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from a2mae.stssd.registering.parameters import RegistrationParameters
from a2mae.stssd.registering.registration import Match

_AGREE_PX = 0.35  # of the coarser sensor
_ERROR_FLOOR_PX = 0.02


@dataclass(frozen=True)
class Agreement:
    """Where a scene lies relative to another.

    Attributes:
        move_m: (east, north): how far it has to be moved, metres.
        weight: Of the move, 1 / m².
        places: How many agree on it.
    """

    move_m: tuple[float, float]
    weight: float
    places: int


def trusted(found: Match, coarser_gsd_m: float, settings: RegistrationParameters) -> bool:
    """Whether a comparison tells anything.

    Args:
        found: The comparison.
        coarser_gsd_m: Of the pair's coarser sensor.
        settings: What is asked of it.
    """
    return (
        not found.at_edge
        and found.error_m <= settings.max_error_px * coarser_gsd_m
        and found.significance >= settings.min_significance
        and found.known_fraction >= settings.min_known_fraction
    )


def agreement(
    moves_m: Sequence[tuple[float, float]], errors_m: Sequence[float], coarser_gsd_m: float, *, min_places: int
) -> Agreement | None:
    """The move that trusted comparisons agree on, weighted by their errors.

    Args:
        moves_m: (east, north) of each comparison.
        errors_m: Their standard errors.
        coarser_gsd_m: Of the pair's coarser sensor.
        min_places: At least so many must agree, and half of all.

    Returns:
        None where they do not agree.
    """
    if not moves_m:
        return None
    moves = np.array(moves_m)
    agree = np.hypot(*(moves - np.median(moves, axis=0)).T) <= _AGREE_PX * coarser_gsd_m
    if agree.sum() < max(min_places, math.ceil(len(moves) / 2)):
        return None
    weights = 1 / np.maximum(np.array(errors_m)[agree], _ERROR_FLOOR_PX * coarser_gsd_m) ** 2
    east, north = np.average(moves[agree], axis=0, weights=weights).tolist()
    return Agreement((east, north), float(weights.sum()), int(agree.sum()))

"""What can be wrong with the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class CheckpointError(ValueError):
    """A model file or directory that cannot be read, and why."""


def describe_difference(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> str:
    """What differs between the tensors a model has and those it is given; empty if nothing does."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != expected[name]
    ]
    parts = [
        f"{title} {len(names)}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("not known", extra), ("other shape", shapes))
        if names
    ]
    return "; ".join(parts)

"""a2mae: from satellite scenes to a foundation model of your own.

The rooms are described in `docs/architecture.md`. Importing the package is cheap: nothing here loads torch,
rasterio or Kedro before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2mae.models import load_encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder"]


def __getattr__(name: str) -> object:
    """Resolve `a2mae.load_encoder` on first use, so that `import a2mae` stays free of torch."""
    if name == "load_encoder":
        from a2mae.models import load_encoder

        return load_encoder
    raise AttributeError(f"module 'a2mae' has no attribute {name!r}")

"""A world small enough for a test's fixture."""

from __future__ import annotations

from pathlib import Path

from a2mae.simulate.delivery.manifest import Manifest
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate


def tiny_parameters(seed: int = 0) -> SimulateParameters:
    """One temperate region of 2 x 2 footprints: Sentinel-2 and Landsat before and after, Gaofen-1 once."""
    before, after = AcquisitionParameters(period="before"), AcquisitionParameters(period="after")
    return SimulateParameters(
        seed=seed,
        workers=1,
        change_share=0.08,
        regions=(
            RegionParameters(
                name="tiny", lon=12.3, lat=51.9, biome="temperate_plain", footprints=2, gaofen1_footprints=2
            ),
        ),
        acquisitions={
            "sentinel-2-l2a": (before, after.model_copy(update={"cloud": 0.12})),
            "landsat-oli-c2-l2": (before, after),
            "gaofen-1": (after,),
        },
    )


def write_tiny_world(path: Path, seed: int = 0) -> Manifest:
    """Write the tiny world (about 2 s, 10 MB) and return its manifest.

    Args:
        path: Folder; `path / "catalog.json"` is the STAC catalog.
        seed: Another seed is another landscape.
    """
    return simulate(tiny_parameters(seed), path)

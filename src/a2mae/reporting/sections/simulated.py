"""The simulated Earth: what was made up, so that later figures can be held against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.inputs import ReportInputs


def regions_and_scenes(manifest: Mapping[str, object]) -> tuple[list[Mapping[str, object]], list[Mapping[str, object]]]:
    """The regions and the scenes of a simulation's manifest (`simulate/delivery/manifest.py`)."""
    regions = cast("Sequence[Mapping[str, object]]", manifest["regions"])
    return list(regions), list(cast("Sequence[Mapping[str, object]]", manifest["scenes"]))


def simulated(inputs: ReportInputs) -> Section | None:
    """Regions with their biome, scenes and share of changed ground."""
    if inputs.simulation is None:
        return None
    regions, scenes = regions_and_scenes(inputs.simulation)
    spoilt = [str(scene["scene_id"]) for scene in scenes if scene["refuse"]]
    used = 0 if inputs.images is None else int(inputs.images["scene_id"].isin(spoilt).sum())
    rows = tuple(
        (
            str(region["name"]),
            str(region["biome"]).replace("_", " "),
            text.position(cast(float, region["lon"]), cast(float, region["lat"])),
            text.count(sum(scene["region"] == region["name"] for scene in scenes)),
            text.percent(cast(float, region["changed_share"])),
        )
        for region in regions
    )
    return Section(
        "simulated",
        "Regions",
        f"Every scene's true shift, clouds, land cover and changes are known. {text.plural(len(spoilt), 'scene')} of"
        f" {text.count(len(scenes))} were spoilt on purpose; {text.plural(used, 'image')} of them came into a set (a"
        " sound chain takes none).",
        (
            Table(
                "The regions",
                ("region", "biome", "centre", "scenes", "ground that changes"),
                rows,
                numeric=(3, 4),
            ),
        ),
    )

"""Scenes: simulated, accepted and rejected, and scenes with implausible values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from a2mae.errors import plural
from a2mae.plausibility import OFFSET_ADVICE, implausible_ranges, suspicious_offsets
from a2mae.report import text
from a2mae.report.blocks import Section, Table
from a2mae.report.inputs import ReportInputs, records

if TYPE_CHECKING:
    import pandas as pd

_MAX_ROWS = 300


def rejected_scenes(inputs: ReportInputs) -> Section | None:
    """Count by reason and list the scenes that `ingest` rejected."""
    return _rejected(inputs.refused_scenes, "rejected-scenes", "scene")


def rejected_images(inputs: ReportInputs) -> Section | None:
    """Count by reason and list the images that `coregister` rejected."""
    return _rejected(inputs.rejected_images, "rejected-images", "image")


def accepted_scenes(inputs: ReportInputs) -> pd.DataFrame | None:
    """Select the scenes that later stages use: the table also lists rejected ones and those without a location."""
    scenes, rejected = inputs.scenes, inputs.refused_scenes
    if scenes is None:
        return None
    accepted = scenes[scenes["status"] == "accepted"]
    if rejected is None:
        return accepted
    return accepted[~accepted["scene_id"].isin(rejected.loc[rejected["reason"] == "no_location", "scene_id"])]


def unwanted_scenes(inputs: ReportInputs) -> pd.DataFrame | None:
    """Select the rejected scenes without those that the user named in `ingest.exclude`."""
    rejected = inputs.refused_scenes
    return None if rejected is None else rejected[rejected["reason"] != "excluded"]


def commonest_reason(table: pd.DataFrame) -> str:
    """Find the most frequent reason in a table with rows."""
    return str(table["reason"].value_counts(sort=True).sort_index(kind="stable").idxmax())


def _rejected(table: pd.DataFrame | None, name: str, noun: str) -> Section | None:
    if table is None:
        return None
    title = f"Rejected {noun}s"
    if not len(table):
        return Section(name, title, f"None: every {noun} was used.")
    rows = records(table.assign(sensor=table["sensor"].fillna("").replace("", text.ABSENT)))
    counts: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        counts.setdefault((str(row["reason"]), str(row["sensor"])), []).append(row)
    by_reason = Table(
        f"{title}, by reason",
        ("reason", "sensor", "count", "example"),
        tuple((*key, text.count(len(of)), str(of[0]["detail"])) for key, of in sorted(counts.items())),
        numeric=(2,),
    )
    every = Table(
        "All of them" + (f" (the first {_MAX_ROWS} of {text.count(len(rows))})" if len(rows) > _MAX_ROWS else ""),
        ("scene", "location", "sensor", "date", "reason", "detail"),
        tuple(
            (
                str(row["scene_id"]),
                str(row["location_id"] or text.ABSENT),
                str(row["sensor"]),
                text.day(row["datetime"]),
                str(row["reason"]),
                str(row["detail"]),
            )
            for row in rows[:_MAX_ROWS]
        ),
        folded=True,
    )
    lead = f"{plural(len(rows), noun)}, each with its reason."
    return Section(name, title, lead, (by_reason, every))


def regions_and_scenes(manifest: Mapping[str, object]) -> tuple[list[Mapping[str, object]], list[Mapping[str, object]]]:
    """Return the regions and the scenes of a simulation's manifest (`a2mae.simulate.delivery.manifest`)."""
    regions = cast("Sequence[Mapping[str, object]]", manifest["regions"])
    return list(regions), list(cast("Sequence[Mapping[str, object]]", manifest["scenes"]))


def simulated(inputs: ReportInputs) -> Section | None:
    """Show the simulated regions with their biome, scenes and share of changed ground."""
    if inputs.simulation is None:
        return None
    regions, scenes = regions_and_scenes(inputs.simulation)
    unusable = [str(scene["scene_id"]) for scene in scenes if scene["refuse"]]
    used = 0 if inputs.images is None else int(inputs.images["scene_id"].isin(unusable).sum())
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
        f"Every scene's true shift, clouds, land cover and changes are known. {plural(len(unusable), 'scene')} of"
        f" {text.count(len(scenes))} were made unusable on purpose; {plural(used, 'image')} of them came into a set"
        " (it should be none).",
        (
            Table(
                "The regions",
                ("region", "biome", "centre", "scenes", "changed ground"),
                rows,
                numeric=(3, 4),
            ),
        ),
    )


def contradicted_offsets(inputs: ReportInputs) -> pd.DataFrame | None:
    """Find scenes whose dark pixels contradict their offset; None without images or dark pixels in their table."""
    if inputs.images is None or "dark_value" not in inputs.images:
        return None
    return suspicious_offsets(inputs.images)


def dark_pixels(inputs: ReportInputs) -> Section | None:
    """List scenes whose dark pixels contradict their offset; None where there is none."""
    scenes = contradicted_offsets(inputs)
    if scenes is None or not len(scenes):
        return None
    table = Table(
        "Scenes with suspicious dark pixels",
        ("scene", "sensor", "baseline", "dark value, reflectance", "difference"),
        tuple(
            (
                str(row["scene_id"]),
                str(row["sensor"]),
                str(row["processing_baseline"]),
                text.number(row["dark_value"], 3),
                text.number(row["away"], 3),
            )
            for row in records(scenes)
        ),
        numeric=(3, 4),
    )
    lead = (
        f"{plural(len(scenes), 'scene')}: the dark pixels differ by about 0.1 from those of the sensor's other scenes"
        f" at the same locations, or are below what any surface reflects; {OFFSET_ADVICE}."
    )
    return Section("dark-pixels", "Offsets that dark pixels contradict", lead, (table,))


def out_of_range(inputs: ReportInputs) -> pd.DataFrame | None:
    """Find scenes with implausible values; None without images and store or without values in the table."""
    if inputs.images is None or inputs.store is None or not {"dark_value", "bright_value"} <= set(inputs.images):
        return None
    return implausible_ranges(inputs.images, map(inputs.store.sensor, inputs.store.sensors))


def value_ranges(inputs: ReportInputs) -> Section | None:
    """List scenes with implausible values; None where there is none."""
    scenes = out_of_range(inputs)
    if scenes is None or not len(scenes):
        return None
    table = Table(
        "Scenes with implausible values",
        ("scene", "sensor", "darkest", "brightest"),
        tuple(
            (
                str(row["scene_id"]),
                str(row["sensor"]),
                text.number(row["dark_value"], 4),
                text.number(row["bright_value"], 4),
            )
            for row in records(scenes)
        ),
        numeric=(2, 3),
    )
    advice = ". ".join(f"{one[0].upper()}{one[1:]}" for one in scenes["advice"].unique())
    lead = f"{plural(len(scenes), 'scene')} with implausible values. {advice}."
    return Section("value-ranges", "Implausible values", lead, (table,))

"""What was taken in, what was kept out and why, and values that cannot be meant.

What was taken in, and what was kept out and why: scenes at the door, images at registration.

The simulated Earth: what was made up, so that later figures can be held against the truth.

Sentinel-2 scenes whose dark pixels contradict the offset that was applied to them.

Scenes whose values cannot be meant.
"""

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


def refused_scenes(inputs: ReportInputs) -> Section | None:
    """Scenes that `ingest` did not take, counted by reason and listed."""
    return _refused(inputs.refused_scenes, "refused-scenes", "scene")


def rejected_images(inputs: ReportInputs) -> Section | None:
    """Images that `coregister` did not put into the store, counted by reason and listed."""
    return _refused(inputs.rejected_images, "rejected-images", "image")


def taken_scenes(inputs: ReportInputs) -> pd.DataFrame | None:
    """The scenes that later stages may use: the table also lists refused ones, and those without a location."""
    scenes, refused = inputs.scenes, inputs.refused_scenes
    if scenes is None:
        return None
    taken = scenes[scenes["status"] == "accepted"]
    if refused is None:
        return taken
    return taken[~taken["scene_id"].isin(refused.loc[refused["reason"] == "no_location", "scene_id"])]


def kept_out_scenes(inputs: ReportInputs) -> pd.DataFrame | None:
    """The refused scenes without what `ingest.exclude` names: those files the user has left out on purpose."""
    refused = inputs.refused_scenes
    return None if refused is None else refused[refused["reason"] != "excluded"]


def commonest_reason(table: pd.DataFrame) -> str:
    """The reason that most rows give; the table must have rows."""
    return str(table["reason"].value_counts(sort=True).sort_index(kind="stable").idxmax())


def _refused(table: pd.DataFrame | None, name: str, noun: str) -> Section | None:
    if table is None:
        return None
    title = f"{noun.capitalize()}s kept out"
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
        "Each of them" + (f" (the first {_MAX_ROWS} of {text.count(len(rows))})" if len(rows) > _MAX_ROWS else ""),
        ("scene", "place", "sensor", "date", "reason", "detail"),
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
    lead = f"{plural(len(rows), noun)}, each with its reason. Nothing is dropped silently."
    return Section(name, title, lead, (by_reason, every))


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
        f"Every scene's true shift, clouds, land cover and changes are known. {plural(len(spoilt), 'scene')} of"
        f" {text.count(len(scenes))} were spoilt on purpose; {plural(used, 'image')} of them came into a set (a"
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


def contradicted_offsets(inputs: ReportInputs) -> pd.DataFrame | None:
    """Suspicious scenes; None without images, or where an earlier version wrote their table."""
    if inputs.images is None or "dark_value" not in inputs.images:
        return None
    return suspicious_offsets(inputs.images)


def dark_pixels(inputs: ReportInputs) -> Section | None:
    """Each suspicious scene; nothing where there is none."""
    scenes = contradicted_offsets(inputs)
    if scenes is None or not len(scenes):
        return None
    table = Table(
        "Scenes with suspicious dark pixels",
        ("scene", "sensor", "baseline", "dark value, reflectance", "away by"),
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
        f"{plural(len(scenes), 'scene')}: the dark pixels lie about 0.1 from those of the sensor's other scenes at"
        f" the same places, or below what any surface reflects; {OFFSET_ADVICE}."
    )
    return Section("dark-pixels", "Offsets that dark pixels contradict", lead, (table,))


def out_of_range(inputs: ReportInputs) -> pd.DataFrame | None:
    """Such scenes; None without images and their store, or where an earlier version wrote the table."""
    if inputs.images is None or inputs.store is None or not {"dark_value", "bright_value"} <= set(inputs.images):
        return None
    return implausible_ranges(inputs.images, map(inputs.store.sensor, inputs.store.sensors))


def value_ranges(inputs: ReportInputs) -> Section | None:
    """Each such scene; nothing where there is none."""
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
    lead = f"{plural(len(scenes), 'scene')} with values that cannot be meant. {advice}."
    return Section("value-ranges", "Values that cannot be meant", lead, (table,))

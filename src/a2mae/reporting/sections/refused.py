"""What was taken in, and what was kept out and why: scenes at the door, images at registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs

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
    lead = f"{text.plural(len(rows), noun)}, each with its reason. Nothing is dropped silently."
    return Section(name, title, lead, (by_reason, every))

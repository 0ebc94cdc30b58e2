"""Pruning: before and after, by cluster, and why sets were kept or pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import plotly.graph_objects as go

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Block, Chart, Section, Table, chart
from a2mae.report.inputs import ReportInputs


def pruning(inputs: ReportInputs) -> Section | None:
    """Show what pruning changed, as the stage reported it."""
    report = inputs.prune_report
    if report is None:
        return None
    lead = "Pruning clusters the training sets by what they show and keeps a limited number of each cluster."
    if inputs.sets is not None:
        kept = int(inputs.sets["kept"].astype(bool).sum())
        lead += f" {text.count(kept)} of {plural(len(inputs.sets), 'set')} were kept."
    blocks: list[Block] = [_before_and_after(_part(report, "before"), _part(report, "after"))]
    clusters = cast("Mapping[str, Mapping[str, object]]", _part(report, "clusters"))
    if clusters:
        blocks.append(_clusters(clusters))
    blocks.append(
        Table(
            "Why sets were kept or pruned",
            ("reason", "sets"),
            tuple((reason, text.value(count)) for reason, count in _part(report, "reasons").items()),
            numeric=(1,),
        )
    )
    settings = text.measured(_SETTINGS, _part(report, "settings"))
    blocks.append(Table("Settings", ("parameter", "value"), tuple(settings), numeric=(1,)))
    return Section("pruning", "Pruning, before and after", lead, tuple(blocks))


def _part(report: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = report[name]
    assert isinstance(part, Mapping)
    return part


def _before_and_after(before: Mapping[str, object], after: Mapping[str, object]) -> Table:
    left, right = (dict(text.measured(_SIDE, side)) for side in (before, after))
    names = dict.fromkeys([*left, *right])
    return Table(
        "The training sets",
        ("measure", "before", "after"),
        tuple((name, left.get(name, text.ABSENT), right.get(name, text.ABSENT)) for name in names),
        numeric=(1, 2),
    )


def _clusters(clusters: Mapping[str, Mapping[str, object]]) -> Chart:
    """Draw the clusters, the largest first, so that the cap is seen."""
    ordered = sorted(clusters.items(), key=lambda item: (-cast("int", item[1]["before"]), item[0]))
    number = len(ordered)
    ordered = ordered[:_MOST_CLUSTERS]
    names = [name for name, _ in ordered]
    figure = go.Figure()
    for side in ("before", "after"):
        figure.add_bar(x=names, y=[entry[side] for _, entry in ordered], name=side)
    figure.update_layout(
        barmode="group", xaxis={"title": "cluster", "type": "category"}, yaxis={"title": "training sets"}
    )
    largest = ordered[0][1]
    table = Table(
        "The clusters",
        ("cluster", "sets before", "sets after", "heterogeneity, median", "homogeneous"),
        tuple(
            (name, *(text.value(entry[key]) for key in ("before", "after", "heterogeneity_median", "homogeneous")))
            for name, entry in ordered
        ),
        numeric=(1, 2, 3),
        folded=True,
    )
    return chart(
        "clusters",
        figure,
        caption=f"Training sets by cluster, the largest{'' if number == len(ordered) else f' {len(ordered)}'} first.",
        alt=f"Training sets in {plural(number, 'cluster')} before and after pruning: the largest had"
        f" {largest['before']} and keeps {largest['after']}.",
        table=table,
    )


_MOST_CLUSTERS = 500
_SIDE = {
    "training_sets": text.Measure("image sets"),
    "images": text.Measure("images"),
    "places": text.Measure("locations"),
    "clusters": text.Measure("clusters"),
    "largest_cluster": text.Measure("sets in the largest cluster"),
    "balance_of_clusters": text.Measure("balance of the clusters (normalised entropy; 1 is even)", text.as_number(3)),
    "heterogeneity_mean": text.Measure("heterogeneity, mean", text.as_number(3)),
    "sets_per_kind": text.Measure("sets of the kind {}"),
}
_SETTINGS = {
    "enabled": text.Measure("pruning"),
    "cap_per_cluster": text.Measure("most sets kept per cluster"),
    "seed": text.Measure("seed", str),
}

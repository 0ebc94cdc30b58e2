"""One page per stage: what it does in plain words, what came of it, and its chapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Page, Section
from a2mae.report.inputs import ReportInputs
from a2mae.report.sections.data_set import four_properties, image_sets
from a2mae.report.sections.ingest import (
    dark_pixels,
    kept_out_scenes,
    refused_scenes,
    regions_and_scenes,
    rejected_images,
    simulated,
    taken_scenes,
    value_ranges,
)
from a2mae.report.sections.maps import embeddings, scene_map
from a2mae.report.sections.places import places
from a2mae.report.sections.pretraining import curves, first_and_last, reconstructions, steps_taken
from a2mae.report.sections.pruning import pruning
from a2mae.report.sections.registration import registration, registration_truth
from a2mae.report.sections.scores import comparisons, knn_over_gsd, scores, spelled, task_scores
from a2mae.report.sections.summary import provenance, summary
from a2mae.report.sections.tasks import mistakes, task_pictures
from a2mae.tasks.registry import Task

Draw = Callable[[ReportInputs], Section | None]


@dataclass(frozen=True)
class Stage:
    """How a stage is shown.

    Attributes:
        title: Heading of its page.
        purpose: What it does, for somebody who does not know the project.
        finding: Makes the sentence with this run's figures.
        chapters: What its page has, as far as there is something to show.
    """

    title: str
    purpose: str
    finding: Callable[[ReportInputs], str]
    chapters: tuple[Draw, ...]


def pages(inputs: ReportInputs) -> list[Page]:
    """The summary, then each stage that has something to show, in the order of the chain."""
    stages = [
        Page(name, stage.title, stage.purpose, stage.finding(inputs), tuple(chapters))
        for name, stage in STAGES.items()
        if (chapters := [found for draw in stage.chapters if (found := draw(inputs)) is not None])
    ]
    return [summary(inputs, stages), *stages]


def _simulated(inputs: ReportInputs) -> str:
    assert inputs.simulation is not None
    regions, scenes = regions_and_scenes(inputs.simulation)
    sensors = len({scene["sensor"] for scene in scenes})
    return f"{plural(len(scenes), 'scene')} of {plural(sensors, 'sensor')} over {_plural(regions, 'region')}."


def _ingested(inputs: ReportInputs) -> str:
    parts = []
    taken, kept_out = taken_scenes(inputs), kept_out_scenes(inputs)
    if taken is not None:
        parts.append(f"{_plural(taken, 'scene')} taken")
    if kept_out is not None:
        parts.append(f"{text.count(len(kept_out))} refused")
    if inputs.locations is not None:
        parts.append(f"{_plural(inputs.locations, 'place')} chosen")
    elif inputs.sets is not None:
        parts.append(plural(inputs.sets["location_id"].nunique(), "place"))
    return _sentence(parts)


def _registered(inputs: ReportInputs) -> str:
    parts = []
    if inputs.images is not None:
        moved = int((inputs.images["registration"] == "registered").sum())
        parts.append(f"{text.count(moved)} of {_plural(inputs.images, 'image')} moved onto their place's reference")
    if inputs.rejected_images is not None:
        parts.append(f"{text.count(len(inputs.rejected_images))} kept out")
    return _sentence(parts)


def _tagged(inputs: ReportInputs) -> str:
    if inputs.images is None or inputs.sets is None:
        return "The data set's four properties, as measured."
    return (
        f"{_plural(inputs.sets, 'image set')} of {text.number(len(inputs.images) / max(len(inputs.sets), 1), 1)} images"
        " on average."
    )


def _pruned(inputs: ReportInputs) -> str:
    if inputs.sets is None:
        return "What pruning kept."
    kept = int(inputs.sets["kept"].astype(bool).sum())
    return f"{text.count(kept)} of {_plural(inputs.sets, 'image set')} kept."


def _pretrained(inputs: ReportInputs) -> str:
    loss, steps = first_and_last(inputs, "loss"), steps_taken(inputs)
    if loss is None or steps is None:
        return "What the model makes of hidden ground."
    return f"{plural(steps, 'step')}; the loss went from {loss[0]:.3f} to {loss[1]:.3f}."


def _finetuned(task: str) -> Callable[[ReportInputs], str]:
    def finding(inputs: ReportInputs) -> str:
        found = [] if inputs.scores is None else [item for item in comparisons(inputs.scores) if item.task == task]
        return " ".join(
            f"{spelled(item.metric)} {item.pretrained[0]:.3f} ({item.data}), {item.words}." for item in found
        ) or ("Not compared with a random start.")

    return finding


def _task(name: Task) -> Stage:
    """All tasks are shown alike."""
    return Stage(
        name.kind.title,
        name.kind.purpose,
        _finetuned(name),
        (
            lambda inputs: task_scores(inputs, name),
            lambda inputs: mistakes(inputs, name),
            lambda inputs: task_pictures(inputs, name),
            lambda inputs: scene_map(inputs, name),
        ),
    )


def _scored(inputs: ReportInputs) -> str:
    assert inputs.scores is not None
    found = comparisons(inputs.scores)
    better = sum(item.gain > 0 for item in found)
    if not found:
        return f"{_plural(inputs.scores, 'score')}, each with its interval."
    return f"Pretraining scored higher on {better or 'none'} of {plural(len(found), 'task')}."


def _plural(rows: Sized, noun: str) -> str:
    return plural(len(rows), noun)


def _sentence(parts: list[str]) -> str:
    return f"{', '.join(parts)}." if parts else "What this stage wrote."


STAGES: Mapping[str, Stage] = {
    "simulate": Stage(
        "Simulated Earth",
        "A made-up Earth: scenes as satellites would deliver them, with the truth beside them, so that every later"
        " step can be checked.",
        _simulated,
        (simulated,),
    ),
    "ingest": Stage(
        "Scenes and places",
        "Takes in the scenes, refuses what cannot be used and says why, and chooses the squares of ground to cut out.",
        _ingested,
        (places, refused_scenes),
    ),
    "coregister": Stage(
        "Co-registration",
        "Moves the images of a place, from other sensors and dates, onto each other, so that the same spot in all of"
        " them shows the same ground.",
        _registered,
        (image_sets, registration, registration_truth, dark_pixels, value_ranges, rejected_images),
    ),
    "tag": Stage(
        "Properties of the data",
        "Describes every image set, and measures whether the data set is what it claims to be.",
        _tagged,
        (four_properties,),
    ),
    "prune": Stage(
        "Pruning",
        "Leaves out image sets that show the same over again; what is kept is what the model learns from.",
        _pruned,
        (pruning,),
    ),
    "pretrain": Stage(
        "Pretraining",
        "The model learns without labels: parts of the images are hidden, and it predicts them.",
        _pretrained,
        (curves, reconstructions),
    ),
    **{task.value: _task(task) for task in Task},
    "embed": Stage(
        "Embeddings",
        "The pretrained model describes a whole scene by numbers, with no task in mind: for search, groups and maps.",
        lambda inputs: "A raster with one band per dimension, and a table of its blocks.",
        (embeddings,),
    ),
    "evaluate": Stage(
        "Scores",
        "Scores every model on test splits, beside a twin that started from random weights.",
        _scored,
        (scores, knn_over_gsd),
    ),
    "report": Stage(
        "Provenance",
        "What went in and what came out, by their hashes, and every parameter of the run.",
        lambda inputs: "The same scenes, configuration and code give the same hashes.",
        (provenance,),
    ),
}
"""In the order of the chain."""

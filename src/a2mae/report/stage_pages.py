"""One page per stage: what the stage does, what it gave in this run, and its sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Page, Section
from a2mae.report.inputs import ReportInputs, records
from a2mae.report.sections.data_set import four_properties, image_sets, picture_sheet
from a2mae.report.sections.deliverables import deliverables, polygons_in_words
from a2mae.report.sections.ingest import (
    accepted_scenes,
    dark_pixels,
    regions_and_scenes,
    rejected_images,
    rejected_scenes,
    simulated,
    unwanted_scenes,
    value_ranges,
)
from a2mae.report.sections.locations import locations
from a2mae.report.sections.maps import embeddings, scene_map
from a2mae.report.sections.pretraining import curves, first_and_last, reconstructions, steps_taken
from a2mae.report.sections.pruning import pruning
from a2mae.report.sections.registration import registration, registration_truth
from a2mae.report.sections.scores import (
    FINETUNED,
    MAIN_METRICS,
    PRETRAINED,
    comparisons,
    knn_over_gsd,
    scores,
    spelled,
    task_scores,
)
from a2mae.report.sections.search import search, searched
from a2mae.report.sections.summary import provenance, summary
from a2mae.report.sections.tasks import mistakes, task_pictures
from a2mae.tasks.registry import Task

Draw = Callable[[ReportInputs], Section | None]


@dataclass(frozen=True)
class Stage:
    """How a stage of the chain is shown.

    Attributes:
        title: Heading of its page.
        purpose: What it does, for somebody who does not know the project.
        finding: Says in a sentence with figures what this run gave.
        sections: What its page shows, as far as the chain has made it.
    """

    title: str
    purpose: str
    finding: Callable[[ReportInputs], str]
    sections: tuple[Draw, ...]


def pages(inputs: ReportInputs) -> list[Page]:
    """Make the summary and a page for each stage that has something to show, in the order of the chain."""
    stages = [
        Page(name, stage.title, stage.purpose, stage.finding(inputs), tuple(sections))
        for name, stage in STAGES.items()
        if (sections := [found for draw in stage.sections if (found := draw(inputs)) is not None])
    ]
    return [summary(inputs, stages), *stages]


def _simulated(inputs: ReportInputs) -> str:
    assert inputs.simulation is not None
    regions, scenes = regions_and_scenes(inputs.simulation)
    sensors = len({scene["sensor"] for scene in scenes})
    return f"{plural(len(scenes), 'scene')} of {plural(sensors, 'sensor')} over {_plural(regions, 'region')}."


def _ingested(inputs: ReportInputs) -> str:
    parts = []
    accepted, rejected = accepted_scenes(inputs), unwanted_scenes(inputs)
    if accepted is not None:
        parts.append(f"{_plural(accepted, 'scene')} accepted")
    if rejected is not None:
        parts.append(f"{text.count(len(rejected))} rejected")
    if inputs.locations is not None:
        parts.append(f"{_plural(inputs.locations, 'location')} chosen")
    elif inputs.sets is not None:
        parts.append(plural(inputs.sets["location_id"].nunique(), "location"))
    return _sentence(parts)


def _registered(inputs: ReportInputs) -> str:
    parts = []
    if inputs.images is not None:
        moved = int((inputs.images["registration"] == "registered").sum())
        parts.append(
            f"{text.count(moved)} of {_plural(inputs.images, 'image')} registered to the reference of their location"
        )
    if inputs.rejected_images is not None:
        parts.append(f"{text.count(len(inputs.rejected_images))} rejected")
    return _sentence(parts)


def _tagged(inputs: ReportInputs) -> str:
    if inputs.images is None or inputs.sets is None:
        return "The four properties of the data set, as measured."
    return (
        f"{_plural(inputs.sets, 'image set')} of {text.number(len(inputs.images) / max(len(inputs.sets), 1), 1)} images"
        " on average."
    )


def _pruned(inputs: ReportInputs) -> str:
    if inputs.sets is None:
        return "What pruning kept."
    kept = int(inputs.sets["kept"].astype(bool).sum())
    return f"{text.count(kept)} of {_plural(inputs.sets, 'image set')} kept."


def _stored(inputs: ReportInputs) -> str:
    assert inputs.pictures is not None
    counts = inputs.pictures["split"].value_counts()
    told = [f"{text.count(int(counts.get(split, 0)))} {what}" for split, what in _USES.items()]
    return f"{_plural(inputs.pictures, 'picture')}: {', '.join(told)}."


_USES = {"train": "to learn from", "val": "to measure the loss on", "test": "left for tasks"}


def _pretrained(inputs: ReportInputs) -> str:
    loss, steps = first_and_last(inputs, "loss"), steps_taken(inputs)
    if loss is None or steps is None:
        return "Reconstructions of hidden patches."
    return f"{plural(steps, 'step')}; the loss went from {loss[0]:.3f} to {loss[1]:.3f}."


def _finetuned(task: str) -> Callable[[ReportInputs], str]:
    def finding(inputs: ReportInputs) -> str:
        found = [] if inputs.scores is None else [item for item in comparisons(inputs.scores) if item.task == task]
        return " ".join(
            f"{spelled(item.metric)} {item.pretrained[0]:.3f} ({item.data}), {item.words}." for item in found
        ) or " ".join(["Not compared with a random initialisation.", *_alone(inputs, task)])

    return finding


def _alone(inputs: ReportInputs, task: str) -> list[str]:
    """Say what a model scores that was trained without its random_init."""
    if inputs.scores is None:
        return []
    table = inputs.scores[(inputs.scores["task"] == task) & (inputs.scores["mode"] == FINETUNED)]
    main = table[(table["model"] == PRETRAINED) & table["metric"].isin(MAIN_METRICS[task])]
    return [f"{spelled(str(row['metric']))} {row['value']:.3f} ({row['data']})." for row in records(main)]


def _task(name: Task) -> Stage:
    """Show a task; all of them alike."""
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
        "An invented Earth: scenes as satellites would deliver them, with known truth, so that every later step can"
        " be checked.",
        _simulated,
        (simulated,),
    ),
    "ingest": Stage(
        "Scenes and locations",
        "Reads the scenes, rejects those that cannot be used and says why, and chooses the footprints to cut out.",
        _ingested,
        (locations, rejected_scenes),
    ),
    "coregister": Stage(
        "Co-registration",
        "Registers the images of a location, from several sensors and dates, to each other, so that the same point of"
        " all of them shows the same ground.",
        _registered,
        (image_sets, registration, registration_truth, dark_pixels, value_ranges, rejected_images),
    ),
    "tag": Stage(
        "Properties of the data",
        "Describes every image set and measures the four properties of the data set.",
        _tagged,
        (four_properties,),
    ),
    "prune": Stage(
        "Pruning",
        "Leaves out image sets that show much the same as others; the model learns from those that are kept.",
        _pruned,
        (pruning,),
    ),
    "pictures": Stage(
        "Pictures",
        "Reads a folder of pictures and stores each as an image set of its own.",
        _stored,
        (picture_sheet,),
    ),
    "pretrain": Stage(
        "Pretraining",
        "The model learns without labels: most of each image is hidden, and it predicts what is there.",
        _pretrained,
        (curves, reconstructions),
    ),
    **{task.value: _task(task) for task in Task},
    "embed": Stage(
        "Embeddings",
        "The pretrained model describes a whole scene by vectors of numbers, for search, clustering and maps.",
        lambda inputs: "A raster with one band per dimension, and a table with one row per block.",
        (embeddings,),
    ),
    "search": Stage(
        "Search",
        "Finds the places of the archive that look like some examples, by the pretrained model's embeddings.",
        searched,
        (search,),
    ),
    "evaluate": Stage(
        "Scores",
        "Scores every model on test splits, beside the same architecture from random weights.",
        _scored,
        (scores, knn_over_gsd),
    ),
    "deliver": Stage(
        "Deliverables",
        "Maps as people take them away: rasters, polygons and hectares that any GIS or spreadsheet opens.",
        polygons_in_words,
        (deliverables,),
    ),
    "report": Stage(
        "Provenance",
        "The inputs and outputs by their hashes, and every parameter of the run.",
        lambda inputs: "The same scenes, configuration and code give the same hashes.",
        (provenance,),
    ),
}
"""In the order of the chain."""

"""Notices: what to look at before trusting the figures, each with the page that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Way
from a2mae.report.inputs import ReportInputs, records
from a2mae.report.sections.ingest import (
    accepted_scenes,
    commonest_reason,
    contradicted_offsets,
    out_of_range,
    unwanted_scenes,
)
from a2mae.report.sections.pretraining import first_and_last, reconstruction_errors
from a2mae.report.sections.scores import FINETUNED, IN_WORDS, PRETRAINED, comparisons, mode_name, spelled
from a2mae.report.sections.tasks import title_of
from a2mae.sensors import BUILTIN_SENSORS, Units

if TYPE_CHECKING:
    import pandas as pd

MANY_REJECTED = 0.1
"""Share of rejected scenes or images from which on there is a notice."""
MANY_UNKNOWN = 0.1
"""Share of images without cloud mask or without registration from which on there is a notice."""
FEW_LOCATIONS = 20
"""Test locations under which an interval is wide whatever the model."""


def attention(inputs: ReportInputs) -> tuple[Way, ...]:
    """List the notices of this run, in the order of the stages."""
    return (
        *_simulated(inputs),
        *_rejected(inputs),
        *_without_cloud_mask(inputs),
        *_not_registered(inputs),
        *_offsets(inputs),
        *_ranges(inputs),
        *_never_trained_on(inputs),
        *_training(inputs),
        *_reconstructed(inputs),
        *_started_elsewhere(inputs),
        *_scored(inputs),
    )


def _simulated(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.simulation is not None:
        yield Way(
            "simulate",
            "The scenes are simulated",
            "The scores show that the pipeline works and how the two initialisations compare, not how well a model"
            " does on real scenes.",
        )


def _rejected(inputs: ReportInputs) -> Iterator[Way]:
    for stage, accepted, rejected, noun in (
        ("ingest", accepted_scenes(inputs), unwanted_scenes(inputs), "scene"),
        ("coregister", inputs.images, inputs.rejected_images, "image"),
    ):
        if accepted is None or rejected is None or not len(rejected):
            continue
        every = len(accepted) + len(rejected)
        if len(rejected) / every >= MANY_REJECTED:
            yield Way(
                stage,
                f"{text.count(len(rejected))} of {plural(every, noun)} rejected",
                f"The most frequent reason is “{commonest_reason(rejected)}”.",
            )


def _started_elsewhere(inputs: ReportInputs) -> Iterator[Way]:
    """Notice tasks whose encoder this chain has not pretrained: what they gain is not its pretraining's."""
    for task in inputs.tasks:
        if task.start is not None:
            kind, file = task.start["kind"], task.start["weights"]
            yield Way(
                task.name,
                f"{title_of(task.name)} starts from other weights",
                f"Its 'pretrained' is {kind} ({file}), not the model that this chain has pretrained; what it gains over"
                f" random_init is gained by those. Licence: {task.start['licence'] or 'not stated'}.",
            )


def _not_registered(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.images is None or not len(inputs.images):
        return
    state = inputs.images["registration"]
    nominal, tried = int((state == "nominal").sum()), int((state != "reference").sum())
    if nominal < MANY_UNKNOWN * len(state):
        return
    words = (
        "Their shift could not be estimated, so they keep the position that their provider gave them, with its error."
    )
    if nominal > tried / 2:
        words += (
            " That is most of the images that have a reference: look at them among the image sets;"
            " 'coregister.keep_nominal: false' rejects such images."
        )
    yield Way("coregister", f"{plural(nominal, 'image')} of {text.count(len(state))} could not be registered", words)


def _without_cloud_mask(inputs: ReportInputs) -> Iterator[Way]:
    """Notice optical images that neither a cloud mask nor a test has seen; radar sees through clouds."""
    if inputs.images is None or not len(inputs.images):
        return
    optical = inputs.images[~inputs.images["sensor"].isin(_radar(inputs))]
    unseen = optical[optical["cloud_fraction"].isna()]
    if len(unseen) and len(unseen) >= MANY_UNKNOWN * len(optical):
        sensors = text.listed(sorted(unseen["sensor"].unique()))
        yield Way(
            "coregister",
            f"No cloud mask for {plural(len(unseen), 'image')} of {sensors}",
            "Cloudy ones may be among the sets. Name the mask in their rule or profile"
            " ('mask' in 'ingest.rules' or 'ingest.stac_profiles'; 'cloud_test: brightness' where there is none), or"
            " set a function under 'coregister.clouds.functions'.",
        )


def _radar(inputs: ReportInputs) -> list[str]:
    assert inputs.images is not None
    own = {} if inputs.store is None else {name: inputs.store.sensor(name) for name in inputs.store.sensors}
    known = {**BUILTIN_SENSORS, **own}
    return [
        name
        for name in inputs.images["sensor"].unique()
        if name in known and known[name].encoding.units in (Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR)
    ]


def _never_trained_on(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.sets is None or inputs.model_dir is None:
        return
    training = inputs.sets["kept"].astype(bool) & (inputs.sets["split"] == "train")
    trained, every = (set(chain.from_iterable(of["sensors"])) for of in (inputs.sets[training], inputs.sets))
    if missing := sorted(every - trained):
        yield Way(
            "pretrain",
            f"{text.listed(missing)} {'was' if len(missing) == 1 else 'were'} never trained on",
            "All image sets with it are in the splits 'val' and 'test', or were pruned: the model has seen none of its"
            " pixels. More locations, or another 'tag.split' ('seed', 'block_m', shares), would change that.",
        )


def _offsets(inputs: ReportInputs) -> Iterator[Way]:
    scenes = contradicted_offsets(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{plural(len(scenes), 'Sentinel-2 scene')} may have the wrong offset",
            "Their dark pixels differ by about 0.1 from those of other dates, or are below what any surface reflects.",
        )


def _ranges(inputs: ReportInputs) -> Iterator[Way]:
    scenes = out_of_range(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{plural(len(scenes), 'scene')} may have the wrong units",
            "Their values are not reflectance, or too close together for the store to distinguish them.",
        )


def _training(inputs: ReportInputs) -> Iterator[Way]:
    loss = first_and_last(inputs, "loss")
    if loss is not None and loss[1] >= loss[0]:
        yield Way("pretrain", "The loss did not fall", f"It went from {loss[0]:.3f} to {loss[1]:.3f}.")
    rank = first_and_last(inputs, "effective_rank")
    if rank is not None and rank[1] < 0.5 * rank[0]:
        yield Way(
            "pretrain",
            "The effective rank of the features fell",
            f"It went from {rank[0]:.1f} to {rank[1]:.1f}: a sign of collapse.",
        )


def _reconstructed(inputs: ReportInputs) -> Iterator[Way]:
    errors = reconstruction_errors(inputs)
    if errors is not None and errors[0] >= errors[1]:
        yield Way(
            "pretrain",
            "The model predicts hidden pixels no better than the mean of the visible ones",
            f"On the held-out samples its error is {errors[0]:.4f}, that of each image's visible mean {errors[1]:.4f}"
            " (mean square, display scale): it has learned little. Train longer ('pretrain.optimizer'), or at another"
            " learning rate.",
        )


def _below_probe(scores: pd.DataFrame) -> Iterator[Way]:
    """Notice finetuned models that a linear layer on the same frozen encoder beats."""
    of_model = scores[scores["model"] == PRETRAINED]
    probes = of_model[of_model["mode"] == "linear_probe"]
    for row in records(of_model[of_model["mode"] == FINETUNED]):
        same = probes[(probes[["task", "data", "metric"]] == [row["task"], row["data"], row["metric"]]).all(axis=1)]
        if len(same) and float(same["value"].max()) > row["value"]:
            yield Way(
                str(row["task"]),
                f"{title_of(str(row['task']))} scores lower finetuned than by a linear probe",
                f"{row['value']:.3f} against {same['value'].max():.3f} of a linear layer on the same frozen encoder"
                f" ({row['data']}, {spelled(str(row['metric']))}): train longer ('{row['task']}.finetune.steps'), or at"
                " another learning rate.",
            )


def _scored(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.scores is None:
        return
    for item in comparisons(inputs.scores):
        if item.gain < 0:
            yield Way(
                item.task,
                f"{title_of(item.task)} scores lower with pretraining"
                if item.clear
                else f"{title_of(item.task)} does not gain from pretraining",
                f"{item.pretrained[0]:.3f} against {item.random[0]:.3f} of a random initialisation"
                f" (difference {item.interval}{', which includes 0' if item.includes_zero else ''}).",
            )
    yield from _below_probe(inputs.scores)
    yield from _below_convolutions(inputs.scores)
    scores = inputs.scores[(inputs.scores["over"] == "") | (inputs.scores["value"] != 0)]  # nothing differs from itself
    certain = scores[scores["high"] <= scores["low"]]
    if len(certain):
        yield Way(
            "evaluate",
            f"{plural(len(certain), 'interval')} of zero width",
            f"On {plural(int(certain['groups'].min()), 'location')} every draw can give the same value: that says"
            " nothing of how certain a score is. Test on more locations.",
        )
    fewest = inputs.scores["groups"].min()
    if fewest < FEW_LOCATIONS:
        yield Way(
            "evaluate",
            f"Some scores rest on {plural(int(fewest), 'location')}",
            "Intervals over so few locations are wide, or too narrow to trust; test on more locations.",
        )


def _below_convolutions(table: pd.DataFrame) -> Iterator[Way]:
    """Notice scores of the pretrained encoder below those of features that nothing was trained for."""
    rows = table[(table["over"] == "rcf") & (table["value"] < 0) & np.isclose(table["gsd_m"], table["native_gsd_m"])]
    main = rows[rows["metric"].isin(IN_WORDS) | (rows["metric"] == "knn_both_coarse")]
    for (task, data), below in main.groupby(["task", "data"], sort=True):
        told = [
            f"{mode_name(str(row['mode']))} by {-float(row['value']):.3f}"
            f"{'' if float(row['high']) < 0 else ' (the interval includes 0)'}"
            for row in records(below)
        ]
        yield Way(
            "evaluate",
            f"{title_of(str(task))} ({data}): below random convolution features",
            f"{text.listed(told)}. These features train nothing and take seconds: until an encoder is above them, more"
            " image sets or more steps of pretraining are worth more than its scores.",
        )

"""What a reader should look at before trusting the figures, each with the page where it is shown."""

from __future__ import annotations

from collections.abc import Iterator

from a2mae.reporting import text
from a2mae.reporting.blocks import Way
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.sections.dark_pixels import contradicted_offsets
from a2mae.reporting.sections.pretraining import first_and_last
from a2mae.reporting.sections.refused import commonest_reason, kept_out_scenes, taken_scenes
from a2mae.reporting.sections.scores import comparisons
from a2mae.reporting.sections.task_pictures import title_of
from a2mae.reporting.sections.value_ranges import out_of_range

MANY_KEPT_OUT = 0.1
"""Share of scenes or images kept out from which on the reader is told."""
FEW_PLACES = 20
"""Test places under which an interval is wide whatever the model."""


def attention(inputs: ReportInputs) -> tuple[Way, ...]:
    """The notices of this run, in the order of the stages; none where nothing stands out."""
    return (
        *_made_up(inputs),
        *_kept_out(inputs),
        *_as_delivered(inputs),
        *_offsets(inputs),
        *_ranges(inputs),
        *_training(inputs),
        *_scored(inputs),
    )


def _made_up(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.simulation is not None:
        yield Way(
            "simulate",
            "The scenes are simulated",
            "The scores say that the chain works and how two starts compare, not how well a model does on real ground.",
        )


def _kept_out(inputs: ReportInputs) -> Iterator[Way]:
    for stage, kept, refused, noun in (
        ("ingest", taken_scenes(inputs), kept_out_scenes(inputs), "scene"),
        ("coregister", inputs.images, inputs.rejected_images, "image"),
    ):
        if kept is None or refused is None or not len(refused):
            continue
        tried = len(kept) + len(refused)
        if len(refused) / tried >= MANY_KEPT_OUT:
            yield Way(
                stage,
                f"{text.count(len(refused))} of {text.plural(tried, noun)} kept out",
                f"The commonest reason is “{commonest_reason(refused)}”.",
            )


def _as_delivered(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.images is None or not len(inputs.images):
        return
    nominal = int((inputs.images["registration"] == "nominal").sum())
    if nominal:
        yield Way(
            "coregister",
            f"{text.plural(nominal, 'image')} of {text.count(len(inputs.images))} lie as delivered",
            "Their shift could not be measured: they may be off by what their provider states.",
        )


def _offsets(inputs: ReportInputs) -> Iterator[Way]:
    scenes = contradicted_offsets(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{text.plural(len(scenes), 'Sentinel-2 scene')} may have the wrong offset",
            "Their dark pixels lie about 0.1 from those of other dates, or below what any surface reflects.",
        )


def _ranges(inputs: ReportInputs) -> Iterator[Way]:
    scenes = out_of_range(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{text.plural(len(scenes), 'scene')} may have the wrong units",
            "Their values are no reflectance, or too close together for the store to tell them apart.",
        )


def _training(inputs: ReportInputs) -> Iterator[Way]:
    loss = first_and_last(inputs, "loss")
    if loss is not None and loss[1] >= loss[0]:
        yield Way("pretrain", "The loss did not fall", f"It went from {loss[0]:.3f} to {loss[1]:.3f}.")
    rank = first_and_last(inputs, "effective_rank")
    if rank is not None and rank[1] < 0.5 * rank[0]:
        yield Way(
            "pretrain",
            "The features became fewer",
            f"Their effective rank fell from {rank[0]:.1f} to {rank[1]:.1f}: a sign of collapse.",
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
                f"{item.pretrained[0]:.3f} against {item.random[0]:.3f} of a random start"
                f" (difference {item.interval}{'' if item.clear else ': chance may explain it'}).",
            )
    places = inputs.scores["groups"].min()
    if places < FEW_PLACES:
        yield Way(
            "evaluate",
            f"Some scores rest on {text.plural(int(places), 'place')}",
            "Intervals of so few places are wide, or too narrow to trust; more places would tell more.",
        )

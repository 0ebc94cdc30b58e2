"""What a reader should look at before trusting the figures, each with the page where it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Way
from a2mae.report.inputs import ReportInputs
from a2mae.report.sections.ingest import (
    commonest_reason,
    contradicted_offsets,
    kept_out_scenes,
    out_of_range,
    taken_scenes,
)
from a2mae.report.sections.pretraining import first_and_last
from a2mae.report.sections.scores import comparisons
from a2mae.report.sections.tasks import title_of
from a2mae.sensors import BUILTIN_SENSORS, Units

MANY_KEPT_OUT = 0.1
"""Share of scenes or images kept out from which on the reader is told."""
MANY_UNTOLD = 0.1
"""Share of images whose clouds or position nobody told, from which on the reader is told."""
FEW_PLACES = 20
"""Test places under which an interval is wide whatever the model."""


def attention(inputs: ReportInputs) -> tuple[Way, ...]:
    """The notices of this run, in the order of the stages; none where nothing stands out."""
    return (
        *_made_up(inputs),
        *_kept_out(inputs),
        *_clouds_not_looked_for(inputs),
        *_as_delivered(inputs),
        *_offsets(inputs),
        *_ranges(inputs),
        *_never_trained_on(inputs),
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
                f"{text.count(len(refused))} of {plural(tried, noun)} kept out",
                f"The commonest reason is “{commonest_reason(refused)}”.",
            )


def _as_delivered(inputs: ReportInputs) -> Iterator[Way]:
    if inputs.images is None or not len(inputs.images):
        return
    state = inputs.images["registration"]
    nominal, tried = int((state == "nominal").sum()), int((state != "reference").sum())
    if nominal < MANY_UNTOLD * len(state):
        return
    words = "Their shift could not be measured: they may be off by what their provider states."
    if nominal > tried / 2:
        words += (
            " That is most of those that could be moved onto a reference: look at them in the image sets;"
            " 'coregister.keep_nominal: false' keeps such images out."
        )
    yield Way("coregister", f"{plural(nominal, 'image')} of {text.count(len(state))} lie as delivered", words)


def _clouds_not_looked_for(inputs: ReportInputs) -> Iterator[Way]:
    """Optical images that neither a mask nor a test has looked at; radar sees through clouds."""
    if inputs.images is None or not len(inputs.images):
        return
    optical = inputs.images[~inputs.images["sensor"].isin(_radar(inputs))]
    unseen = optical[optical["cloud_fraction"].isna()]
    if len(unseen) and len(unseen) >= MANY_UNTOLD * len(optical):
        sensors = text.listed(sorted(unseen["sensor"].unique()))
        yield Way(
            "coregister",
            f"Nobody looked for clouds in {plural(len(unseen), 'image')} of {sensors}",
            "They have no cloud mask, so clouded ones may be among the sets. Name the mask in their rule or profile"
            " ('mask' in 'ingest.rules' or 'ingest.stac_profiles'; 'cloud_test: brightness' where there is none), or"
            " give a function under 'coregister.clouds.functions'.",
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
            " pixels. More places, or another 'tag.split' ('seed', 'block_m', shares), would change that.",
        )


def _offsets(inputs: ReportInputs) -> Iterator[Way]:
    scenes = contradicted_offsets(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{plural(len(scenes), 'Sentinel-2 scene')} may have the wrong offset",
            "Their dark pixels lie about 0.1 from those of other dates, or below what any surface reflects.",
        )


def _ranges(inputs: ReportInputs) -> Iterator[Way]:
    scenes = out_of_range(inputs)
    if scenes is not None and len(scenes):
        yield Way(
            "coregister",
            f"{plural(len(scenes), 'scene')} may have the wrong units",
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
            f"Some scores rest on {plural(int(places), 'place')}",
            "Intervals of so few places are wide, or too narrow to trust; more places would tell more.",
        )

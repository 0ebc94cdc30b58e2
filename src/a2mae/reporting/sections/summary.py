"""The first thing a reader sees: what went in, what came out, whether it helped."""

from __future__ import annotations

from a2mae.reporting import text
from a2mae.reporting.blocks import Fact, Facts, Section
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.sections.pretraining import loss_range
from a2mae.reporting.sections.scores import comparisons


def summary(inputs: ReportInputs) -> Section:
    """Key figures of the run and the verdict in a sentence."""
    facts = [*_data_facts(inputs), *_training_facts(inputs), *_score_facts(inputs)]
    return Section("summary", "In short", _verdict(inputs), (Facts(tuple(facts)),) if facts else ())


def _data_facts(inputs: ReportInputs) -> list[Fact]:
    facts = []
    if inputs.scenes is not None:
        refused = 0 if inputs.refused_scenes is None else len(inputs.refused_scenes)
        note = f"{text.count(refused)} refused at the door" if refused else "none refused"
        facts.append(Fact("scenes", text.count(len(inputs.scenes)), note))
    if inputs.locations is not None:
        facts.append(Fact("locations", text.count(len(inputs.locations))))
    if inputs.images is not None:
        rejected = 0 if inputs.rejected_images is None else len(inputs.rejected_images)
        sensors = text.plural(inputs.images["sensor"].nunique(), "sensor")
        facts.append(
            Fact("co-registered images", text.count(len(inputs.images)), f"{sensors}; {text.count(rejected)} kept out")
        )
    if inputs.sets is not None:
        kept = int(inputs.sets["kept"].astype(bool).sum())
        facts.append(Fact("image sets", text.count(len(inputs.sets)), f"{text.count(kept)} kept by pruning"))
    return facts


def _training_facts(inputs: ReportInputs) -> list[Fact]:
    span = loss_range(inputs)
    if span is None:
        return []
    first, last, steps = span
    return [Fact("pretraining loss", f"{first:.3f} → {last:.3f}", f"{text.count(steps)} steps")]


def _score_facts(inputs: ReportInputs) -> list[Fact]:
    if inputs.scores is None:
        return []
    return [
        Fact(
            item.label,
            f"{item.pretrained[0]:.3f}",
            f"95 %: {item.pretrained[1]:.3f} – {item.pretrained[2]:.3f}; random start {item.random[0]:.3f}",
        )
        for item in comparisons(inputs.scores)
    ]


def _verdict(inputs: ReportInputs) -> str:
    sentences = []
    if inputs.sets is not None and inputs.images is not None:
        images, sensors = len(inputs.images), inputs.images["sensor"].nunique()
        places = inputs.sets["location_id"].nunique()
        sentences.append(
            f"{text.plural(images, 'image')} from {text.plural(sensors, 'sensor')} lie on each other at"
            f" {text.plural(places, 'place')}, as {text.plural(len(inputs.sets), 'image set')}."
        )
    if inputs.scores is not None:
        compared = comparisons(inputs.scores)
        higher = [item.clear for item in compared if item.gain > 0]
        lower = [item.clear for item in compared if item.gain < 0]
        if compared:
            sentences.append(
                f"Of {text.plural(len(compared), 'task')}, pretraining scored higher than a random start on"
                f" {_with_clear(higher)} and lower on {_with_clear(lower)}."
            )
    elif inputs.model_dir is not None:
        sentences.append("This chain ends with the pretrained model; no task was scored.")
    return " ".join(sentences) or "The stages of this chain and what they wrote."


def _with_clear(clear: list[bool]) -> str:
    """How many, and on how many of them the intervals are apart."""
    return f"{len(clear)} ({sum(clear)} with 95 % intervals apart)" if clear else "none"

"""The first page: what was built, whether pretraining pays, and links to every stage; and the provenance of the run."""

from __future__ import annotations

import json
from collections.abc import Sequence

from a2mae.errors import plural, without_places
from a2mae.report import text
from a2mae.report.blocks import Block, Code, Fact, Facts, File, Files, Page, Section, Table, Way, Ways
from a2mae.report.inputs import ReportInputs
from a2mae.report.sections.attention import attention
from a2mae.report.sections.ingest import accepted_scenes, unwanted_scenes
from a2mae.report.sections.pretraining import first_and_last, steps_taken
from a2mae.report.sections.scores import Comparison, comparisons, does_it_pay, frozen_comparisons, spelled
from a2mae.report.sections.tasks import title_of


def summary(inputs: ReportInputs, stages: Sequence[Page]) -> Page:
    """Make the page that a reader sees first.

    Args:
        inputs: The chain's outputs.
        stages: The pages of the stages, to be linked.
    """
    sections = [_built(inputs), _good_for(inputs), _next(inputs), _pays(inputs), _look_at(inputs), _stages(stages)]
    return Page(
        "summary",
        "Summary",
        "What was built, what the model is good for, and what to do next. Each step has a page of its own.",
        _verdict(inputs),
        tuple(section for section in sections if section is not None),
    )


def _built(inputs: ReportInputs) -> Section | None:
    facts = [*_data_facts(inputs), *_training_facts(inputs)]
    return Section("built", "What was built", "", (Facts(tuple(facts)),)) if facts else None


_GOOD_FOR = {
    "top1": "names the right class for {} of 100 images",
    "micro_f1": "names the classes of an image with a balance of misses and false alarms of {} of 100",
    "miou": "maps classes with an overlap of {} of 100 with the truth, a mean over the classes",
    "f1": "marks changes with a balance of misses and false alarms of {} of 100",
    "r2": "estimates values and explains {} of 100 parts of their differences",
    "knn": "the training images that look alike to it name the right class for {} of 100 images",
}
"""The main metrics for readers who do not know them; the places were never shown in training."""


def _good_for(inputs: ReportInputs) -> Section | None:
    """Say in plain words how well each task is done, and whether pretraining had a part in it."""
    if inputs.scores is None:
        return None
    rows = []
    as_it_is = [item for item in frozen_comparisons(inputs.scores) if item.metric == "knn"]
    for item in [*comparisons(inputs.scores), *as_it_is]:
        done = _GOOD_FOR.get(item.metric, f"reaches {spelled(item.metric)} of {{}} of 100")
        part = f"without pretraining {100 * item.random[0]:.0f}"
        if not item.clear:
            part += ", too close to tell apart"
        title = "Encoder as it is" if item.metric == "knn" else title_of(item.task)
        rows.append((title, f"{done.format(f'{100 * item.pretrained[0]:.0f}')}; {part}"))
    if not rows:
        return None
    lead = "Measured on places that no training has seen. 100 would be without a mistake."
    return Section("good-for", "What the model is good for", lead, (Table("By task", ("task", "result"), tuple(rows)),))


def _next(inputs: ReportInputs) -> Section | None:
    """Link what can be opened and taken away."""
    files = []
    if inputs.map_files is not None:
        files.append(
            File("map.html", "Open the map", "images of each date, results and places on the ground; click to ask")
        )
    if inputs.deliverables is not None and (inputs.deliverables / "catalog.json").is_file():
        found = sorted(path.parent.name for path in inputs.deliverables.glob("*/polygons.gpkg"))
        for name in found:
            href = f"{inputs.deliverables.name}/{name}/polygons.gpkg"
            files.append(File(href, f"{title_of(name)}: polygons", "with hectares, for QGIS and other tools"))
            href = f"{inputs.deliverables.name}/{name}/areas.csv"
            files.append(File(href, f"{title_of(name)}: areas", "hectares by class as a table"))
    if inputs.search is not None and (inputs.search / "hits.geojson").is_file():
        files.append(File("#/search", "Places like an example", "what a search has found, and how to ask for your own"))
    if not files:
        return None
    return Section("next", "What to do next", "", (Files("To open", tuple(files)),))


def _pays(inputs: ReportInputs) -> Section | None:
    if inputs.scores is None:
        return None
    found = [*comparisons(inputs.scores), *frozen_comparisons(inputs.scores)]
    if not found:
        return None
    lead = (
        "Each task was trained twice, the same way on the same images: from the pretrained weights and from random"
        " weights (random_init). Random convolution features (rcf) are filters drawn from the images under one linear"
        " layer: what an encoder has to clear to be worth its training. In brackets, the 95 % interval."
    )
    return Section("pays", "Does pretraining pay?", lead, (does_it_pay(found),))


def _look_at(inputs: ReportInputs) -> Section:
    notices = attention(inputs)
    blocks: tuple[Block, ...] = (Ways("Before you trust the figures", notices, "notices"),) if notices else ()
    return Section("look-at", "What to look at", "" if notices else "Nothing stands out.", blocks)


def _stages(stages: Sequence[Page]) -> Section | None:
    ways = tuple(Way(page.name, page.title, page.finding) for page in stages)
    return Section("stages", "Stage by stage", "", (Ways("The stages of this chain", ways),)) if ways else None


def _data_facts(inputs: ReportInputs) -> list[Fact]:
    facts = []
    accepted, unwanted = accepted_scenes(inputs), unwanted_scenes(inputs)
    if accepted is not None:
        rejected = 0 if unwanted is None else len(unwanted)
        facts.append(
            Fact("scenes", text.count(len(accepted)), f"{text.count(rejected) if rejected else 'none'} rejected")
        )
    if inputs.locations is not None:
        facts.append(Fact("locations", text.count(len(inputs.locations))))
    if inputs.pictures is not None:
        learned = int((inputs.pictures["split"] == "train").sum())
        facts.append(Fact("pictures", text.count(len(inputs.pictures)), f"{text.count(learned)} to learn from"))
    if inputs.images is not None:
        rejected = 0 if inputs.rejected_images is None else len(inputs.rejected_images)
        sensors = plural(inputs.images["sensor"].nunique(), "sensor")
        facts.append(
            Fact("co-registered images", text.count(len(inputs.images)), f"{sensors}; {text.count(rejected)} rejected")
        )
    if inputs.sets is not None:
        kept = int(inputs.sets["kept"].astype(bool).sum())
        pruned = "not pruned" if inputs.prune_report is None else f"{text.count(kept)} kept by pruning"
        facts.append(Fact("image sets", text.count(len(inputs.sets)), pruned))
    return facts


def _training_facts(inputs: ReportInputs) -> list[Fact]:
    loss, steps = first_and_last(inputs, "loss"), steps_taken(inputs)
    if loss is None or steps is None:
        return []
    return [Fact("pretraining loss", f"{loss[0]:.3f} → {loss[1]:.3f}", f"{text.count(steps)} steps")]


def _verdict(inputs: ReportInputs) -> str:
    sentences = []
    if inputs.sets is not None and inputs.images is not None:
        images, sensors = len(inputs.images), inputs.images["sensor"].nunique()
        locations = inputs.sets["location_id"].nunique()
        sentences.append(
            f"{plural(images, 'image')} from {plural(sensors, 'sensor')} at {plural(locations, 'location')} form"
            f" {plural(len(inputs.sets), 'image set')}."
        )
    if inputs.pictures is not None:
        sentences.append(f"{plural(len(inputs.pictures), 'picture')} of a folder, without labels.")
    if inputs.scores is not None:
        if compared := comparisons(inputs.scores):
            sentences.append(f"Of {plural(len(compared), 'task')}, {_won(compared)}.")
        if frozen := frozen_comparisons(inputs.scores):
            sentences.append(f"Of {plural(len(frozen), 'reading')} of the encoder as it is, {_won(frozen)}.")
    elif inputs.model_dir is not None:
        sentences.append("This chain ends with the pretrained model; no task was scored.")
    return " ".join(sentences) or "The stages of this chain and what they wrote."


def _won(compared: Sequence[Comparison]) -> str:
    """Count gains and losses, and those where the interval of the difference excludes 0."""
    counts = []
    for sign in (1, -1):
        clear = [item.clear for item in compared if item.gain * sign > 0]
        counts.append(f"{len(clear)} ({sum(clear)} with an interval that excludes 0)" if clear else "none")
    return f"pretraining scored higher than random initialisation on {counts[0]} and lower on {counts[1]}"


_SHOWN = ("format_version", "model", "model_name", "method", "data_manifest_hash", "data_manifest", "code_commit")


def provenance(inputs: ReportInputs) -> Section:
    """Show the hashes of data and model, and every parameter of the run."""
    rows: list[tuple[str, str]] = [("stages", ", ".join(inputs.stages))]
    if inputs.simulation is not None:
        rows += [
            (f"simulation, {key.replace('_', ' ')}", str(inputs.simulation[key]))
            for key in ("seed", "content_hash")
            if key in inputs.simulation
        ]
    if inputs.store is not None:
        rows.append(("image-set store, sha256 of its content", inputs.store.manifest_hash))
        rows.append(("sensors", text.listed(inputs.store.sensors)))
    if inputs.model_dir is not None and (inputs.model_dir / "config.json").exists():
        config = json.loads((inputs.model_dir / "config.json").read_text("utf-8"))
        rows += [(f"model, {key.replace('_', ' ')}", _short(config[key])) for key in _SHOWN if key in config]
    blocks: list[Block] = [Table("Hashes and versions of inputs and outputs", ("what", "value"), tuple(rows))]
    if inputs.configuration:
        shown = without_places(inputs.configuration)
        blocks.append(
            Code(
                "The configuration of this run",
                json.dumps(shown, indent=2, sort_keys=True, default=str, ensure_ascii=False),
            )
        )
    return Section(
        "provenance",
        "Provenance",
        "The same scenes, configuration and code give the same bytes: equal hashes mean that two reports are about the"
        " same data.",
        tuple(blocks),
    )


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)

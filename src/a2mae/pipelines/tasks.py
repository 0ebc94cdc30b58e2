"""The task stages: one pipeline for every task, under the task's name.

Its nodes prepare data, finetune from both starts, score, and map a whole raster. Annotations must resolve when Kedro
reads them, or the parameters would not be validated; so what needs torch or pandas is annotated as `object` and typed
inside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import IMAGE_SETS, SCENES, SIMULATION, optional_inputs
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    from a2mae.tasks.evaluation.both_starts import TaskResult
    from a2mae.tasks.finetune.finetuned import Finetuned

_OPENED_BY = {
    "data": ("prepare_data",),
    "map": ("draw_map", "prepare_data"),
    "start": ("finetune", "finetune_random"),
}


def opened_by(group: str, key: str) -> tuple[str, ...]:
    """Name the nodes that open what a parameter names: the first reads it, others look whether it can be read.

    Args:
        group: Of parameters.
        key: Within it, with dots, as `Parameters.named_paths` has it.

    Returns:
        Names of nodes; empty for what every node with the group may open.
    """
    names = _OPENED_BY.get(key.split(".", maxsplit=1)[0], ()) if group in tuple(Task) else ()
    return tuple(f"{group}.{name}" for name in names)


def create_pipeline(
    stage: str,
    made: Collection[str] | None = None,
    *,
    draws_map: bool = True,
    twin: bool = True,
    started: bool = False,
) -> Pipeline:
    """Create the pipeline of a task.

    Args:
        stage: The task; also the namespace, the parameter group and the prefix of the datasets (`classify.data`).
        made: Datasets that the stages of the environment's chain make; None: all.
        draws_map: Whether there is anything to draw a map of, and answers for pixels to draw; otherwise the task ends
            with its scores.
        twin: Whether random_init is trained and scored beside the model.
        started: Whether its parameters name the encoder; otherwise it is the one that this run has pretrained.
    """
    maps = Task(stage).kind.per_pixel and draws_map
    built, scenes = optional_inputs(made, IMAGE_SETS, SIMULATION), optional_inputs(made, SCENES) if maps else {}
    encoder = {} if started else {"pretrained_model": "pretrained_model"}
    nodes = [
        node(
            prepare_data,
            inputs={
                "options": "params:options",
                "target": "data_target",
                **built,
                **{name: name for name in scenes if name == "sensors"},
            },
            outputs="data",
            name="prepare_data",
        ),
        node(
            finetune,
            inputs={"options": "params:options", "data": "data", "run": "run", **encoder},
            outputs="model",
            name="finetune",
        ),
        node(
            score,
            inputs=["params:options", "data", "model", *(["random_model"] if twin else [])],
            outputs=["metrics", "pictures", "confusion"],
            name="score",
        ),
    ]
    if twin:
        nodes.insert(
            2,
            node(
                finetune_random,
                inputs={"options": "params:options", "data": "data", "run": "random_run", **encoder},
                outputs="random_model",
                name="finetune_random",
            ),
        )
    if maps:
        inputs = {
            "options": "params:options",
            "ingest": "params:ingest",
            "coregister": "params:coregister",
            "target": "map_target",
            "model": "model",
            "metrics": "metrics",
            **scenes,
        }
        outputs: str | list[str] = "map"
        if not Task(stage).kind.values:
            inputs["confidence_target"], outputs = "confidence_target", ["map", "confidence"]
        nodes.append(node(draw_map, inputs=inputs, outputs=outputs, name="draw_map"))
    return Pipeline(
        nodes,
        namespace=stage,
        inputs={*built, *scenes, *encoder},
        parameters={
            "params:options": f"params:{stage}",
            **({name: name for name in ("params:ingest", "params:coregister")} if maps else {}),
        },
        tags=stage,
    )


def prepare_data(
    options: TaskParameters,
    target: Path,
    *,
    image_sets: object = None,
    images: object = None,
    sets: object = None,
    locations: object = None,
    simulation: dict[str, object] | None = None,
    simulation_folder: Path | None = None,
    sensors: dict[str, object] | None = None,
) -> Path:
    """Write the task's samples.

    Rasters that are to be mapped are opened first, so that one that cannot be is refused before the training.

    Args:
        options: The task's parameters.
        target: Folder of the task data.
        image_sets: The open image-set store; None, as the tables, where the chain builds none.
        images: Image table.
        sets: Set table: splits by place.
        locations: Location table: grids.
        simulation: The simulation's manifest: the truth is found from its folder.
        simulation_folder: Where it lies; None where the chain simulates nothing.
        sensors: Sensors in use; None where the task draws no map, or no stage has looked at scenes.

    Returns:
        The folder.
    """
    import pandas as pd

    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.tasks.datasets.groups import read_groups
    from a2mae.tasks.datasets.sources import prepare
    from a2mae.tasks.datasets.store_samples import Tables
    from a2mae.tasks.datasets.writer import write_source

    tables = None
    if image_sets is not None:
        tables = Tables(
            cast(ImageSetStore, image_sets),
            cast(pd.DataFrame, images),
            cast(pd.DataFrame, sets),
            cast(pd.DataFrame, locations),
        )
    named = options.data.groups
    groups = None if named is None else read_groups(Path(named), f"{options.task}.data.groups")
    source = prepare(options, tables, simulation_folder)
    for name in options.bands:
        source.spec.band_index(name, options.task)  # said before all samples are read
    if options.per_pixel:
        from a2mae.tasks.inference.files import check_named

        check_named(options, source, sensors)
    write_source(target, source, groups)
    return target


def finetune(options: TaskParameters, data: object, run: Path, *, pretrained_model: Path | None = None) -> object:
    """Finetune the pretrained encoder, or the one that the task's parameters name.

    Args:
        options: The task's parameters.
        data: Its samples.
        run: Where a stopped finetuning goes on.
        pretrained_model: Model directory; None where the parameters name the encoder.

    Returns:
        The finetuned model with its record.
    """
    return _finetune(options, data, run, pretrained_model, "pretrained")


def finetune_random(
    options: TaskParameters, data: object, run: Path, *, pretrained_model: Path | None = None
) -> object:
    """Train the same architecture from random weights by the same recipe.

    Args:
        options: The task's parameters.
        data: Its samples.
        run: Where a stopped training goes on.
        pretrained_model: Model directory; only its architecture and normalisation are used.

    Returns:
        The trained model with its record.
    """
    return _finetune(options, data, run, pretrained_model, "random")


def _finetune(options: TaskParameters, data: object, run: Path, pretrained_model: Path | None, start: str) -> object:
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.finetune.finetuned import finetune_start

    return finetune_start(options, cast(TaskData, data), pretrained_model, start, run)


def score(
    options: TaskParameters, data: object, model: object, random_model: object = None
) -> tuple[dict[str, object], object, dict[str, object]]:
    """Score the model and its random_init on the test split; the stage's W&B run holds the result.

    Args:
        options: The task's parameters.
        data: Its samples.
        model: From the pretrained encoder.
        random_model: From random weights; None where only the model is wanted (`twin`).

    Returns:
        Metrics, pictures, and truth against prediction.
    """
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.both_starts import score_both
    from a2mae.tasks.finetune.finetuned import Finetuned

    starts = {"pretrained": model, "random": random_model}
    models = {start: cast(Finetuned, found) for start, found in starts.items() if found is not None}
    result = score_both(options, cast(TaskData, data), models)
    _track(options, models, result)
    return result.metrics, result.pictures, result.confusion


def _track(options: TaskParameters, models: Mapping[str, Finetuned], result: TaskResult) -> None:
    """Show loss curves, pictures and scores in the stage's W&B run, or in one of its own."""
    from a2mae import tracking

    with tracking.stage_run(options.task, options.model_dump(mode="json")) as run:
        for moments in zip(*(models[start].history for start in models), strict=True):
            row = {f"{start}/loss": moment.loss for start, moment in zip(models, moments, strict=True)}
            run.log({**row, "lr": moments[0].lr}, step=moments[0].step)
        for name in result.pictures:
            if name.startswith("image") and len(result.pictures[name]):
                run.log_pictures(name, result.pictures[name])
        for start in models:
            run.summarize(cast("dict[str, object]", result.metrics[start]), start)


def draw_map(
    options: TaskParameters,
    target: Path,
    *,
    ingest: IngestParameters,
    coregister: CoregisterParameters,
    model: object,
    metrics: dict[str, object],
    scenes: object = None,
    sensors: dict[str, object] | None = None,
    confidence_target: Path | None = None,
) -> Path | tuple[Path, Path]:
    """Map a raster, or a pair, window by window.

    The map carries the model's scores, so it is drawn when they are there: a map that fails leaves no old scores
    beside a new model.

    Args:
        options: The task's parameters.
        target: File of the map.
        ingest: The `ingest` group: how the scenes' files are reached.
        coregister: The `coregister` group: how their clouds are told.
        model: Finetuned from the pretrained encoder.
        metrics: Its scores and those of random_init.
        scenes: Scene table: the default rasters are its scenes; None where no stage has made one.
        sensors: Sensors in use, likewise.
        confidence_target: File of the probability of the mapped class; None of a map of values.

    Returns:
        The file, or both.
    """
    import pandas as pd

    from a2mae.tasks.finetune.finetuned import Finetuned
    from a2mae.tasks.inference.scenes import SceneRasters
    from a2mae.tasks.inference.sources import MapSource

    scores = cast("dict[str, object]", metrics["pretrained"])
    MapSource(
        options.map,
        options.device,
        options.threads,
        cast(Finetuned, model),
        SceneRasters(cast("pd.DataFrame | None", scenes), sensors or {}, ingest.access(), coregister.clouds),
        {name: value for name, value in scores.items() if not isinstance(value, dict)},  # those of classes,
        options.data.inputs,
        options.finetune.precision,
        options,
    ).write(target, confidence_target)
    return target if confidence_target is None else (target, confidence_target)

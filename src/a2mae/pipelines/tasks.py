"""The task stages: one pipeline for every task (prepare data, finetune both starts, score, map), under its namespace.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated; so what needs torch or
pandas is annotated as `object` and typed inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import BUILT, SURVEYED, of_chain
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.tasks.parameters import TaskParameters

MAPPED = ("segment", "detect_change")
"""Tasks whose finetuned model also maps a whole raster."""


def create_pipeline(stage: str, chain: Sequence[str] | None = None) -> Pipeline:
    """Create the pipeline of a task stage: the template under the stage's name.

    Args:
        stage: Also the namespace, the parameter group and the prefix of the datasets (`classify.data`).
        chain: Stages of the environment; None: all.
    """
    maps = stage in MAPPED
    built, surveyed = of_chain(BUILT, chain), of_chain(SURVEYED, chain) if maps else ()
    map_node = node(
        draw_map,
        inputs={
            "options": "params:options",
            "ingest": "params:ingest",
            "model": "model",
            "metrics": "metrics",
            **{name: name for name in surveyed},
        },
        outputs="map",
        name="draw_map",
    )
    template = Pipeline(
        [
            node(
                prepare_data,
                inputs={
                    "options": "params:options",
                    **{name: name for name in (*built, *surveyed) if name != "scenes"},
                },
                outputs="data",
                name="prepare_data",
            ),
            node(
                finetune,
                inputs=["params:options", "data", "pretrained_model", "run"],
                outputs="model",
                name="finetune",
            ),
            node(
                finetune_random,
                inputs=["params:options", "data", "pretrained_model", "random_run"],
                outputs="random_model",
                name="finetune_random",
            ),
            node(
                score,
                inputs=["params:options", "data", "model", "random_model"],
                outputs=["metrics", "pictures", "confusion"],
                name="score",
            ),
            *([map_node] if maps else []),
        ]
    )
    return Pipeline(
        template,
        namespace=stage,
        inputs={*built, *surveyed, "pretrained_model"},
        parameters={
            "params:options": f"params:{stage}",
            **({"params:ingest": "params:ingest"} if maps else {}),
        },
        tags=stage,
    )


def prepare_data(
    options: TaskParameters,
    *,
    image_sets: object = None,
    images: object = None,
    sets: object = None,
    locations: object = None,
    simulation: dict[str, object] | None = None,
    simulation_folder: Path | None = None,
    sensors: dict[str, object] | None = None,
) -> object:
    """Decide what the samples are; the dataset writes them one by one.

    Rasters that are to be mapped are opened here, so that one that cannot be is refused before the training.

    Args:
        options: The task's parameters.
        image_sets: The open image-set store; None, as the tables, where the chain builds none.
        images: Image table.
        sets: Set table: splits by place.
        locations: Location table: grids.
        simulation: The simulation's manifest: the truth is found from its folder.
        simulation_folder: Where it lies; None where the chain simulates nothing.
        sensors: Sensors in use; None where the task draws no map, or no stage has looked at scenes.

    Returns:
        A source of samples.
    """
    import pandas as pd

    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.tasks.datasets.cuts import Tables
    from a2mae.tasks.datasets.sources import prepare

    tables = None
    if image_sets is not None:
        tables = Tables(
            cast(ImageSetStore, image_sets),
            cast(pd.DataFrame, images),
            cast(pd.DataFrame, sets),
            cast(pd.DataFrame, locations),
        )
    source = prepare(options, tables, simulation_folder)
    if options.task != "classify":
        from a2mae.tasks.inference.scenes import check_named

        check_named(options, source, sensors)
    return source


def finetune(options: TaskParameters, data: object, pretrained_model: Path, run: Path) -> object:
    """Finetune the pretrained encoder.

    Args:
        options: The task's parameters.
        data: Its samples.
        pretrained_model: Model directory.
        run: Where a stopped finetuning goes on.

    Returns:
        The finetuned model with its record.
    """
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.finetune.finetuned import finetune_start

    return finetune_start(options, cast(TaskData, data), pretrained_model, "pretrained", run)


def finetune_random(options: TaskParameters, data: object, pretrained_model: Path, run: Path) -> object:
    """Train the same architecture from random weights by the same recipe.

    Args:
        options: The task's parameters.
        data: Its samples.
        pretrained_model: Model directory; only its architecture and normalisation are used.
        run: Where a stopped training goes on.

    Returns:
        The trained model with its record.
    """
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.finetune.finetuned import finetune_start

    return finetune_start(options, cast(TaskData, data), pretrained_model, "random", run)


def score(
    options: TaskParameters, data: object, model: object, random_model: object
) -> tuple[dict[str, object], object, dict[str, object]]:
    """Score both models on the test split; one W&B run holds the result.

    Args:
        options: The task's parameters.
        data: Its samples.
        model: From the pretrained encoder.
        random_model: From random weights.

    Returns:
        Metrics, pictures and confusion counts.
    """
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.both_starts import score_both, track
    from a2mae.tasks.finetune.finetuned import Finetuned

    models = {"pretrained": cast(Finetuned, model), "random": cast(Finetuned, random_model)}
    result = score_both(options, cast(TaskData, data), models)
    track(options, models, result)
    return result.metrics, result.pictures, result.confusion


def draw_map(
    options: TaskParameters,
    *,
    ingest: IngestParameters,
    model: object,
    metrics: dict[str, object],
    scenes: object = None,
    sensors: dict[str, object] | None = None,
) -> object:
    """Say what is mapped by what; the dataset streams it window by window.

    The map carries the model's scores, so it is drawn when they are there: a map that fails leaves no old scores
    beside a new model.

    Args:
        options: The task's parameters.
        ingest: The `ingest` group: how the scenes' files are reached.
        model: Finetuned from the pretrained encoder.
        metrics: Its scores and those of random_init.
        scenes: Scene table: the default rasters are its scenes; None where no stage has made one.
        sensors: Sensors in use, likewise.

    Returns:
        What writes the map.
    """
    import pandas as pd

    from a2mae.tasks.finetune.finetuned import Finetuned
    from a2mae.tasks.inference.survey import MapSource

    scores = cast("dict[str, object]", metrics["pretrained"])
    return MapSource(
        options.map,
        options.device,
        options.threads,
        cast(Finetuned, model),
        cast("pd.DataFrame | None", scenes),
        sensors or {},
        ingest.access(),
        {name: value for name, value in scores.items() if name != "per_class"},
    )

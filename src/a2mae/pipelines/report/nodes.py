"""The report's node: hands the chain's outputs to `a2mae.reporting`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from a2mae.pipelines.report.parameters import ReportParameters

if TYPE_CHECKING:  # of a helper only: the node's own annotations must resolve, or its parameters are not validated
    import pandas as pd

logger = logging.getLogger(__name__)

TASKS = ("classify", "segment", "detect_change")


def build_report(
    options: ReportParameters,
    chain: list[str],
    configuration: Mapping[str, object],
    **outputs: Any,  # noqa: ANN401 (tables, JSON and paths: typed again as the fields of ReportInputs)
) -> str:
    """Build the page from what the chain made.

    Args:
        options: Title and limits.
        chain: The stages of the run.
        configuration: Every parameter group, shown at the end of the page.
        outputs: What the stages wrote, by the dataset's name with `_` for `.`; stages that are not in the chain give
            nothing.

    Returns:
        The page as HTML.
    """
    from a2mae.reporting import page
    from a2mae.reporting.inputs import Limits, ReportInputs, TaskInputs

    tasks = tuple(
        TaskInputs(task, outputs[f"{task}_metrics"], outputs.get(f"{task}_pictures"))
        for task in TASKS
        if f"{task}_metrics" in outputs
    )
    inputs = ReportInputs(
        title=options.title,
        stages=tuple(chain),
        configuration=_plain(configuration),
        limits=Limits(options.sets, options.reconstructions, options.examples, options.picture_px),
        simulation=outputs.get("simulation"),
        true_shifts=_true_shifts(outputs.get("simulation"), outputs.get("simulation_folder")),
        scenes=outputs.get("scenes"),
        refused_scenes=outputs.get("refused_scenes"),
        locations=outputs.get("locations"),
        store=outputs.get("image_sets"),
        images=outputs.get("images"),
        rejected_images=outputs.get("rejected_images"),
        sets=outputs.get("pruned_sets"),
        four_properties=outputs.get("four_properties"),
        prune_report=outputs.get("prune_report"),
        model_dir=outputs.get("pretrained_model"),
        tasks=tasks,
        scores=outputs.get("scores"),
        embeddings=outputs.get("embeddings"),
    )
    html = page.build(inputs)
    logger.info("report: %d sections, %.1f MB", html.count('class="chapter"'), len(html.encode("utf-8")) / 1e6)
    return html


def _true_shifts(manifest: Mapping[str, Any] | None, folder: Path | None) -> pd.DataFrame | None:
    """The truth beside the simulated scenes; None where nothing was simulated."""
    if not manifest or folder is None:
        return None
    import pandas as pd

    return pd.read_parquet(folder / manifest["truth_scenes"])


def _plain(configuration: Mapping[str, object]) -> dict[str, object]:
    """Parameter groups as plain values: Kedro has made models of those that a node declares."""
    return {
        name: group.model_dump(mode="json") if isinstance(group, BaseModel) else group
        for name, group in configuration.items()
    }

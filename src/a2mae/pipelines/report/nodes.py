"""The report's node: hands the chain's outputs to `a2mae.reporting`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from a2mae.pipelines.report.parameters import ReportParameters

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from a2mae.reporting.inputs import StoreReader

logger = logging.getLogger(__name__)


def build_report(
    options: ReportParameters,
    chain: list[str],
    configuration: Mapping[str, object],
    *,
    simulation: Mapping[str, object] | None = None,
    scenes: gpd.GeoDataFrame | None = None,
    locations: gpd.GeoDataFrame | None = None,
    refused_scenes: pd.DataFrame | None = None,
    image_sets: StoreReader | None = None,
    rejected_images: pd.DataFrame | None = None,
    images: pd.DataFrame | None = None,
    four_properties: Mapping[str, object] | None = None,
    pruned_sets: gpd.GeoDataFrame | None = None,
    prune_report: Mapping[str, object] | None = None,
    pretrained_model: Path | None = None,
    classify_metrics: Mapping[str, object] | None = None,
    classify_pictures: Path | None = None,
    segment_metrics: Mapping[str, object] | None = None,
    segment_pictures: Path | None = None,
    detect_change_metrics: Mapping[str, object] | None = None,
    detect_change_pictures: Path | None = None,
    embeddings: Path | None = None,
    scores: pd.DataFrame | None = None,
) -> str:
    """Build the page from what the chain made; an input of a stage that is not in the chain is None.

    Args:
        options: Title and limits.
        chain: The stages of the run.
        configuration: Every parameter group, shown at the end of the page.
        simulation: Manifest of the simulated Earth.
        scenes: Scene table.
        locations: Location table.
        refused_scenes: Scenes kept out at the door.
        image_sets: The open image-set store.
        rejected_images: Images kept out at registration.
        images: Final image table.
        four_properties: The four-property report.
        pruned_sets: Set table after pruning.
        prune_report: Before and after pruning.
        pretrained_model: Model directory.
        classify_metrics: Scores of the classifiers.
        classify_pictures: Their examples, an npz.
        segment_metrics: Scores of the segmenters.
        segment_pictures: Their examples, an npz.
        detect_change_metrics: Scores of the change detectors.
        detect_change_pictures: Their examples, an npz.
        embeddings: What `embed` wrote.
        scores: The tidy score table.

    Returns:
        The page as HTML.
    """
    from a2mae.reporting import page
    from a2mae.reporting.inputs import Limits, ReportInputs, TaskInputs

    tasks = (
        ("classify", classify_metrics, classify_pictures),
        ("segment", segment_metrics, segment_pictures),
        ("detect_change", detect_change_metrics, detect_change_pictures),
    )
    inputs = ReportInputs(
        title=options.title,
        stages=tuple(chain),
        configuration=_plain(configuration),
        limits=Limits(options.sets, options.reconstructions, options.examples, options.picture_px),
        simulation=simulation,
        scenes=scenes,
        refused_scenes=refused_scenes,
        locations=locations,
        store=image_sets,
        images=images,
        rejected_images=rejected_images,
        sets=pruned_sets,
        four_properties=four_properties,
        prune_report=prune_report,
        model_dir=pretrained_model,
        tasks=tuple(TaskInputs(name, metrics, pictures) for name, metrics, pictures in tasks if metrics is not None),
        scores=scores,
        embeddings=embeddings,
    )
    html = page.build(inputs)
    logger.info("report: %d sections, %.1f MB", html.count('class="chapter"'), len(html.encode("utf-8")) / 1e6)
    return html


def _plain(configuration: Mapping[str, object]) -> dict[str, object]:
    """Parameter groups as plain values: Kedro has made models of those that a node declares."""
    from pydantic import BaseModel

    return {
        name: group.model_dump(mode="json") if isinstance(group, BaseModel) else group
        for name, group in configuration.items()
    }

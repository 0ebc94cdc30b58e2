"""What the report is made from: its parameters, and what the stages of the chain have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from a2mae.config import Parameters
from a2mae.sensors import Sensor

if TYPE_CHECKING:
    import pandas as pd


class CardParameters(Parameters):
    """What the model card and the data-set card say that no run can know."""

    model_name: str | None = Field(None, min_length=1, description="of the pretrained model; null: what it was made of")
    dataset_name: str | None = Field(None, min_length=1, description="of the image sets; null: what they are made of")
    licence: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.+-]*$", description="SPDX identifier in lower case, for example cc-by-4.0; or other"
    )
    licence_note: str = Field("", description="what holds where the identifier does not say it")
    contact: str = Field("", description="who answers for them; may be empty")
    intended_use: tuple[str, ...] = Field((), description="lines added to the intended use")
    limits: tuple[str, ...] = Field((), description="lines added to the limits: what is known not to work")


class Limits(Parameters):
    """How much the page shows, so that it stays one file that opens at once."""

    sets: int = Field(default=8, ge=0, le=100, description="image sets shown as pictures")
    reconstructions: int = Field(default=6, ge=0, le=100, description="sets whose predicted patches are shown")
    examples: int = Field(default=8, ge=0, le=100, description="pictures per task")
    picture_px: int = Field(default=256, ge=16, le=1024, description="longest side of an embedded picture, pixels")


class ReportParameters(Limits):
    """What the page is called and how much it shows; what the cards say."""

    title: str = Field(min_length=1, description="heading of the page")
    map_places: int = Field(default=100, ge=1, description="places whose images the map shows")
    card: CardParameters = Field(description="what the cards say that no run can know")


class StoreReader(Protocol):
    """The part of `stssd.store.ImageSetStore` that pictures need."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """Ids of the sensors in the store."""

    @property
    def manifest_hash(self) -> str:
        """SHA-256 over the content manifest."""

    def sensor(self, sensor_id: str, /) -> Sensor:
        """Describe a sensor."""

    def count(self, sensor_id: str, /) -> int:
        """Count the images of a sensor."""

    def read_physical(
        self, sensor: str, rows: NDArray[np.int64], bands: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read pixels `(N, C, H, W)` in physical units and their valid mask `(N, H, W)`."""


@dataclass(frozen=True)
class TaskOutputs:
    """One task's results.

    Attributes:
        name: Of the task: `classify`, `segment`, …
        metrics: Contents of `<task>_metrics.json`: `{"pretrained": {...}, "random": {...}}`.
        pictures: Path of `pictures.npz`, or None.
        map: Path of the map of a whole scene, or None.
        confusion: Contents of `<task>_confusion.json`: `class_names`, `multi_label`, and per start counts `(K, K)`,
            truth by rows; of values `quantity`, `units` and pairs of `truth` and `prediction`; or None.
    """

    name: str
    metrics: Mapping[str, object]
    pictures: Path | None = None
    map: Path | None = None
    confusion: Mapping[str, object] | None = None

    @property
    def start(self) -> Mapping[str, object] | None:
        """Which weights it started from, where they are not those of this chain's pretraining."""
        found = self.metrics.get("start")
        return found if isinstance(found, Mapping) else None


@dataclass(frozen=True)
class ReportInputs:
    """Everything that sections may read; absent is what no stage of the chain has made.

    Attributes:
        title: Heading of the page.
        stages: The chain, in its order.
        configuration: The parameters of the run, as plain JSON values.
        limits: How much is shown.
        simulation: The simulated Earth's manifest.
        true_shifts: The simulation's true shifts, by scene.
        scenes: Scene table.
        refused_scenes: Rejected scenes.
        locations: Location table.
        store: The open image-set store.
        images: Image table.
        rejected_images: Rejected images.
        pictures: Image table with the column `split`, where the images are pictures and no scenes.
        sets: Set table, after pruning where the chain prunes.
        four_properties: The four-property report.
        prune_report: Before and after pruning.
        model_dir: The pretrained model directory.
        tasks: Results per task.
        scores: The tidy score table.
        embeddings: Folder with what `embed` wrote.
        search: Folder with what `search` wrote.
        deliverables: Folder with what `deliver` wrote, beside the page.
        map_files: Folder of the map page, beside this one.
    """

    title: str
    stages: tuple[str, ...]
    configuration: Mapping[str, object] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    simulation: Mapping[str, object] | None = None
    true_shifts: pd.DataFrame | None = None
    scenes: pd.DataFrame | None = None
    refused_scenes: pd.DataFrame | None = None
    locations: pd.DataFrame | None = None
    store: StoreReader | None = None
    images: pd.DataFrame | None = None
    rejected_images: pd.DataFrame | None = None
    pictures: pd.DataFrame | None = None
    sets: pd.DataFrame | None = None
    four_properties: Mapping[str, object] | None = None
    prune_report: Mapping[str, object] | None = None
    model_dir: Path | None = None
    tasks: tuple[TaskOutputs, ...] = ()
    scores: pd.DataFrame | None = None
    embeddings: Path | None = None
    search: Path | None = None
    deliverables: Path | None = None
    map_files: Path | None = None


MOST_POINTS = 2_000
"""Points of a chart: more are neither told apart nor opened at once."""


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows that a chart draws: all, or as many as can be told apart, evenly over the table."""
    if len(table) <= MOST_POINTS:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, MOST_POINTS).astype(int)]


def how_many(table: pd.DataFrame) -> str:
    """Say which share of the rows a chart draws, as a sentence; empty where it draws all."""
    return "" if len(table) <= MOST_POINTS else f" {MOST_POINTS:,} of {len(table):,} are drawn, evenly chosen."


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn the rows of a table into mappings from column to cell."""
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]

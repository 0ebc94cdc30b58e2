"""What the report is built from: the chain's outputs, each absent where its stage was not in the chain.

Rows of a table as mappings.

What the report is built from: the chain's outputs, each absent where its stage was not in the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from a2mae.sensors import Sensor

if TYPE_CHECKING:
    import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, each a mapping from column to cell; what a cell holds is the table's schema (`stssd/tables.py`)."""
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]


class StoreReader(Protocol):
    """The part of `stssd.store.ImageSetStore` that pictures need."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """Ids of the sensors in the store."""

    @property
    def manifest_hash(self) -> str:
        """sha256 over the content manifest."""

    def sensor(self, sensor_id: str, /) -> Sensor:
        """Full description of a sensor."""

    def count(self, sensor_id: str, /) -> int:
        """Images of a sensor."""

    def read_physical(
        self, sensor: str, rows: NDArray[np.int64], bands: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels `(N, C, H, W)` in physical units and their valid mask `(N, H, W)`."""


@dataclass(frozen=True)
class TaskInputs:
    """One task's results.

    Attributes:
        name: `classify`, `segment` or `detect_change`.
        metrics: Contents of `<task>_metrics.json`: `{"pretrained": {...}, "random": {...}}`.
        pictures: Path of `pictures.npz`, or None.
        map: Path of the map of a whole scene, or None.
        confusion: Contents of `<task>_confusion.json`: `class_names`, `multi_label`, and per start counts `(K, K)`,
            truth by rows; or None.
    """

    name: str
    metrics: Mapping[str, object]
    pictures: Path | None = None
    map: Path | None = None
    confusion: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Limits:
    """How much is shown, so that the page stays one file that opens at once.

    Attributes:
        sets: Image sets as pictures.
        reconstructions: Sets of the pretraining pictures.
        examples: Pictures per task.
        picture_px: Longest side of an embedded picture.
    """

    sets: int = 8
    reconstructions: int = 6
    examples: int = 8
    picture_px: int = 256


@dataclass(frozen=True)
class ReportInputs:
    """Everything the sections may read; `docs/architecture.md` describes each table.

    Attributes:
        title: Heading of the page.
        stages: The chain, in its order.
        configuration: The parameters of the run, as plain JSON values.
        limits: How much is shown.
        simulation: The simulated Earth's manifest.
        true_shifts: The simulation's true shifts by scene.
        scenes: Scene table.
        refused_scenes: Scenes kept out at the door.
        locations: Location table.
        store: The open image-set store.
        images: Image table (final).
        rejected_images: Images kept out at registration.
        sets: Set table, after pruning where the chain prunes.
        four_properties: The four-property report.
        prune_report: Before and after pruning.
        model_dir: The pretrained model directory.
        tasks: Results per task.
        scores: The tidy score table.
        embeddings: Folder with what `embed` wrote.
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
    sets: pd.DataFrame | None = None
    four_properties: Mapping[str, object] | None = None
    prune_report: Mapping[str, object] | None = None
    model_dir: Path | None = None
    tasks: tuple[TaskInputs, ...] = ()
    scores: pd.DataFrame | None = None
    embeddings: Path | None = None

"""What the parameters of a raster are called, for messages: `embed` and the maps of each task have their own."""

from __future__ import annotations

from dataclasses import dataclass

from a2mae.tasks.samples.task_data import Task


@dataclass(frozen=True)
class RasterKeys:
    """Full names of the parameters that say what a raster holds.

    Attributes:
        sensor: Whose raster it is.
        scale: Physical units per count; empty where no parameter says so and the file must.
        offset: Physical value of a stored zero, likewise.
    """

    sensor: str
    scale: str = ""
    offset: str = ""

    @property
    def raster(self) -> str:
        """Which raster it is."""
        return self.sensor.replace(".sensor", ".raster")

    @property
    def advice(self) -> str:
        """What to change where values are not what they are taken for: the end of a sentence."""
        stated = f"set {self.scale} and {self.offset}, " if self.scale else ""
        return f"{stated}write scale and offset into the file, or set {self.sensor}"


EMBED = RasterKeys("embed.sensor", "embed.scale", "embed.offset")


def keys_of_map(task: Task) -> RasterKeys:
    """Those of a task's map."""
    return RasterKeys(f"{task}.map.sensor")


OF_SCENES = "check scale and offset of the rule or item by which ingest has read them"
"""What to change where the values of scenes of the scene table are not what they are taken for."""

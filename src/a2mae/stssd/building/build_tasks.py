"""What a worker of a build does: look at some places, or fill one shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from a2mae.sensors import Sensor
from a2mae.stssd.access.remote import RemoteAccess
from a2mae.stssd.access.storage import Folder
from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.building.survey import Place, Surveyed, survey
from a2mae.stssd.image_sets.ledger import Shard
from a2mae.stssd.image_sets.writer import StoreWriter
from a2mae.stssd.pixels.open_files import kept_reader
from a2mae.stssd.pixels.parameters import CloudParameters
from a2mae.stssd.pixels.warp import Footprint, encode, read_image
from a2mae.stssd.refusals import ReadError
from a2mae.stssd.scenes import Scene

SURVEYED = TypeAdapter(list[Surveyed])
"""What a part of the survey is kept as."""


@dataclass(frozen=True)
class SurveyTask:
    """Places for one worker; `name` is the ledger entry that the result is kept in."""

    run: str
    url: str
    name: str
    places: tuple[Place, ...]
    sensors: Mapping[str, Sensor]
    parameters: CoregisterParameters
    access: RemoteAccess


@dataclass(frozen=True)
class ShardTask:
    """A shard for one worker; an image per row of the shard."""

    run: str
    url: str
    shard: Shard
    sensor: Sensor
    images: tuple[tuple[Scene, Footprint, tuple[float, float]], ...]
    clouds: CloudParameters
    access: RemoteAccess
    made_of: str


def survey_task(task: SurveyTask) -> str:
    """Survey the places of a task and keep the result in the ledger."""
    with kept_reader(task.run, work=task.url, access=task.access) as reader:
        result = survey(reader, task.places, task.sensors, task.parameters)
    Folder(task.url).write(task.name, SURVEYED.dump_json(result))
    return task.name


def shard_task(task: ShardTask) -> int:
    """Warp the images of a shard and write it.

    Returns:
        How many of its images could not be read; those rows stay empty and are noted in the store.
    """
    shape = tuple(task.images[0][1].grid(task.sensor.gsd_m).shape)
    encoding = task.sensor.encoding
    pixels = np.full((len(task.images), len(task.sensor.bands), *shape), encoding.nodata, dtype=encoding.dtype)
    valid = np.zeros((len(task.images), *shape), dtype=np.bool_)
    failed: list[dict[str, object]] = []
    with kept_reader(task.run, work=f"{task.url}.work", access=task.access) as reader:
        for k, (scene, footprint, shift_m) in enumerate(task.images):
            try:
                image = read_image(reader, scene, task.sensor, footprint, task.clouds, shift_m=shift_m)
            except ReadError as error:
                failed.append({"row": task.shard.start + k, "reason": error.reason, "detail": str(error)})
                continue
            pixels[k] = encode(image.physical, image.seen, encoding)
            valid[k] = image.valid
    note = {"failed": failed} if failed else None
    StoreWriter(task.url).write(task.shard, pixels, valid, note=note, made_of=task.made_of)
    return len(failed)

"""The two tasks of a worker of a build, and the fingerprints by which a build knows what it has done already.

A worker surveys some locations, or warps the images of one shard and writes it. It imports this module alone, so
neither pandas nor geopandas is needed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from a2mae.config import CloudParameters
from a2mae.errors import ReadError
from a2mae.plausibility import MOST_UNIFORM, uniform_share
from a2mae.raster.opening import sidecars
from a2mae.raster.read import kept_reader
from a2mae.raster.warp import Footprint, clipped, encode, read_image
from a2mae.remote.policy import RemoteAccess, VerifyChecksums
from a2mae.remote.storage import Folder, Parts
from a2mae.remote.verify import source_digest, verified_checksum
from a2mae.scenes import BandAsset, Scene, assets_to_json
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.survey import Location, Surveyed, survey
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.ledger import Shard
from a2mae.stssd.store.writer import StoreWriter

BUILD_VERSION = 8
"""Raise it when the same input would give other pixels or another survey."""

CLIPPED = "clipped"
"""In the note of a shard: how many valid pixels of each band are beyond what the sensor's encoding holds."""
UNIFORM = "uniform"
"""In the note of a shard: images of which a large share is one number in each band."""
SURVEY = "survey"
"""Folder of the survey's parts in a build's work."""
SURVEYED = TypeAdapter(list[Surveyed])
"""JSON of a part of the survey."""

# These parameters say how a build is run; the others decide what is built.
_MANNER = {"workers", "dask_scheduler", "locations_per_task", "reading", "fail_if_unreachable"}


@dataclass(frozen=True)
class SurveyTask:
    """Locations for one worker to survey; the result is kept beside the store as the part `key` of the survey."""

    run: str
    url: str
    key: str
    fingerprint: str
    locations: tuple[Location, ...]
    sensors: Mapping[str, Sensor]
    parameters: CoregisterParameters
    access: RemoteAccess


@dataclass(frozen=True)
class ShardTask:
    """A shard for one worker to fill: per row a scene, its square, and its shift (east, north) in metres."""

    run: str
    url: str
    shard: Shard
    sensor: Sensor
    images: tuple[tuple[Scene, Footprint, tuple[float, float]], ...]
    clouds: CloudParameters
    access: RemoteAccess
    made_of: str


def survey_task(task: SurveyTask) -> str:
    """Survey the locations of a task and keep the result; return its key."""
    with kept_reader(task.run, work=task.url, access=task.access) as reader:
        result = survey(reader, task.locations, task.sensors, task.parameters)
    Parts(Folder(f"{task.url}/{SURVEY}"), task.fingerprint).put(task.key, SURVEYED.dump_json(result))
    return task.key


def shard_task(task: ShardTask) -> int:
    """Warp the images of a shard, once from their source to the registered position, and write the shard.

    Returns:
        How many of its images could not be read. Their rows stay empty; the store notes why.
    """
    shape = tuple(task.images[0][1].grid(task.sensor.gsd_m).shape)
    encoding = task.sensor.encoding
    pixels = np.full((len(task.images), len(task.sensor.bands), *shape), encoding.nodata, dtype=encoding.dtype)
    valid = np.zeros((len(task.images), *shape), dtype=np.bool_)
    failed: list[dict[str, object]] = []
    uniform: list[dict[str, object]] = []
    beyond = np.zeros(len(task.sensor.bands), dtype=np.int64)
    with kept_reader(task.run, work=f"{task.url}.work", access=task.access) as reader:
        for k, (scene, footprint, shift_m) in enumerate(task.images):
            try:
                grid = footprint.grid(task.sensor.gsd_m)
                image = read_image(reader, scene, task.sensor, grid, task.clouds, shift_m=shift_m)
            except ReadError as error:
                failed.append({"row": task.shard.start + k, "reason": error.reason, "detail": str(error)})
                continue
            pixels[k] = encode(image.physical, image.seen, encoding)
            beyond += clipped(image.physical, image.valid, encoding)
            valid[k] = image.valid
            share = uniform_share(pixels[k], valid[k])
            if share > MOST_UNIFORM:
                uniform.append({"row": task.shard.start + k, "share": round(share, 3)})
    note: dict[str, object] = {"failed": failed} if failed else {}
    if uniform:
        note[UNIFORM] = uniform
    if beyond.any():
        note[CLIPPED] = {"px": beyond.tolist(), "of": int(valid.sum())}
    StoreWriter(task.url).write(task.shard, pixels, valid, note=note, made_of=task.made_of)
    return len(failed)


class Fingerprints:
    """Hashes of everything that decides the content of a store and of each of its shards."""

    def __init__(
        self, scenes: Mapping[str, Scene], sensors: Mapping[str, Sensor], parameters: CoregisterParameters
    ) -> None:
        """Look at every scene's files, once.

        Args:
            scenes: Scenes that cover a location, by id.
            sensors: Descriptions of their sensors, by id.
            parameters: The `coregister` group.
        """
        self._settings = json.dumps(parameters.model_dump(mode="json", exclude=_MANNER), sort_keys=True)
        self._sensors = {k: json.dumps(v.to_dict(), sort_keys=True) for k, v in sorted(sensors.items())}
        mode = parameters.reading.verify_checksums
        self._scenes = {
            scene_id: _hash(
                scene_id,
                scene.sensor,
                scene.datetime.isoformat(),
                scene.cloud_test.value,
                assets_to_json(scene.assets),
                # A file whose checksum is compared before use is known by that, also while it is still damaged.
                *(_file_digest(asset, mode) for asset in scene.assets),
            )
            for scene_id, scene in sorted(scenes.items())
        }

    def of_build(self, locations: Iterable[Location]) -> str:
        """Hash everything that decides the content of the store."""
        squares = ([*_square(one.footprint), *(scene.scene_id for scene in one.scenes)] for one in locations)
        return _hash(
            f"build {BUILD_VERSION}", self._settings, *self._sensors.values(), *self._scenes.values(), *squares
        )

    def of_images(self, sensor: str, images: Iterable[tuple[Scene, Footprint, tuple[float, float]]]) -> str:
        """Hash everything that decides the pixels of a shard.

        Args:
            sensor: Sensor id.
            images: Scene, square and shift (east, north) in metres of every row.
        """
        rows = ([self._scenes[scene.scene_id], *_square(square)[1:], *shift_m] for scene, square, shift_m in images)
        return _hash(f"build {BUILD_VERSION}", self._settings, self._sensors[sensor], *rows)


def _file_digest(asset: BandAsset, mode: VerifyChecksums) -> str:
    checksum = verified_checksum(asset, mode)
    if checksum is not None:
        return checksum.text
    return "".join(source_digest(path) for path in (asset.href, *sidecars(asset.href)))


def _square(footprint: Footprint) -> list[object]:
    return [footprint.location_id, footprint.crs, footprint.x_m, footprint.y_m, footprint.size_m]


def _hash(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()

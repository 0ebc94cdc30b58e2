"""What decides the content of a store and of each of its shards, as hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from a2mae.sensors import Sensor
from a2mae.stssd.access.checksums import verified_checksum
from a2mae.stssd.access.fingerprints import source_digest
from a2mae.stssd.access.retries import VerifyChecksums
from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.pixels.warp import Footprint
from a2mae.stssd.scenes import BandAsset, Scene, assets_to_json

BUILD_VERSION = 6  # raise when the same input would give other pixels or tables
_MANNER = {"workers", "dask_scheduler", "locations_per_task", "reading", "fail_if_unreachable"}  # not what is built


class Fingerprints:
    """Hashes of one build: every scene's files are looked at once."""

    def __init__(
        self, scenes: Mapping[str, Scene], sensors: Mapping[str, Sensor], parameters: CoregisterParameters
    ) -> None:
        """Begin.

        Args:
            scenes: Those that reach a place, by id.
            sensors: Their descriptions by id.
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
                # A file that is compared with its checksum before it is used is known by that, mended or not yet.
                *(_file_digest(asset, mode) for asset in scene.assets),
            )
            for scene_id, scene in sorted(scenes.items())
        }

    def of_build(self, places: Iterable[tuple[Footprint, Iterable[str]]]) -> str:
        """Of everything that decides the content.

        Args:
            places: Squares, each with the ids of the scenes that cover it.
        """
        squares = ([*_square(square), *scenes] for square, scenes in places)
        return _hash(
            f"build {BUILD_VERSION}", self._settings, *self._sensors.values(), *self._scenes.values(), *squares
        )

    def of_images(self, sensor: str, images: Iterable[tuple[str, Footprint, tuple[float, float]]]) -> str:
        """Of what decides the pixels of a shard.

        Args:
            sensor: Sensor id.
            images: Scene, square and shift (east, north), metres, of every row.
        """
        rows = ([self._scenes[scene], *_square(square)[1:], *shift_m] for scene, square, shift_m in images)
        return _hash(f"build {BUILD_VERSION}", self._settings, self._sensors[sensor], *rows)


def _file_digest(asset: BandAsset, mode: VerifyChecksums) -> str:
    checksum = verified_checksum(asset, mode)
    return source_digest(asset.href) if checksum is None else checksum.text


def _square(footprint: Footprint) -> list[object]:
    return [footprint.location_id, footprint.crs, footprint.x_m, footprint.y_m, footprint.size_m]


def _hash(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()

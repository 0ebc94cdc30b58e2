"""A build into an S3-compatible store: the same bytes as on disk, and no credential anywhere."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.work import ShardTask
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.tag.statistics import measure

from ..conftest import RECIPES, World

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAQWHISPERED42", "AWS_SECRET_ACCESS_KEY": "hush-Zx81-never-written-down"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        **SECRETS,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    S3FileSystem().mkdir("stssd")
    yield "s3://stssd"
    S3FileSystem.clear_instance_cache()
    server.stop()


def test_build_into_s3_and_read_for_training(
    world: World, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    from a2mae.stssd.coregister import build as build_module

    tasks: list[bytes] = []
    original = build_module.shard_task

    def keep(task: ShardTask) -> int:
        tasks.append(pickle.dumps(task))
        return original(task)

    monkeypatch.setattr(build_module, "shard_task", keep)
    url = f"{bucket}/deep/sets.zarr"
    parameters = CoregisterParameters(recipes={"grid": RECIPES["grid"]}, workers=1)
    few = world.locations.iloc[:2]
    with caplog.at_level(logging.INFO):
        tables = build(world.scenes, few, world.sensors, parameters, url)
        store = ImageSetStore.open(url)
        statistics = measure(store, tables.images)
        with pytest.raises(Exception, match="no image-set store") as missing:
            ImageSetStore.open(f"{bucket}/elsewhere.zarr")
    local = build(world.scenes, few, world.sensors, parameters, str(tmp_path / "sets.zarr"))
    assert tables.manifest_hash == local.manifest_hash
    on_disk = ImageSetStore.open(str(tmp_path / "sets.zarr"))
    for sensor in on_disk.sensors:
        rows = np.arange(on_disk.count(sensor))[::-1]
        for ours, theirs in zip(store.read(sensor, rows), on_disk.read(sensor, rows), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    store.verify()
    # Nothing that a build makes or says holds a credential: it takes them from the environment, and only there.
    s3 = S3FileSystem()
    objects = {key: s3.cat_file(key) for key in s3.find("stssd")}
    assert len(objects) > 10 and any(".work/" in key for key in objects)
    shown = [
        *objects.values(), *tasks, caplog.text.encode(), repr((store, statistics, missing.value)).encode(),
        pickle.dumps(store), tables.images.to_csv().encode(), tables.rejected.to_csv().encode(),
    ]  # fmt: skip
    for secret in SECRETS.values():
        assert not any(secret.encode() in text for text in shown)

"""Samples of many places are cut by any number of workers: the task data has the same bytes."""

from __future__ import annotations

import os
import signal
from functools import partial

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from a2mae import parallel
from a2mae.parallel import WorkerLostError
from a2mae.simulate.run import write_tiny_world
from a2mae.tasks.datasets import places as room
from a2mae.tasks.datasets.places import by_places
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.store_samples import StoreImages
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from helpers.built_world import build_world

UTM = "EPSG:32633"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four locations with an image before and one after the changes."""
    root = tmp_path_factory.mktemp("world")
    write_tiny_world(root / "simulated", seed=5)
    return build_world(root / "simulated", root / "store.zarr")[0], root / "simulated"


@pytest.fixture(scope="module")
def labels(world, tmp_path_factory):
    """Fields that overlap, lie far away or hold at no time, and a raster that leaves two locations out."""
    folder, rows = tmp_path_factory.mktemp("labels"), []
    for number, place in enumerate(world[0].locations.itertuples()):
        side, south = place.footprint_m, place.y_m - place.footprint_m
        for name, at, start in (
            ("meadow", 0.1, None),
            ("wood", 0.2, None),
            ("wood", 0.6, None),
            ("meadow", 0.7, "2035-01-01"),
        ):
            x, y = place.x_m + at * side, south + at * side
            rows.append((name, start, shapely.box(x, y, x + 400 + 10 * number, y + 400)))
    rows += [("wood", None, shapely.box(100_000, 4_000_000, 100_400, 4_000_400))]
    across = world[0].locations.iloc[[0, 1]]  # one feature on two locations, over another one
    left, right = across["x_m"].min(), (across["x_m"] + across["footprint_m"]).max()
    bottom, top = (across["y_m"] - across["footprint_m"]).min(), across["y_m"].max()
    rows += [("meadow", None, shapely.box(left, (top + bottom) / 2, right, (top + bottom) / 2 + 200))]
    table = {"class": [row[0] for row in rows], "start": [row[1] for row in rows]}
    gpd.GeoDataFrame(table, geometry=[row[2] for row in rows], crs=UTM).to_file(folder / "fields.gpkg")
    values = np.random.default_rng(0).integers(0, 2, (200, 100)).repeat(2, 0).astype(np.uint8)
    shape = {"count": 1, "height": 400, "width": 100, "dtype": "uint8", "crs": UTM}
    with rasterio.open(
        folder / "covers.tif", "w", driver="GTiff", transform=Affine(10, 0, left, 0, -10, top), **shape
    ) as target:
        target.write(values, 1)
    return folder


CUTS = {
    "fields": {"task": "segment", "head": "linear", "data": {"labels": "fields.gpkg"}},
    "around them": {"task": "classify", "head": "mean", "data": {"labels": "fields.gpkg"}},
    "their sets": {
        "task": "segment", "head": "linear", "data": {"labels": "fields.gpkg", "archive": {"inputs": {"images": 3}}},
    },
    "their dates": {"task": "detect_transitions", "head": "linear", "data": {"labels": "dated.gpkg"}},
    "a raster": {
        "task": "segment", "head": "linear", "data": {"labels": "covers.tif", "class_names": ["meadow", "wood"]},
    },
    "the truth": {"task": "classify", "head": "mean", "data": {"simulated": {"min_purity": 0.3, "max_train": 40}}},
    "its heights": {"task": "estimate", "head": "mean", "data": {}},
    "its dates": {"task": "detect_change", "head": "linear", "data": {}},
}  # fmt: skip


def files_of(world, labels, folder, cut, **crew):
    asked = {key: dict(value) if key == "data" else value for key, value in CUTS[cut].items()}
    data = asked["data"]
    ways = {"chip_px": 64, "min_valid": 0.3}
    if "labels" in data:
        data["labels"] = str(labels / data["labels"])
        data["archive"] = {**ways, **data.get("archive", {})}
    else:
        data["simulated"] = {**ways, **data.get("simulated", {})}
    options = TaskParameters.model_validate({**asked, **crew})
    write_source(folder, prepare(options, world[0], world[1]))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def every_place_is_a_piece(monkeypatch):
    monkeypatch.setattr(room, "_PLACES", 1)
    monkeypatch.setattr(room, "_WORTH_SHARING", 1)


@pytest.fixture(scope="module", autouse=True)
def dated(labels):
    """Meadows that become woods between the dates, in every location."""
    fields = gpd.read_file(labels / "fields.gpkg")
    meadows = fields[fields["class"] == "meadow"].assign(start=None, end="2021-06-01")
    woods = meadows.assign(**{"class": "wood", "start": "2021-06-02", "end": None})
    gpd.GeoDataFrame(gpd.pd.concat([meadows, woods], ignore_index=True), crs=UTM).to_file(labels / "dated.gpkg")


@pytest.fixture(scope="module")
def crew():
    """Two workers for all tests: each imports for seconds."""
    with parallel.Crew(2) as workers:
        yield workers


@pytest.mark.parametrize("cut", list(CUTS))
def test_any_number_of_workers_cuts_the_same(world, labels, tmp_path, cut, caplog, crew, monkeypatch):  # noqa: PLR0917 (fixtures)
    caplog.set_level("INFO")
    monkeypatch.setattr(room, "run_all", lambda function, work, **_: crew.run(function, work))
    alone = files_of(world, labels, tmp_path / "alone", cut, workers=1)
    assert "by the workers" not in caplog.text
    assert files_of(world, labels, tmp_path / "two", cut, workers=2) == alone
    assert "4 places are cut by the workers, in 4 pieces" in caplog.text


def test_a_cluster_cuts_the_same(world, labels, tmp_path):
    distributed = pytest.importorskip("distributed")
    alone = files_of(world, labels, tmp_path / "alone", "fields", workers=1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        there = files_of(world, labels, tmp_path / "there", "fields", dask_scheduler=cluster.scheduler_address)
    assert there == alone


def killed(images):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lost_worker_is_told_in_a_sentence(world, monkeypatch):
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)  # no piece is done in this process
    options = TaskParameters.model_validate({"task": "segment", "head": "linear", "workers": 2})
    images = StoreImages(options.task, world[0], options.data.simulated.model_copy(update={"chip_px": 64}))
    with pytest.raises(WorkerLostError, match=r"segment.data: a worker died while samples were cut .* run the same"):
        list(by_places(images, lambda some: partial(killed, some), options, "segment.data"))

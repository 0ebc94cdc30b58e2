"""A small chain's outputs, in the form that the stages write them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from a2mae.report.inputs import Limits, ReportInputs, TaskOutputs
from a2mae.sensors import BUILTIN_SENSORS, Sensor

PLACES = ((8.5, 47.3, "grid"), (8.9, 47.4, "grid"), (-70.6, -33.4, "city"))
SENSORS = ("sentinel-2-l2a", "landsat-oli-c2-l2")

SIMULATION = {
    "seed": 7,
    "content_hash": "ab" * 32,
    "regions": [
        {"name": "elbe", "biome": "temperate_plain", "lat": 51.9, "lon": 12.3, "changed_share": 0.07},
        {"name": "maipo", "biome": "dry_valley", "lat": -33.4, "lon": -70.6, "changed_share": 0.04},
    ],
    "scenes": [
        {"scene_id": f"scene-{i}", "region": ("elbe", "elbe", "maipo")[i], "sensor": SENSORS[i % 2], "refuse": refuse}
        for i, refuse in enumerate(("", "cloud", ""))
    ],
}

CONFUSION = {
    "classify": {"class_names": ["a", "b"], "multi_label": True, "pretrained": [[5, 4], [4, 6]]},
    "segment": {
        "class_names": ["water", "road", "<i>field</i>", "snow"],
        "multi_label": False,
        "pretrained": [[90, 0, 10, 0], [0, 30, 20, 0], [0, 0, 100, 0], [0, 0, 0, 0]],
    },
}


class ArrayStore:
    """The reader's protocol over arrays in memory."""

    def __init__(self, images: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        sizes = {"sentinel-2-l2a": 48, "landsat-oli-c2-l2": 16}
        self._pixels = {
            name: rng.random((images, len(BUILTIN_SENSORS[name].bands), size, size), np.float32) * 0.4
            for name, size in sizes.items()
        }
        self.sensors = SENSORS
        self.manifest_hash = "5e" * 32

    def sensor(self, sensor_id: str) -> Sensor:
        return BUILTIN_SENSORS[sensor_id]

    def read_physical(self, sensor, rows, bands=None):
        pixels = self._pixels[sensor][rows]
        pixels = pixels if bands is None else pixels[:, bands]
        valid = np.ones((len(rows), *pixels.shape[2:]), bool)
        valid[:, :2] = False
        return pixels, valid


def square(lon: float, lat: float) -> shapely.Polygon:
    return shapely.box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01)


PRUNED = {
    "settings": {"cap_per_cluster": 5, "seed": 2026, "enabled": True},
    "before": {"training_sets": 11, "balance_of_clusters": 0.684, "sets_per_kind": {"grid": 10, "city": 1}},
    "after": {"training_sets": 7, "balance_of_clusters": None, "sets_per_kind": {"grid": 7}},
    "reasons": {"cluster has room": 2, "cluster is full": 4, "drawn from a full cluster": 5},
    "clusters": {
        "000": {"before": 2, "after": 2, "heterogeneity_median": 0.25, "homogeneous": False},
        "001": {"before": 9, "after": 5, "heterogeneity_median": 0.5, "homogeneous": True},
    },
}
"""As `stssd.tagging.prune` reports."""


@pytest.fixture
def sets() -> gpd.GeoDataFrame:
    rows = [
        {
            "set_id": f"set-{i}",
            "location_id": f"place-{i}",
            "kind": kind,
            "sensors": sorted(SENSORS),
            "image_count": 4,
            "time_start": pd.Timestamp("2021-01-05", tz="UTC"),
            "time_end": pd.Timestamp("2021-07-05", tz="UTC"),
            "lon": lon,
            "lat": lat,
            "heterogeneity": 0.3 + 0.1 * i,
            "cluster": i,
            "kept": i != 1,
            "keep_reason": "diverse" if i != 1 else "near duplicate",
            "split": ("train", "val", "test")[i],
        }
        for i, (lon, lat, kind) in enumerate(PLACES)
    ]
    return gpd.GeoDataFrame(rows, geometry=[square(lon, lat) for lon, lat, _ in PLACES], crs="EPSG:4326")


@pytest.fixture
def images(sets: gpd.GeoDataFrame) -> pd.DataFrame:
    rows = []
    for place, row in enumerate(sets.to_dict("records")):
        for k in range(4):
            sensor = SENSORS[k // 2]
            first = k == 0
            rows.append(
                {
                    "image_id": f"{row['set_id']}-{k}",
                    "set_id": row["set_id"],
                    "location_id": row["location_id"],
                    "sensor": sensor,
                    "row": 2 * place + k % 2,
                    "datetime": pd.Timestamp(dt.datetime(2021, 1 + 2 * k, 5), tz="UTC"),
                    "gsd_m": BUILTIN_SENSORS[sensor].gsd_m,
                    "lon": row["lon"],
                    "lat": row["lat"],
                    "cloud_fraction": 0.05 * k,
                    "valid_fraction": 0.9,
                    "dark_value": 0.02,
                    "bright_value": 0.4,
                    "processing_baseline": "05.09" if sensor.startswith("sentinel-2") else None,
                    "is_reference": first,
                    "is_anchor": first,
                    "registration": "reference" if first else ("nominal" if k == 3 else "registered"),
                    "shift_x_m": 0.0 if first or k == 3 else 3.2 * k,
                    "shift_y_m": 0.0 if first or k == 3 else -1.1,
                    "residual_px": None if first or k == 3 else 0.05,
                    "registration_quality": None if first or k == 3 else 0.9,
                    "scene_id": f"scene-{place}-{k}",
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def rejected() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "scene_id": "scene-9",
                "location_id": "place-0",
                "sensor": SENSORS[1],
                "datetime": pd.Timestamp("2021-03-01", tz="UTC"),
                "stage": "coregister",
                "reason": "cloud",
                "detail": "cloud covers 100 % of the square; at most 40 % is accepted",
            }
        ]
    )


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrain"
    (folder / "run").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"format_version": 1, "model": "a2mae", "data_manifest_hash": "5e" * 32})
    )
    steps = np.arange(1, 31)
    pd.DataFrame(
        {
            "step": steps,
            "epoch": steps // 10,
            "loss": 1.0 / np.sqrt(steps),
            "lr": 1e-4 * np.ones(30),
            "effective_rank": 12 + steps / 10,
            "feature_std": 0.5 + steps / 100,
        }
    ).to_csv(folder / "run" / "metrics.csv", index=False)
    rng = np.random.default_rng(1)
    pixels, noise = (rng.random((2, 3, 3, 32, 32), np.float32) for _ in range(2))
    np.savez_compressed(
        folder / "run" / "reconstructions.npz",
        pixels=pixels,
        prediction=0.7 * pixels + 0.3 * noise,
        hidden=rng.random((2, 3, 4, 4)) < 0.75,
        valid=np.ones((2, 3, 32, 32), bool),
        sensor=np.array([[SENSORS[0], SENSORS[0], SENSORS[1]]] * 2),
        day=np.full((2, 3), 18_700.0),
        gsd_m=np.full((2, 3), 12.5),
        set_id=np.array(["set-0", "set-2"]),
        patch_size=np.array(8),
    )
    return folder


@pytest.fixture
def task_files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(2)
    named = {
        "class_names": np.array(["water", "forest", "field"]),
        "class_colours": np.array([[38, 92, 178], [56, 142, 60], [240, 214, 90]], np.uint8),
    }
    bytes_ = {"image": (5, 24, 24, 3)}
    files = {}
    for task in ("classify", "segment", "detect_change"):
        path = tmp_path / task / "pictures.npz"
        path.parent.mkdir()
        picture = rng.integers(0, 255, bytes_["image"], np.uint8)
        if task == "classify":
            np.savez_compressed(
                path, image=picture, truth=rng.integers(0, 3, 5), prediction=rng.integers(0, 3, 5), **named
            )
        elif task == "segment":
            truth = rng.integers(0, 3, (5, 24, 24)).astype(np.uint8)
            prediction = truth.copy()
            truth[:, :2] = 255
            np.savez_compressed(path, image=picture, truth=truth, prediction=prediction, **named)
        else:
            truth = rng.integers(0, 2, (5, 24, 24)).astype(np.uint8)
            np.savez_compressed(
                path,
                image_before=picture,
                image_after=picture[::-1],
                truth=truth,
                prediction=1 - truth,
                class_names=np.array(["same", "changed"]),
                class_colours=np.array([[230, 230, 230], [213, 94, 0]], np.uint8),
            )
        files[task] = path
    return files


@pytest.fixture
def inputs(sets, images, rejected, model_dir, task_files) -> ReportInputs:
    """Everything that a whole chain hands in."""

    def row(task, mode, metric, model, value, *, gsd_m=10.0):
        interval = {"value": value, "low": value - 0.05, "high": value + 0.04, "n": 40, "groups": 10}
        return {
            "task": task,
            "data": "simulated",
            "mode": mode,
            "over": "random" if mode == "gain" else "",
            "metric": metric,
            "model": model,
            "gsd_m": gsd_m,
            "native_gsd_m": 10.0,
        } | interval

    main = (("classify", "top1"), ("segment", "miou"), ("detect_change", "f1"))
    scores = pd.DataFrame(
        [
            row(task, "finetuned", metric, model, value)
            for task, metric in main
            for model, value in (("pretrained", 0.8), ("random", 0.6 if task != "segment" else 0.82))
        ]
        + [row(task, "gain", metric, "pretrained", 0.2 if task != "segment" else -0.02) for task, metric in main]
        + [
            row("classify", "knn", metric, model, 0.7 - gsd_m / 200, gsd_m=gsd_m)
            for metric in ("knn_query_coarse", "knn_both_coarse")
            for model in ("pretrained", "random", "pixels")
            for gsd_m in (10.0, 20.0, 40.0)
        ]
    )
    return ReportInputs(
        title="A small chain",
        stages=(
            "simulate",
            "ingest",
            "coregister",
            "tag",
            "prune",
            "pretrain",
            "classify",
            "segment",
            "evaluate",
            "report",
        ),
        configuration={"pretrain": {"method": "a2mae"}, "ingest": {"folder": "/home/somebody/scenes"}},
        limits=Limits(sets=3, reconstructions=2, examples=4, picture_px=64),
        simulation=SIMULATION,
        scenes=None,
        refused_scenes=rejected.assign(
            stage="ingest", reason="corrupt", detail="<b>cannot be read</b>", location_id=""
        ),
        store=ArrayStore(6),
        images=images,
        rejected_images=rejected,
        sets=sets,
        four_properties={"sources": {"sensors": 2, "pairs": {"a+b": 3}}, "coverage": {"utm_zones": 2}},
        prune_report=PRUNED,
        model_dir=model_dir,
        tasks=tuple(TaskOutputs(task, {}, path, confusion=CONFUSION.get(task)) for task, path in task_files.items()),
        scores=scores,
    )

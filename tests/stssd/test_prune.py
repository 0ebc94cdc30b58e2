"""Pruning: caps, hard samples, held-out sets, the report; the same for the same seed."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_info, threadpool_limits

from a2mae.sensors import get_sensor
from a2mae.stssd import prune as prune_module
from a2mae.stssd.parameters import PruneParameters
from a2mae.stssd.prune import ROLES, Pruned, prune, set_features

SENSORS = {name: get_sensor(name) for name in ("sentinel-2-l2a", "naip")}
SIZES = (60, 20, 10)


def data() -> tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]:
    """Three kinds of places, 60 + 20 + 10; the first is nearly uniform but for two odd places."""
    rng = np.random.default_rng(0)
    sets, images, features = [], [], []
    for kind, size in enumerate(SIZES):
        for k in range(size):
            set_id = f"{kind}{k:03d}"
            odd = kind == 0 and k < 2
            varied = [0.1, 0.5, 0.6][kind] + (0.15 if odd else 0) + rng.normal(0, 0.005)
            split = "test" if k % 10 == 9 else "train"
            sets.append((set_id, set_id, "grid", ["naip", "sentinel-2-l2a"], 2, varied, split))
            for sensor, bands in (("sentinel-2-l2a", 12), ("naip", 4)):
                row = len(features)
                level = 0.1 + 0.2 * kind + rng.normal(0, 0.01, bands) + (0.03 if odd else 0)
                features.append((sensor, row, 1.0, varied, level, level / 5, level / 10 * (1.3 if odd else 1)))
                images.append((set_id, sensor, row))
    table = pd.DataFrame(
        sets, columns=["set_id", "location_id", "kind", "sensors", "image_count", "heterogeneity", "split"]
    )
    return (
        gpd.GeoDataFrame(table, geometry=[box(0, 0, 1, 1)] * len(table), crs=4326),
        pd.DataFrame(images, columns=["set_id", "sensor", "row"]),
        pd.DataFrame(features, columns=["sensor", "row", "valid_fraction", "heterogeneity", "mean", "std", "texture"]),
    )


def run(**parameters: object) -> Pruned:
    return prune(*data(), SENSORS, PruneParameters(clusters=3, **parameters))


def test_places_are_clustered_by_what_they_show() -> None:
    done = run()
    kinds = done.sets["set_id"].str[0]
    assert (done.sets.groupby(kinds)["cluster"].nunique() == 1).all()
    assert done.sets["cluster"].nunique() == 3


def test_caps_hold_and_hard_samples_stay() -> None:
    done = run(max_per_cluster=15)
    kept = done.sets[done.sets["kept"] & (done.sets["split"] == "train")]
    assert kept.groupby("cluster").size().max() == 15
    assert {"0000", "0001"} <= set(kept["set_id"])  # the odd ones of the uniform kind
    uniform = kept[kept["set_id"].str[0] == "0"]
    assert set(uniform["keep_reason"]) == {"hard sample of a full cluster"}
    fields = kept[kept["set_id"].str[0] == "1"]
    assert set(fields["keep_reason"]) == {"hard sample of a full cluster", "drawn from a full cluster"}
    dropped = done.sets[~done.sets["kept"]]
    assert set(dropped["keep_reason"]) == {"cluster is full"} and set(dropped["split"]) == {"train"}


def test_held_out_sets_stay() -> None:
    done = run(max_per_cluster=1)
    assert done.sets.loc[done.sets["split"] == "test", "kept"].all()


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9, 1.0])
def test_the_wanted_share_decides_the_cap(fraction: float) -> None:
    done = run(keep_fraction=fraction)
    training = done.sets[done.sets["split"] == "train"]
    assert training["kept"].mean() >= fraction
    cap = done.report["settings"]["cap_per_cluster"]
    assert np.minimum(training.groupby("cluster").size(), cap - 1).sum() < fraction * len(training)


def test_same_seed_same_choice_and_report_is_json() -> None:
    one, two, other = run(max_per_cluster=12), run(max_per_cluster=12), run(max_per_cluster=12, seed=5)
    pd.testing.assert_frame_equal(one.sets, two.sets)
    assert json.loads(json.dumps(one.report)) == json.loads(json.dumps(two.report))
    assert one.sets["kept"].sum() == other.sets["kept"].sum()
    before, after = one.report["before"], one.report["after"]
    assert before["training_sets"] > after["training_sets"]
    assert after["balance_of_clusters"] > before["balance_of_clusters"]
    assert after["heterogeneity_mean"] > before["heterogeneity_mean"]
    assert sum(c["after"] for c in one.report["clusters"].values()) == after["training_sets"]


def test_switched_off_keeps_everything() -> None:
    assert run(enabled=False, max_per_cluster=1).sets["kept"].all()


def plainly(sets: pd.DataFrame, images: pd.DataFrame, features: pd.DataFrame) -> np.ndarray:
    """The same description as one table of all images and columns, merged and grouped by pandas."""
    pieces = []
    for name, group in features.groupby("sensor", sort=True):
        columns = {}
        for k, band in enumerate(SENSORS[name].bands):
            role = {"nir08": "nir"}.get(band.common_name, band.common_name) or band.name.lower()
            if role not in ROLES or f"{role} level" in columns:
                continue
            for measure, column in (("level", "mean"), ("variation", "std"), ("texture", "texture")):
                values = np.stack(group[column].to_list())[:, k]
                values = values if measure == "level" else np.log(values + 1e-4)
                columns[f"{role} {measure}"] = (values - values.mean()) / values.std()
        pieces.append(pd.DataFrame({**columns, "sensor": name, "row": group["row"].to_numpy()}))
    merged = images[["set_id", "sensor", "row"]].merge(pd.concat(pieces), on=["sensor", "row"], how="left")
    groups = merged.drop(columns=["sensor", "row"]).groupby("set_id", sort=True)
    level = [c for c in merged.columns if c.endswith(" level")]
    table = groups.mean().join(groups[level].std(ddof=0).add_suffix(" over time")).loc[sets["set_id"]]
    values = table.dropna(axis=1, how="all").to_numpy(np.float64)
    spread = np.nanstd(values, axis=0)
    return np.nan_to_num((values - np.nanmean(values, axis=0)) / np.where(spread > 1e-9, spread, 1.0))


def test_features_are_those_of_the_plain_table_to_the_bit() -> None:
    sets, images, features = data()
    for some in (images, images[images["sensor"] == "naip"], images.sample(frac=1, random_state=1)):
        np.testing.assert_array_equal(
            set_features(sets, some, features, SENSORS), plainly(sets, some, features), strict=True
        )


def test_features_do_not_tell_sensors_apart() -> None:
    sets, images, features = data()
    only = images[images["sensor"] == "naip"]
    described = set_features(sets, only, features, SENSORS)
    assert np.isfinite(described).all() and described.shape[0] == len(sets)
    full = set_features(sets, images, features, SENSORS)
    assert np.isfinite(full).all()


def test_a_handful_of_sets_is_one_cluster() -> None:
    sets, images, features = data()
    few = prune(sets.iloc[:3], images[images["set_id"].isin(sets["set_id"][:3])], features, SENSORS, PruneParameters())
    assert few.sets["cluster"].nunique() == 1 and few.sets["kept"].all()


def test_clusters_are_found_by_one_thread_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of several threads are rounded otherwise: kept sets, and dvc.lock, would follow the number of cores."""
    counts: list[set[int]] = []
    fit = MiniBatchKMeans.fit_predict

    def counted(self: MiniBatchKMeans, described: np.ndarray) -> np.ndarray:
        counts.append({pool["num_threads"] for pool in threadpool_info()})
        return fit(self, described)

    monkeypatch.setattr(MiniBatchKMeans, "fit_predict", counted)
    described = np.random.default_rng(0).normal(size=(3_000, 12))
    with threadpool_limits(2):
        prune_module._clusters(described, PruneParameters())
    assert counts == [{1}]

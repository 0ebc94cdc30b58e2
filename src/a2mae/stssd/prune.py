"""Prune the training sets: cluster all sets by what they show, cap the clusters, keep their hard samples.

The paper prunes by clustering, to balance diversity, and keeps hard samples of homogeneous areas (docs/methods.md,
STSSD). Its features, algorithm and counts are unpublished; those here are ours. A set is described by the level, the
variation and the texture of each spectral role (blue to short-wave infrared, and radar), and by how much it changes
between its dates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from a2mae.errors import plural
from a2mae.sensors import Sensor
from a2mae.stssd.parameters import PruneParameters

logger = logging.getLogger(__name__)

ROLES = ("blue", "green", "red", "nir", "swir16", "swir22", "vv", "vh")
"""Spectral roles by which sets are described, as STAC common names and polarisations."""
_MEASURES = ("mean", "std", "texture")  # level, variation and texture
_SAME_ROLE = {"nir08": "nir"}
_MIN_PER_CLUSTER = 5
_FLOOR = 1e-4  # of reflectance, below which variation is noise


@dataclass(frozen=True, eq=False)
class Pruned:
    """What pruning makes.

    Attributes:
        sets: Set table with `cluster`, `kept` and `keep_reason`.
        report: Settings, figures before and after, reasons and clusters; JSON-ready.
    """

    sets: gpd.GeoDataFrame
    report: dict[str, object]


def prune(
    sets: gpd.GeoDataFrame,
    images: pd.DataFrame,
    features: pd.DataFrame,
    sensors: Mapping[str, Sensor],
    parameters: PruneParameters,
) -> Pruned:
    """Choose which training sets stay. All sets of the other splits stay: they are there to evaluate with.

    Args:
        sets: Set table, N rows.
        images: Image table.
        features: Image features of the tag stage.
        sensors: Descriptions of the sensors in use, by id.
        parameters: The `prune` group.
    """
    described = set_features(sets, images, features, sensors)
    labels, distance = _clusters(described, parameters)
    training = (sets["split"] == "train").to_numpy()
    sizes = np.bincount(labels[training], minlength=int(labels.max()) + 1 if labels.size else 1)
    cap = _cap(sizes, parameters)
    varied = sets["heterogeneity"].to_numpy(np.float64)
    middle = pd.Series(varied).groupby(labels).median()
    homogeneous = middle.index[middle <= middle.quantile(parameters.homogeneous_quantile)]

    kept = np.ones(len(sets), dtype=np.bool_)
    reason = np.where(training, "cluster has room", "held out for evaluation").astype(object)
    rng = np.random.default_rng(parameters.seed)
    for cluster in range(len(sizes)):
        members = np.flatnonzero((labels == cluster) & training)
        if not parameters.enabled or len(members) <= cap:
            continue
        # A hard sample is far from what its cluster usually shows, and varied in itself.
        hardness = _rank(distance[members]) + _rank(varied[members])
        order = members[np.lexsort((members, -hardness))]
        share = 1.0 if cluster in homogeneous else parameters.hard_fraction
        hard = order[: math.ceil(share * cap)]
        rest = np.setdiff1d(members, hard)
        drawn = rng.choice(rest, size=cap - len(hard), replace=False) if cap > len(hard) else rest[:0]
        kept[members] = False
        reason[members] = "cluster is full"
        kept[hard], reason[hard] = True, "hard sample of a full cluster"
        kept[drawn], reason[drawn] = True, "drawn from a full cluster"
    result = sets.assign(cluster=labels.astype(np.int64), kept=kept, keep_reason=reason.astype(str))
    report = _report(result, training, cap, set(homogeneous.tolist()), parameters)
    logger.info(
        "Pruned: %d of %s stay (%s, at most %d each); %s held out",
        int((kept & training).sum()),
        plural(int(training.sum()), "training set"),
        plural(len(np.unique(labels)), "cluster"),
        cap,
        plural(int((~training).sum()), "set"),
    )
    return Pruned(result, report)


def set_features(
    sets: pd.DataFrame, images: pd.DataFrame, features: pd.DataFrame, sensors: Mapping[str, Sensor]
) -> NDArray[np.float64]:
    """Describe sets by F numbers of equal weight, mean 0 and standard deviation 1.

    These are the level, log variation and log texture of each spectral role, and the spread of its level over the
    dates. They are standardised per sensor first, so that units and resolutions do not make the clusters.

    Args:
        sets: Set table, N rows.
        images: Image table.
        features: Image features of the tag stage.
        sensors: Descriptions of the sensors in use, by id.

    Returns:
        `(N, F)`; 0 for a role that the set's sensors do not have.
    """
    found_at: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}  # images, and their rows of the features
    roles: dict[str, dict[str, int]] = {}  # role -> sensor -> band
    rows = images["row"].to_numpy()
    of_sensor = {str(name): (features["sensor"] == name).to_numpy() for name in sorted(features["sensor"].unique())}
    for sensor_id, chosen in of_sensor.items():
        here = np.flatnonzero((images["sensor"] == sensor_id).to_numpy())
        at = pd.Index(features["row"].to_numpy()[chosen]).get_indexer(pd.Index(rows[here]))
        found_at[sensor_id] = here[at >= 0], at[at >= 0]
        for index, band in enumerate(sensors[sensor_id].bands):
            role = _SAME_ROLE.get(band.common_name, band.common_name) or band.name.lower()
            if role in ROLES:
                roles.setdefault(role, {}).setdefault(sensor_id, index)

    codes, set_ids = pd.factorize(images["set_id"], sort=True)
    order = set_ids.get_indexer(pd.Index(sets["set_id"]))
    columns: dict[tuple[str, str], NDArray[np.float64]] = {}
    # One column after the other: a table of all columns and images would be the largest thing of the stage.
    for measure in _MEASURES:
        matrices = {name: _matrix(features.loc[chosen, measure]) for name, chosen in of_sensor.items()}
        for role, by_sensor in roles.items():
            values = np.full(len(images), np.nan)
            for sensor_id, index in by_sensor.items():
                here, at = found_at[sensor_id]
                found = matrices[sensor_id][:, index]
                values[here] = _standard(found if measure == "mean" else np.log(found + _FLOOR))[at]
            groups = pd.Series(values).groupby(codes)
            columns[role, measure] = np.asarray(groups.mean(), np.float64)[order]
            if measure == "mean":
                columns[role, "over time"] = np.asarray(groups.std(ddof=0), np.float64)[order]
    means = [columns[role, measure] for role in roles for measure in _MEASURES]
    spreads = [columns[role, "over time"] for role in roles]
    table = np.stack([values for values in (*means, *spreads) if not np.isnan(values).all()]).T
    spread = np.nanstd(table, axis=0)
    table = (table - np.nanmean(table, axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    return np.asarray(np.nan_to_num(table))


def _matrix(lists: pd.Series) -> NDArray[np.float64]:
    """Read a column of lists of one length, Arrow's or objects, as `(N, bands)`."""
    if isinstance(lists.dtype, pd.ArrowDtype):
        flat = pa.chunked_array(lists.array.__arrow_array__()).combine_chunks().flatten()
        return np.asarray(flat.to_numpy().reshape(len(lists), -1), np.float64)
    return np.stack(lists.to_list())


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring values to mean 0 and standard deviation 1; equal values become 0."""
    spread = float(values.std())
    return np.asarray((values - values.mean()) / (spread if spread > 1e-12 else 1.0))


def _clusters(
    described: NDArray[np.float64], parameters: PruneParameters
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the cluster of every set, and the set's distance from its centre; both `(N,)`."""
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415 (a second to import)

    count = max(1, min(parameters.clusters, len(described) // _MIN_PER_CLUSTER))
    model = MiniBatchKMeans(count, random_state=parameters.seed, n_init=3, batch_size=4096)
    # Several threads add up in another order: the last digits would follow the number of cores.
    with threadpool_limits(1):
        labels = np.asarray(model.fit_predict(described), dtype=np.int64)
    distance = np.linalg.norm(described - model.cluster_centers_[labels], axis=1)
    return labels, np.asarray(distance, dtype=np.float64)


def _cap(sizes: NDArray[np.int64], parameters: PruneParameters) -> int:
    """Find the smallest cap per cluster that keeps the wanted share of the sets."""
    if parameters.max_per_cluster is not None:
        return parameters.max_per_cluster
    wanted = parameters.keep_fraction * int(sizes.sum())
    low, high = 1, max(1, int(sizes.max()))
    while low < high:
        middle = (low + high) // 2
        if int(np.minimum(sizes, middle).sum()) >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values from 0, the smallest, to 1."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(order / max(len(values) - 1, 1))


def _report(
    sets: pd.DataFrame, training: NDArray[np.bool_], cap: int, homogeneous: set[int], parameters: PruneParameters
) -> dict[str, object]:
    before, after = sets[training], sets[training & sets["kept"].to_numpy()]
    clusters = {
        f"{cluster:03d}": {
            "before": len(group),
            "after": int(group["kept"].sum()),
            "heterogeneity_median": float(group["heterogeneity"].median()),
            "homogeneous": cluster in homogeneous,
        }
        for cluster, group in before.groupby("cluster", sort=True)
    }
    return {
        "settings": {"cap_per_cluster": cap, "seed": parameters.seed, "enabled": parameters.enabled},
        "before": _side(before),
        "after": _side(after),
        "reasons": {str(k): int(v) for k, v in sets["keep_reason"].value_counts().sort_index().items()},
        "clusters": clusters,
    }


def _side(sets: pd.DataFrame) -> dict[str, object]:
    counts = sets["cluster"].value_counts().to_numpy(np.float64)
    share = counts / counts.sum() if counts.size else counts
    balance = float(-(share * np.log(share)).sum() / math.log(len(share))) if len(share) > 1 else None
    return {
        "training_sets": len(sets),
        "images": int(sets["image_count"].sum()),
        "places": int(sets["location_id"].nunique()),
        "clusters": len(counts),
        "largest_cluster": int(counts.max()) if counts.size else 0,
        "balance_of_clusters": balance,  # entropy of the cluster sizes over its maximum: 1 is even
        "heterogeneity_mean": float(sets["heterogeneity"].mean()) if len(sets) else None,
        "sets_per_kind": {str(k): int(v) for k, v in sets["kind"].value_counts().sort_index().items()},
    }

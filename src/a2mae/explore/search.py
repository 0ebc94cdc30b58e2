"""Find the places of an archive that look like some examples: exact, block by block.

Vectors are standardised by the images of their sensor: those of a transformer share a large part that tells nothing,
and one that tells the sensor. What is ranked is the cosine to the mean of the positive examples, less that to the mean
of the negative ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from a2mae.errors import InputError
from a2mae.explore.store import EmbeddingStore, Vectors
from a2mae.raster.footprints import EARTH_RADIUS_M, on_sphere

Floats = npt.NDArray[np.float32]

_FOR_MOMENTS = 65_536
"""Vectors that mean and deviation are taken from."""


@dataclass(frozen=True)
class Hits:
    """What was found, best first.

    Attributes:
        number: Rows of the store.
        score: Cosine to the positive examples less that to the negative ones.
    """

    number: npt.NDArray[np.int64]
    score: Floats


class Searcher:
    """Ranks the vectors of one level of a store.

    Attributes:
        store: The store.
    """

    def __init__(self, store: EmbeddingStore, level: str) -> None:
        """Take the moments of the vectors, sensor by sensor.

        Args:
            store: The store.
            level: `image` or `set`; sets are standardised together.

        Raises:
            InputError: If the store has no vector of this level.
        """
        self.store, self._level = store, level
        self._moments = _moments(store, level)

    def similar(
        self,
        positive: Vectors,
        negative: Vectors | None = None,
        *,
        top: int,
        exclude_m: float = 0.0,
        sensors: Sequence[str] = (),
        once_per_location: bool = True,
    ) -> Hits:
        """Rank every vector by how alike it is to examples.

        Args:
            positive: Rows of the store, at least one.
            negative: Rows that are not wanted; None: none.
            top: How many are wanted at most.
            exclude_m: Ground within this distance of a positive example is left out, with the examples themselves.
            sensors: Look among these; empty: all.
            once_per_location: Only the best of a location.

        Raises:
            InputError: If an example's vector is nothing but zeros.
        """
        wanted = self.direction(positive)
        if negative is not None and len(negative.rows):
            wanted = wanted - self.direction(negative)
        columns = ["sensor", "location_id", "lon", "lat"]
        scores, tables = [], []
        for block in self.store.blocks(self._level, columns):
            values, length = self._standardised(block)
            scores.append((values @ wanted) / length)
            tables.append(block.rows)
        score, rows = np.concatenate(scores), pa.concat_tables(tables)
        allowed = ~_near(rows, positive.rows, exclude_m)
        allowed &= ~np.asarray(pc.is_in(rows["location_id"], pc.unique(positive.rows["location_id"])))
        if sensors:
            allowed &= np.asarray(pc.is_in(rows["sensor"], pa.array(sensors, pa.string())))
        order = np.flatnonzero(allowed)
        order = order[np.argsort(-score[order], kind="stable")]
        if once_per_location:
            places = rows["location_id"].combine_chunks().dictionary_encode().indices.to_numpy()[order]
            _, first = np.unique(places, return_index=True)
            order = order[np.sort(first)]
        return Hits(order[:top], score[order[:top]].astype(np.float32))

    def neighbours(self, examples: Vectors, top: int) -> list[Hits]:
        """Find the nearest of each example by itself: other locations, each once.

        Args:
            examples: Rows of the store, few enough that their vectors and scores fit into memory.
            top: How many are wanted at most.
        """
        values, length = self._standardised(examples)
        unit = (values / length[:, None]).T
        own = examples.rows["location_id"].to_pylist()
        scores, tables = [], []
        for block in self.store.blocks(self._level, ["sensor", "location_id"]):
            values, length = self._standardised(block)
            scores.append((values @ unit) / length[:, None])
            tables.append(block.rows["location_id"])
        score, names = np.concatenate(scores), pa.chunked_array([part for table in tables for part in table.chunks])
        codes = pc.dictionary_encode(names).combine_chunks()
        places, known = codes.indices.to_numpy(), {name: code for code, name in enumerate(codes.dictionary.to_pylist())}
        found = []
        for column, name in zip(score.T, own, strict=True):
            order = np.argsort(-column, kind="stable")
            order = order[places[order] != known[name]]
            _, first = np.unique(places[order], return_index=True)
            order = order[np.sort(first)][:top]
            found.append(Hits(order, column[order].astype(np.float32)))
        return found

    def direction(self, examples: Vectors, dimensions: Sequence[int] | slice = slice(None)) -> Floats:
        """Compute the direction of examples among the vectors of their sensor, of length 1.

        Args:
            examples: As `similar` takes them.
            dimensions: Look at these alone.
        """
        values, length = self._standardised(Vectors(examples.rows, examples.vectors.copy()))
        mean: Floats = (values / length[:, None]).mean(axis=0)[dimensions]
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    def _standardised(self, block: Vectors) -> tuple[Floats, Floats]:
        """Standardise vectors by their sensor, in their place, and compute their lengths."""
        values = block.vectors
        if not _lengths(values).all():
            raise InputError(
                f"{self.store.folder} has a vector of zeros, which is like nothing: remove the folder and embed the"
                " archive anew (kedro run --pipelines=embed)"
            )
        for sensor, rows in _by_sensor(block.rows, self._level):
            if sensor not in self._moments:
                raise InputError(
                    f"{self.store.folder} has no vector of {sensor}, so an example of it cannot be compared; it has"
                    f" {', '.join(sorted(self._moments))}"
                )
            mean, deviation = self._moments[sensor]
            values[rows] -= mean
            values[rows] *= 1 / deviation
        return values, np.maximum(_lengths(values), np.float32(1e-12))


def _lengths(vectors: Floats) -> Floats:
    found: Floats = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return found


def _moments(store: EmbeddingStore, level: str) -> Mapping[str, tuple[Floats, Floats]]:
    """Compute mean and deviation of the vectors of each sensor; of large stores from a part of the rows."""
    sensors = set(pc.unique(store.table(level, ["sensor"])["sensor"]).to_pylist())
    every = {""} if level == "set" else sensors
    known: dict[str, tuple[Floats, Floats]] = {}
    for most in (_FOR_MOMENTS, None):
        sums: dict[str, list[npt.NDArray[np.float64]]] = {}
        for block in store.blocks(level, ["sensor"], most=most):
            for sensor, rows in _by_sensor(block.rows, level):
                vectors = block.vectors[rows].astype(np.float64)
                found = [np.array([len(vectors)], float), vectors.sum(axis=0), (vectors**2).sum(axis=0)]
                before = sums.get(sensor)
                sums[sensor] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]
        known = {sensor: _mean_and_deviation(*found) for sensor, found in sums.items()}
        if set(known) == every:
            break  # no sensor is missing in the part that was read
    return known


def _mean_and_deviation(
    count: npt.NDArray[np.float64], total: npt.NDArray[np.float64], squares: npt.NDArray[np.float64]
) -> tuple[Floats, Floats]:
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A dimension without spread tells nothing; of a single vector none has any.
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)


def _by_sensor(rows: pa.Table, level: str) -> list[tuple[str, slice | npt.NDArray[np.bool_]]]:
    """Which rows are standardised together: sets have images of several sensors, and moments in common."""
    if level == "set":
        return [("", slice(None))]
    coded = rows["sensor"].combine_chunks().dictionary_encode()
    names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    return [(name, codes == code if len(names) > 1 else slice(None)) for code, name in enumerate(names)]


def _near(rows: pa.Table, examples: pa.Table, within_m: float) -> npt.NDArray[np.bool_]:
    """Tell rows whose footprint's centre is within a distance of that of an example, on the sphere."""
    if within_m <= 0:
        return np.zeros(len(rows), bool)
    places, wanted = (on_sphere(table["lon"].to_numpy(), table["lat"].to_numpy()) for table in (rows, examples))
    return np.asarray((places @ wanted.T).max(axis=1) >= np.cos(min(within_m / EARTH_RADIUS_M, np.pi)))

"""What is searched for, as rows of the store: a point, points or polygons of a file, ids, each wanted or not wanted."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from a2mae.errors import InputError, did_you_mean
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.store import EmbeddingStore, geometries
from a2mae.explore.zones import read_vectors

Ints = npt.NDArray[np.int64]

_KINDS = ("Point", "MultiPoint", "Polygon", "MultiPolygon")
_WGS84 = "EPSG:4326"
_YES, _NO = {"1", "true", "yes", "positive"}, {"0", "-1", "false", "no", "negative"}


def rows_of_query(
    options: SearchParameters, store: EmbeddingStore, locations: gpd.GeoDataFrame | None
) -> tuple[Ints, Ints]:
    """Find the rows of the store that are examples.

    Args:
        options: The `search` group; where it names nothing, the first row of the test split is taken as an example.
        store: The store.
        locations: Location table: tells ground of the archive that nobody saw from ground outside; None: not known.

    Returns:
        Numbers of the positive and of the negative rows.

    Raises:
        InputError: If an id is not in the store, or ground has no vector: outside the archive, or never seen.
    """
    rows = store.table(options.level, ["id", "sensor", "split", "geometry"])
    found = _Rows(rows.drop("geometry").to_pandas(), geometries(rows, store.folder), options, locations)
    wanted, unwanted = [found.of_ids(options.ids, "ids")], [found.of_ids(options.not_ids, "not_ids")]
    if options.point is not None:
        lon, lat = options.point
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise InputError(
                f"search.point is longitude and latitude in degrees, found {lon:g}, {lat:g}: for another CRS name a"
                " file in search.examples"
            )
        wanted.append(found.at(shapely.Point(lon, lat), f"search.point {lon:g}, {lat:g}"))
    if options.examples is not None:
        path = Path(options.examples)
        examples = read_vectors(path, _WGS84, "search.examples", _KINDS)
        if options.example_property not in examples.columns:
            signs = np.ones(len(examples), bool)
        else:
            signs = np.array(
                [_sign(value, index, path) for index, value in enumerate(examples[options.example_property])]
            )
        for index, (geometry, is_wanted) in enumerate(zip(examples.geometry, signs, strict=True)):
            (wanted if is_wanted else unwanted).append(found.at(geometry, f"feature {index} of {path}"))
    positive, negative = (np.unique(np.concatenate(parts)).astype(np.int64) for parts in (wanted, unwanted))
    if not positive.size and negative.size and options.chip is None:
        raise InputError("search has examples of what is not wanted alone: name one that is wanted, too")
    if not positive.size and options.chip is None:
        positive = found.an_example()
    return positive, negative


def _sign(value: object, index: int, path: Path) -> bool:
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if text not in _YES | _NO:
        raise InputError(
            f"search.examples: feature {index} of {path} says {value!r}; 1 (wanted) or 0 (not wanted) was expected"
        )
    return text in _YES


class _Rows:
    """The rows of a level of the store, by id and by ground."""

    def __init__(
        self,
        rows: pd.DataFrame,
        geometry: npt.NDArray[np.object_],
        options: SearchParameters,
        locations: gpd.GeoDataFrame | None,
    ) -> None:
        self._rows, self._options, self._locations = rows, options, locations
        self._allowed = np.ones(len(rows), bool)
        if options.sensors:
            unknown = sorted(set(options.sensors) - set(rows["sensor"]))
            if unknown:
                raise InputError(
                    f"search.sensors: the store has no vector of {', '.join(unknown)}; it has"
                    f" {', '.join(sorted(set(rows['sensor'])))}"
                )
            self._allowed = rows["sensor"].isin(options.sensors).to_numpy()
        self._geometry = geometry
        self._tree = shapely.STRtree(self._geometry)

    def of_ids(self, ids: tuple[str, ...], key: str) -> Ints:
        place = {name: number for number, name in enumerate(self._rows["id"])}
        for name in ids:
            if name not in place:
                near = did_you_mean(name, place)
                raise InputError(
                    f"search.{key}: the store has no {self._options.level} {name!r}; {near}ids are those of the"
                    f" {self._options.level} table"
                )
        return np.array([place[name] for name in ids], np.int64)

    def at(self, geometry: shapely.Geometry, what: str) -> Ints:
        """Find what shows the ground of a geometry."""
        found = self._tree.query(geometry, predicate="intersects")
        found = np.sort(found[self._allowed[found]]).astype(np.int64)
        if found.size:
            return found
        if self._locations is not None and self._locations.intersects(geometry).any():
            raise InputError(
                f"{what} lies in the archive, but no image of it was embedded: nothing was seen there, or its sensors"
                " are not those that the model knows"
            )
        nearest = self._geometry[self._tree.nearest(geometry)]
        lon, lat = (f"{value:.4f}" for value in shapely.get_coordinates(nearest.centroid)[0])
        raise InputError(
            f"{what} lies outside the archive; the nearest place is at {lon}, {lat} (longitude, latitude): name ground"
            " that the archive shows"
        )

    def an_example(self) -> Ints:
        """Take the first row of the test split, else the first of all."""
        usable = np.flatnonzero(self._allowed)
        test = usable[(self._rows["split"].to_numpy() == "test")[usable]]
        return (test if test.size else usable)[:1].astype(np.int64)

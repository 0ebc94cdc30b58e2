"""Polygons of class maps: one per connected region, strip by strip, with borders that neighbours share exactly.

Regions of a strip are labelled and traced; those that reach its last row wait for the next strip and are joined with
what continues them. Coordinates are pixel corners until the end, so that nothing is lost by rounding. Where three
regions meet, all three have a vertex: the polygons are a valid coverage, which can be simplified without gaps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from affine import Affine
from rasterio.features import shapes, sieve
from scipy import ndimage, sparse

from a2mae.raster.footprints import ground_m2_per_unit
from a2mae.tables import geo_schema
from a2mae.tasks.inference.read_map import Bytes, ClassMap

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]

_STRIP_ROWS = 1024
_WRITTEN_AT_ONCE = 50_000
_COLUMNS = [
    ("class", pa.string()),
    ("class_value", pa.int64()),
    ("area_m2", pa.float64()),
    ("area_ha", pa.float64()),
    ("mean_probability", pa.float64()),
]


@dataclass(frozen=True)
class Regions:
    """Connected pixels of one class, by 4 neighbours; all arrays are `(N,)`.

    Attributes:
        geometry: Polygons in the map's CRS.
        value: Classes.
        area_m2: On the ground.
        mean_probability: Mean probability of the mapped class over the region's pixels; NaN where it is not known.
    """

    geometry: Geometries
    value: Ints
    area_m2: Floats
    mean_probability: Floats


def regions(found: ClassMap, *, smallest_m2: float = 0.0, simplify_m: float = 0.0) -> Iterator[Regions]:
    """Trace the regions of a map, as many at a time as end in one strip; with `simplify_m` all at once.

    Args:
        found: The map; with `smallest_m2` it is held in memory thrice, as bytes.
        smallest_m2: Smallest mapping unit: regions of less ground go to their largest neighbour; a region that has none
            stays.
        simplify_m: Corners smaller than about a square of this side are cut off (Visvalingam and Whyatt), the same for
            both sides of a border. 0: borders follow the pixels.
    """
    classes = found.read()
    if smallest_m2 > 0:
        pixels = int(np.ceil(smallest_m2 / float(np.median(found.pixel_m2())) - 1e-9))
        if pixels > 1:
            classes = sieve(classes, pixels, mask=found.seen(classes))
    nodes = _Nodes.of(classes)
    batches = _strips(found, classes, nodes)
    if simplify_m <= 0:
        yield from batches
        return
    each = list(batches)
    simple = shapely.coverage_simplify(np.concatenate([batch.geometry for batch in each]), simplify_m)
    value, probability = (
        np.concatenate([getattr(batch, name) for batch in each]) for name in ("value", "mean_probability")
    )
    yield Regions(simple, value, _ground_m2(simple, found), probability)


def write_polygons(
    found: ClassMap,
    geopackage: Path,
    geoparquet: Path,
    *,
    layer: str,
    smallest_m2: float = 0.0,
    simplify_m: float = 0.0,
) -> int:
    """Write the regions of a map as GeoPackage and GeoParquet: the same map, the same bytes.

    Columns: `class`, `class_value`, `area_m2` and `area_ha` on the ground, `mean_probability` of the mapped class, and
    `geometry` in the map's CRS.

    Args:
        found: The map.
        geopackage: A new file, in a folder that is being filled (`files.whole_folder`).
        geoparquet: Likewise.
        layer: Name of the GeoPackage's layer.
        smallest_m2: As `regions`.
        simplify_m: As `regions`.

    Returns:
        Number of polygons.
    """
    schema = geo_schema(_COLUMNS, found.crs, ["Polygon"])
    count = 0
    with pq.ParquetWriter(geoparquet, schema) as writer:
        for some in _in_pieces(regions(found, smallest_m2=smallest_m2, simplify_m=simplify_m)):
            frame = gpd.GeoDataFrame(
                {
                    "class": [found.names[value] for value in some.value.tolist()],
                    "class_value": some.value,
                    "area_m2": some.area_m2,
                    "area_ha": some.area_m2 / 10_000,
                    "mean_probability": some.mean_probability,
                },
                geometry=some.geometry,
                crs=found.crs,
            )
            append_to_geopackage(frame, geopackage, layer, first=not count)
            arrays = [pa.array(frame[name], kind, from_pandas=True) for name, kind in _COLUMNS]
            arrays.append(pa.array(shapely.to_wkb(some.geometry), pa.binary()))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(frame)
    if not count:
        empty = gpd.GeoDataFrame(schema.empty_table().drop(["geometry"]).to_pandas(), geometry=[], crs=found.crs)
        append_to_geopackage(empty, geopackage, layer, first=True)
    logger.info("%s: %s polygons", found.path.name, f"{count:,}")
    return count


def append_to_geopackage(
    frame: gpd.GeoDataFrame, path: Path, layer: str, *, first: bool, kind: str = "Polygon"
) -> None:
    """Write rows into a GeoPackage that says nothing of when it was written.

    Args:
        frame: Rows.
        path: The file.
        layer: Name of its layer.
        first: Make the file; else add to it.
        kind: Of the geometries.
    """
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "1980-01-01T00:00:00.000Z"})
    try:
        pyogrio.write_dataframe(
            frame, path, driver="GPKG", layer=layer, append=not first, geometry_type=kind, promote_to_multi=False
        )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _in_pieces(batches: Iterator[Regions]) -> Iterator[Regions]:
    for batch in batches:
        for start in range(0, len(batch.value), _WRITTEN_AT_ONCE):
            part = slice(start, start + _WRITTEN_AT_ONCE)
            yield Regions(batch.geometry[part], batch.value[part], batch.area_m2[part], batch.mean_probability[part])


@dataclass(frozen=True)
class _Pieces:
    """Regions as far as they have been traced: `P` polygons of `R` regions.

    Attributes:
        parts: `(P,)` polygons of pixel corners, strip by strip.
        owner: `(P,)` which region each is of.
        value: `(R,)` classes.
        pixels: `(R,)` sizes.
        probability: `(R,)` sums over the pixels.
        bottom: `(columns,)` the region of each pixel of the last row, from 1; 0: none.
    """

    parts: Geometries
    owner: Ints
    value: Ints
    pixels: Ints
    probability: Floats
    bottom: Ints


def _strips(found: ClassMap, classes: Bytes, nodes: _Nodes) -> Iterator[Regions]:
    """Yield the regions that end in each strip."""
    rows, columns = classes.shape
    none = np.zeros(0, np.int64)
    above = _Pieces(np.zeros(0, object), none, none, none, np.zeros(0), np.zeros(columns, np.int64))
    for top in range(0, rows, _STRIP_ROWS):
        strip = classes[top : top + _STRIP_ROWS]
        labels, value = _labelled(strip, found.seen(strip))
        grown = _grown(above, labels, value, _sums(found, labels, len(value), top), _traced(labels, top))
        reaches = np.zeros(len(grown.value), bool)
        if top + _STRIP_ROWS < rows:
            reaches[np.unique(grown.bottom[grown.bottom > 0]) - 1] = True
        yield _finished(_chosen(grown, ~reaches), found, nodes)
        above = _chosen(grown, reaches)


def _sums(found: ClassMap, labels: npt.NDArray[np.int32], count: int, top: int) -> Floats:
    """Add up the probability of each region's pixels; NaN where it is not known."""
    confidence = found.read_confidence(top, rows=len(labels))
    if confidence is None:
        return np.full(count, np.nan)
    return np.asarray(np.bincount(labels.ravel(), weights=confidence.ravel(), minlength=count + 1)[1:], np.float64)


def _labelled(strip: Bytes, seen: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], Ints]:
    """Number the regions of a strip from 1, class by class; and the class of each."""
    labels, found, count = np.zeros(strip.shape, np.int32), [np.zeros(0, np.int64)], 0
    for value in np.unique(strip[seen]):
        part, more = ndimage.label(strip == value)
        np.add(part, count, out=labels, where=part > 0)
        found.append(np.full(more, value, np.int64))
        count += more
    return labels, np.concatenate(found)


def _traced(labels: npt.NDArray[np.int32], top: int) -> Geometries:
    """Trace every region as a polygon of pixel corners, in the order of the labels."""
    rings: list[list[tuple[float, float]]] = []
    counts, numbers = [], []
    for outline, number in shapes(labels, mask=labels > 0):
        rings += outline["coordinates"]
        counts.append(len(outline["coordinates"]))
        numbers.append(int(number) - 1)
    lengths = np.fromiter(map(len, rings), np.int64, len(rings))
    corners = np.array(list(chain.from_iterable(rings)), np.float64).reshape(-1, 2) + np.array([0, top])
    polygons = np.empty(len(numbers), object)
    polygons[numbers] = _polygons(corners, _offsets(lengths), _offsets(np.array(counts, np.int64)))
    return polygons


def _polygons(corners: Floats, rings: Ints, polygons: Ints) -> Geometries:
    found: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, (rings, polygons))
    return found


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _grown(
    above: _Pieces, labels: npt.NDArray[np.int32], value: Ints, probability: Floats, polygons: Geometries
) -> _Pieces:
    """Join the regions of a strip with those of the strip above that they continue."""
    first, count = len(above.value), len(above.value) + len(value)
    values = np.concatenate([above.value, value])
    meets = (above.bottom > 0) & (labels[0] > 0)
    upper, lower = above.bottom[meets] - 1, first + labels[0][meets] - 1
    same = values[upper] == values[lower]
    graph = sparse.coo_matrix((same[same], (upper[same], lower[same])), shape=(count, count))
    number, group = sparse.csgraph.connected_components(graph, directed=False)
    merged = np.zeros(number, np.int64)
    merged[group] = values
    pixels = np.concatenate([above.pixels, np.bincount(labels.ravel(), minlength=len(value) + 1)[1:]])
    return _Pieces(
        np.concatenate([above.parts, polygons]),
        group[np.concatenate((above.owner, np.arange(first, count)))].astype(np.int64),
        merged,
        np.bincount(group, weights=pixels, minlength=number).astype(np.int64),
        np.asarray(
            np.bincount(group, weights=np.concatenate([above.probability, probability]), minlength=number), float
        ),
        np.where(labels[-1] > 0, group[first + labels[-1].astype(np.int64) - 1] + 1, 0) if count else above.bottom,
    )


def _chosen(pieces: _Pieces, which: npt.NDArray[np.bool_]) -> _Pieces:
    """Take some regions, numbered anew."""
    parts, number = which[pieces.owner], np.cumsum(which)
    return _Pieces(
        pieces.parts[parts],
        number[pieces.owner[parts]] - 1,
        pieces.value[which],
        pieces.pixels[which],
        pieces.probability[which],
        np.where(pieces.bottom > 0, np.concatenate([[0], number * which])[pieces.bottom], 0),
    )


def _finished(pieces: _Pieces, found: ClassMap, nodes: _Nodes) -> Regions:
    """Join the parts of each region, and bring it to the map's CRS."""
    order = np.argsort(pieces.owner, kind="stable")
    parts, counts = pieces.parts[order], np.bincount(pieces.owner, minlength=len(pieces.value))
    starts = _offsets(counts)
    geometry = parts[starts[:-1]]
    for region in np.flatnonzero(counts > 1):
        geometry[region] = shapely.union_all(parts[starts[region] : starts[region + 1]])
    placed = nodes.shared(geometry, found.affine)
    return Regions(placed, pieces.value, _ground_m2(placed, found), pieces.probability / pieces.pixels)


def _ground_m2(geometry: Geometries, found: ClassMap) -> Floats:
    """Measure polygons on the ground, each by the scale of the projection at its centre."""
    centre = shapely.get_coordinates(shapely.centroid(geometry))
    return np.asarray(
        shapely.area(geometry) * ground_m2_per_unit(centre[:, 0], centre[:, 1], found.crs, abs(found.affine.a))
    )


@dataclass(frozen=True)
class _Nodes:
    """Pixel corners in which one border ends at another: a vertex of all three regions, also of that which goes by.

    Attributes:
        by_row: `row * width + column`, sorted.
        by_column: `column * height + row`, sorted.
        width: Corners of a row.
        height: Corners of a column.
    """

    by_row: Ints
    by_column: Ints
    width: int
    height: int

    @classmethod
    def of(cls, classes: Bytes) -> _Nodes:
        """Find them in a map."""
        height, width = (length + 1 for length in classes.shape)
        found = []
        for top in range(1, height - 1, _STRIP_ROWS):
            rows = classes[top - 1 : top + _STRIP_ROWS]  # one above the first corner, one below the last
            across, down = rows[:, 1:] != rows[:, :-1], rows[1:] != rows[:-1]
            borders = [across[:-1], across[1:], down[:, :-1], down[:, 1:]]
            row, column = np.nonzero(sum(border.astype(np.uint8) for border in borders) == 3)
            found.append((row + top) * width + column + 1)
        by_row = np.concatenate([np.zeros(0, np.int64), *found])
        return cls(by_row, np.sort(by_row % width * height + by_row // width), width, height)

    def shared(self, polygons: Geometries, affine: Affine) -> Geometries:
        """Give polygons of pixel corners those vertices that their neighbours have, and none that nobody needs.

        Returns:
            Polygons in the coordinates that the affine leads to.
        """
        if not len(polygons):
            return polygons
        _, corners, (ring_ends, polygon_ends) = shapely.to_ragged_array(polygons)
        corners, ring_ends = corners.round().astype(np.int64), np.asarray(ring_ends, np.int64)
        ring = np.repeat(np.arange(len(ring_ends) - 1), np.diff(ring_ends))
        inner = np.ones(len(corners), bool)
        inner[ring_ends[1:] - 1] = False  # a ring repeats its first corner
        corners, ring = corners[inner], ring[inner]
        onward = _next_of(corners, ring)
        back = _next_of(corners[::-1], ring[::-1])[::-1]
        turns = (onward[:, 0] == corners[:, 0]) != (back[:, 0] == corners[:, 0])
        corners, ring = corners[turns], ring[turns]
        filled, ring = self._filled(corners, _next_of(corners, ring), ring)
        counts = np.bincount(ring, minlength=len(ring_ends) - 1)
        starts = _offsets(counts)[:-1]
        closed = np.insert(filled, starts + counts, filled[starts], axis=0)
        matrix = np.array([[affine.a, affine.d], [affine.b, affine.e]])
        placed = closed @ matrix + np.array([affine.c, affine.f])
        return _polygons(placed, _offsets(counts + 1), np.asarray(polygon_ends, np.int64))

    def _filled(self, corners: Ints, onward: Ints, ring: Ints) -> tuple[Ints, Ints]:
        """Put the nodes between each corner and the next into their order."""
        level = corners[:, 1] == onward[:, 1]
        low, high = np.minimum(corners, onward), np.maximum(corners, onward)
        first, count = np.zeros(len(corners), np.int64), np.zeros(len(corners), np.int64)
        for which, known, start, end in (
            (level, self.by_row, low[:, 1] * self.width + low[:, 0], low[:, 1] * self.width + high[:, 0]),
            (~level, self.by_column, low[:, 0] * self.height + low[:, 1], low[:, 0] * self.height + high[:, 1]),
        ):
            first[which] = np.searchsorted(known, start[which], "right")
            count[which] = np.searchsorted(known, end[which], "left") - first[which]
        places = _offsets(count + 1)
        filled = np.empty((places[-1], 2), np.int64)
        filled[places[:-1]] = corners
        between = np.ones(len(filled), bool)
        between[places[:-1]] = False
        of = np.repeat(np.arange(len(corners)), count)
        step = np.arange(len(of)) - np.repeat(_offsets(count)[:-1], count)
        forward = np.asarray((onward >= corners).all(axis=1))[of]
        node = first[of] + np.where(forward, step, count[of] - 1 - step)
        flat = level[of]
        nodes = np.empty((len(of), 2), np.int64)
        along = self.by_row[node[flat]]
        nodes[flat] = np.stack([along % self.width, along // self.width], axis=1)
        along = self.by_column[node[~flat]]
        nodes[~flat] = np.stack([along // self.height, along % self.height], axis=1)
        filled[between] = nodes
        return filled, np.repeat(ring, count + 1)


def _next_of(corners: Ints, ring: Ints) -> Ints:
    """The corner after each one in its ring; rings lie one after the other, without their repeated end."""
    following = np.roll(corners, -1, axis=0)
    ends = np.flatnonzero(np.append(ring[1:] != ring[:-1], True))
    following[ends] = corners[np.concatenate([[0], ends[:-1] + 1])]
    return following

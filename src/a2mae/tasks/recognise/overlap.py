"""Hold labels against an archive: on how many of its places they lie, and what each split gets of each class."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, RejectedError, plural
from a2mae.raster.header import read_header
from a2mae.tasks.datasets.polygons import check_degrees, check_metres, listed_bounds, swapped
from a2mae.tasks.datasets.task_data import SPLITS
from a2mae.tasks.datasets.writer import TaskDataSource, classes_shown
from a2mae.tasks.recognise.look import Kind, Look

_SECONDS = 20.0


def on_places(look: Look, locations: gpd.GeoDataFrame) -> str:
    """Say how many labels lie on the places of an archive, and on how many of these.

    Args:
        look: Features, or a raster.
        locations: Location table.

    Raises:
        InputError: If none does; both extents are in the message. If coordinates are not what the CRS says.
    """
    places = locations.geometry
    ground: BaseGeometry
    if look.kind is Kind.RASTER:
        try:
            header = read_header(str(look.path))
        except RejectedError as rejection:
            raise InputError(rejection.detail) from rejection
        extent = GeoBox(header.shape, header.transform, header.crs).extent.geom
        check_metres(look.path, pyproj.CRS.from_user_input(header.crs), extent.bounds)
        here, count = int(places.intersects(header.footprint).sum()), "the raster lies"
        ground, axes = header.footprint, ""
    else:
        assert look.features is not None
        stated = look.features.geometry[look.features.geometry.notna() & ~look.features.geometry.is_empty]
        if not len(stated):
            raise InputError(
                f"{look.path}: none of its {plural(len(look.features), 'feature')} has a geometry: draw them"
            )
        check_metres(look.path, stated.crs, stated.total_bounds)
        ground = places.to_crs(stated.crs).union_all()
        check_degrees(look.path, stated, ground)
        axes, geometry = swapped(stated, ground), stated.to_crs("EPSG:4326")
        pairs = geometry.sindex.query(places.to_numpy(), predicate="intersects")
        here, hit = len(np.unique(pairs[0])), len(np.unique(pairs[1]))
        count = f"{hit:,} of {plural(len(geometry), 'label')} {'lies' if hit == 1 else 'lie'}"
        ground = shapely.box(*geometry.total_bounds)
    if not here:
        raise InputError(
            f"{look.path} lies within {listed_bounds(ground.bounds)} (west, south, east, north), the"
            f" {plural(len(places), 'place')} of the archive within {listed_bounds(places.total_bounds)}: no label lies"
            f" on one of them.{axes} Name labels of this ground, or another environment with --env"
        )
    return f"{count} on {here} of {plural(len(places), 'place')}"


@dataclass(frozen=True)
class Census:
    """What each split gets.

    Attributes:
        samples: By split.
        places: By split.
        classes: Samples that show a class, by class and split; empty of values.
        whole: Whether every sample was counted.
    """

    samples: Mapping[str, int]
    places: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    whole: bool

    def lines(self) -> Iterator[str]:
        """Write the table, then what cannot be learned or scored."""
        if not self.whole:
            read = plural(sum(self.samples.values()), "sample")
            yield f"{read} read in {_SECONDS:.0f} seconds and taken; the run reads all, and says what each split gets"
            return
        width = max((len(name) for name in ("samples", *self.classes)), default=7)
        yield f"{'':{width}}" + "".join(f"{split:>8}" for split in SPLITS)
        for name, counts in (("samples", self.samples), ("places", self.places), *self.classes.items()):
            yield f"{name:{width}}" + "".join(f"{counts.get(split, 0):>8,}" for split in SPLITS)
        for split in ("train", "test"):
            if not self.samples.get(split):
                yield f"no sample is in {split}: labels at more places, or splits of your own"
            elif missing := [name for name, counts in self.classes.items() if not counts.get(split)]:
                yield f"no sample in {split} shows {', '.join(missing)}: labels of it at more places"


def by_split(source: TaskDataSource) -> Census:
    """Read the samples as the task will, within bounds, and count them.

    Args:
        source: Of the samples.

    Raises:
        TaskDataError: What the task would reject is rejected.
    """
    names = source.spec.class_names
    samples: dict[str, int] = defaultdict(int)
    places: dict[str, set[str]] = defaultdict(set)
    classes: dict[str, dict[str, int]] = {name: defaultdict(int) for name in names}
    began, whole = time.monotonic(), True
    for sample in source.samples():
        split = str(sample.row["split"])
        samples[split] += 1
        places[split].add(str(sample.row["place"]))
        for number in classes_shown(source.spec, sample.target) if names else ():
            classes[names[number]][split] += 1
        if time.monotonic() - began > _SECONDS:
            whole = False
            break
    return Census(samples, {split: len(found) for split, found in places.items()}, classes, whole)

"""Join neighbouring scenes of one overpass, for footprints that lie across their border.

Providers cut an overpass into tiles or frames. Where a footprint lies in one of them, that one is used. Where it needs
two, their mosaic is used: a scene whose assets are those of its parts, one part after the other.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from a2mae.scenes import Scene

_ONE_PASS = dt.timedelta(minutes=15)
_LARGER = 1.001  # a mosaic reaches at least so many times as far as its largest part
_AS_MUCH = 0.005  # share of the footprint: a part that covers nearly what the mosaic does is used alone
_EDGE_PX = 4


def mosaics(scenes: Sequence[Scene]) -> list[Scene]:
    """Make a mosaic of every group of scenes of one sensor, platform and overpass that touch one another.

    Args:
        scenes: Accepted scenes, none of them a mosaic.

    Returns:
        The mosaics, named after their first part (`<id>+<number of further parts>`).
    """
    by_source: dict[object, list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=lambda scene: (scene.datetime, scene.scene_id)):
        by_source[scene.sensor, scene.platform, scene.cloud_test].append(scene)
    found = []
    for members in by_source.values():
        start = 0
        for stop in range(1, len(members) + 1):
            if stop == len(members) or members[stop].datetime - members[start].datetime > _ONE_PASS:
                found += [_mosaic(parts) for parts in _touching(members[start:stop])]
                start = stop
    return sorted(found, key=lambda scene: scene.scene_id)


def _touching(scenes: Sequence[Scene]) -> list[list[Scene]]:
    """Group scenes that touch one another and together reach further than the largest of them."""
    if len(scenes) < 2:
        return []
    shapes = np.array([scene.geometry for scene in scenes], dtype=object)
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    label = np.arange(len(scenes))
    for _ in range(len(scenes)):  # each group takes its smallest label, neighbour by neighbour
        before = label.copy()
        np.minimum.at(label, right, label[left])
        if (label == before).all():
            break
    groups = [[scenes[int(k)] for k in np.flatnonzero(label == one)] for one in np.unique(label)]
    return [
        group
        for group in groups
        if len(group) > 1
        and shapely.union_all([scene.geometry for scene in group]).area
        > _LARGER * max(scene.geometry.area for scene in group)
    ]


def _mosaic(parts: Sequence[Scene]) -> Scene:
    first = min(parts, key=lambda scene: scene.scene_id)
    covers = [scene.cloud_cover_pct for scene in parts if scene.cloud_cover_pct is not None]
    baselines = {scene.processing_baseline for scene in parts}
    ordered = sorted(parts, key=lambda scene: scene.scene_id)
    return replace(
        first,
        scene_id=f"{first.scene_id}+{len(parts) - 1}",
        datetime=min(scene.datetime for scene in parts),
        geometry=shapely.union_all([scene.geometry for scene in parts]),
        assets=tuple(asset for scene in ordered for asset in scene.assets),
        cloud_cover_pct=max(covers) if covers else None,
        processing_baseline=first.processing_baseline if len(baselines) == 1 else None,
    )


def prefer_single(
    of_location: NDArray[np.integer],
    of_scene: NDArray[np.integer],
    covered: NDArray[np.floating],
    scenes: Sequence[Scene],
) -> NDArray[np.bool_]:
    """Choose between a mosaic and its parts at each location: the parts if one of them covers as much, else the mosaic.

    Args:
        of_location: Location of each pair of location and scene, `(P,)`.
        of_scene: Position in `scenes` of each pair, `(P,)`.
        covered: Share of the location that the scene covers, `(P,)`.
        scenes: Scenes and mosaics.

    Returns:
        Pairs to keep, `(P,)` bool.
    """
    keep = np.ones(len(of_location), dtype=np.bool_)
    by_file = {scene.assets[0].href: k for k, scene in enumerate(scenes) if len(scene.parts) == 1}
    order = np.argsort(of_scene, kind="stable")
    starts = np.searchsorted(of_scene[order], np.arange(len(scenes) + 1))
    for k, scene in enumerate(scenes):
        if len(scene.parts) == 1:
            continue
        members = [by_file[part[0].href] for part in scene.parts if part[0].href in by_file]
        whole, *parts = (order[starts[n] : starts[n + 1]] for n in (k, *members))
        part_rows = np.concatenate([order[:0], *parts])
        locations, at = np.unique(of_location[whole], return_inverse=True)
        part_rows = part_rows[np.isin(of_location[part_rows], locations)]
        at_part = np.searchsorted(locations, of_location[part_rows])
        best = np.zeros(len(locations))
        np.maximum.at(best, at_part, covered[part_rows])
        alone = best[at] >= covered[whole] - _AS_MUCH
        keep[whole[alone]] = False
        in_mosaic = np.zeros(len(locations), dtype=np.bool_)
        in_mosaic[at[~alone]] = True
        keep[part_rows[in_mosaic[at_part]]] = False
    return keep


def parts_at(scene: Scene, grid: GeoBox) -> list[Scene]:
    """Return the parts of a mosaic that reach a grid, as scenes; the scene itself if it is no mosaic."""
    if len(scene.parts) == 1:
        return [scene]
    parts = [replace(scene, assets=part) for part in scene.parts]
    near = [part for part in parts if _reaches(part, grid)]
    return near or parts[:1]


def _reaches(part: Scene, grid: GeoBox) -> bool:
    asset = part.assets[0]
    if asset.affine is None or asset.shape is None or asset.crs is None:
        return True  # only opening it would tell
    corners = [grid.affine @ corner for corner in ((0, 0), (grid.shape[1], grid.shape[0]))]
    bounds = (corners[0][0], corners[1][1], corners[1][0], corners[0][1])
    source = CRS.from_user_input(asset.crs)
    west, south, east, north = transform_bounds(CRS.from_string(str(grid.crs)), source, *bounds)
    inverse = ~asset.affine
    pixels = [inverse @ (x, y) for x in (west, east) for y in (south, north)]
    columns, rows = [c for c, _ in pixels], [r for _, r in pixels]
    return bool(
        max(columns) > -_EDGE_PX
        and max(rows) > -_EDGE_PX
        and min(columns) < asset.shape[1] + _EDGE_PX
        and min(rows) < asset.shape[0] + _EDGE_PX
    )

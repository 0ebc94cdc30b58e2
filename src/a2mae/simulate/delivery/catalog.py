"""The STAC catalog of the scenes, as a provider describes each file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
from pystac.stac_io import DefaultStacIO

from a2mae.files import whole_file
from a2mae.sensors import BUILTIN_SENSORS, Band
from a2mae.simulate.delivery.manifest import FileFacts, SceneFacts
from a2mae.simulate.region import Grid, Region
from a2mae.simulate.scenes import ScenePlan

_EO = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_VIEW = "https://stac-extensions.github.io/view/v1.0.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


class _WholeFiles(DefaultStacIO):
    """Writes catalog files atomically and byte for byte the same on every run."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        with whole_file(Path(href)) as temporary:
            temporary.write_text(txt + "\n", encoding="utf-8")

    def json_dumps(self, json_dict: dict[str, Any], *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 (pystac's signature)
        return json.dumps(json_dict, indent=1)


def _eo_band(band: Band) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": band.name,
        "center_wavelength": band.center_wavelength_nm / 1000,
        "full_width_half_max": band.full_width_half_max_nm / 1000,
    }
    # The extension's version 1 knows one red edge only.
    common = "rededge" if band.common_name.startswith("rededge") else band.common_name
    return {**entry, "common_name": common} if common else entry


def _asset(file: FileFacts, grid: Grid, scene: ScenePlan) -> pystac.Asset:
    bands = [band for band in scene.sensor.bands if band.name in file.bands]
    layer: dict[str, object] = {
        "data_type": file.dtype,
        "nodata": file.nodata,
        "spatial_resolution": grid.gsd_m,
    }
    if bands:
        layer |= {"scale": file.scale, "offset": file.offset, "sampling": "area"}
    extra: dict[str, object] = {
        "gsd": grid.gsd_m,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [grid.gsd_m, 0.0, grid.left_m, 0.0, -grid.gsd_m, grid.top_m],
        "raster:bands": [layer] * max(len(bands), 1),
        "file:size": file.size,
        "file:checksum": f"1220{file.sha256}",  # multihash: sha2-256, 32 bytes
    }
    if bands:
        extra["eo:bands"] = [_eo_band(band) for band in bands]
    return pystac.Asset(
        href=Path(file.path).name, media_type=pystac.MediaType.COG, roles=list(file.roles), extra_fields=extra
    )


def make_item(region: Region, scene: ScenePlan, facts: SceneFacts) -> pystac.Item:
    """Describe a scene as its provider would: nothing of the truth is in it."""
    ring = region.lonlat_ring(scene.grid)
    lons, lats = [lon for lon, _ in ring], [lat for _, lat in ring]
    properties: dict[str, object] = {
        "platform": scene.platform,
        "gsd": scene.sensor.gsd_m,
        "eo:cloud_cover": round(100 * facts.cloud_fraction, 2),
        "proj:code": f"EPSG:{scene.grid.epsg}",
        "view:sun_azimuth": round(scene.sun.azimuth_deg, 2),
        "view:sun_elevation": round(90 - scene.sun.zenith_deg, 2),
    }
    if scene.baseline:
        properties["s2:processing_baseline"] = scene.baseline
        properties["s2:nodata_pixel_percentage"] = round(100 * facts.nodata_fraction, 3)
    item = pystac.Item(
        id=scene.id,
        geometry={"type": "Polygon", "coordinates": [[list(point) for point in ring]]},
        bbox=[min(lons), min(lats), max(lons), max(lats)],
        datetime=scene.when,
        properties=properties,
        stac_extensions=[_EO, _RASTER, _PROJECTION, _VIEW, _FILE],
    )
    for file in facts.files:
        if file.grid is not None:  # the cloud truth beside is none of the provider's
            item.add_asset(file.key, _asset(file, file.grid, scene))
    return item


def write_catalog(folder: Path, items: Sequence[tuple[str, pystac.Item]]) -> list[str]:
    """Write the self-contained catalog: one collection per sensor, one item per scene.

    Args:
        folder: Where; assets lie beside their items at `<sensor>/<scene>/`.
        items: Sensor id and item of every scene.

    Returns:
        Paths of the catalog's files, relative to the folder.
    """
    root = pystac.Catalog(
        "a2mae-simulated-earth", "A simulated Earth seen by several sensors.", title="Simulated Earth"
    )
    for sensor_id in dict.fromkeys(sensor for sensor, _ in items):
        members = [item for sensor, item in items if sensor == sensor_id]
        boxes = [item.bbox or [] for item in members]
        times = [item.datetime or datetime(1970, 1, 1, tzinfo=UTC) for item in members]
        extent = pystac.Extent(
            pystac.SpatialExtent(
                [
                    [
                        min(b[0] for b in boxes),
                        min(b[1] for b in boxes),
                        max(b[2] for b in boxes),
                        max(b[3] for b in boxes),
                    ]
                ]
            ),
            pystac.TemporalExtent([[min(times), max(times)]]),
        )
        sensor = BUILTIN_SENSORS[sensor_id]
        collection = pystac.Collection(sensor_id, f"{sensor.title} (simulated)", extent, license="CC0-1.0")
        collection.summaries = pystac.Summaries(
            {"gsd": [sensor.gsd_m], "platform": sorted({str(i.properties["platform"]) for i in members})}
        )
        collection.add_items(members)
        root.add_child(collection)
    root.normalize_hrefs(str(folder))
    root.save(pystac.CatalogType.SELF_CONTAINED, stac_io=_WholeFiles())
    written = ["catalog.json"]
    for sensor_id in dict.fromkeys(sensor for sensor, _ in items):
        written.append(f"{sensor_id}/collection.json")
    written += [f"{sensor}/{item.id}/{item.id}.json" for sensor, item in items]
    return written

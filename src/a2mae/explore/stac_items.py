"""STAC items of results, so that catalogs and their tools take them without being told what they hold."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pystac
import rasterio
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterBand, RasterExtension
from shapely.geometry import mapping

from a2mae.raster.footprints import footprint_lonlat, known_crs
from a2mae.raster.opening import GDAL_OPTIONS
from a2mae.tasks.inference.read_map import ClassMap
from a2mae.tasks.palette import hex_colour

_MEDIA_TYPES: Mapping[str, str] = {
    ".tif": pystac.MediaType.COG,
    ".gpkg": pystac.MediaType.GEOPACKAGE,
    ".parquet": pystac.MediaType.PARQUET,
    ".csv": "text/csv",
    ".qml": "application/xml",
}


def raster_item(name: str, title: str, raster: Path, when: Sequence[dt.datetime | None]) -> pystac.Item:
    """Describe a raster on its grid; files are added by `add_file`.

    Args:
        name: Id of the item.
        title: For people.
        raster: The raster whose ground and grid the item has.
        when: When what it shows was taken, the earlier first; where that is not known, the file's own time stands.
    """
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(raster) as source:
        outline = footprint_lonlat(source.transform, source.shape, source.crs.to_wkt())
    known = [moment for moment in when if moment is not None]
    last = known[-1] if known else dt.datetime.fromtimestamp(int(raster.stat().st_mtime), dt.UTC)
    between = {"start_datetime": known[0], "end_datetime": known[-1]} if len(known) > 1 else {}
    return pystac.Item(
        id=name,
        geometry=mapping(outline),
        bbox=list(outline.bounds),
        datetime=last,
        properties={"title": title, **{key: moment.isoformat() for key, moment in between.items()}},
    )


def add_file(item: pystac.Item, path: Path, href: str, title: str, found: ClassMap | None = None) -> None:
    """Add a file to an item: a raster with its bands and grid, anything else with its media type.

    Args:
        item: Of `raster_item`.
        path: Where the file lies now.
        href: Relative to the item.
        title: For people.
        found: Names the classes of a raster or of polygons.
    """
    role = "style" if path.suffix == ".qml" else "metadata" if path.suffix == ".csv" else "data"
    asset = pystac.Asset(href, title=title, media_type=_MEDIA_TYPES[path.suffix], roles=[role])
    item.add_asset(f"{path.stem}_{path.suffix[1:]}", asset)
    if path.suffix == ".tif":
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as source:
            crs = known_crs(source.crs.to_wkt())
            authority = crs.to_authority(min_confidence=100)
            ProjectionExtension.ext(asset, add_if_missing=True).apply(
                code=":".join(authority) if authority else None,
                wkt2=None if authority else crs.to_wkt(),
                shape=list(source.shape),
                transform=list(source.transform)[:6],
            )
            bands = [
                RasterBand.create(
                    nodata=source.nodatavals[index],
                    data_type=source.dtypes[index],
                    scale=source.scales[index],
                    offset=source.offsets[index],
                )
                for index in range(source.count)
            ]
            RasterExtension.ext(asset, add_if_missing=True).apply(bands=bands)
    if found is not None:
        classes = [
            Classification.create(
                value,
                name=re.sub(r"[^0-9A-Za-z_-]+", "_", name) or f"class_{value}",
                title=name,
                color_hint=hex_colour(found.colours[value])[1:].upper(),
            )
            for value, name in found.names.items()
        ]
        ClassificationExtension.ext(asset, add_if_missing=True).apply(classes=classes)


def write_items(folder: Path, title: str, items: Mapping[str, pystac.Item]) -> None:
    """Write a self-contained catalog: `catalog.json`, and each item beside its files.

    Args:
        folder: Where; what lies there stays.
        title: For people.
        items: By the subfolder that their files lie in.
    """
    root = pystac.Catalog("a2mae-deliverables", title, title=title)
    for item in items.values():
        root.add_item(item)
    root.set_self_href(str(folder / "catalog.json"))
    for name, item in items.items():
        item.set_self_href(str(folder / name / f"{item.id}.json"))
    root.save(pystac.CatalogType.SELF_CONTAINED)

"""Recognise what a folder holds: products with what is known of each, or stated, and files that are no scenes."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

from a2mae.errors import InputError, plural
from a2mae.sensors import Units
from a2mae.stssd.recognise.deliveries import Claimed, recognise_deliveries
from a2mae.stssd.recognise.facts import Aside, Fact, Product, Recognition, asked, known_sensors
from a2mae.stssd.recognise.landsat_bundle import recognise_bundles
from a2mae.stssd.recognise.look import RASTERS, list_folder
from a2mae.stssd.recognise.measure import sentinel2_offset
from a2mae.stssd.recognise.sentinel2_safe import recognise_safe
from a2mae.stssd.recognise.unnamed import recognise_unnamed

_KINDS = {
    ".geojson": "vectors: outlines, or labels (a2mae labels FILE)",
    ".gpkg": "vectors: outlines, or labels (a2mae labels FILE)",
    ".shp": "vectors: outlines, or labels (a2mae labels FILE)",
    ".h5": "HDF5, which is not read: write GeoTIFFs of it; VIIRS tiles: order them so from AppEEARS, or gdal_translate"
    " 'HDF5:\"FILE\"://HDFEOS/GRIDS/…' of every band",
    ".hdf": "HDF, which is not read: write GeoTIFFs of it; MODIS tiles are HDF4: order them so from AppEEARS, or with a"
    " GDAL that has HDF4 (conda-forge) gdal_translate 'HDF4_EOS:EOS_GRID:\"FILE\":…' of every band",
    ".nc": "NetCDF, which is not read: write GeoTIFFs of it",
    ".vrt": "a VRT may name any file and is not read: name the GeoTIFFs that it is made of",
    ".json": "metadata; of a STAC catalog name the file itself, a2mae init FILE",
    ".zip": "an archive: --unpack uses what is in it",
    ".tar": "an archive: --unpack uses what is in it",
    ".gz": "an archive: --unpack uses what is in it if it is a .tar.gz",
    ".rpb": "the RPC of a scene that has no grid yet",
}

_ADVISED = (".json", ".h5", ".hdf", ".nc", ".vrt", ".zip", ".tar", ".gz")
_SCALES = {"sentinel-2": 1e-4, "landsat": 2.75e-5}


def recognise(folder: Path) -> Recognition:
    """Look at a folder's files and tell what is known of them.

    Args:
        folder: Of scenes, as providers or programs left them.

    Raises:
        InputError: If it is no folder, may not be read, or holds no raster.
    """
    listing = list_folder(folder)
    found = Claimed(notes=list(listing.notes))
    recognise_safe(listing, found)
    recognise_deliveries(listing, listing.names, found)
    recognise_bundles(listing, listing.names, found)
    recognise_unnamed(listing, listing.names, found)
    rasters = [name for name in listing.names if name.lower().endswith(RASTERS)]
    if not rasters:
        kinds = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in listing.names)
        shown = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common(4))
        advice = next((_KINDS[ending] for ending, _ in kinds.most_common() if ending in _ADVISED), "")
        told = f"they are {advice}" if advice else "name a folder of scenes"
        raise InputError(f"{folder} holds no GeoTIFF, JPEG 2000, PNG or JPEG ({shown}): {told}")
    return Recognition(
        root=folder,
        products=tuple(found.products),
        asides=(*found.asides, *_others(listing.names, found)),
        unusable=tuple(sorted(found.unusable.items())),
        notes=tuple(found.notes),
        unplaced=tuple(found.unplaced),
    )


def _others(names: tuple[str, ...], found: Claimed) -> list[Aside]:
    """Files that are no rasters, by their endings."""
    read = {path for product in found.products for path in product.paths}
    left = [n for n in names if n not in found.names and n not in read and not n.lower().endswith(RASTERS)]
    endings = Counter(os.path.splitext(name)[1] for name in left)
    taken = {os.path.splitext(path)[1] for path in read}
    asides = []
    for ending, count in sorted(endings.items()):
        why = _KINDS.get(ending.lower(), "no raster that is read")
        if ending and ending not in taken:
            asides.append(Aside(("files", f"**/*{ending}"), why, count))
        else:
            asides.append(Aside(("regex", r"(?:.*/)?[^/.]+"), f"{plural(count, 'file')} without an ending", count))
    return asides


def state(product: Product, **values: object) -> Product:
    """Return a product with what somebody has stated of it, and with what follows from that.

    A known sensor says its units and, of Sentinel-2 and Landsat, what nodata is; its usual scale and band order are
    suggested. Reflectance without a mask is tested for clouds by brightness.

    Args:
        product: As the files tell it.
        values: Keys of the rule.
    """
    rule = {**product.rule, **{key: Fact(value, "stated") for key, value in values.items()}}
    sensor = known_sensors().get(str(values.get("sensor")))

    def follows(key: str, fact: Fact) -> None:
        if key not in values and key in rule and not rule[key].known:
            rule[key] = fact

    if sensor is not None:
        units = sensor.encoding.units
        radar = units is Units.BACKSCATTER_DB  # the store's: files may hold linear backscatter
        if not radar:
            follows("units", Fact(units.value, f"those of {sensor.id}"))
        if len(sensor.bands) == product.band_count:
            follows("bands", dataclasses.replace(rule["bands"], suggestion=list(sensor.band_names)))
        family = next((name for name in _SCALES if sensor.id.startswith(name)), None)
        if family is not None and sensor.id.endswith(("l1c", "l2a", "l2")):
            follows("scale", asked(rule["scale"].evidence if "scale" in rule else "", _SCALES[family]))
        if family == "sentinel-2":
            follows("offset", sentinel2_offset(product.darkest, is_integer=True))
        if family is not None and rule["nodata"].value == "none":
            rule["nodata"] = Fact(0, f"0 is nodata in products of {sensor.title.partition(',')[0]}")
    if rule["units"].known:
        reflects = rule["units"].value == Units.REFLECTANCE.value
        follows("cloud_test", Fact("brightness" if reflects else "none", "no cloud mask is known"))
    return dataclasses.replace(product, rule=rule)

"""Writes tiny files as providers deliver them: their names, XML, metadata and number types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

LEFT, TOP, CRS = 500_160.0, 4_649_280.0, "EPSG:32633"


def write(
    path: Path,
    *,
    bands: int = 1,
    dtype: str = "uint16",
    gsd: float = 10.0,
    side_m: float = 1200.0,
    low: float = 1200,
    high: float = 4000,
    nodata: float | None = None,
    descriptions: tuple[str, ...] = (),
    crs: str | None = CRS,
    left: float = LEFT,
    tags: dict[str, str] | None = None,
) -> Path:
    """A raster of random numbers between `low` and `high`; a `.jp2` is a real JPEG 2000."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = round(side_m / gsd)
    rng = np.random.default_rng(len(path.name))
    pixels = rng.uniform(low, high, size=(bands, size, size)).astype(dtype)
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    settings = {"driver": "GTiff"} if path.suffix.lower() != ".jp2" else lossless
    settings |= {"count": bands, "height": size, "width": size, "dtype": dtype, "nodata": nodata}
    if crs is not None:
        settings |= {"crs": crs, "transform": from_origin(left, TOP, gsd, gsd)}
    with rasterio.open(path, "w", **settings) as target:
        target.write(pixels)
        target.update_tags(**(tags or {}))
        for index, text in enumerate(descriptions, start=1):
            target.set_band_description(index, text)
    return path


SAFE_BANDS = {
    "L2A": {
        10: ("B02", "B03", "B04", "B08", "TCI", "AOT", "WVP"),
        20: ("B01", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL"),
        60: ("B01", "B09"),
    },
    "L1C": {10: ("B02", "B03", "B04", "B08", "TCI"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
            60: ("B01", "B09", "B10")},
}  # fmt: skip


def write_safe(
    root: Path,
    *,
    level: str = "L2A",
    baseline: str = "0509",
    offset: int | None = -1000,
    when: str = "20230601T102031",
    xml: bool = True,
) -> Path:
    """A Sentinel-2 product; an offset of None is an XML without the list of offsets, as before baseline 04.00."""
    name = f"S2A_MSI{level}_{when}_N{baseline}_R065_T33UUU_{when[:8]}T163400.SAFE"
    folder = root / name
    granule = folder / f"GRANULE/{level}_T33UUU_A041000_{when}"
    for gsd, bands in SAFE_BANDS[level].items():
        for band in bands:
            inside, size = (f"R{gsd}m/", f"_{gsd}m") if level == "L2A" else ("", "")
            path = granule / f"IMG_DATA/{inside}T33UUU_{when}_{band}{size}.jp2"
            kind = {"dtype": "uint8", "low": 4, "high": 6} if band in ("SCL", "TCI") else {}
            write(path, gsd=gsd, bands=3 if band == "TCI" else 1, **kind)
    if level == "L1C" and baseline >= "0400":
        write(granule / "QI_DATA/MSK_CLASSI_B00.jp2", gsd=60, bands=3, dtype="uint8", low=0, high=2)
    kind, added = ("BOA", "BOA") if level == "L2A" else ("", "RADIO")
    value = f"{kind}_QUANTIFICATION_VALUE" if kind else "QUANTIFICATION_VALUE"
    offsets = "" if offset is None else "".join(
        f'<{added}_ADD_OFFSET band_id="{k}">{offset}</{added}_ADD_OFFSET>' for k in range(13)
    )  # fmt: skip
    if xml:
        (folder / f"MTD_MSI{level}.xml").write_text(
            f"<n1:Level><PROCESSING_BASELINE>{baseline[:2]}.{baseline[2:]}</PROCESSING_BASELINE>"
            f'<{value} unit="none">10000</{value}>{offsets}</n1:Level>'
        )
    (folder / "INSPIRE.xml").write_text("<x/>")
    return folder


MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = PRODUCT_CONTENTS
    PROCESSING_LEVEL = "{level}"
{collection}  END_GROUP = PRODUCT_CONTENTS
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "{spacecraft}"
    DATE_ACQUIRED = {date}
    SCENE_CENTER_TIME = "10:02:11.1234567Z"
    CLOUD_COVER = 3.10
    SUN_ELEVATION = 30.0
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = {group}
{factors}
  END_GROUP = {group}
END_GROUP = LANDSAT_METADATA_FILE
END
"""


def write_mtl(
    path: Path, *, level: str, date: str, spacecraft: str = "LANDSAT_8", collection: str | None = "02"
) -> Path:
    """A Landsat MTL file of level `L1TP` or `L2SP`."""
    surface = level.startswith("L2")
    group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if surface else "LEVEL1_RADIOMETRIC_RESCALING"
    mult, add = ("2.75e-05", "-0.2") if surface else ("2.0000E-05", "-0.100000")
    lines = [f"    REFLECTANCE_{k}_BAND_{b} = {v}" for b in range(1, 8) for k, v in (("MULT", mult), ("ADD", add))]
    number = "" if collection is None else f"    COLLECTION_NUMBER = {collection}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        MTL.format(
            level=level, date=date, spacecraft=spacecraft, collection=number, group=group, factors="\n".join(lines)
        )
    )
    return path


def write_landsat(
    root: Path, *, code: str = "LC08", date: str = "20230601", mtl: bool = True, numbers=(1, 2, 3, 4, 5, 6, 7)
) -> Path:
    """A bundle of Landsat Collection 2 Level 2."""
    scene = f"{code}_L2SP_021030_{date}_{date}_02_T1"
    folder = root / scene
    for number in numbers:
        write(folder / f"{scene}_SR_B{number}.TIF", gsd=30, low=8000, high=20_000, nodata=0)
    write(folder / f"{scene}_ST_B10.TIF", gsd=30, low=40_000, high=45_000, nodata=0)
    write(folder / f"{scene}_QA_PIXEL.TIF", gsd=30, low=21_824, high=21_824.5, nodata=1)
    (folder / f"{scene}_MTL.json").write_text("{}")
    if mtl:
        spacecraft = f"LANDSAT_{int(code[2:])}"
        day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
        write_mtl(folder / f"{scene}_MTL.txt", level="L2SP", date=day, spacecraft=spacecraft)
    return folder

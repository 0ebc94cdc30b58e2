"""By law: what `ingest`, a task and a map read of a file are the same values and the same holes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from a2mae.config import read_back
from a2mae.files import json_text
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import read_image
from a2mae.sensors import BUILTIN_SENSORS, Sensor
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.tasks.datasets.formats import layout_named, settled
from a2mae.tasks.datasets.labelled import folder_spec
from a2mae.tasks.datasets.pictures import read_picture
from a2mae.tasks.datasets.task_data import TaskDataError, TaskSpec
from a2mae.tasks.inference.files import Mapped, raster_from_file
from a2mae.tasks.inference.rasters import RasterWindows
from a2mae.tasks.parameters import MapParameters
from a2mae.tasks.registry import Task

ROWS, COLUMNS = 20, 24
AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
BANDS = ("B04", "B03", "B02")
HOLE = np.s_[3:9, 5:12]


@st.composite
def files(draw):
    """How a file of three bands is written, and the mask that hides a part of it."""
    dtype = draw(st.sampled_from(["uint16", "int16", "int32", "float32", "float64"]))
    is_float = dtype.startswith("float")
    nodata = draw(st.sampled_from([None, 0, -9999.0, -3.4e38, float("nan")] if is_float else [None, 0, 7]))
    return {
        "dtype": dtype,
        "nodata": nodata,
        "fill": draw(st.sampled_from([np.nan, np.inf, -3.4028235e38, -9999.0])) if is_float else nodata,
        "in_bands": draw(st.sets(st.sampled_from([0, 1, 2]), min_size=1)),
        "mask": draw(st.sampled_from(["none", "internal", "beside", "alpha"])),
        "tags": None if is_float else draw(st.sampled_from([None, (1e-4, 0.0), (2e-4, -0.1)])),
        "named": draw(st.sampled_from(["", "B{}", "B0{}", "SR_B{}"])),
        "seed": draw(st.integers(0, 99)),
    }


def written(folder: Path, how: dict) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write the file; return its physical values `(3, H, W)`, and where they are seen."""
    rng = np.random.default_rng(how["seed"])
    scale, offset = how["tags"] or ((1.0, 0.0) if how["dtype"].startswith("float") else (1e-4, -0.1))
    physical = rng.uniform(0.1, 0.6, (3, ROWS, COLUMNS))
    stored = (physical if scale == 1 else np.round((physical - offset) / scale)).astype(how["dtype"])
    physical = stored * scale + offset
    seen = np.ones((ROWS, COLUMNS), bool)
    if how["fill"] is not None and not (how["fill"] == -9999 and how["nodata"] != -9999):
        for band in how["in_bands"]:
            stored[(band, *HOLE)] = how["fill"]
        seen[HOLE] = False
    masked = rng.random((ROWS, COLUMNS)) < 0.2
    alpha = how["mask"] == "alpha"
    path = folder / "s_20200601.tif"
    profile = {"driver": "GTiff", "dtype": how["dtype"], "width": COLUMNS, "height": ROWS, "count": 3 + alpha}
    inside = how["mask"] == "internal"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=AT, nodata=how["nodata"]) as file,
    ):
        file.write(stored, [1, 2, 3])
        if alpha:
            file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
            file.write(np.where(masked, 0, 255).astype(how["dtype"]), 4)
        if how["tags"]:
            file.scales, file.offsets = [scale] * file.count, [offset] * file.count
        for index, band in enumerate((4, 3, 2), start=1):
            file.set_band_description(index, how["named"].format(band))
        if how["mask"] in ("internal", "beside"):
            file.write_mask(~masked)
    assert (folder / "s_20200601.tif.msk").exists() == (how["mask"] == "beside")
    return path, physical, seen & ~masked if how["mask"] != "none" else seen


def as_ingested(folder: Path, how: dict, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    factors = ("file", "file") if how["tags"] or how["dtype"].startswith("float") else (1e-4, -0.1)
    bands = [*BANDS, *([None] if how["mask"] == "alpha" else [])]
    rule = {"name": "mine", "files": "s_{date}.tif", "sensor": "sentinel-2-l2a", "bands": bands}
    rule |= {"scale": factors[0], "offset": factors[1], "nodata": "file", "units": "reflectance"}
    parameters = IngestParameters.model_validate(
        {
            "source": {"kind": "folder"},
            "folder": str(folder),
            "rules": [rule],
            "exclude": [{"files": "*.msk", "why": "m"}],
        }
    )
    found = read_folder(parameters, SensorTable({}, {"sentinel-2-l2a": BANDS}))
    (scene,) = found.scenes
    with RasterReader() as reader:
        image = read_image(reader, scene, BUILTIN_SENSORS["sentinel-2-l2a"].subset(BANDS), grid, None)
    return image.physical, image.seen


@settings(max_examples=40, deadline=None)
@given(how=files())
def test_scenes_training_images_and_maps_are_one_reading(tmp_path_factory, how) -> None:
    folder = tmp_path_factory.mktemp("law")
    path, physical, seen = written(folder, how)
    grid = GeoBox((ROWS, COLUMNS), AT, "EPSG:32633")

    values, valid = as_ingested(folder, how, grid)
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_allclose(values[:, seen], physical[:, seen], atol=1e-6)

    layout = settled(layout_named("sentinel-2-l2a", bands=BANDS), [path])
    picture = read_picture(path, layout, lambda *what: pytest.fail(str(what)))
    encoding = layout.sensor.encoding
    np.testing.assert_array_equal(picture.valid, seen)
    step = 0.51 * encoding.scale if how["dtype"].startswith("float") else 1e-6
    decoded = picture.pixels[:, seen] * encoding.scale + encoding.offset
    np.testing.assert_allclose(decoded, physical[:, seen], atol=step)
    assert picture.gsd_m == 10

    sensor = BUILTIN_SENSORS["sentinel-2-l2a"]
    taught = Sensor(sensor.id, "mine", 10, layout.sensor.bands, encoding)
    raster = raster_from_file(path, sensor, BANDS, stated=taught, floats=layout.float_factors)
    with RasterWindows(raster) as windows:
        pixels, valid = windows.read(0, 0, ROWS, COLUMNS)
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_allclose(pixels[:, seen], physical[:, seen], atol=1e-6)


def training_and_scene(tmp_path: Path, counts: np.ndarray, **how) -> tuple[Mapped, Path]:
    """A model's data of files like one, and that one."""
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "dtype": counts.dtype, "width": COLUMNS, "height": ROWS, "count": len(counts)}
    crs, transform = how.get("crs", "EPSG:32633"), how.get("transform", AT)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as file:
        file.write(counts)
        if "tags" in how:
            file.scales, file.offsets = ([one] * len(counts) for one in how["tags"])
    layout = settled(layout_named(how.get("format", "sentinel-2-l2a"), bands=how.get("bands", BANDS)), [path])
    spec = folder_spec(Task.SEGMENT, tmp_path, layout, ("land", "water"))
    return Mapped(spec, (layout.sensor.id,), layout.sensor.band_names, {}), path


def options(path: Path) -> MapParameters:
    return MapParameters.model_validate({"raster": str(path)})


def test_a_scene_that_is_tagged_as_the_training_is_mapped_by_the_same_values(tmp_path) -> None:
    """Training once ignored the tags and took the sensor's offset; the map was of 97 % water where 46 % is."""
    counts = np.random.default_rng(0).integers(500, 5_000, (3, ROWS, COLUMNS)).astype(np.uint16)
    mapped, path = training_and_scene(tmp_path, counts, tags=(1e-4, 0.0))
    assert (mapped.spec.encoding.scale, mapped.spec.encoding.offset) == (1e-4, 0.0)
    (raster,) = mapped.rasters(options(path))
    with RasterWindows(raster) as windows:
        np.testing.assert_allclose(windows.read(0, 0, ROWS, COLUMNS)[0], counts * 1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "sides"),
    [
        (("uint16", (1e-4, 0.0), None), None),
        (("int16", (1e-4, 0.0), 0), None),  # the nodata that the format implies
        (("float32", None, -3.4e38), None),  # physical values
        (("uint16", (2e-4, 0.0), None), "integers of scale 0.0002, offset 0 and nodata 0"),
        (("uint16", (1e-4, -0.1), None), "integers of scale 0.0001, offset -0.1 and nodata 0"),
        (("int32", (1e-4, 0.0), -9999), "integers of scale 0.0001, offset 0 and nodata -9999"),
    ],
)
def test_a_map_of_other_tags_than_the_training_is_warned_of_once_with_both(tmp_path, caplog, how, sides) -> None:
    dtype, tags, nodata = how
    counts = np.random.default_rng(0).integers(2_000, 4_000, (3, ROWS, COLUMNS)).astype(np.uint16)
    mapped, path = training_and_scene(tmp_path, counts, tags=(1e-4, 0.0))
    mapped = Mapped(
        read_back(TaskSpec, json.loads(json_text(mapped.spec.to_dict())), "spec"), mapped.sensors, mapped.bands, {}
    )
    other, values = tmp_path / "other.tif", counts.astype(dtype) if tags else (counts * 1e-4).astype(dtype)
    with rasterio.open(path) as source:
        profile = {**source.profile, "dtype": dtype, "nodata": nodata}
    with rasterio.open(other, "w", **profile) as file:
        file.write(values)
        if tags:
            file.scales, file.offsets = ([one] * 3 for one in tags)
    caplog.clear()
    mapped.rasters(options(other))
    told = [record.getMessage() for record in caplog.records]
    taught = "integers of scale 0.0001, offset 0 and nodata 0"
    assert len(told) == (sides is not None)
    assert all(f"other.tif is read as {sides}, but the images" in text and f"on as {taught}:" in text for text in told)


def test_floats_that_hold_counts_are_mapped_as_they_were_trained(tmp_path) -> None:
    counts = np.random.default_rng(0).uniform(500, 5_000, (3, ROWS, COLUMNS)).astype(np.float32)
    mapped, path = training_and_scene(tmp_path, counts, tags=(1e-4, 0.0))
    mapped = Mapped(replace(mapped.spec, float_factors=(1e-4, 0.0)), mapped.sensors, mapped.bands, {})
    with rasterio.open(path, "r+") as file:
        file.scales = [1.0] * 3
    (raster,) = mapped.rasters(options(path))
    with RasterWindows(raster) as windows:
        np.testing.assert_allclose(windows.read(0, 0, ROWS, COLUMNS)[0], counts * 1e-4, atol=1e-6)


def test_black_in_one_band_of_a_picture_is_mapped(tmp_path) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (3, ROWS, COLUMNS)).astype(np.uint8)
    mapped, path = training_and_scene(tmp_path, counts, format="rgb_bytes", bands=())
    (raster,) = mapped.rasters(options(path))
    with RasterWindows(raster) as windows:
        pixels, valid = windows.read(0, 0, ROWS, COLUMNS)
    assert valid.all() and (counts == 0).any()
    np.testing.assert_allclose(pixels, counts / 255, atol=1e-6)


def test_the_model_is_told_the_pixel_size_on_the_ground_and_another_is_warned_of(tmp_path, caplog) -> None:
    counts = np.random.default_rng(0).integers(1500, 5_000, (3, ROWS, COLUMNS)).astype(np.uint16)
    mercator = Affine(10, 0, 1_558_000, 0, -10, 7_020_000)  # at 53.2 degrees north
    mapped, path = training_and_scene(tmp_path, counts, crs="EPSG:3857", transform=mercator)
    (raster,) = mapped.rasters(options(path))
    assert raster.gsd_m == pytest.approx(10 * np.cos(np.radians(53.2)), rel=0.005) and raster.pixel_m == 10
    assert mapped.spec.gsd_m == raster.gsd_m
    caplog.clear()
    Mapped(replace(mapped.spec, gsd_m=0.5), mapped.sensors, mapped.bands, {}).rasters(options(path))
    assert "scene.tif has pixels of 5.9" in caplog.text and "the segment data has 0.5 m" in caplog.text
    with rasterio.open(path, "r+") as file:
        file.crs, file.transform = "EPSG:4326", Affine(1e-4, 0, 14, 0, -1e-4, 53)
    with pytest.raises(TaskDataError, match=r"EPSG:4326, not in metres"):
        mapped.rasters(options(path))

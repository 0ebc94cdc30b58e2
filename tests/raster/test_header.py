"""Headers that do not say where their pixels lie are told apart, each with the way to one that does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from a2mae.errors import RejectedError
from a2mae.raster.header import read_header
from helpers.rasters import write_tif

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, *, rpcs: RPC | None = None, **profile: object) -> str:
    settings = {"driver": "GTiff", "height": 40, "width": 40, "count": 1, "dtype": "uint16", **profile}
    with rasterio.open(path, "w", **settings) as target:
        target.write(np.ones((1, 40, 40), "uint16"))
        if rpcs is not None:
            target.rpcs = rpcs
    return str(path)


def refused(path: str) -> tuple[str, str]:
    with pytest.raises(RejectedError) as caught:
        read_header(path)
    return caught.value.reason, caught.value.detail


def test_ground_control_points_are_no_transform(tmp_path):
    gcps = [GroundControlPoint(row=r, col=c, x=12 + c / 1e4, y=51 - r / 1e4) for r in (0, 40) for c in (0, 20, 40)]
    reason, detail = refused(write(tmp_path / "a.tif", gcps=gcps, crs="EPSG:4326"))
    assert reason == "no_transform" and "gdalwarp -tps" in detail and "gdal_edit" not in detail


def test_rpcs_are_no_transform(tmp_path):
    one, none = [1.0] + [0.0] * 19, [0.0] * 20
    rpcs = RPC(
        height_off=100, height_scale=500, lat_off=53, lat_scale=1, long_off=13, long_scale=1, line_off=20,
        line_scale=20, samp_off=20, samp_scale=20, line_num_coeff=none, line_den_coeff=one,
        samp_num_coeff=none, samp_den_coeff=one,
    )  # fmt: skip
    reason, detail = refused(write(tmp_path / "a.tif", rpcs=rpcs))
    assert reason == "no_transform" and "orthorectify it (gdalwarp -rpc -to RPC_DEM=" in detail


def test_a_crs_that_is_missing_local_or_around_a_pole(tmp_path):
    there = {"transform": Affine(10, 0, 400_000, 0, -10, 5_900_000)}
    reason, detail = refused(write(tmp_path / "a.tif", **there))
    assert reason == "no_crs" and "gdal_edit -a_srs" in detail
    local = 'LOCAL_CS["unnamed",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    reason, detail = refused(write(tmp_path / "a.tif", crs=local, **there))
    assert reason == "no_crs" and "local coordinate reference system" in detail and "assign the real one" in detail
    pole = write(tmp_path / "a.tif", crs="EPSG:3031", transform=Affine(5000, 0, -100_000, 0, -5000, 100_000))
    reason, detail = refused(pole)
    assert reason == "pole" and "surrounds a pole" in detail


def test_a_missing_file_names_what_lies_there_under_another_ending(tmp_path):
    write_tif(tmp_path / "B02.tiff")
    reason, detail = refused(str(tmp_path / "B02.tif"))
    assert reason == "missing_file" and detail.endswith("is not a file; beside it lies B02.tiff")
    assert refused(str(tmp_path / "none" / "B02.tif"))[1].endswith("is not a file")


def test_a_vrt_of_a_folder_is_told_as_one(tmp_path):
    (tmp_path / "a.vrt").write_text("<VRTDataset/>")
    reason, detail = refused(str(tmp_path / "a.vrt"))
    assert reason == "not_read" and "name the GeoTIFFs" in detail

"""Headers that do not say where their pixels lie are told apart, each with the way to one that does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from a2mae.errors import ReadError, RejectedError
from a2mae.raster import header
from a2mae.raster.header import read_header
from a2mae.raster.read import RasterReader
from a2mae.remote.policy import ReadingParameters, RemoteAccess
from a2mae.scenes import BandAsset
from a2mae.sensors import Units
from helpers.http_server import serve_files
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
    reason, detail = refused(write(tmp_path / "a.tif", crs="EPSG:4978", **there))
    assert reason == "no_crs" and "has a geocentric coordinate reference system" in detail
    pole = write(tmp_path / "a.tif", crs="EPSG:3031", transform=Affine(5000, 0, -100_000, 0, -5000, 100_000))
    reason, detail = refused(pole)
    assert reason == "pole" and "surrounds a pole" in detail


def test_pixels_of_no_size_are_named(tmp_path):
    nothing = Affine(0, 0, 400_000, 0, 0, 5_900_000)
    reason, detail = refused(write(tmp_path / "a.tif", crs="EPSG:32633", transform=nothing))
    assert reason == "no_transform" and "has pixels of no size" in detail


def test_a_missing_file_names_what_lies_there_under_another_ending(tmp_path):
    write_tif(tmp_path / "B02.tiff")
    reason, detail = refused(str(tmp_path / "B02.tif"))
    assert reason == "missing_file" and detail.endswith("is not a file; beside it lies B02.tiff")
    assert refused(str(tmp_path / "none" / "B02.tif"))[1].endswith("is not a file")
    (tmp_path / "B03.tif").symlink_to("nowhere")
    assert refused(str(tmp_path / "B03.tif"))[1].endswith("B03.tif is a link to what is not there")


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_are_no_measurements(tmp_path, dtype):
    """Their imaginary part was dropped in silence."""
    there = {"crs": "EPSG:32633", "transform": Affine(10, 0, 400_000, 0, -10, 5_900_000)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=9, height=9, count=1, dtype=dtype, **there):
        pass
    reason, detail = refused(str(tmp_path / "a.tif"))
    assert reason == "not_read" and "holds complex numbers" in detail and "write the backscatter" in detail


def test_a_vrt_of_a_folder_is_told_as_one(tmp_path):
    (tmp_path / "a.vrt").write_text("<VRTDataset/>")
    reason, detail = refused(str(tmp_path / "a.vrt"))
    assert reason == "not_read" and "name the GeoTIFFs" in detail


def test_a_store_that_asks_for_keys_is_not_asked_again(tmp_path, monkeypatch, caplog):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_NO_SIGN_REQUEST", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("CPL_AWS_AUTODETECT_EC2", "NO")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    reason, detail = refused("s3://bucket/a.tif")
    assert reason == "no_keys" and "AWS_NO_SIGN_REQUEST=YES" in detail
    asset = BandAsset("B1", "s3://bucket/a.tif", 1, 1.0, 0.0, None, Units.REFLECTANCE, 10.0)
    grid = GeoBox((8, 8), Affine(10, 0, 400_000, 0, -10, 5_900_000), "EPSG:32633")
    with RasterReader() as reader, pytest.raises(ReadError) as caught:
        reader.read([asset], grid)
    assert caught.value.reason == "no_keys" and "try 2" not in caplog.text


def test_messages_of_gdal_show_no_signatures(tmp_path, caplog):
    write_tif(tmp_path / "a.tif")
    with serve_files(tmp_path) as server:
        server.fail = lambda path: (403, {})
        access = RemoteAccess(reading=ReadingParameters(retries=0, timeout_s=5))
        with pytest.raises(RejectedError) as caught, caplog.at_level("DEBUG"):
            read_header(f"{server.url}/a.tif?sig=geheim", access)
    assert "geheim" not in caught.value.detail
    assert "geheim" not in "".join(
        r.getMessage() for r in caplog.records if r.name.startswith(("a2mae", "rasterio._env"))
    )


def test_a_header_claims_no_more_than_its_file_may_hold(tmp_path):
    """A quarter of a megabyte kept ingestion busy for minutes with a million squares in which nothing was seen."""
    profile = {"driver": "GTiff", "count": 4, "dtype": "uint16", "crs": "EPSG:32633", "sparse_ok": True, "tiled": True}
    there = {"transform": Affine(10, 0, 400_000, 0, -10, 5_900_000), "blockxsize": 1024, "blockysize": 1024}
    with rasterio.open(tmp_path / "huge.tif", "w", width=100_000, height=100_000, **profile, **there):
        pass
    reason, detail = refused(str(tmp_path / "huge.tif"))
    assert reason == "corrupt" and "4 bands of 100000 x 100000 px, 74.5 GiB, and the file has" in detail
    assert detail.endswith("gdal_translate -projwin")
    with rasterio.open(tmp_path / "usual.tif", "w", width=10_980, height=10_980, **profile, **there):
        pass
    assert read_header(str(tmp_path / "usual.tif")).shape == (10_980, 10_980)


def test_a_file_that_vanishes_meanwhile_costs_itself(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", crs="EPSG:32633", transform=Affine(10, 0, 400_000, 0, -10, 5_900_000))
    monkeypatch.setattr(header, "_check_place", lambda *_: Path(path).unlink())
    reason, detail = refused(path)
    assert reason == "corrupt" and "a.tif cannot be read: [Errno 2]" in detail


def test_a_square_that_a_projection_cannot_express_costs_the_file(tmp_path):
    ortho = CRS.from_proj4("+proj=ortho +lat_0=-90 +lon_0=0").to_wkt()
    path = write(tmp_path / "a.tif", crs=ortho, transform=Affine(10, 0, 400_000, 0, -10, 5_900_000))
    grid = GeoBox((8, 8), Affine(10, 0, 400_000, 0, -10, 5_900_000), "EPSG:32633")  # on the other half of the Earth
    asset = BandAsset("B", path, 1, 1.0, 0.0, None, Units.REFLECTANCE, 10.0, crs=ortho)
    with RasterReader() as reader, pytest.raises(ReadError, match=r"cannot express a footprint in EPSG:32633: write"):
        reader.read([asset], grid)

"""Which files are opened, by which driver, with what lies beside them, and that none is read that was cut short."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from a2mae.errors import ReadError, RejectedError
from a2mae.raster.header import read_header
from a2mae.raster.whole import read_whole

VRT = (
    '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)


def geotiff(path: Path, *, crs: str | None = "EPSG:32633", transform: Affine = AT) -> Path:
    place = {} if crs is None else {"crs": crs, "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", width=30, height=40, count=3, dtype="uint8", **place) as file:
        file.write(PICTURE.transpose(2, 0, 1))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jp2", "a.tif", "a.vrt"])
def test_a_vrt_is_no_picture_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(VRT)
    with pytest.raises(RejectedError, match="is a VRT, which may name any file and address"):
        read_whole(tmp_path / name, 3)


@pytest.mark.parametrize("ending", [".msk", ".ovr", ".MSK"])
def test_a_vrt_is_no_sidecar_either(tmp_path: Path, ending: str) -> None:
    path = geotiff(tmp_path / "a.tif")
    (tmp_path / f"a.tif{ending}").write_text(VRT)
    with pytest.raises(RejectedError, match="is no TIFF"):
        read_whole(path, 3)


@pytest.mark.parametrize("name", ["a.tif.aux.xml", "a.tfw", "a.TFW", "a.wld", "a.tab", "a.RPB", "a_RPC.TXT", "a.xml"])
def test_a_pipe_beside_a_raster_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = geotiff(tmp_path / "a.tif", crs=None)
    os.mkfifo(tmp_path / name)
    with pytest.raises(RejectedError, match=f"{name} is read along with a.tif, and it is no regular file but a pipe"):
        read_whole(path, 3)


def test_a_raster_whose_name_is_no_text_is_told(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif").rename(tmp_path / os.fsdecode(b"s\xff.tif"))
    with pytest.raises(RejectedError, match="has bytes in its name that are no UTF-8: rename it"):
        read_whole(path, 3)


def test_metadata_beside_a_file_name_no_overviews(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/passwd</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(RejectedError, match="names a file of overviews"):
        read_whole(path, 3)


@pytest.mark.parametrize("text", ["/etc/passwd", "http://127.0.0.1:9/x", 'GEOGCS["x",DATUM["y"'])
def test_metadata_beside_a_file_lead_nowhere(tmp_path: Path, text: str) -> None:
    path = geotiff(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset><SRS>{text}</SRS></PAMDataset>")
    told = r"a\.tif\.aux\.xml cannot be used: .*; remove it"
    with pytest.raises(ReadError, match=told):
        read_whole(path, 3)
    with pytest.raises(RejectedError, match=told):
        read_header(str(path))


@pytest.mark.parametrize(("name", "exact"), [("a.png", True), ("a.jpg", False), ("a.tif", True)])
def test_a_picture_is_read_by_its_first_bytes_not_by_its_ending(tmp_path: Path, name: str, exact: bool) -> None:
    Image.fromarray(PICTURE).save(tmp_path / name)
    renamed = (tmp_path / name).rename(tmp_path / "renamed.png")
    found = read_whole(renamed, 3)
    assert found.seen.all() and found.grid is None and found.gsd_m is None
    if exact:
        np.testing.assert_array_equal(found.stored, PICTURE.transpose(2, 0, 1))


def test_jpeg_2000_is_read(tmp_path: Path) -> None:
    profile = {"driver": "JP2OpenJPEG", "width": 30, "height": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.jp2", "w", **profile, QUALITY="100", REVERSIBLE="YES") as file:
        file.write(PICTURE.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_whole(tmp_path / "a.jp2", 3).stored, PICTURE.transpose(2, 0, 1))


@settings(max_examples=30, deadline=None)
@given(kept=st.floats(0, 0.98), interlaced=st.booleans(), mode=st.sampled_from(["L", "RGB", "RGBA"]))
def test_a_png_that_was_cut_short_is_never_read(tmp_path_factory, kept: float, interlaced: bool, mode: str) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.png"
    picture = Image.fromarray(PICTURE).convert(mode)
    picture.save(path, interlace=interlaced)
    bands = len(picture.getbands())
    read_whole(path, bands)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * (len(whole) - 12))])  # the last chunk says no more than that it is the end
    with pytest.raises(ReadError):
        read_whole(path, bands)


def test_a_mask_beside_a_file_hides_what_it_hides_inside(tmp_path: Path) -> None:
    """GDAL writes masks beside files unless it is told otherwise."""
    mask = np.full((40, 30), 255, np.uint8)
    mask[:, 10:20] = 0
    for inside in (True, False):
        path = geotiff(tmp_path / f"{inside}.tif")
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        assert Path(f"{path}.msk").exists() != inside
        np.testing.assert_array_equal(read_whole(path, 3).seen, mask == 255)


def test_the_place_beside_a_file_is_read(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", crs=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n500005\n5199995\n")  # of the first pixel's centre
    wkt = rasterio.crs.CRS.from_epsg(32633).to_wkt()
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset><SRS>{wkt.replace('&', '&amp;')}</SRS></PAMDataset>")
    header = read_header(str(path))
    assert (header.crs, header.transform, header.gsd_m) == ("EPSG:32633", AT, 10)


@pytest.mark.parametrize("seen", [0, 1])
def test_alpha_masks_unless_it_is_one_of_the_bands(tmp_path: Path, seen: int) -> None:
    """NAIP's near infrared is flagged as alpha, and water is 0 there."""
    path = tmp_path / "a.tif"
    profile = {"width": 30, "height": 40, "count": 4, "dtype": "uint8", "photometric": "RGB", "ALPHA": "YES"}
    nir = np.full((40, 30), 255, np.uint8)
    nir[5:9] = 0
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(np.stack([*PICTURE.transpose(2, 0, 1), nir]))
    found = read_whole(path, 3 + seen)
    assert found.bands.alpha == 4
    assert len(found.stored) == 3 + seen
    np.testing.assert_array_equal(found.seen, (nir != 0) | bool(seen))


def test_a_picture_takes_no_more_memory_than_its_file_can_hold(tmp_path: Path) -> None:
    """Ten kilobytes took ten gigabytes and half a minute."""
    start = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", start), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ReadError, match=r"no PNG of 1,\d\d\d bytes holds 20000 x 20000 px"):
        read_whole(tmp_path / "a.png", 3)
    size = {"width": 60_000, "height": 60_000, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", tiled=True, sparse_ok=True, **size):
        pass
    with pytest.raises(RejectedError, match=r"3 bands of 60000 x 60000 px are 10\.1 GiB, .*cut it into parts"):
        read_whole(tmp_path / "a.tif", 3)


def masked(path: Path) -> Path:
    """A file with a mask beside it that hides a third of it."""
    mask = np.full((40, 30), 255, np.uint8)
    mask[:, 10:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(geotiff(path), "r+") as file:
        file.write_mask(mask)
    return path


@pytest.mark.parametrize("kept", [4, 20, 100, 0.5, 0.9])
def test_a_mask_beside_a_file_that_was_cut_short_is_not_passed_over(tmp_path: Path, kept: float) -> None:
    path = masked(tmp_path / "a.tif")
    beside = Path(f"{path}.msk")
    whole = beside.read_bytes()
    beside.write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    with pytest.raises((RejectedError, ReadError)):
        read_whole(path, 3)
    if kept == 20:
        for read in (read_header, lambda name: read_whole(Path(name), 3)):
            with pytest.raises(
                (RejectedError, ReadError), match=r"a\.tif\.msk is no mask of a\.tif that can be read: it is cut short"
            ):
                read(str(path))


@pytest.mark.parametrize("change", [{"width": 29}, {"flags": False}, {"nodata": 0}])
def test_a_mask_beside_a_file_is_used_or_the_file_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    path = geotiff(tmp_path / "a.tif")
    if "nodata" in change:
        with rasterio.open(path, "r+") as file:
            file.nodata = change["nodata"]
    size = {"width": change.get("width", 30), "height": 40}
    with rasterio.open(f"{path}.msk", "w", driver="GTiff", count=1, dtype="uint8", **size) as file:
        if "width" in change:
            file.update_tags(INTERNAL_MASK_FLAGS_1="2")
    with pytest.raises(
        (RejectedError, ReadError), match=r"a\.tif\.msk is no mask .* of another size than 40 x 30 pixels"
    ):
        read_whole(path, 3)


@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_inside_a_file_and_one_beside_it_are_not_both_believed(tmp_path: Path, whole: bool) -> None:
    """GDAL reads the one inside, whatever the other hides."""
    path = masked(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(geotiff(tmp_path / "b.tif"), "r+") as file:
        file.write_mask(np.full((40, 30), 255, np.uint8))
    beside = Path(f"{path}.msk").read_bytes()
    (tmp_path / "b.tif.msk").write_bytes(beside if whole else beside[:200])
    for read in (read_header, lambda name: read_whole(Path(name), 3)):
        with pytest.raises((RejectedError, ReadError), match=r"b\.tif holds a mask and .*b\.tif\.msk is another"):
            read(str(tmp_path / "b.tif"))


def test_a_crs_beside_a_file_that_nobody_knows_does_not_take_its_place_away(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif")
    for stated, known in (("EPSG:32633", True), ("rubbish", False), ("", False)):
        Path(f"{path}.aux.xml").write_text(f"<PAMDataset><SRS>{stated}</SRS></PAMDataset>")
        if known:
            assert read_header(str(path)).crs == "EPSG:32633"
            continue
        for read in (read_header, lambda name: read_whole(Path(name), 3)):
            with pytest.raises((RejectedError, ReadError), match=r"a\.tif\.aux\.xml states none of the coordinate ref"):
                read(str(path))


AUX = '<PAMDataset><Metadata><MDI key="a">W\u00e4ld &amp; x</MDI></Metadata></PAMDataset>\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_metadata_beside_a_file_are_whole_or_the_file_is_refused(tmp_path: Path, encoding: str) -> None:
    path, beside = geotiff(tmp_path / "a.tif"), tmp_path / "a.tif.aux.xml"
    beside.write_bytes(AUX.encode(encoding))
    assert read_whole(path, 3).seen.all()
    for kept in (0, 1, 20, 50, len(AUX) - 3):
        beside.write_bytes(AUX.encode(encoding)[:kept])
        with pytest.raises((RejectedError, ReadError), match=r"a\.tif\.aux\.xml is no whole XML \("):
            read_whole(path, 3)


def test_metadata_beside_a_file_define_no_entities(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]><PAMDataset>&b;</PAMDataset>'
    )
    with pytest.raises(RejectedError, match=r"a\.tif\.aux\.xml declares a document type"):
        read_whole(path, 3)


@pytest.mark.parametrize("speaker", ["rasterio._env", "rasterio._err"])
def test_what_gdal_notes_of_a_file_shows_no_query(speaker: str) -> None:
    logger, said = logging.getLogger(speaker), ("a.tif?sig=secret, band 1: IReadBlock failed",)
    record = logger.makeRecord(speaker, logging.INFO, "", 1, "msg=%r", said, None)
    assert logger.filter(record)
    assert "IReadBlock" in record.getMessage() or "band 1" in record.getMessage()
    assert "secret" not in record.getMessage()

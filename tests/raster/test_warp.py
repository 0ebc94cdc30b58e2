"""Reading scenes onto a footprint: nodata of every kind, masks, backscatter, integers of the store."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rasterio.transform import from_origin
from shapely.geometry import box

from a2mae.config import CloudParameters
from a2mae.raster.masks import MaskInput, PixelClass, grow
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import Footprint, Image, convert_backscatter, encode, read_image
from a2mae.remote.verify import source_digest
from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene
from a2mae.sensors import Encoding, Sensor, Units, get_sensor

LEFT, TOP, SIDE = 500_000.0, 5_700_000.0, 320.0
PLACE = Footprint("here", "EPSG:32633", LEFT, TOP, SIDE)


def write(path: Path, pixels: NDArray[np.generic], *, left: float = LEFT, **profile: object) -> Path:
    settings = {
        "driver": "GTiff", "height": pixels.shape[-2], "width": pixels.shape[-1], "count": 1, "dtype": pixels.dtype,
        "crs": "EPSG:32633", "transform": from_origin(left, TOP, 10, 10), **profile,
    }  # fmt: skip
    with rasterio.open(path, "w", **settings) as target:
        target.write(pixels, 1)
    return path


def asset(path: Path, band: str, **changes: object) -> BandAsset:
    fields = {"scale": 1.0, "offset": 0.0, "nodata": None, "units": Units.REFLECTANCE, "gsd_m": 10.0, "band_index": 1}
    return BandAsset(band=band, href=str(path), **{**fields, **changes})


def scene(sensor: Sensor, *assets: BandAsset, cloud_test: CloudTest = CloudTest.NONE) -> Scene:
    when = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Scene("s", sensor.id, when, "", PLACE.crs, 10.0, box(14, 51, 16, 52), assets, cloud_test=cloud_test)


def read(sensor: Sensor, what: Scene, clouds: CloudParameters | None = None) -> Image:
    with RasterReader() as reader:
        return read_image(reader, what, sensor, PLACE.grid(sensor.gsd_m), clouds or CloudParameters(buffer_m=0))


ONE = get_sensor("gaofen-1").subset(["B1"])
ONE = Sensor("one", "One band", 10, ONE.bands, ONE.encoding)


@pytest.mark.parametrize(
    ("kind", "dtype", "hole"),
    [
        ("zero", "uint16", 0), ("minus infinity", "float32", -math.inf), ("nan", "float32", math.nan),
        ("lowest float", "float32", float(np.finfo("float32").min)), ("undeclared nan", "float32", math.nan),
        ("mask band", "uint8", 77), ("alpha", "uint8", 77),
    ],
)  # fmt: skip
def test_nodata_of_every_kind_is_not_seen(tmp_path: Path, kind: str, dtype: str, hole: float) -> None:
    pixels = np.random.default_rng(0).integers(100, 200, (32, 32)).astype(dtype)
    pixels[:16, :8] = hole
    unseen = np.zeros((32, 32), bool)
    unseen[:16, :8] = True
    path = tmp_path / "a.tif"
    if kind == "mask band":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write(path, pixels)
            with rasterio.open(path, "r+") as target:
                target.write_mask(np.where(unseen, 0, 255).astype("uint8"))
    elif kind == "alpha":
        write(path, pixels, count=2)
        with rasterio.open(path, "r+") as target:
            target.write(np.where(unseen, 0, 255).astype("uint8"), 2)
            target.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    else:
        write(path, pixels)
    nodata = None if kind in ("mask band", "alpha", "undeclared nan") else hole
    image = read(ONE, scene(ONE, asset(path, "B1", nodata=nodata)))
    np.testing.assert_array_equal(image.seen, ~unseen)
    # What was seen keeps its value up to the very edge: nothing of the hole leaks into it.
    np.testing.assert_allclose(image.physical[0][~unseen], pixels[~unseen], atol=1e-3)
    assert (encode(image.physical, image.seen, ONE.encoding)[0][unseen] == ONE.encoding.nodata).all()


def test_beyond_the_edge_of_the_file_nothing_is_seen(tmp_path: Path) -> None:
    pixels = np.full((32, 32), 150, "uint16")
    image = read(ONE, scene(ONE, asset(write(tmp_path / "a.tif", pixels, left=LEFT + 100), "B1", nodata=0)))
    assert not image.seen[:, :10].any() and image.seen[:, 10:].all()
    away = read(ONE, scene(ONE, asset(write(tmp_path / "b.tif", pixels, left=LEFT + 9000), "B1", nodata=0)))
    assert away.seen_fraction == 0 and away.cloud_fraction == 1


FUNCTIONS = """
import numpy as np

def dark_is_cloud(given):
    assert given.bands == ("B1", "B3") and given.sensor.id == "gaofen-1" and given.mask is not None
    classes = np.zeros(given.pixels.shape[1:], "uint8")
    classes[given.band("red") < 0.1] = 1
    classes[given.mask == 5] = 2
    classes[given.mask == 6] = 3
    return classes

def nonsense(given):
    return np.zeros((3, 3), "uint8")
"""


def test_a_function_of_ones_own_tells_clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_masks.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    gaofen = get_sensor("gaofen-1")
    sensor = Sensor("gaofen-1", "At 10 m", 10, gaofen.bands, gaofen.encoding)
    pixels, mask = np.full((32, 32), 5000, "uint16"), np.zeros((32, 32), "uint8")
    pixels[:4], mask[10:12], mask[20:22] = 500, 5, 6
    path = write(tmp_path / "a.tif", pixels)
    own = asset(write(tmp_path / "m.tif", mask), "mask", role=Role.CLOUD_MASK, mask=MaskKind.BINARY, units=Units.DN)
    bands = [asset(path, f"B{i}", scale=1e-4, nodata=0) for i in range(1, 5)]
    what = scene(sensor, *bands, own, cloud_test=CloudTest.MASK)
    entry = {"sensors": ["gaofen-*"], "function": "my_masks:dark_is_cloud", "bands": ["B1", "red"]}
    image = read(sensor, what, CloudParameters(buffer_m=0, functions=[entry]))
    expected = np.zeros((32, 32), bool)
    expected[:4] = expected[10:12] = True
    np.testing.assert_array_equal(image.cloud, expected)
    assert not image.seen[20:22].any() and image.seen[:20].all()
    # Another sensor's function leaves the provider's mask in force.
    other = read(sensor, what, CloudParameters(buffer_m=0, functions=[{**entry, "sensors": ["naip"]}]))
    assert other.cloud[20:22].all() and not other.cloud[:4].any()
    with pytest.raises(ValueError, match="must give"):
        read(sensor, what, CloudParameters(functions=[{**entry, "function": "my_masks:nonsense"}]))
    for spec, message in (
        ("my_masks:not_there", "cannot be imported"), ("no_such_module_x:f", "cannot be imported"),
        ("os:sep", "is not a function"), ("rm -rf", "String should match pattern"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            CloudParameters(functions=[{**entry, "function": spec}])
    assert MaskInput.__doc__ and PixelClass.NODATA == 3


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["B1", "B2", "B3", "B4"]), min_size=1, max_size=7), st.booleans())
def test_law_bands_come_in_the_order_asked_for_also_twice(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], bright: bool
) -> None:
    """A test for clouds reads further bands; they took the place of those that were asked for again."""
    folder, gaofen = tmp_path_factory.mktemp("bands"), get_sensor("gaofen-1")
    sensor = Sensor("gaofen-1", "At 10 m", 10, gaofen.bands, gaofen.encoding)
    bands = [
        asset(write(folder / f"{i}.tif", np.full((32, 32), 1000 * i, "uint16")), f"B{i}", scale=1e-4, nodata=0)
        for i in range(1, 5)
    ]
    what = scene(sensor, *bands, cloud_test=CloudTest.BRIGHTNESS if bright else CloudTest.NONE)
    with RasterReader() as reader:
        for clouds in (None, CloudParameters(buffer_m=0)):
            image = read_image(reader, what, sensor, PLACE.grid(10), clouds, bands=tuple(names))
            assert image.physical.shape == (len(names), 32, 32)
            np.testing.assert_allclose(image.physical[:, 5, 5], [0.1 * int(name[1]) for name in names], atol=1e-6)


@pytest.mark.parametrize(("kind", "value", "expected"), [
    (MaskKind.SCL, 8, "cloud"), (MaskKind.SCL, 3, "cloud"), (MaskKind.SCL, 0, "unseen"), (MaskKind.SCL, 4, "clear"),
    (MaskKind.SCL, 11, "clear"), (MaskKind.QA_PIXEL, 1 << 3, "cloud"), (MaskKind.QA_PIXEL, 1 << 4, "cloud"),
    (MaskKind.QA_PIXEL, 1, "unseen"), (MaskKind.QA_PIXEL, 21824, "clear"), (MaskKind.BQA, 53248, "cloud"),
    (MaskKind.BQA, 1, "unseen"), (MaskKind.BQA, 20480, "clear"), (MaskKind.BQA_C1, 2800, "cloud"),
    (MaskKind.BQA_C1, 2720, "clear"), (MaskKind.FMASK, 3, "cloud"), (MaskKind.FMASK, 0, "unseen"),
    (MaskKind.HLS_FMASK, 0b10, "cloud"), (MaskKind.HLS_FMASK, 0b1000, "cloud"),
    (MaskKind.HLS_FMASK, 0b1100000, "clear"), (MaskKind.HLS_FMASK, 255, "unseen"),
])  # fmt: skip
def test_masks_of_providers(tmp_path: Path, kind: MaskKind, value: int, expected: str) -> None:
    mask = asset(write(tmp_path / "m.tif", np.full((32, 32), value, "uint16")), "mask", role=Role.CLOUD_MASK, mask=kind)
    data = asset(write(tmp_path / "a.tif", np.full((32, 32), 900, "uint16")), "B1", nodata=0)
    image = read(ONE, scene(ONE, data, mask, cloud_test=CloudTest.MASK))
    assert (bool(image.seen.all()), bool(image.cloud.any())) == {
        "cloud": (True, True), "clear": (True, False), "unseen": (False, False),
    }[expected]  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), fill=st.just(False)), st.floats(0.5, 6))
def test_clouds_are_widened_by_a_radius(mask: np.ndarray, radius_px: float) -> None:
    rows, columns = np.indices(mask.shape)
    near = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        near |= np.hypot(rows - row, columns - column) <= radius_px
    np.testing.assert_array_equal(grow(mask, radius_px), near)


def test_backscatter_is_stored_in_decibel_whatever_the_source_gives(tmp_path: Path) -> None:
    sensor = get_sensor("sentinel-1-rtc")
    power = np.random.default_rng(0).uniform(0.001, 1.5, (32, 32)).astype("float32")
    power[0, 0], power[0, 1] = -32768, 0.0  # nodata, and noise below the floor
    linear = write(tmp_path / "l.tif", power)
    decibel = write(
        tmp_path / "d.tif", np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-9)), -32768).astype("float32")
    )
    kinds = {"l": (linear, Units.BACKSCATTER_LINEAR), "d": (decibel, Units.BACKSCATTER_DB)}
    images = {
        key: read(sensor, scene(sensor, *(asset(path, b, nodata=-32768.0, units=u) for b in ("vv", "vh"))))
        for key, (path, u) in kinds.items()
    }
    for image in images.values():
        assert not image.seen[0, :2].any() and image.seen.sum() == 1022
    np.testing.assert_allclose(images["l"].physical[:, 1:], images["d"].physical[:, 1:], atol=1e-4)
    stored = encode(images["l"].physical, images["l"].seen, sensor.encoding)
    np.testing.assert_allclose(stored[0, 1:] * 0.01, 10 * np.log10(power[1:]), atol=0.0051)
    back = convert_backscatter(images["d"].physical, Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR)
    np.testing.assert_allclose(back[0, 1:], power[1:], rtol=1e-4)
    reflectance = scene(sensor, *(asset(linear, b) for b in ("vv", "vh")))
    with pytest.raises(RuntimeError, match="units reflectance"):
        read(sensor, reflectance)


def test_stored_integers_keep_dark_pixels_seen() -> None:
    encoding = Encoding("uint8", scale=0.01, offset=0.0, nodata=0, units=Units.DN)
    physical = np.array([[[-0.5, 0.0, 0.004, 9.0, np.nan]]], dtype=np.float32)
    seen = np.array([[True, True, True, True, False]])
    assert encode(physical, seen, encoding).tolist() == [[[1, 1, 1, 255, 0]]]
    assert PLACE.grid(10).affine == Affine(10, 0, LEFT, 0, -10, TOP)


def test_sources_of_the_same_size_but_other_pixels_are_told_apart(tmp_path: Path) -> None:
    small, large = np.zeros((32, 32), "uint16"), np.zeros((1500, 1500), "uint16")
    for pixels in (small, large):
        before = source_digest(str(write(tmp_path / "a.tif", pixels)))
        assert before == source_digest(str(write(tmp_path / "b.tif", pixels)))  # another place and time: the same
        after = source_digest(str(write(tmp_path / "b.tif", pixels + 1)))
        assert (tmp_path / "a.tif").stat().st_size == (tmp_path / "b.tif").stat().st_size
        assert before != after
    assert source_digest("https://example.com/a.tif") == source_digest(str(tmp_path / "none.tif")) == ""

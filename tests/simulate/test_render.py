import dataclasses

import numpy as np
import pytest
from rasterio.warp import Resampling, reproject
from skimage.registration import phase_cross_correlation

from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.ground.landscape import make_landscape, with_changes
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.region import Region
from a2mae.simulate.render import render
from a2mae.simulate.scenes import plan_scenes


def _world(lon=5.93, lat=46.8, biome="temperate_plain", acquisition=None, sensors=("sentinel-2-l2a",), **region):
    acquisition = acquisition or AcquisitionParameters(period="before", shift_px=0.0)
    parameters = SimulateParameters(
        seed=11,
        regions=(RegionParameters(name="r", lon=lon, lat=lat, biome=biome, footprints=1, **region),),
        acquisitions={sensor: (acquisition,) for sensor in sensors},
    )
    place = Region.place(parameters.regions[0], footprint_m=1920, margin_m=240)
    ground = with_changes(make_landscape(11, "r", BIOMES[biome], 1200), 11, share=0.06)
    return place, ground, {scene.sensor_id: scene for scene in plan_scenes(parameters, place)}


def _pixels(rendered, key):
    return next(asset for asset in rendered.assets if asset.key == key)


def _reflectance(rendered, key, band=0):
    asset = _pixels(rendered, key)
    return asset.pixels[band].astype(float) * asset.encoding.scale + asset.encoding.offset


def _displacement(fixed, moved):
    """Rows and columns by which to move `moved` onto `fixed`; a window hides the borders."""
    side = min(400, *fixed.shape)
    window = np.outer(np.hanning(side), np.hanning(side))
    one, two = ((image[:side, :side] - image[:side, :side].mean()) * window for image in (fixed, moved))
    return phase_cross_correlation(one, two, upsample_factor=100, normalization=None)[0]


@pytest.mark.parametrize(
    ("sensor", "key", "gsd"),
    [("sentinel-2-l2a", "B08", 10), ("landsat-oli-c2-l2", "nir08", 30), ("gaofen-1", "image", 8), ("naip", "image", 1)],
)
def test_content_lies_where_the_truth_says(sensor, key, gsd):
    region, ground, scenes = _world(sensors=(sensor,), gaofen1_footprints=1, naip_footprints=1)
    shift = (1.37 * gsd, -0.61 * gsd)
    straight = _reflectance(render(11, region, ground, scenes[sensor]), key)
    # Another id: other noise, which would else tie the two together.
    other = dataclasses.replace(scenes[sensor], id="other", shift_m=shift)
    moved = _reflectance(render(11, region, ground, other), key)
    found = _displacement(straight, moved)
    # What it takes to bring `moved` back: rows downwards, columns to the left.
    assert found == pytest.approx((-0.61, -1.37), abs=0.06)


def test_the_neighbouring_zone_shows_the_same_ground():
    region, ground, own = _world(sensors=("landsat-oli-c2-l2",))
    _, _, other = _world(sensors=("landsat-oli-c2-l2",), landsat_zone=32)
    here = _pixels(render(11, region, ground, own["landsat-oli-c2-l2"]), "nir08")
    there = _pixels(render(11, region, ground, other["landsat-oli-c2-l2"]), "nir08")
    assert (here.grid.epsg, there.grid.epsg) == (32631, 32632)
    warped = np.zeros(here.pixels.shape[1:], dtype=np.float32)
    reproject(
        there.pixels[0].astype(np.float32),
        warped,
        src_transform=there.grid.transform,
        src_crs=there.grid.epsg,
        dst_transform=here.grid.transform,
        dst_crs=here.grid.epsg,
        resampling=Resampling.cubic,
    )
    inner = (slice(4, -4), slice(4, -4))
    found = _displacement(here.pixels[0].astype(float)[inner], warped[inner])
    assert np.abs(found).max() < 0.08
    assert np.corrcoef(here.pixels[0][inner].ravel(), warped[inner].ravel())[0, 1] > 0.97


def _ndvi(rendered):
    red, nir = _reflectance(rendered, "red"), _reflectance(rendered, "nir08")
    return float(np.median((nir - red) / (nir + red)))


@pytest.mark.parametrize(("lat", "green_months"), [(46.8, {4, 5, 6, 7, 8}), (-33.0, {10, 11, 12, 1, 2})])
def test_seasons_are_opposite_in_the_southern_hemisphere(lat, green_months):
    values = {}
    for season in ("growing", "dormant"):
        acquisition = AcquisitionParameters(period="before", season=season, shift_px=0)
        region, ground, scenes = _world(lat=lat, acquisition=acquisition, sensors=("landsat-oli-c2-l2",))
        scene = scenes["landsat-oli-c2-l2"]
        values[season] = (_ndvi(render(11, region, ground, scene)), scene.when.month)
    assert values["growing"][0] > values["dormant"][0] + 0.15
    assert values["growing"][1] in green_months
    assert values["dormant"][1] not in green_months


def test_old_and_new_counts_hold_the_same_reflectance():
    stored = {}
    for baseline in ("02.14", "05.09"):
        region, ground, scenes = _world(
            acquisition=AcquisitionParameters(period="before", baseline=baseline, shift_px=0)
        )
        rendered = render(11, region, ground, scenes["sentinel-2-l2a"])
        stored[baseline] = (_pixels(rendered, "B04").pixels, _reflectance(rendered, "B04"))
    difference = stored["05.09"][0].astype(int) - stored["02.14"][0].astype(int)
    assert np.median(difference) == 1000
    assert np.abs(stored["05.09"][1] - stored["02.14"][1]).max() <= 1.001e-4  # one count: rounding


def test_quality_layers_tell_the_clouds_with_a_providers_errors():
    acquisition = AcquisitionParameters(period="before", cloud=0.25, edge=True, shift_px=0.5)
    region, ground, scenes = _world(acquisition=acquisition, sensors=("sentinel-2-l2a", "landsat-oli-c2-l2"))
    for sensor, scene in scenes.items():
        rendered = render(11, region, ground, scene)
        if sensor == "sentinel-2-l2a":
            quality = _pixels(rendered, "SCL").pixels[0]
            cloud, shadow, fill = np.isin(quality, (8, 9)), quality == 3, quality == 0
            truth = rendered.sky[::2, ::2]
            data = _pixels(rendered, "B11")
        else:
            quality = _pixels(rendered, "qa_pixel").pixels[0]
            cloud, shadow, fill = quality & 8 > 0, quality & 16 > 0, quality & 1 > 0
            truth = rendered.sky
            data = _pixels(rendered, "red")
            assert np.all(quality[fill] == 1)
        assert np.array_equal(fill, data.pixels[0] == data.encoding.nodata)
        assert 0.02 < fill.mean() < 0.25
        seen = ~fill
        missed = np.mean(~cloud[seen & (truth == 1)])
        assert missed < 0.05
        assert np.mean(shadow[seen & (truth == 2)] | cloud[seen & (truth == 2)]) > 0.85
        assert np.mean(cloud[seen & (truth == 0)]) < 0.12
        assert not np.array_equal(cloud[seen], truth[seen] == 1)  # masks are not the truth
        assert rendered.cloud_fraction == pytest.approx(0.25, abs=0.08)
        red = _reflectance(rendered, "B04" if sensor == "sentinel-2-l2a" else "red")
        if sensor == "landsat-oli-c2-l2":
            assert np.median(red[seen & (truth == 1)]) > 3 * np.median(red[seen & (truth == 0)])
            assert np.median(red[seen & (truth == 2)]) < 0.7 * np.median(red[seen & (truth == 0)])


def test_native_sizes_and_units():
    region, ground, scenes = _world(
        sensors=("sentinel-2-l2a", "gaofen-1", "gaofen-2", "naip"),
        gaofen1_footprints=1,
        gaofen2_footprints=1,
        naip_footprints=1,
    )
    side = 1920 + 2 * 240
    rendered = render(11, region, ground, scenes["sentinel-2-l2a"])
    assert {asset.key: asset.pixels.shape[-1] for asset in rendered.assets} == {
        **{name: side // 10 for name in ("B02", "B03", "B04", "B08")},
        **{name: side // 20 for name in ("B05", "B06", "B07", "B8A", "B11", "B12", "SCL")},
        **{name: side // 60 for name in ("B01", "B09")},
    }
    for sensor, size, dtype in (
        ("gaofen-1", side // 8, "uint16"),
        ("gaofen-2", side // 4, "uint16"),
        ("naip", 2040, "uint8"),
    ):
        (asset,) = render(11, region, ground, scenes[sensor]).assets
        assert asset.pixels.shape == (4, size, size)
        assert asset.pixels.dtype == dtype
        assert asset.pixels.min() > 0  # a dark pixel is never nodata
    # Houses and their shadows: what one metre shows and ten metres do not.
    assert np.percentile(asset.pixels[2], 99) > 2.5 * np.percentile(asset.pixels[2], 1)

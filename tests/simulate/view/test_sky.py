from datetime import UTC, datetime

import numpy as np
import pytest

from a2mae.simulate.noise import Points
from a2mae.simulate.view.sky import Sun, illumination, make_sky, nodata_edge, sun_position

EQUINOX = datetime(2021, 3, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lat", "when", "hour", "zenith", "azimuth"),
    [
        (50, EQUINOX, 12, 50, 180),  # noon: in the south, as high as the latitude is not
        (-30, EQUINOX, 12, 30, 0),  # noon in the southern hemisphere: in the north
        (50, datetime(2021, 6, 21, tzinfo=UTC), 12, 26.6, 180),
        (50, datetime(2021, 12, 21, tzinfo=UTC), 12, 73.4, 180),
        (0, EQUINOX, 9, 45, 90),  # morning: in the east
        (0, EQUINOX, 15, 45, 270),
    ],
)
def test_the_sun_stands_where_it_should(lat, when, hour, zenith, azimuth):
    sun = sun_position(lat, when, hour)
    assert sun.zenith_deg == pytest.approx(zenith, abs=1.0)
    assert (sun.azimuth_deg - azimuth + 180) % 360 - 180 == pytest.approx(0, abs=2.0)


def test_shadows_fall_away_from_the_sun():
    east, north = Sun(45, 90).shadow_m
    assert (east, north) == pytest.approx((-1, 0), abs=1e-9)
    assert Sun(45, 180).shadow_m == pytest.approx((0, 1), abs=1e-9)


def test_slopes_towards_the_sun_are_bright():
    y, x = np.mgrid[:20, :20] * 30.0
    sun = Sun(50, 135)  # south-east
    assert np.allclose(illumination(np.zeros((20, 20)), 30.0, sun), 1)
    assert np.all(illumination(0.2 * y, 30.0, sun) > 1.05)  # rises to the north: looks south
    assert np.all(illumination(0.2 * y - 0.2 * x, 30.0, sun) > 1.05)  # looks south-east
    assert np.all(illumination(0.2 * x - 0.2 * y, 30.0, sun) < 0.95)  # looks north-west


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 1.0])
def test_clouds_cover_what_was_asked_and_their_shadows_lie_beside(share):
    sun = Sun(40, 150)
    sky = make_sky(3, f"scene {share}", sun, cloud_share=share, half_side_m=3120)
    axis = np.arange(-3100, 3101, 20.0)
    cloud, shadow = sky.cover(Points(axis, -axis))
    assert np.mean(cloud > 0.5) == pytest.approx(share, abs=0.015)
    if share < 1:
        assert np.mean(shadow > 0.5) > 0
        east, north = sky.offset_m
        assert (east < 0) and (north > 0)  # sun in the south-east
        moved = sky.cover(Points(axis - east, -axis - north))[0]
        clear = cloud < 0.01
        assert np.allclose(shadow[clear], moved[clear], atol=0.02)


def test_a_clear_sky_is_clear():
    axis = np.arange(-1000, 1001, 50.0)
    sky = make_sky(3, "clear", Sun(40, 150), cloud_share=0.0, half_side_m=1000)
    cloud, shadow = sky.cover(Points(axis, axis))
    assert cloud.max() == shadow.max() == 0


def test_a_swath_edge_is_slanted_and_cuts_off_its_share():
    axis = np.arange(-3000, 3001, 30.0)
    unseen = nodata_edge(Points(axis, -axis), np.random.default_rng(0), half_side_m=3000, share=0.15)
    assert unseen.mean() == pytest.approx(0.15, abs=0.03)
    widths = unseen.sum(axis=1)
    assert np.all(np.diff(widths) >= 0) or np.all(np.diff(widths) <= 0)
    assert widths.max() - widths.min() > 20

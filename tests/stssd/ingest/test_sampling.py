"""Which locations are kept: dense around cities, balanced over classes, apart from each other, seeded."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from a2mae.stssd.ingest.parameters import LocationParameters
from a2mae.stssd.ingest.sampling import draw


def grid(n=100, west=10.0, north=50.0, step=0.02):
    lon, lat = np.meshgrid(west + step * np.arange(n), north - step * np.arange(n))
    return pd.DataFrame({"lon": lon.ravel(), "lat": lat.ravel(), "group": np.uint64(0)})


def write_cities(path, *places):
    features = [
        {"type": "Feature", "properties": {"population": people} if people else {},
         "geometry": {"type": "Point", "coordinates": [lon, lat]}}
        for lon, lat, people in places
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_cities_draw_by_distance_and_population(tmp_path):
    found = grid()
    cities = write_cities(tmp_path / "c.geojson", (10.5, 49.5, 3_000_000), (11.5, 48.5, 1_000_000), (40.0, 0.0, 9e6))
    parameters = LocationParameters(sampling="cities", cities=cities, city_radius_m=8000, max_locations=600)
    kept = found.iloc[draw(found, parameters)]
    assert len(kept) == 600
    km = np.hypot((kept["lon"] - 10.5) * 72.2, (kept["lat"] - 49.5) * 111.2)
    other = np.hypot((kept["lon"] - 11.5) * 73.7, (kept["lat"] - 48.5) * 111.2)
    assert (np.minimum(km, other) < 24.5).all()  # nothing beyond three radii
    assert (km < 24.5).sum() > (other < 24.5).sum()
    near, far = (km < 8).sum() / 8**2, ((km > 16) & (km < 24)).sum() / (24**2 - 16**2)
    assert near > 2 * far
    again = draw(found, parameters)
    assert np.array_equal(again, draw(found, parameters))
    assert not np.array_equal(again, draw(found, parameters.model_copy(update={"seed": 1})))


def test_cities_that_are_not_there(tmp_path):
    far = write_cities(tmp_path / "far.geojson", (100.0, 0.0, None))
    with pytest.raises(ValueError, match="widen city_radius_m"):
        draw(grid(), LocationParameters(sampling="cities", cities=far))
    for text in ("{}", "[", '{"type": "FeatureCollection", "features": []}'):
        (tmp_path / "x.geojson").write_text(text)
        with pytest.raises(ValueError, match=r"ingest\.locations\.cities"):
            draw(grid(), LocationParameters(sampling="cities", cities=str(tmp_path / "x.geojson")))


def write_classes(path, classes, **profile):
    settings_ = {"dtype": "uint8", "nodata": 0, "crs": "EPSG:4326", **profile}
    grid_ = {"height": 100, "width": 100, "transform": from_origin(9.99, 50.01, 0.02, 0.02)}
    with rasterio.open(path, "w", driver="GTiff", count=1, **grid_, **settings_) as target:
        target.write(classes.astype(settings_["dtype"]), 1)
    return str(path)


def test_strata_are_balanced_until_used_up(tmp_path):
    classes = np.full((100, 100), 1)
    classes[:, 50:] = 2
    classes[0, :7] = 3  # a rare class
    classes[90:] = 0  # not known
    parameters = LocationParameters(
        sampling="strata", strata=write_classes(tmp_path / "lc.tif", classes), max_locations=107
    )
    kept = draw(grid(), parameters)
    assert np.unique(classes.ravel()[kept], return_counts=True)[1].tolist() == [50, 50, 7]
    all_known = draw(grid(), parameters.model_copy(update={"max_locations": None}))
    assert len(all_known) == 9000


def test_strata_that_cannot_be_used(tmp_path):
    found = grid(west=100.0)
    path = write_classes(tmp_path / "lc.tif", np.ones((100, 100)))
    with pytest.raises(ValueError, match="covers none of the 10000 locations"):
        draw(found, LocationParameters(sampling="strata", strata=path, max_locations=5))
    path = write_classes(tmp_path / "f.tif", np.ones((100, 100)), dtype="float32")
    with pytest.raises(ValueError, match="whole numbers"):
        draw(found, LocationParameters(sampling="strata", strata=path, max_locations=5))
    with pytest.raises(ValueError, match="cannot be used"):
        draw(found, LocationParameters(sampling="strata", strata=str(tmp_path / "no.tif"), max_locations=5))
    with pytest.raises(ValueError, match="and max_locations"):
        LocationParameters(sampling="strata", strata=path)


@given(
    n=st.integers(2, 15),
    cap=st.integers(1, 60),
    groups=st.integers(1, 5),
    per=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_law_caps_hold_and_nothing_is_drawn_twice(n, cap, groups, per, seed):
    found = grid(n)
    found["group"] = np.arange(len(found), dtype=np.uint64) % groups
    kept = draw(found, LocationParameters(max_locations=cap, max_per_group=per, seed=seed))
    assert (
        len(np.unique(kept))
        == len(kept)
        == min(cap, sum(min(per, int((found["group"] == g).sum())) for g in range(groups)))
    )
    assert found.iloc[kept].groupby("group").size().max() <= per
    assert np.array_equal(kept, np.sort(kept))


@given(distance_m=st.floats(100, 50_000), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_law_distance_is_kept_and_no_gap_is_left(distance_m, seed):
    found = grid(12)
    kept = draw(found, LocationParameters(min_distance_m=distance_m, seed=seed))
    lon, lat = (np.radians(found[c].to_numpy()) for c in ("lon", "lat"))
    cosine = np.sin(lat)[:, None] * np.sin(lat) + np.cos(lat)[:, None] * np.cos(lat) * np.cos(lon[:, None] - lon)
    metres = 6_371_000 * np.arccos(np.clip(cosine, -1, 1))
    among = metres[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)]
    assert (among >= distance_m * 0.999).all()
    assert (metres[:, kept].min(axis=1) <= distance_m * 1.001).all()  # every square is kept or has a kept neighbour

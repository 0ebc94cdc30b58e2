"""What a sample is made of: a pure function of (seed, epoch, position) that follows docs/methods.md, A²-MAE."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import make_index

from a2mae.training.data.draw import band_choices_of, draw_sample, epoch_order
from a2mae.training.data.index import SetIndex, build_index
from a2mae.training.parameters import SamplingParameters

INDEX = make_index()
BANDS = (7, 12)


def draw(sampling: SamplingParameters, seed: int, epoch: int, position: int, index: SetIndex = INDEX):
    choices = band_choices_of(sampling, BANDS, [(3, 2, 1)] * 2)
    return draw_sample(index, sampling, choices, seed=seed, epoch=epoch, position=position)


def one_set(sensors: list[int], anchors: list[bool] | None = None) -> SetIndex:
    count = len(sensors)
    return build_index(
        set_id=np.asarray([b"only"]),
        location=np.zeros(1, np.int64),
        split=np.zeros(1, np.uint8),
        image_set=np.zeros(count, np.int64),
        row=np.arange(count, dtype=np.int64),
        sensor=np.asarray(sensors, np.int16),
        gsd_m=np.full(count, 10.0),
        day=np.arange(count, dtype=np.float32),
        lonlat_deg=np.zeros((count, 2)),
        geosot=np.zeros((count, 8), np.uint32),
        is_anchor=np.asarray(anchors or [False] * count),
    )


keys = st.tuples(st.integers(0, 2**62), st.integers(0, 10**6), st.integers(0, 7))


@settings(max_examples=60, deadline=None)
@given(key=keys, images=st.integers(1, 6), crop=st.floats(0.05, 1.0), whole=st.floats(0, 1))
def test_a_draw_is_pure_and_keeps_the_rules(key, images: int, crop: float, whole: float) -> None:
    sampling = SamplingParameters(images=images, whole_probability=whole, crop_fraction_min=crop)
    one, again = draw(sampling, *key), draw(sampling, *key)
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.bands, again.bands)
    assert one.window == again.window and one.flips == again.flips
    members = INDEX.images_of(key[2])
    assert ((one.images >= members.start) & (one.images < members.stop)).all()
    for image, bands in zip(one.images, one.bands, strict=True):
        assert len(set(bands.tolist())) == 3 and bands.max() < BANDS[INDEX.sensor[image]]
    left, top, side = one.window
    assert crop <= side <= 1 and left >= 0 and top >= 0 and left + side <= 1 + 1e-12 and top + side <= 1 + 1e-12
    assert one.flips == (False, False, False)


def test_image_2_is_of_either_source_and_image_3_of_the_other() -> None:
    second = []
    for epoch in range(200):
        chosen = draw(SamplingParameters(images=3), 0, epoch, 0).images
        assert len(set(chosen.tolist())) == 3
        sources = INDEX.sensor[chosen]
        assert sources[1] != sources[2]
        second.append(sources[1] == sources[0])
    assert 0.35 < np.mean(second) < 0.65


def test_without_another_image_of_the_source_image_1_is_used_again() -> None:
    index = one_set([0, 1])
    for epoch in range(20):
        images = draw(SamplingParameters(images=3), 0, epoch, 0, index).images
        anchor, other = images[0], 1 - images[0]
        assert sorted(images[1:].tolist()) == sorted([anchor, other])


def test_one_source_many_dates_follows_the_fallback() -> None:
    index = one_set([0] * 5)
    for epoch in range(20):
        repeated = draw(SamplingParameters(images=3), 0, epoch, 0, index).images
        dated = draw(SamplingParameters(images=3, fallback="other_date"), 0, epoch, 0, index).images
        assert (repeated == repeated[0]).sum() == 2  # image 3: there is no other source
        assert len(set(dated.tolist())) == 3


def test_the_anchor_may_be_the_tagged_one() -> None:
    index = one_set([0, 0, 1, 1], [False, False, True, False])
    tagged = {int(draw(SamplingParameters(anchor="table"), 0, epoch, 0, index).images[0]) for epoch in range(30)}
    random = {int(draw(SamplingParameters(anchor="random"), 0, epoch, 0, index).images[0]) for epoch in range(60)}
    assert tagged == {2} and random == {0, 1, 2, 3}


def test_bands_by_rule() -> None:
    assert draw(SamplingParameters(bands="rgb"), 0, 0, 0).bands.tolist() == [[3, 2, 1]] * 3
    every = draw(SamplingParameters(bands="all"), 0, 0, 0)
    for image, bands in zip(every.images, every.bands, strict=True):
        count = BANDS[INDEX.sensor[image]]
        assert bands.tolist() == [*range(count), *[-1] * (12 - count)]
    two = draw_sample(
        one_set([0]), SamplingParameters(images=1), [np.arange(2)], seed=0, epoch=0, position=0
    )  # radar: two bands, three wanted
    assert set(two.bands[0].tolist()) == {0, 1} and two.bands.shape == (1, 3)


def test_only_bands_that_an_image_has_are_drawn() -> None:
    has = np.ones((len(INDEX.row), 12), np.bool_)
    whole = dataclasses.replace(INDEX, bands=has)
    poor = dataclasses.replace(INDEX, bands=has.copy())
    fine = np.flatnonzero(INDEX.sensor == 1)
    poor.bands[fine] = np.isin(np.arange(12), [1, 2, 3, 7])
    poor.bands[fine[0]] = np.arange(12) == 3  # fewer than are drawn
    for epoch in range(40):
        sampling = SamplingParameters(images=4)
        given, same, fewer = (draw(sampling, 5, epoch, 0, index) for index in (INDEX, whole, poor))
        np.testing.assert_array_equal(given.images, same.images)  # a mask that hides nothing changes no draw
        np.testing.assert_array_equal(given.bands, same.bands)
        assert given.window == same.window
        np.testing.assert_array_equal(given.images, fewer.images)
        for image, bands in zip(fewer.images, fewer.bands, strict=True):
            assert set(bands.tolist()) <= set(np.flatnonzero(poor.bands[image]).tolist())
            assert len(set(bands.tolist())) == (1 if image == fine[0] else 3)
    every = draw(SamplingParameters(bands="all", images=4), 0, 0, 0, poor)
    for image, bands in zip(every.images, every.bands, strict=True):
        expected = [b if poor.bands[image, b] and b < BANDS[INDEX.sensor[image]] else -1 for b in range(12)]
        assert bands.tolist() == expected


def test_whole_and_crop_have_their_share() -> None:
    whole = [draw(SamplingParameters(), 0, epoch, 0).window == (0.0, 0.0, 1.0) for epoch in range(400)]
    assert 0.4 < np.mean(whole) < 0.6


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_an_epoch_goes_through_every_set_once_and_epochs_differ(count: int) -> None:
    order = epoch_order(3, 0, count)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, epoch_order(3, 0, count))
    if count > 1:
        assert order.tolist() != epoch_order(3, 1, count).tolist() or count < 5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2mae.sensors import BUILTIN_SENSORS, Band
from a2mae.simulate.ground.covers import (
    CLASSES,
    COVERS,
    KNOTS_NM,
    MATERIALS,
    Character,
    band_response,
    reflectance_table,
    response_matrix,
)

USUAL = Character(np.zeros(len(COVERS)), np.zeros(len(COVERS)), 0.0)
S2 = {band.name: band for band in BUILTIN_SENSORS["sentinel-2-l2a"].bands}


@given(st.sampled_from(sorted(MATERIALS)), st.floats(420, 2450), st.floats(1, 200))
def test_any_band_sees_a_reflectance_within_the_spectrum(material, center, width):
    seen = band_response(material, Band("X", "", center, width, 10))
    assert min(MATERIALS[material]) - 1e-9 <= seen <= max(MATERIALS[material]) + 1e-9


def test_a_narrow_band_reads_the_spectrum_and_a_wide_one_its_mean():
    assert band_response("leaf", Band("X", "", 783, 1, 10)) == pytest.approx(0.42, abs=2e-3)
    edge = band_response("leaf", Band("X", "", 705, 60, 10))
    assert band_response("leaf", Band("X", "", 665, 5, 10)) < edge < band_response("leaf", Band("X", "", 740, 5, 10))


def test_materials_look_as_they_should_to_sentinel2():
    seen = dict(zip(MATERIALS, response_matrix(list(MATERIALS), list(S2.values())), strict=True))
    index = {name: number for number, name in enumerate(S2)}

    def ndvi(material):
        red, nir = seen[material][index["B04"]], seen[material][index["B08"]]
        return (nir - red) / (nir + red)

    assert ndvi("leaf") > 0.8
    assert 0.5 > ndvi("straw") > ndvi("clear_water")
    assert seen["clear_water"][index["B11"]] < 0.01
    assert seen["turbid_water"][index["B03"]] > 2 * seen["clear_water"][index["B03"]]
    # Burn ratio: char is brighter at 2.2 µm than in the near infrared, leaves the reverse.
    assert seen["char"][index["B12"]] > seen["char"][index["B8A"]]
    assert seen["leaf"][index["B12"]] < seen["leaf"][index["B8A"]] / 3
    assert len(KNOTS_NM) == len(MATERIALS["leaf"])


def test_seasons_turn_half_a_year_apart():
    for cover in COVERS.values():
        days = np.arange(365)
        green = np.array([cover.green_fraction(day) for day in days])
        assert cover.low - 1e-9 <= green.min() <= green.max() <= cover.high + 1e-9
        assert green[0] == pytest.approx(cover.green_fraction(364.999), abs=0.02)  # no jump at new year
    maize, cereal = COVERS["maize"], COVERS["winter_cereal"]
    assert maize.green_fraction(215) > 0.85
    assert maize.green_fraction(130) < 0.2
    assert cereal.green_fraction(130) > 0.85
    assert cereal.green_fraction(215) < 0.2


def test_every_state_has_a_reflectance_and_shadow_is_darkest():
    table = reflectance_table(list(S2.values()), soil="loam", northern_day=170, character=USUAL)
    states = table[:, : len(COVERS) << 8].reshape(len(S2), len(COVERS), 8, 32)
    assert states.min() >= 0
    assert states.max() < 0.8
    assert np.all(states[:, :, :, 0] <= states[:, :, :, 1:].min(axis=-1) + 1e-6)
    assert {cover.land_cover for cover in COVERS.values()} == {entry.name for entry in CLASSES}


def test_a_regions_character_is_smooth_over_the_spectrum_and_shifts_its_seasons():
    character = Character.draw(np.random.default_rng(0))
    gains = character.gains(list(S2.values()))
    assert gains.shape == (len(COVERS), len(S2))
    assert 0.03 < np.log(gains[:, 3]).std() < 0.2
    wavelengths = np.array([band.center_wavelength_nm for band in S2.values()])
    order = np.argsort(wavelengths)
    steps = np.diff(np.log(gains[:, order]), axis=1) / np.diff(wavelengths[order])
    assert np.allclose(steps, steps[:, :1], atol=1e-9)
    late = Character(character.level * 0, character.slope * 0, days=20.0)
    tables = {
        name: reflectance_table(list(S2.values()), soil="loam", northern_day=day, character=kind)
        for name, day, kind in (("usual", 100, USUAL), ("late", 120, late))
    }
    assert np.allclose(tables["usual"], tables["late"])

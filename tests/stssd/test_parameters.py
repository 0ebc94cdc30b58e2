"""Parameters of coregister, tag and prune: what a recipe may say, and what is wrong with one that cannot be filled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.parameters import Recipe, check_recipes


def test_counts_that_no_set_can_have_are_named() -> None:
    with pytest.raises(ValueError, match="larger than max_images"):
        Recipe(min_images=4, max_images=3)
    with pytest.raises(ValueError, match="a set of 3 sources needs as many images at least; max_images is 2"):
        Recipe(sources=[{"sensors": [name]} for name in "abc"], max_images=2)
    with pytest.raises(ValueError, match="single_source goes without named sources"):
        Recipe(single_source=True)


def test_a_kind_can_be_bound_to_places(tmp_path: Path) -> None:
    path = tmp_path / "cities.geojson"
    features = [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [12.0, 52.0]}, "properties": {}}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    recipe = Recipe(near=str(path), near_m=10_000)
    assert recipe.near == ((12.0, 52.0),)  # part of the build's fingerprint: the file's content, not its name
    assert recipe.is_at(12.1, 52.0) and not recipe.is_at(12.2, 52.0) and Recipe().is_at(0, 0)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a GeoJSON file of places"):
        Recipe(near=str(path))


def test_bands_are_those_that_the_sensors_have() -> None:
    recipe = Recipe(sources=[{"sensors": ["landsat-*"], "bands": ["coastal", "red", "SR_B7"]}])
    of = {key: recipe.bands_of(BUILTIN_SENSORS[f"landsat-{key}-c2-l2"]) for key in ("oli", "etm")}
    assert of == {"oli": ("SR_B1", "SR_B4", "SR_B7"), "etm": ("SR_B3", "SR_B7")}
    assert recipe.bands_of(BUILTIN_SENSORS["naip"]) is None
    landsat = {key: sensor for key, sensor in BUILTIN_SENSORS.items() if key.startswith("landsat")}
    check_recipes({"grid": recipe, "off": None}, landsat)
    wrong = Recipe(sources=[{"sensors": ["landsat-*"], "bands": ["rededge071"]}])
    with pytest.raises(ValueError, match=r"coregister\.recipes\.grid: .* has no band 'rededge071'; there are SR_B1"):
        check_recipes({"grid": wrong}, landsat)
    assert np.isfinite(recipe.near_m)

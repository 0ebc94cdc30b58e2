"""Values of the tasks' parameters that cannot be meant are refused before a run, not by a library in its last stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from a2mae.errors import InputError
from a2mae.tasks.finetune.train import device_named
from a2mae.tasks.parameters import EmbedParameters, EncoderParameters, EvaluateParameters, MapParameters, TaskParameters
from a2mae.tasks.tiling import starts

WEIGHTS = {"model": "resnet18", "weights": "resnet18.pth"}


@pytest.mark.parametrize(
    ("kind", "values", "key"),
    [
        (EmbedParameters, {"bands": []}, "bands"),
        (EmbedParameters, {"tile_px": 100_000}, "tile_px"),
        (EmbedParameters, {"batch_size": 10**9}, "batch_size"),
        (TaskParameters, {"task": "classify", "bands": []}, "bands"),
        (TaskParameters, {"task": "classify", "seed": 2**70}, "seed"),
        (TaskParameters, {"task": "classify", "bootstrap": 10**12}, "bootstrap"),
        (TaskParameters, {"task": "classify", "finetune": {"batch_size": 10**9}}, r"finetune\.batch_size"),
        (TaskParameters, {"task": "classify", "data": {"simulated": {"sensors": ["a", "a"]}}}, "sensors must be named"),
        (TaskParameters, {"task": "segment", "data": {"archive": {"bands": ["red", "red"]}}}, "bands must be named"),
        (TaskParameters, {"task": "segment", "data": {"class_names": ["a", "a"]}}, "class_names must be named once"),
        (EvaluateParameters, {"bands": []}, "bands"),
        (EvaluateParameters, {"c_grid": [0.0]}, "c_grid"),
        (EvaluateParameters, {"c_grid": [1.0, -1.0]}, "c_grid"),
        (EvaluateParameters, {"shots": [0]}, "shots"),
        (EvaluateParameters, {"shots": [1, -5]}, "shots"),
        (EncoderParameters, {**WEIGHTS, "mean": [0.1], "std": [0.0]}, "std"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(kind, values, key):
    with pytest.raises(ValidationError, match=key):
        kind.model_validate(values)


@given(tile_px=st.integers(16, 4096), overlap_px=st.integers(0, 5000))
def test_law_windows_that_are_accepted_cover_a_line_in_few_steps(tile_px, overlap_px):
    for kind in (EmbedParameters, MapParameters):
        try:
            kind.model_validate({"tile_px": tile_px, "overlap_px": overlap_px})
        except ValidationError as error:
            assert "overlap_px is half of tile_px at most" in str(error) and 2 * overlap_px > tile_px
        else:
            assert len(starts(100_000, tile_px, overlap_px)) <= 2 * 100_000 / tile_px + 1


@pytest.mark.parametrize("name", ["", "x", "meta", "cuda:99", "cpu:x"])
def test_a_device_that_this_machine_lacks_is_named(name):
    with pytest.raises(InputError, match=r"device .* cannot be used here .*: set it to auto or cpu"):
        device_named(name)
    assert device_named("cpu").type == "cpu"

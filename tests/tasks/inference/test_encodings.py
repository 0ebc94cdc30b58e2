"""By which scale and offset a user's raster is read, and what is said where that cannot be right."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from pydantic import ValidationError

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.remote.policy import RemoteAccess
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import Task, TaskDataError
from a2mae.tasks.inference.plausible import warn_of_values
from a2mae.tasks.inference.rasters import EMBED, RasterWindows, keys_of_map, raster_from_file, sample_of
from a2mae.tasks.inference.survey import EmbeddingSource
from a2mae.tasks.parameters import EmbedParameters

L1C = BUILTIN_SENSORS["sentinel-2-l1c"]
RGB = ("red", "green", "blue")
NAMES = ("B04", "B03", "B02")
TAUGHT = {L1C.id: {name: [0.1, 0.05] for name in NAMES}}
GROUND = np.array([0.06, 0.105, 0.12])
"""Reflectance of a green landscape from above the atmosphere."""


def write(path, values, **tags):
    bands, height, width = values.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": values.dtype.name}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_200_000)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as target:
        target.write(values)
        for number, name in enumerate(NAMES, start=1):
            target.set_band_description(number, name)
        if tags:
            target.scales, target.offsets = (tags["scale"],) * bands, (tags["offset"],) * bands
    return path


def landscape():
    rng = np.random.default_rng(0)
    return np.clip(GROUND[:, None, None] + rng.normal(0, 0.01, (3, 64, 64)), 0.005, None)


def counts(offset=0.0):
    return np.round((landscape() - offset) * 1e4).astype(np.uint16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    return save_pretrained(network, tmp_path_factory.mktemp("model"), config={"normalization": TAUGHT})


def embedded(model, path, out, **options):
    """Embeddings of a raster by the parameters of the stage, and what is written about them."""
    asked = EmbedParameters(raster=str(path), sensor=L1C.id, device="cpu", threads=1, **options)
    EmbeddingSource(asked, model, gpd.GeoDataFrame(), {}, RemoteAccess()).write(out)
    with rasterio.open(out / "embeddings.tif") as source:
        return source.read(), json.loads((out / "embeddings.json").read_text())


def test_a_harmonised_raster_is_embedded_by_the_offset_that_the_user_states(model, tmp_path, caplog):
    """Three files of one ground give one answer: harmonised, as the sensor is, and with what they are in their tags."""
    harmonised, about = embedded(model, write(tmp_path / "a.tif", counts()), tmp_path / "a", offset=0.0)
    assert about["units"] == "reflectance"
    assert about["layers"] == [{"scale": [1e-4] * 3, "offset": [0.0] * 3}]
    tagged = write(tmp_path / "c.tif", counts(), scale=1e-4, offset=0.0)
    np.testing.assert_allclose(embedded(model, tagged, tmp_path / "c")[0], harmonised, atol=1e-4)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    as_sensor, about = embedded(model, write(tmp_path / "b.tif", counts(L1C.encoding.offset)), tmp_path / "b")
    assert about["layers"] == [{"scale": [1e-4] * 3, "offset": [-0.1] * 3}]
    np.testing.assert_allclose(as_sensor, harmonised, atol=1e-4)
    wrong, _ = embedded(model, tmp_path / "b.tif", tmp_path / "d", offset=0.0)
    assert np.abs(wrong - harmonised).max() > 0.1  # it does matter


def test_what_the_user_states_goes_before_the_files_tags_and_floats(tmp_path):
    tagged = write(tmp_path / "tagged.tif", counts(), scale=5e-5, offset=0.3)
    percent = write(tmp_path / "percent.tif", (landscape() * 100).astype(np.float32))
    for path, scale in ((tagged, 1e-4), (percent, 0.01)):
        with RasterWindows(raster_from_file(path, L1C, RGB, scale=scale, offset=0.0)) as windows:
            pixels, _ = windows.read(0, 0, 64, 64)
        np.testing.assert_allclose(pixels, landscape(), atol=6e-5)


def test_an_offset_that_only_the_sensor_states_is_warned_of_with_the_key_to_set(tmp_path, caplog):
    path = write(tmp_path / "mine.tif", counts(L1C.encoding.offset))
    raster_from_file(path, L1C, RGB)
    (record,) = caplog.records
    assert "mine.tif states no scale and offset: it is read by the offset of sentinel-2-l1c, -0.1" in record.message
    assert "set embed.offset (0.0, or -0.1 if it is right)" in record.message
    caplog.clear()
    raster_from_file(path, L1C, RGB, offset=-0.1)
    raster_from_file(path, L1C, RGB, stated=L1C)  # as the training's files are: said by data.offset
    raster_from_file(write(tmp_path / "tags.tif", counts(), scale=1e-4, offset=0.0), L1C, RGB)
    assert not caplog.records


def test_values_that_an_encoder_was_not_taught_are_warned_of(tmp_path, caplog):
    plan = plan_bands(L1C, RGB, TAUGHT, bands_per_view=3)
    path = write(tmp_path / "mine.tif", counts())
    warn_of_values(raster_from_file(path, L1C, RGB, offset=0.0), plan, "")
    assert not caplog.records
    warn_of_values(raster_from_file(path, L1C, RGB, offset=-0.05), plan, EMBED.advice)
    assert not caplog.records  # half a deviation: nobody can tell
    raster = raster_from_file(path, L1C, RGB, offset=-0.1)
    caplog.clear()
    warn_of_values(raster, plan, EMBED.advice)
    (record,) = caplog.records
    assert "% of B04 is below -0.02, where no reflectance is" in record.message
    assert "B02" not in record.message  # it was bright enough
    assert "by scale and offset 0.0001 and -0.1; set embed.scale and embed.offset, write" in record.message
    caplog.clear()
    warn_of_values(raster_from_file(path, L1C, RGB, scale=1e-3, offset=0.0), plan, keys_of_map(Task.SEGMENT).advice)
    (record,) = caplog.records
    assert "the median of B04 is 0.596, +9.9 deviations from the mean 0.1 that the encoder was taught" in record.message
    assert record.message.endswith("write scale and offset into the file, or set segment.map.sensor")


def test_a_raster_that_is_empty_in_its_middle_is_judged_by_another_window(tmp_path):
    values = np.zeros((3, 2100, 2100), np.uint16)
    values[:, 1400:, 1400:] = 30_000
    raster = raster_from_file(write(tmp_path / "corner.tif", values), L1C, RGB, scale=1e-5, offset=0.0)
    assert np.allclose(sample_of(raster), 0.3) and sample_of(raster).size
    empty = raster_from_file(write(tmp_path / "none.tif", values * 0), L1C, RGB, offset=0.0)
    assert sample_of(empty).shape == (3, 0)
    warn_of_values(empty, plan_bands(L1C, RGB, TAUGHT, bands_per_view=3), "")  # nothing is to be said of it


def test_messages_name_the_keys_of_the_stage_that_reads(tmp_path):
    path = write(tmp_path / "counts.tif", counts().astype(np.float32))
    with pytest.raises(TaskDataError, match=r"0 to 1: set embed\.scale and embed\.offset, write .* set embed\.sensor"):
        raster_from_file(path, L1C, RGB)
    with pytest.raises(TaskDataError, match=r"0 to 1: write .* or set detect_change\.map\.sensor"):
        raster_from_file(path, L1C, RGB, keys=keys_of_map(Task.DETECT_CHANGE))
    with pytest.raises(TaskDataError, match=r"describe the bands, or set segment\.map\.sensor"):
        raster_from_file(path, L1C, ("nir",), keys=keys_of_map(Task.SEGMENT))
    dark = write(tmp_path / "bytes.tif", (counts() // 64).astype(np.uint8), scale=1e-4, offset=0.0)
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("a2mae.tasks.inference.rasters.logger.warning", lambda text, *values: said.append(text % values))
        raster_from_file(dark, L1C, RGB, keys=keys_of_map(Task.SEGMENT))
    assert "land reaches 0.1" in said[0] and said[0].endswith("or set segment.map.sensor")
    assert "rule or item" not in said[0]
    with pytest.raises(TaskDataError, match=r"it knows sentinel-2-l1c: set embed\.sensor to one of these"):
        plan_bands(BUILTIN_SENSORS["sentinel-2-l2a"], RGB, TAUGHT, bands_per_view=3)


def test_an_encoding_without_a_raster_is_refused():
    with pytest.raises(ValidationError, match=r"embed\.offset is of embed\.raster, and that is null"):
        EmbedParameters(offset=0.0)

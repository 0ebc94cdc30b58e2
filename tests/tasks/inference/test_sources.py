"""What the stages write of the rasters that they are asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from pydantic import ValidationError

from a2mae.config import CloudParameters
from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import scenes_to_table
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.inference.files import EMBED, keys_of_map, raster_from_file
from a2mae.tasks.inference.raster_map import map_raster
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.sources import EmbeddingSource, MapSource, warn_of_values
from a2mae.tasks.parameters import EmbedParameters, MapParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.tiling import Windows
from helpers.task_samples import SENTINEL2, spec_for

from .conftest import CPU, L1C, RGB, STATISTICS, TAUGHT, l1c_counts, write_raster


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    return save_pretrained(network, tmp_path_factory.mktemp("model"), config={"normalization": TAUGHT})


def embedded(model, path, out, **options):
    """Embeddings of a raster by the parameters of the stage, and what is written about them."""
    asked = EmbedParameters(raster=str(path), sensor=L1C.id, device="cpu", threads=1, **options)
    EmbeddingSource(asked, model, SceneRasters(None, {}, RemoteAccess(), None)).write(out)
    with rasterio.open(out / "embeddings.tif") as source:
        return source.read(), json.loads((out / "embeddings.json").read_text())


def test_a_harmonised_raster_is_embedded_by_the_offset_that_the_user_states(model, tmp_path, caplog):
    """Three files of one ground give one answer: harmonised, as the sensor is, and with what they are in their tags."""
    harmonised, about = embedded(model, write_raster(tmp_path / "a.tif", l1c_counts()), tmp_path / "a", offset=0.0)
    assert about["units"] == "reflectance"
    assert about["layers"] == [{"scale": [1e-4] * 3, "offset": [0.0] * 3}]
    tagged = write_raster(tmp_path / "c.tif", l1c_counts(), scale=1e-4, offset=0.0)
    np.testing.assert_allclose(embedded(model, tagged, tmp_path / "c")[0], harmonised, atol=1e-4)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    as_sensor, about = embedded(
        model, write_raster(tmp_path / "b.tif", l1c_counts(L1C.encoding.offset)), tmp_path / "b"
    )
    assert about["layers"] == [{"scale": [1e-4] * 3, "offset": [-0.1] * 3}]
    np.testing.assert_allclose(as_sensor, harmonised, atol=1e-4)
    wrong, _ = embedded(model, tmp_path / "b.tif", tmp_path / "d", offset=0.0)
    assert np.abs(wrong - harmonised).max() > 0.1  # it does matter


def test_values_that_an_encoder_was_not_taught_are_warned_of(tmp_path, caplog):
    plan = plan_bands(L1C, RGB, TAUGHT, bands_per_view=3)
    path = write_raster(tmp_path / "mine.tif", l1c_counts())
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


def test_an_encoding_without_a_raster_is_refused():
    with pytest.raises(ValidationError, match=r"embed\.offset is of embed\.raster, and that is null"):
        EmbedParameters(offset=0.0)


@pytest.mark.parametrize("sensor_id", [SENTINEL2.id, "pictures"])
def test_a_raster_like_the_files_of_the_training_is_read_as_they_were(encoder, plan, scene, tmp_path, sensor_id):
    """No description of bands, their order and the offset are the user's own: what was said of the folder holds."""
    with rasterio.open(scene) as source:
        counts = source.read()
    torch.manual_seed(0)
    model = TaskModel(encoder, HeadConfig(Task.SEGMENT, "linear", 3)).eval()
    named = Finetuned(model, plan, spec_for(Task.SEGMENT))
    bands = SENTINEL2.subset(("B02", "B04", "B03")).bands
    encoding = dataclasses.replace(SENTINEL2.encoding, offset=0.0)
    spec = dataclasses.replace(named.spec, bands=bands, encoding=encoding)
    own = Finetuned(model, dataclasses.replace(plan, sensors=(sensor_id,)), spec)
    harmonised = np.where(counts > 0, counts - 1000 * (counts > 1000), 0)[[2, 0, 1]].astype(np.uint16)
    path = write_raster(tmp_path / "own.tif", harmonised, names=())
    options = MapParameters.model_validate({"raster": str(path), "tile_px": 32, "overlap_px": 8})
    MapSource(options, "cpu", 1, own, SceneRasters(None, {}, RemoteAccess(), None)).write(tmp_path / "own_map.tif")
    raster = raster_from_file(scene, SENTINEL2, RGB)
    map_raster(named, [raster], tmp_path / "map.tif", Windows(32, 8, 8), device=CPU)
    with rasterio.open(tmp_path / "own_map.tif") as found, rasterio.open(tmp_path / "map.tif") as expected:
        assert len(np.unique(expected.read(1))) > 2, "two classes and nodata"
        assert np.mean(found.read(1) == expected.read(1)) > 0.99  # below the sensor's offset counts were cut at zero


def test_saved_encoder_feeds_the_default_stage(encoder, tmp_path, scene):
    """`EmbeddingSource` on a named raster, as the stage runs it."""

    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32)
    save_pretrained(model, tmp_path / "model", config={"normalization": STATISTICS})
    options = EmbedParameters(raster=str(scene), device="cpu", tile_px=64, overlap_px=16)
    EmbeddingSource(options, tmp_path / "model", SceneRasters(None, {}, RemoteAccess(), None)).write(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    assert (about["raster"], about["dimensions"], about["blocks"]) == (Path(scene).name, 64, 12)
    assert len(gpd.read_parquet(tmp_path / "out" / "embeddings.parquet")) == 12


def test_clouds_are_left_out_of_embeddings_unless_they_are_asked_for(encoder, tmp_path, cloudy_scene):
    """As the store masks them: patches of which half is cloud are nodata."""
    network = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32)
    save_pretrained(network, tmp_path / "model", config={"normalization": STATISTICS})
    seen_patches = {}
    for masked, clouds in ((True, {}), (True, {"buffer_m": 0}), (False, {})):
        options = EmbedParameters(scene_ids=["cloudy"], mask_clouds=masked, device="cpu", tile_px=64, overlap_px=16)
        scenes = SceneRasters(scenes_to_table([cloudy_scene]), {}, RemoteAccess(), CloudParameters(**clouds))
        out = tmp_path / f"{masked}{len(clouds)}"
        EmbeddingSource(options, tmp_path / "model", scenes).write(out)
        with rasterio.open(out / "embeddings.tif") as source:
            seen_patches[masked, len(clouds)] = np.isfinite(source.read(1)).sum()
    assert seen_patches[True, 0] < seen_patches[True, 1] < seen_patches[False, 0]


def test_a_parameter_that_is_gone_names_its_successor():
    with pytest.raises(ValidationError, match=r"'cloud_buffer_m' is gone; set coregister\.clouds\.buffer_m"):
        MapParameters.model_validate({"cloud_buffer_m": 20})

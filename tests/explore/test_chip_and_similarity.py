"""A picture from elsewhere as an example, and the similarity of every patch of an embedded raster."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from a2mae.explore.chip import embed_chip
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.results import search_archive
from a2mae.models import create_model
from a2mae.models.checkpoint import save_pretrained
from helpers.task_models import STATISTICS
from helpers.task_samples import SENTINEL2

UTM = "EPSG:32633"
BANDS = ("B04", "B03", "B02")


def write_chip(path, pixels, *, names=BANDS, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype, crs=UTM, transform=Affine(10, 0, 300_000, 0, -10, 5_000_000), nodata=nodata,
    ) as target:  # fmt: skip
        target.write(pixels)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        encoding = SENTINEL2.encoding
        target.scales, target.offsets = (encoding.scale,) * len(pixels), (encoding.offset,) * len(pixels)
    return path


@pytest.fixture
def chip(archive, tmp_path):
    """The first image of place-4 as a file somewhere else."""
    (row,) = archive.images.loc[archive.images["image_id"] == "place-4-0", "row"]
    pixels, _ = archive.store.read(SENTINEL2.id, [row], list(BANDS))
    return write_chip(tmp_path / "chip.tif", pixels[0])


def asked(**options):
    return SearchParameters.model_validate({"chip_sensor": SENTINEL2.id, **options})


def test_a_chip_finds_places_of_its_cover(archive, embedded, pretrained, chip, tmp_path):
    hits = search_archive(asked(chip=str(chip), top=3), embedded, tmp_path / "found", pretrained=pretrained)
    assert {archive.cover[name] for name in hits["location_id"]} == {1}
    examples = json.loads((tmp_path / "found/examples.geojson").read_text())["features"]
    assert [example["properties"]["id"] for example in examples] == ["chip"]
    both = asked(chip=str(chip), ids=["place-1-0"], not_ids=["place-0-0"], top=2)
    hits = search_archive(both, embedded, tmp_path / "both", pretrained=pretrained, archive=archive)
    assert set(hits["location_id"]) == {"place-4", "place-7"}


def test_a_chip_has_the_vector_of_the_image_that_it_is(embedded, pretrained, chip):
    number = embedded.table("image", ["id"])["id"].to_pylist().index("place-4-0")
    known = embedded.take("image", [number]).vectors[0]
    found = embed_chip(pretrained, embedded, chip, SENTINEL2.id).vectors[0]
    # The archive's image also tells its day and place.
    assert np.corrcoef(known, found)[0, 1] > 0.95


def test_chips_that_are_none_are_refused(embedded, pretrained, chip, tmp_path):
    nothing = write_chip(tmp_path / "nothing.tif", np.zeros((3, 32, 32), np.uint16), nodata=0)
    with pytest.raises(ValueError, match=r"nothing.tif shows nothing: every pixel is nodata"):
        embed_chip(pretrained, embedded, nothing, SENTINEL2.id)
    two = write_chip(tmp_path / "two.tif", np.ones((2, 32, 32), np.uint16), names=("B04", "B03"))
    with pytest.raises(ValueError, match=r"search.chip cannot be read as an image of sentinel-2-l2a: "):
        embed_chip(pretrained, embedded, two, SENTINEL2.id)
    large = write_chip(tmp_path / "large.tif", np.full((3, 8, 4097), 3000, np.uint16))
    with pytest.raises(ValueError, match=r"large.tif has 4097 x 8 pixels, and a chip has 4096 at most"):
        embed_chip(pretrained, embedded, large, SENTINEL2.id)
    torch.manual_seed(5)
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=4, decoder_dim=32)
    other = save_pretrained(model, tmp_path / "other", config={"normalization": STATISTICS})
    with pytest.raises(ValueError, match=r"would be embedded by the model .* they cannot be compared"):
        embed_chip(other, embedded, chip, SENTINEL2.id)
    with pytest.raises(ValueError, match=r"search.chip is one image, and search.level is 'set'"):
        search_archive(asked(chip=str(chip), level="set"), embedded, tmp_path / "set", pretrained=pretrained)
    with pytest.raises(ValueError, match=r"search.chip needs the model that the store's vectors are of"):
        search_archive(asked(chip=str(chip)), embedded, tmp_path / "none")


@pytest.fixture
def raster(embedded, tmp_path):
    """A raster whose patches are the patch means of images of three covers, and a corner that nobody saw."""
    width = embedded.about.dimensions // 2
    ids = embedded.table("image", ["id"])["id"].to_pylist()
    vectors = embedded.take("image", [ids.index(f"place-{place}-0") for place in range(3)]).vectors[:, :width]
    covers = np.random.default_rng(0).integers(0, 3, (90, 70))
    pixels = vectors[covers].transpose(2, 0, 1).astype(np.float32)
    pixels[:, :5, :5] = np.nan
    with rasterio.open(
        tmp_path / "embeddings.tif", "w", driver="GTiff", count=width, height=90, width=70, dtype="float32", crs=UTM,
        transform=Affine(80, 0, 300_000, 0, -80, 5_000_000), nodata=float("nan"),
    ) as target:  # fmt: skip
        target.write(pixels)
    about = {"model": embedded.about.model, "views": 1, "dimensions": width, "raster": "made"}
    (tmp_path / "embeddings.json").write_text(json.dumps(about))
    return tmp_path, covers


def test_patches_like_the_examples_have_the_highest_similarity(embedded, raster, tmp_path):
    folder, covers = raster
    hits = search_archive(asked(ids=["place-3-0"], top=3), embedded, tmp_path / "found", embeddings=folder)
    assert len(hits) == 3
    with rasterio.open(tmp_path / "found/similarity.tif") as source:
        score = source.read(1)
        assert source.crs == UTM and source.transform.a == 80 and source.count == 1
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert np.isnan(score[:5, :5]).all() and np.isfinite(score[5:, 5:]).all()
    means = [np.nanmean(score[covers == cover]) for cover in range(3)]
    assert means[0] > 0.5 and max(means[1:]) < 0
    assert np.nanmin(score) >= -1.001 and np.nanmax(score) <= 1.001


def test_a_raster_of_another_model_is_not_compared(embedded, raster, tmp_path, caplog):
    folder, _ = raster
    about = json.loads((folder / "embeddings.json").read_text())
    (folder / "embeddings.json").write_text(json.dumps({**about, "model": "0" * 64}))
    search_archive(asked(ids=["place-3-0"]), embedded, tmp_path / "found", embeddings=folder)
    assert not (tmp_path / "found/similarity.tif").exists()
    assert "no similarity.tif" in caplog.text and "is of another model" in caplog.text

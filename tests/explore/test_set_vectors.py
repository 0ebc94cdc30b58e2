"""Sets of the archive embedded as a whole: one vector per set, or per set and period."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from a2mae.errors import InputError
from a2mae.models.checkpoint import load_encoder
from a2mae.models.sets import encode_set
from helpers.task_models import STATISTICS
from helpers.task_samples import SENTINEL2

from .conftest import DATES, embed


def test_a_set_is_read_in_one_sequence(archive, pretrained, tmp_path):
    store = embed(archive, pretrained, tmp_path / "store", inputs={"images": 6})
    rows = store.table("set", ["id"])["id"].to_pylist()
    assert len(rows) == 8 and "place-4" in rows
    bands = ("B04", "B03", "B02")
    pixels, _ = archive.store.read_physical(SENTINEL2.id, [8, 9], list(bands))
    mean, std = (np.array([STATISTICS[SENTINEL2.id][band][i] for band in bands])[:, None, None] for i in (0, 1))
    (tokens,) = encode_set(
        load_encoder(pretrained).eval(),
        torch.from_numpy((pixels - mean) / std).float()[None],
        seen=torch.ones(1, 2, 16, dtype=torch.bool),
        gsd_m=torch.tensor([10.0]),
        day=torch.tensor([[moment.timestamp() / 86400 for moment in DATES]]),
    )
    places = tokens[0, 1:].unflatten(0, (2, 16)).mean(0)  # the mean over images, then over places
    expected = torch.cat([places.mean(0), places.std(0, correction=0)]).detach().numpy()
    np.testing.assert_allclose(store.take("set", [rows.index("place-4")]).vectors[0], expected, atol=3e-3)


def test_one_vector_per_year_and_only_what_changed_is_embedded_again(archive, pretrained, tmp_path, caplog):
    caplog.set_level("INFO")
    store = embed(archive, pretrained, tmp_path / "store", inputs={"images": 6, "window": "per year"})
    assert {"place-4 2022", "place-4 2023"} <= set(store.table("set", ["id"])["id"].to_pylist())
    embed(archive, pretrained, tmp_path / "store", inputs={"images": 6, "window": "per year"})
    assert "0 images and 0 sets embedded" in caplog.text
    embed(archive, pretrained, tmp_path / "store")
    assert "0 images and 8 sets embedded" in caplog.text, "images stay, sets are the mean again"


def test_a_window_without_images_is_refused(archive, pretrained, tmp_path):
    with pytest.raises(InputError, match=r"embed\.inputs: no image of .* is from 2019-01-01 to 2019-02-01: widen the"):
        embed(archive, pretrained, tmp_path / "s", inputs={"images": 2, "window": ["2019-01-01", "2019-02-01"]})


def test_unseen_images_are_in_no_set(archive, pretrained, tmp_path):
    hidden = archive.images["image_id"] == "place-4-1"
    images = archive.images.assign(valid_fraction=archive.images["valid_fraction"].where(~hidden, 0.0))
    without = embed(dataclasses.replace(archive, images=images), pretrained, tmp_path / "a", inputs={"images": 6})
    alone = without.take("set", [without.table("set", ["id"])["id"].to_pylist().index("place-4")]).vectors[0]
    image = without.table("image", ["id"])["id"].to_pylist().index("place-4-0")
    np.testing.assert_allclose(alone, without.take("image", [image]).vectors[0], atol=3e-3)

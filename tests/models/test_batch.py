"""Bad input: a clear error with the offending value."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from a2mae.models import create_model

METHODS = ("a2mae", "scale_mae", "mae", "satmae")
IMAGES = torch.zeros(2, 3, 32, 48)
HERE = torch.tensor([[12.5, 41.9], [12.5, 41.9]])


def nan_at(index) -> torch.Tensor:
    images = IMAGES.clone()
    images[index] = float("nan")
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[0]}, r"shape \(B, C, H, W\), found \(3, 32, 48\)"),
        ({"images": IMAGES[..., :45]}, r"multiples of the patch \(8 px\), found 32 x 45: .* 32 x 48"),
        ({"images": IMAGES.to(torch.uint8)}, r"found torch\.uint8: apply the model's normalisation"),
        ({"images": IMAGES[:, :2]}, r"reads 3 bands .*, found 2"),
        ({"images": nan_at((1, 2, 3, 4))}, r"found nan at index \[1, 2, 3, 4\]"),
        ({"gsd_m": torch.tensor([10.0, 0.0])}, r"gsd_m must be positive, found 0\.0"),
        ({"gsd_m": -3.0}, r"gsd_m must be positive, found -3\.0"),
        ({"gsd_m": torch.tensor([10.0, float("inf")])}, r"gsd_m must be positive, found inf"),
        ({"gsd_m": torch.ones(3)}, r"gsd_m must have shape \(2,\)"),
        ({"gsd_m": None}, r"encoding 'own' needs gsd_m"),
        ({"lonlat_deg": torch.tensor([[12.5, 41.9], [12.5, 91.0]])}, r"latitude must lie between -90 and 90 .* 91\.0"),
        ({"lonlat_deg": torch.tensor([[190.0, 41.9], [12.5, 1.0]])}, r"longitude must lie .* found 190\.0"),
        ({"lonlat_deg": torch.tensor([[float("nan"), 41.9], [12.5, 1.0]])}, r"longitude must lie .* found nan"),
        ({"lonlat_deg": HERE[0]}, r"lonlat_deg must have shape \(2, 2\)"),
        ({"day": torch.zeros(3)}, r"day must have shape \(2,\)"),
    ],
)
def test_forward_features_names_what_is_wrong(change, message, tiny):
    model = create_model("a2mae_vit_tiny_patch8", encoding="own", **tiny)
    call = {"images": IMAGES, "gsd_m": 10.0, "lonlat_deg": HERE, "day": torch.zeros(2), **change}
    with pytest.raises(ValueError, match=message):
        model.forward_features(call.pop("images"), **call)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"pixels": b.pixels[0]}, r"pixels must have shape \(B, K, C, H, W\)"),
        (lambda b: {"pixels": b.pixels / 0}, r"not finite .* in samples \[0, 1\]"),
        (lambda b: {"gsd_m": -b.gsd_m}, r"gsd_m must be positive, found -10\.0"),
        (lambda b: {"gsd_m": b.gsd_m[:, :2]}, r"gsd_m must have shape \(2, 3\) .* found \(2, 2\)"),
        (lambda b: {"valid": b.valid.float()}, r"valid must be bool, found torch\.float32"),
        (lambda b: {"lonlat_deg": b.lonlat_deg * 10}, r"latitude must lie .* found 419\.0"),
        (lambda b: {"same_source_as_anchor": ~b.same_source_as_anchor}, r"must be True for image 0"),
        (lambda b: {"geosot_bits": b.geosot_bits[..., :8]}, r"geosot_bits must have shape \(2, 3, 256\)"),
    ],
)
def test_a_training_batch_is_checked_at_the_door(method, change, message, tiny, make_batch):
    batch = make_batch()
    with pytest.raises(ValueError, match=message):
        create_model(f"{method}_vit_tiny_patch8", **tiny)(dataclasses.replace(batch, **change(batch)))


def test_sides_that_do_not_divide_are_refused(tiny, make_batch):
    with pytest.raises(ValueError, match="multiples of 8 px, found 36 x 48"):
        create_model("a2mae_vit_tiny_patch8", **tiny)(make_batch(height=36))
    with pytest.raises(ValueError, match="multiples of 16 px, found 24 x 48"):
        create_model("scale_mae_vit_tiny_patch8", **tiny)(make_batch(height=24))


def test_scale_mae_says_what_its_target_must_be(tiny):
    model = create_model("scale_mae_vit_tiny_patch8", **tiny)
    with pytest.raises(ValueError, match=r"twice its size, shape \(2, 3, 64, 96\), found None"):
        model(IMAGES, gsd_m=1.0)
    with pytest.raises(ValueError, match=r"found \(2, 3, 32, 48\)"):
        model(IMAGES, gsd_m=1.0, target_images=IMAGES)
    with pytest.raises(ValueError, match="gsd_m is needed"):
        model(IMAGES, target_images=torch.zeros(2, 3, 64, 96))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"keep_ratio": 1.5}, r"keep_ratio .* found 1\.5"),
        ({"encoding": "learned"}, "unknown encoding 'learned'; choose one of sincos"),
        ({"bands": "all"}, "unknown bands 'all'"),
        ({"depth": 0}, "depth must be positive, found 0"),
        ({"embed_dim": 96, "num_heads": 5}, "must be a multiple of num_heads"),
        ({"decoder_dim": 30, "decoder_num_heads": 4}, "decoder_dim"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("a2mae_vit_tiny_patch16", **kwargs)

from __future__ import annotations

import pytest
import torch

from a2mae.models import ImageSetBatch
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.masking import token_validity


def make_batch(
    batch: int = 2,
    images: int = 3,
    bands: int = 3,
    height: int = 32,
    width: int = 48,
    *,
    seed: int = 0,
    all_valid: bool = True,
) -> ImageSetBatch:
    """A batch of random pixels with plausible metadata; image 1 is another date, image 2 another source."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.tensor([0, 0, 1, 0, 1, 2])[:images]
    valid = torch.ones(batch, images, height, width, dtype=torch.bool)
    pixels = torch.randn(batch, images, bands, height, width, generator=generator)
    if not all_valid:
        valid[:, :, : height // 2, : width // 3] = False
        valid[:, -1, -5:] = False
        pixels = pixels * valid[:, :, None]
    wavelength_nm = torch.tensor([492.0, 560.0, 665.0, 833.0, 1614.0, 2202.0])[:bands]
    return ImageSetBatch(
        pixels=pixels,
        gsd_m=torch.tensor([10.0, 10.0, 30.0, 10.0, 30.0, 4.0])[:images].expand(batch, -1).clone(),
        geosot_bits=(torch.rand(batch, images, 256, generator=generator) > 0.5).float(),
        sensor_id=source.expand(batch, -1).clone(),
        day=18000 + 500 * torch.rand(batch, images, generator=generator),
        same_source_as_anchor=(source == 0).expand(batch, -1).clone(),
        valid=valid,
        wavelength_nm=wavelength_nm.expand(batch, images, -1).clone(),
        lonlat_deg=torch.tensor([12.5, 41.9], dtype=torch.float64).expand(batch, images, 2).clone(),
        index=torch.arange(batch),
    )


TINY = {"embed_dim": 64, "depth": 2, "num_heads": 2, "decoder_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}
METHODS = ("a2mae", "scale_mae", "mae")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(name="make_batch")
def make_batch_fixture():
    return make_batch


@pytest.fixture
def tiny() -> dict[str, int]:
    """Widths that make any method run in milliseconds."""
    return dict(TINY)


@pytest.fixture
def encoded():
    """Encodes whole sets, nothing masked, each image with a GSD of its own: `(B, K, N, D)` tokens of a model."""

    def encode(model, batch: ImageSetBatch) -> torch.Tensor:
        place = Place(batch.gsd_m, batch.geosot_bits, batch.day)
        tokens = model.encoder.embed_set(batch.pixels, place, batch.wavelength_nm)
        hidden = ~token_validity(batch.valid, model.patch_size).flatten(1)
        return model.encoder.forward_tokens(tokens.flatten(1, 2), hidden)[:, 1:].unflatten(1, tokens.shape[1:3])

    return encode

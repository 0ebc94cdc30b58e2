from __future__ import annotations

import pytest
import torch

from a2mae.models import ImageSetBatch


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

"""Encode image sets for tasks: all images of a sample in one sequence, as in pretraining, with nothing hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.batch import check_gsd, check_images, check_lonlat
from a2mae.models.encoder import ENCODINGS, Encoder
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.geosot import footprint_bits


def encode_set(
    encoder: Encoder,
    images: Tensor,
    *,
    seen: Tensor,
    gsd_m: Tensor,
    lonlat_deg: Tensor | None = None,
    day: Tensor | None = None,
    wavelength_nm: Tensor | None = None,
    indices: Sequence[int] | None = None,
) -> list[Tensor]:
    """Encode image sets; every token may attend to those of all images.

    Args:
        encoder: Of a method that was pretrained on sets, or of any other that has no groups of bands.
        images: `(B, K, C, H, W)` normalised, H and W multiples of the patch; K images of one place on one grid.
        seen: `(B, K, N)` bool, which patches show something: nobody attends to the others, all of an image that is
            missing.
        gsd_m: `(B,)` metres per pixel as fed.
        lonlat_deg: `(B, 2)` (lon, lat) of each centre, degrees; None: place unknown.
        day: `(B, K)` days since 1970-01-01 UTC; None: dates unknown.
        wavelength_nm: `(B, K, C)` nanometres; only for `bands="wavelength"`.
        indices: Block numbers; None: the end, with the final norm.

    Returns:
        Tokens `(B, 1 + K * N, D)`, CLS first, images in order: after each of `indices`, or at the end.

    Raises:
        InputError: If the encoder reads groups of bands, or an input is of the wrong shape or out of range.
    """
    if encoder.config.groups:
        raise InputError(
            "this encoder reads its groups of bands as if they were images (bands='groups'), so it takes no image sets:"
            " set inputs.images to 1"
        )
    batch, count, _, height, width = images.shape
    check_images(images.flatten(0, 1), encoder.patch_size)
    check_gsd(gsd_m, (batch,))
    bits = None
    if lonlat_deg is not None:
        check_lonlat(lonlat_deg, (batch,))
        if "lonlat_deg" in ENCODINGS[encoder.config.encoding]:
            size_m = torch.stack([gsd_m * width, gsd_m * height], dim=-1)
            bits = footprint_bits(lonlat_deg, size_m, encoder.config.geosot_layer)[:, None].expand(-1, count, -1)
    place = Place(gsd_m[:, None].expand(-1, count), bits, day)
    tokens = encoder.embed_set(images, place, wavelength_nm).flatten(1, 2)
    hidden = ~seen.flatten(1)
    if indices is None:
        return [encoder.forward_tokens(tokens, hidden)]
    return encoder.forward_blocks(tokens, hidden, indices)

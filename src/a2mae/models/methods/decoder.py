"""The plain decoder of MAE and A²-MAE: mask tokens, encodings, a few blocks, one linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from a2mae.models.encoder import EncoderConfig, build_blocks, init_weights
from a2mae.models.layers.bands import GroupPrediction, WavelengthPrediction
from a2mae.models.layers.masking import Mask
from a2mae.models.methods.pretrainer import PretrainConfig


class PixelDecoder(nn.Module):
    """Predicts the pixels of every patch from the visible tokens (MAE §3; A²-MAE: 512 wide, 8 blocks, 16 heads)."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.width = width = config.decoder_dim
        self.embed = nn.Linear(config.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = build_blocks(width, config.decoder_depth, config.decoder_num_heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pred = _head(config, width)
        init_weights(self, config.attention_init)
        for parameter in self.pred.parameters():
            parameter.detach().mul_(config.prediction_init)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tensor, mask: Mask, encoding: Tensor, wavelength_nm: Tensor | None = None) -> Tensor:
        """Predict all patches.

        Args:
            encoded: `(B, 1 + V, D)` of the encoder.
            mask: What the V slots are.
            encoding: `(B, K, N, Dd)` of every patch; for A²-MAE each image's own GSD encoding, no location.
            wavelength_nm: `(B, K, C)`, only read by the wavelength head.

        Returns:
            `(B, K, N, patch * patch * C)`; of all groups together, `(B, 1, N, ...)`, where bands are grouped.
        """
        x = self.embed(encoded)
        cls, x = x[:, :1], mask.restore(x[:, 1:], self.mask_token)  # (B, 1, Dd), (B, K, N, Dd)
        x = x + encoding.to(x.dtype)  # CLS gets zeros
        images, patches = x.shape[1:3]
        x = torch.cat([cls, x.flatten(1, 2)], dim=1)  # one sequence: attention across images
        for block in self.blocks:
            x = block(x)
        x = torch.unflatten(self.norm(x)[:, 1:], 1, (images, patches))
        prediction: Tensor = (
            self.pred(x, wavelength_nm) if isinstance(self.pred, WavelengthPrediction) else self.pred(x)
        )
        return prediction


def _head(encoder: EncoderConfig, width: int) -> nn.Module:
    if encoder.bands == "groups":
        return GroupPrediction(encoder.groups, width, encoder.patch_size)
    if encoder.bands == "wavelength":
        return WavelengthPrediction(encoder.spectral_rank, width, encoder.patch_size)
    return nn.Linear(width, encoder.patch_size**2 * encoder.in_chans)

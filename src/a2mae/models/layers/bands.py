"""From bands to tokens and back: a fixed number of drawn bands, or any bands described by their wavelength."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from a2mae.errors import InputError
from a2mae.models.layers.rcf import RandomConvolutionFeatures

ABSENT_NM = -1.0
"""`wavelength_nm` of a band that only fills the tensor up: it is neither read nor scored."""


class PatchEmbed(nn.Module):
    """One linear map of a patch's pixels. Any sensor fits, since a fixed number of its bands is drawn (A²-MAE)."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor, wavelength_nm: Tensor | None = None) -> Tensor:
        """`(M, C, H, W)` to `(M, N, D)`; the wavelengths are not read."""
        if images.shape[1] != self.in_chans:
            raise InputError(
                f"this encoder reads {self.in_chans} bands (bands='draw3', in_chans={self.in_chans}), found"
                f" {images.shape[1]}: choose that many, or train with bands='wavelength' to read any number"
            )
        tokens: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return tokens


class RCFPatchEmbed(PatchEmbed):
    """The linear map plus one of the patch's random convolution features, whose filters stay as they are [ours].

    Nothing crosses a patch's edge, so hidden patches stay hidden.
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        super().__init__(in_chans, embed_dim, patch_size)
        self.patch_size = patch_size
        self.rcf = RandomConvolutionFeatures(in_chans)
        self.rcf_proj = nn.Linear(self.rcf.num_features, embed_dim)

    def forward(self, images: Tensor, wavelength_nm: Tensor | None = None) -> Tensor:
        """`(M, C, H, W)` to `(M, N, D)`; the wavelengths are not read."""
        tokens = super().forward(images)
        features: Tensor = self.rcf_proj(self.rcf.of_patches(images, self.patch_size))
        return tokens + features


class WavelengthMixing(nn.Module):
    """Weights of a linear map from any bands to `rank` channels, as a smooth function of each band's wavelength [ours].

    This equals a patch kernel of rank `rank` generated per band and costs one small product per pixel. Bands of
    an unseen sensor get the weights of their wavelengths. Radar (0 nm) has one learned vector, so its polarisations
    cannot be told apart.
    """

    frequencies: Tensor

    def __init__(self, rank: int, features: int = 64) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 3, features // 2), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, 128), nn.GELU(), nn.Linear(128, rank))
        self.radar = nn.Parameter(torch.randn(rank) * 0.5)

    def forward(self, wavelength_nm: Tensor) -> Tensor:
        """`(..., C)` nanometres to `(..., C, rank)` weights; absent bands get zeros."""
        octave = torch.log2(wavelength_nm.float().clamp(min=1.0) / 1000)[..., None]  # 0 at 1 µm
        phase = 2 * math.pi * self.frequencies * octave / 4
        weights: Tensor = self.mlp(torch.cat([phase.sin(), phase.cos()], dim=-1).to(self.radar.dtype))
        weights = torch.where(wavelength_nm[..., None] > 0, weights, self.radar)
        return weights * (wavelength_nm >= 0)[..., None]


class WavelengthPatchEmbed(nn.Module):
    """Patch embedding of any number of bands, given their wavelengths [ours]."""

    def __init__(self, rank: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.mixing = WavelengthMixing(rank)
        self.proj = nn.Conv2d(rank, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor, wavelength_nm: Tensor | None = None) -> Tensor:
        """`(M, C, H, W)` and `(M, C)` nanometres to `(M, N, D)`."""
        if wavelength_nm is None:
            raise InputError("bands='wavelength' needs wavelength_nm (B, C) in nanometres; 0 marks radar")
        weights = self.mixing(wavelength_nm)  # (M, C, R)
        present = (wavelength_nm >= 0).sum(-1).clamp(min=1)[:, None, None]
        # Divided by the root of the count, so that the scale of the tokens does not depend on the number of bands.
        mixed = torch.einsum("mchw,mcr->mrhw", images, (weights / present**0.5).to(images.dtype))
        tokens: Tensor = self.proj(mixed).flatten(2).transpose(1, 2)
        return tokens


class WavelengthPrediction(nn.Module):
    """Head that predicts the pixels of any bands from a token, given their wavelengths [ours]."""

    def __init__(self, rank: int, decoder_dim: int, patch_size: int) -> None:
        super().__init__()
        self.rank = rank
        self.mixing = WavelengthMixing(rank)
        self.proj = nn.Linear(decoder_dim, patch_size * patch_size * rank)

    def forward(self, tokens: Tensor, wavelength_nm: Tensor) -> Tensor:
        """`(..., N, D)` and `(..., C)` nanometres to `(..., N, patch * patch * C)`, band fastest."""
        basis = torch.unflatten(self.proj(tokens), -1, (-1, self.rank))  # (..., N, p*p, R)
        weights = self.mixing(wavelength_nm).to(basis.dtype) / self.rank**0.5  # (..., C, R)
        return torch.einsum("...npr,...cr->...npc", basis, weights).flatten(-2)


class GroupPatchEmbed(nn.Module):
    """One linear map, and thus tokens, per group of bands (SatMAE §3.3)."""

    def __init__(self, groups: tuple[tuple[int, ...], ...], embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.groups = groups
        self.members = nn.ModuleList(PatchEmbed(len(group), embed_dim, patch_size) for group in groups)

    def forward(self, images: Tensor, wavelength_nm: Tensor | None = None) -> Tensor:
        """`(M, C, H, W)` to `(M, G, N, D)`; the wavelengths are not read."""
        bands = sum(len(group) for group in self.groups)
        if images.shape[1] != bands:
            raise InputError(f"this encoder reads {bands} bands in groups {self.groups}, found {images.shape[1]}")
        members = zip(self.members, self.groups, strict=True)
        return torch.stack([member(images[:, list(group)]) for member, group in members], dim=1)


class GroupPrediction(nn.Module):
    """One linear head per group of bands; the predictions come in the order of the bands."""

    order: Tensor

    def __init__(self, groups: tuple[tuple[int, ...], ...], decoder_dim: int, patch_size: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Linear(decoder_dim, patch_size**2 * len(group)) for group in groups)
        self.sizes = [len(group) for group in groups]
        order = torch.tensor([band for group in groups for band in group]).argsort()
        self.register_buffer("order", order, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(M, G, N, D)` to `(M, 1, N, patch * patch * C)`, band fastest."""
        parts = [
            torch.unflatten(member(tokens[:, index]), -1, (-1, size))  # (M, N, p*p, |g|)
            for index, (member, size) in enumerate(zip(self.members, self.sizes, strict=True))
        ]
        return torch.cat(parts, dim=-1)[..., self.order].flatten(-2)[:, None]

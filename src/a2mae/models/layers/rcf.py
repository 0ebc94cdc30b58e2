"""Random convolution features: filters drawn from whitened windows of images, rectified and pooled; nothing is trained.

The features of Coates and Ng (2012, "Learning feature representations with k-means", random patches in place of
centres), which MOSAIKS (Rolf et al. 2021, arXiv 2010.08168) showed to be a strong baseline for satellite images. Here
they serve three purposes: the bar that a pretrained encoder has to clear, a stem beside the patch embedding, and a
target of pretraining.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.layers.masking import patchify, whole_patches

SMOOTHING = 0.1
"""Share of the mean eigenvalue that is added before whitening: directions of mere noise are not blown up."""
THRESHOLD = 0.5
"""A response counts by how far it exceeds this, in units of the whitened windows' length."""
KERNEL_SIZE = 5
"""Side of a filter, pixels."""
WINDOWS = 4000
"""Windows from which the filters and their whitening are made."""
_BLOCK_PLACES = (3, 4, 5, 2)
"""Places of a filter along a block's side: the first that divides those of a patch. One of 8 pixels is one block."""
_PIXELS_AT_ONCE = 16_384
"""Of patches on a CPU: their responses stay in a core's cache."""
LIMIT = 5.0
"""Standardised features of a patch are cut off here: a glint or a cloud's edge does not rule a loss."""


class RandomConvolutionFeatures(nn.Module):
    """Rectified responses of frozen filters, averaged over an image or over each patch.

    Two features per filter: how far responses lie above the threshold, and how far below its negative. All filters are
    buffers: they are saved with a model and never trained.

    Attributes:
        num_features: Twice the number of filters.
    """

    mean: Tensor
    filters: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, in_chans: int, num_filters: int = 128, kernel_size: int = KERNEL_SIZE) -> None:
        """Make room for the filters; `fit` fills it.

        Args:
            in_chans: Bands C that are read at once.
            num_filters: How many filters.
            kernel_size: Their side, pixels.
        """
        super().__init__()
        self.num_features = 2 * num_filters
        self.register_buffer("mean", torch.zeros(in_chans, kernel_size, kernel_size))
        self.register_buffer("filters", torch.zeros(num_filters, in_chans, kernel_size, kernel_size))
        self.register_buffer("feature_mean", torch.zeros(self.num_features))
        self.register_buffer("feature_std", torch.ones(self.num_features))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called, or a fitted state loaded."""
        return bool(self.filters.any())

    @torch.no_grad()
    def fit(
        self,
        images: Tensor,
        valid: Tensor | None = None,
        *,
        patch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw the filters from windows of images, and measure what the features come to on these images.

        A filter is `W unit(W (q - m))` for a window q, the windows' mean m and their ZCA whitening W.

        Args:
            images: `(N, C, H, W)` normalised, of the training split.
            valid: `(N, H, W)` bool; windows with a pixel that was not seen are not drawn. None: all were seen.
            patch_size: Standardise features pooled over patches of this side; None: over whole images.
            generator: On the CPU, for filters that can be drawn again.

        Raises:
            InputError: If there are fewer whole windows than filters.
        """
        num_filters, in_chans, size, _ = self.filters.shape
        whole = _whole_windows(images, valid, size)  # (N, H - size + 1, W - size + 1)
        places = whole.nonzero()
        if len(places) < num_filters:
            raise InputError(
                f"random convolution features need {num_filters} windows of {size} x {size} pixels that were seen as a"
                f" whole, found {len(places)}: give more or larger images"
            )
        drawn = places[torch.randperm(len(places), generator=generator)[:WINDOWS]]
        windows = torch.stack(
            [images[n, :, y : y + size, x : x + size].flatten() for n, y, x in drawn.tolist()]
        ).double()  # (Q, D)
        mean = windows.mean(0)
        centred = windows - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(windows))
        scale = (values.clamp(min=0) + SMOOTHING * values.clamp(min=0).mean()).clamp(min=1e-12).rsqrt()
        whitening = vectors * scale @ vectors.T  # (D, D), symmetric
        filters = F.normalize(centred[:num_filters] @ whitening, dim=1) @ whitening
        self.mean.copy_(mean.view(in_chans, size, size))
        self.filters.copy_(filters.view_as(self.filters))
        self.feature_mean.zero_()
        self.feature_std.fill_(1.0)
        features = self(images, valid) if patch_size is None else self._pooled_patches(images, patch_size)
        if patch_size is not None and valid is not None:
            features = features[whole_patches(valid, patch_size)]
        features = features.flatten(0, -2)
        self.feature_mean.copy_(features.mean(0))
        self.feature_std.copy_(features.std(0).clamp(min=1e-3))

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the standardised features of whole images.

        Args:
            images: `(N, C, H, W)`.
            valid: `(N, H, W)` bool; only windows that were seen as a whole count. None: all were seen.

        Returns:
            `(N, 2 J)`; an image without a whole window has the mean features, zeros.
        """
        responses = self._responses(images)  # (N, 2 J, h, w)
        if valid is None:
            pooled = responses.mean((-2, -1))
        else:
            whole = _whole_windows(images, valid, self.filters.shape[-1])[:, None].to(responses.dtype)
            count = whole.sum((-2, -1))
            pooled = (responses * whole).sum((-2, -1)) / count.clamp(min=1)
            pooled = torch.where(count > 0, pooled, self.feature_mean.to(pooled.dtype))
        return self._standardised(pooled)

    def of_patches(self, images: Tensor, patch_size: int) -> Tensor:
        """Compute the standardised features of each patch, from the windows that lie wholly inside it.

        Nothing crosses a patch's edge, so a hidden patch cannot be read off its neighbours.

        Args:
            images: `(..., C, H, W)`, H and W multiples of the patch.
            patch_size: Side of a patch, at least the filters' side, pixels.

        Returns:
            `(..., N, 2 J)`, patches row by row, each within ±`LIMIT`.

        Raises:
            InputError: If the patch is smaller than the filters.
        """
        return self._standardised(self._pooled_patches(images, patch_size)).clamp(-LIMIT, LIMIT)

    def _pooled_patches(self, images: Tensor, patch_size: int) -> Tensor:
        size = self.filters.shape[-1]
        if patch_size < size:
            raise InputError(f"patches of {patch_size} pixels are smaller than the filters of {size}")
        patches = patchify(images, patch_size)  # (..., N, p * q * C)
        # The filters at every place inside a patch as one matrix: on a CPU faster than convolutions of so small images,
        # though most of its entries are 0. Of a larger patch at the places inside overlapping blocks: fewer are 0.
        across = patch_size - size + 1
        places = next((count for count in _BLOCK_PLACES if across % count == 0), across)
        side = places + size - 1
        filters = self.filters.movedim(1, -1)  # (J, k, k, C)
        matrix = filters.new_zeros(places, places, len(filters), side, side, filters.shape[-1])
        for row in range(places):
            for column in range(places):
                matrix[row, column, :, row : row + size, column : column + size] = filters
        matrix, bias = matrix.flatten(3).flatten(0, 2).T, self._bias().repeat(places**2)
        squares = patches.reshape(-1, patch_size, patch_size, images.shape[-3])
        if images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # else it would be cast for every product
            matrix = matrix.to(torch.get_autocast_dtype("cpu"))
        pooled = []
        for some in split_for_cache(squares, patch_size**2, _PIXELS_AT_ONCE):
            blocks = some.unfold(1, side, places).unfold(2, side, places)  # (n, b, b, C, side, side)
            flat = blocks.movedim(3, -1).flatten(3).flatten(0, 2)
            response = torch.addmm(bias, flat, matrix).view(len(some), across**2, -1)
            # The product may be bfloat16 (autocast); what is standardised is not.
            high = response.clamp(min=THRESHOLD).mean(1, dtype=torch.float32)
            low = response.clamp(max=-THRESHOLD).mean(1, dtype=torch.float32)
            pooled.append(torch.cat([high - THRESHOLD, -low - THRESHOLD], dim=1))
        return torch.cat(pooled).view(*patches.shape[:-1], self.num_features)

    def _responses(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, 2 J, H - k + 1, W - k + 1)`, rectified."""
        response = F.conv2d(images, self.filters, self._bias())
        return torch.cat([F.relu(response - THRESHOLD), F.relu(-response - THRESHOLD)], dim=1)

    def _bias(self) -> Tensor:
        return -(self.filters * self.mean).sum((1, 2, 3))

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.feature_mean) / self.feature_std


def split_for_cache(values: Tensor, pixels: int, at_once: int) -> tuple[Tensor, ...]:
    """Split a batch on a CPU into parts that stay in a core's cache; on other devices it stays whole.

    Args:
        values: `(N, ...)`.
        pixels: How many pixels one of them has.
        at_once: How many pixels a part may have.
    """
    return torch.split(values, max(at_once // pixels, 1)) if values.device.type == "cpu" else (values,)


def _whole_windows(images: Tensor, valid: Tensor | None, size: int) -> Tensor:
    """`(N, H - size + 1, W - size + 1)` bool: windows of which every pixel was seen."""
    if valid is None:
        count, _, height, width = images.shape
        return torch.ones(count, height - size + 1, width - size + 1, dtype=torch.bool, device=images.device)
    unseen = F.max_pool2d((~valid)[:, None].float(), size, stride=1)[:, 0]
    return unseen == 0

"""Read image sets: one sequence per set through the encoder, then one token per place, as heads know it.

An encoder that reads one image at a time (timm's, random convolution features) is given the images of a set one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.models.encoder import Encoder
from a2mae.models.sets import encode_set
from a2mae.models.timm_encoder import TimmEncoder
from a2mae.tasks.datasets.inputs import TaskBatch


@dataclass(frozen=True)
class SetTokens:
    """Tokens of image sets as one level of an encoder gives them.

    Attributes:
        cls: `(B, 1, D)`.
        patches: `(B, K, N, D)`.
        seen: `(B, K, N)` bool, which of them an image shows.
        grid: Patches in height and width.
    """

    cls: Tensor
    patches: Tensor
    seen: Tensor
    grid: tuple[int, int]

    def take(self, rows: Tensor) -> SetTokens:
        """Choose samples of the batch by their positions."""
        return replace(self, cls=self.cls[rows], patches=self.patches[rows], seen=self.seen[rows])


@dataclass(frozen=True)
class Encoded:
    """What an encoder gives for a batch, by date, view and level; of single images or of sets, the other is empty.

    Attributes:
        images: Maps `(B, D, h, w)`, or the last tokens `(B, 1 + N, D)`.
        sets: Their tokens.
    """

    images: Sequence[Sequence[Sequence[Tensor]]] = ()
    sets: Sequence[Sequence[Sequence[SetTokens]]] = ()

    def take(self, rows: Tensor) -> Encoded:
        """Choose samples of the batch by their positions."""
        return Encoded(
            [[[level[rows] for level in view] for view in date] for date in self.images],
            [[[level.take(rows) for level in view] for view in date] for date in self.sets],
        )

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """Join batches to one."""
        images = [
            [[torch.cat(level) for level in zip(*view, strict=True)] for view in zip(*date, strict=True)]
            for date in zip(*(part.images for part in parts), strict=True)
        ]
        sets = [
            [[_joined_sets(level) for level in zip(*view, strict=True)] for view in zip(*date, strict=True)]
            for date in zip(*(part.sets for part in parts), strict=True)
        ]
        return cls(images, sets)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it consists of."""
        of_sets = [
            part for date in self.sets for view in date for one in view for part in (one.cls, one.patches, one.seen)
        ]
        return [level for date in self.images for view in date for level in view] + of_sets


def _joined_sets(parts: Sequence[SetTokens]) -> SetTokens:
    cls, patches, seen = ([getattr(part, name) for part in parts] for name in ("cls", "patches", "seen"))
    return SetTokens(torch.cat(cls), torch.cat(patches), torch.cat(seen), parts[0].grid)


def set_tokens(
    encoder: Encoder | TimmEncoder, batch: TaskBatch, width: int, levels: Sequence[int] | None = None
) -> Iterator[list[SetTokens]]:
    """Encode image sets view by view.

    Args:
        encoder: Its pretraining or task decides what it is.
        batch: Of image sets.
        width: Bands of a view.
        levels: Blocks or stages; None: the last one, with the final norm.

    Yields:
        For each view, what each level gives. An image that has no band of a view is missing there.
    """
    assert batch.valid is not None, "a batch of image sets"
    views = zip(torch.split(batch.images, width, dim=2), torch.split(batch.wavelength_nm, width, dim=2), strict=True)
    for images, wavelength_nm in views:
        valid = batch.valid & (wavelength_nm >= 0).any(dim=-1)[..., None, None]  # (B, K, H, W)
        if not isinstance(encoder, Encoder):
            yield _one_by_one(encoder, images, valid, levels)
            continue
        height, length = (side // encoder.patch_size for side in images.shape[-2:])
        seen = _on_grid(valid, (height, length))
        found = encode_set(
            encoder,
            images,
            seen=seen,
            gsd_m=batch.gsd_m,
            lonlat_deg=batch.lonlat_deg,
            day=batch.day,
            wavelength_nm=wavelength_nm,
            indices=levels,
        )
        yield [
            SetTokens(x[:, :1], torch.unflatten(x[:, 1:], 1, (images.shape[1], -1)), seen, (height, length))
            for x in found
        ]


def _one_by_one(encoder: TimmEncoder, images: Tensor, valid: Tensor, levels: Sequence[int] | None) -> list[SetTokens]:
    """Encode the images of sets on their own; the class token is the mean over those that are there."""
    count = images.shape[1]
    if levels is not None:
        found = []
        for level in encoder.forward_intermediates(images.flatten(0, 1), levels):
            grid = (level.shape[-2], level.shape[-1])
            patches = torch.unflatten(level.flatten(2).transpose(1, 2), 0, (-1, count))
            found.append(SetTokens(patches[:, 0, :1], patches, _on_grid(valid, grid), grid))
        return found
    tokens = torch.unflatten(encoder.forward_features(images.flatten(0, 1)), 0, (-1, count))  # (B, K, 1 + N, D)
    places = tokens.shape[2] - 1
    height = round(math.sqrt(places * images.shape[-2] / images.shape[-1]))
    grid = (height, places // height)
    there = valid.flatten(2).any(dim=2)[..., None].float()  # (B, K, 1)
    cls = (tokens[:, :, 0] * there).sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
    return [SetTokens(cls, tokens[:, :, 1:], _on_grid(valid, grid), grid)]


def _on_grid(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tell which patches show anything: `(B, K, H, W)` to `(B, K, N)`."""
    return F.adaptive_max_pool2d(valid.float(), grid).flatten(2) > 0


class SetJoiner(nn.Module):
    """Joins the tokens of one place over the images that show it: a mean, weighted by attention or all alike.

    For attention a learned query looks at every image's token, so that the weights say which image counts where. They
    start equal: training begins at the mean. What no image shows is 0.
    """

    def __init__(self, channels: Sequence[int], mode: str) -> None:
        """Make the joiner.

        Args:
            channels: Width D of the tokens of each level of each view.
            mode: `attention` or `mean`.
        """
        super().__init__()
        self.queries = nn.ModuleList()
        for width in channels if mode == "attention" else ():
            query = nn.Linear(width, 1, bias=False)
            nn.init.zeros_(query.weight)
            self.queries.append(nn.Sequential(nn.LayerNorm(width), query))

    def weights(self, level: int, found: SetTokens) -> Tensor:
        """Weigh the images of each place: `(B, K, N)` float32, with a sum of 1, or 0 where none shows it.

        Args:
            level: Which of `channels` they are.
            found: The tokens.
        """
        score = torch.zeros(found.seen.shape, device=found.seen.device)
        if len(self.queries):
            score = self.queries[level](found.patches).squeeze(-1).float()
        weight = score.masked_fill(~found.seen, torch.finfo(score.dtype).min).softmax(dim=1)
        return weight * found.seen

    def tokens(self, views: Iterable[Sequence[SetTokens]], batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Join the last level of each view.

        Args:
            views: Of `set_tokens` without levels.
            batch: That they are of.

        Returns:
            Tokens `(B, 1 + N, D * views)`, CLS first, and the pixels `(B, C, H, W)`, joined by the same weights.
        """
        parts, weights = [], []
        for number, (found,) in enumerate(views):
            weights.append((self.weights(number, found), found.grid))
            parts.append(joined_tokens(found, weights[-1][0]))
        return torch.cat(parts, dim=-1), _joined_pixels(batch, weights)

    def maps(self, views: Iterable[Sequence[SetTokens]], batch: TaskBatch) -> tuple[list[Tensor], Tensor]:
        """Join every level of each view.

        Args:
            views: Of `set_tokens`.
            batch: That they are of.

        Returns:
            Levels `(B, D * views, h, w)`, and the pixels `(B, C, H, W)`, joined by the weights of the last level.
        """
        per_view, weights, number = [], [], 0
        for levels in views:
            joined = []
            for found in levels:
                weight = self.weights(number, found)
                joined.append(torch.unflatten(_mean(found, weight).transpose(1, 2), 2, found.grid))
                number += 1
            per_view.append(joined)
            weights.append((weight, found.grid))
        return [torch.cat(level, dim=1) for level in zip(*per_view, strict=True)], _joined_pixels(batch, weights)


def joined_tokens(found: SetTokens, weight: Tensor) -> Tensor:
    """Give tokens `(B, 1 + N, D)`, CLS first: of each place the mean over images by a weight `(B, K, N)`."""
    return torch.cat([found.cls, _mean(found, weight)], dim=1)


def _mean(found: SetTokens, weight: Tensor) -> Tensor:
    return (found.patches * weight[..., None].to(found.patches.dtype)).sum(dim=1)


def _joined_pixels(batch: TaskBatch, weights: Sequence[tuple[Tensor, tuple[int, int]]]) -> Tensor:
    """Join the pixels of sets, band by band, by what their view's tokens weigh, over the images that show a pixel."""
    assert batch.valid is not None, "a batch of image sets"
    width = batch.images.shape[2] // len(weights)
    seen = batch.valid[:, :, None] & (batch.wavelength_nm >= 0)[..., None, None]  # (B, K, C, H, W)
    parts = []
    for (weight, grid), images, there in zip(
        weights, torch.split(batch.images, width, dim=2), torch.split(seen, width, dim=2), strict=True
    ):
        of_pixels = F.interpolate(torch.unflatten(weight, 2, grid), size=images.shape[-2:], mode="nearest")
        share = of_pixels[:, :, None] * there
        parts.append((images * share).sum(dim=1) / share.sum(dim=1).clamp(min=1e-6))
    return torch.cat(parts, dim=1)

"""Task models: an encoder with a task's head, the symmetries of images, and LoRA updates.

LoRA (arXiv 2106.09685): low-rank updates of a frozen encoder's attention, merged into its weights at the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.encoder import Encoder, Matcher, nested
from a2mae.models.timm_encoder import TimmEncoder, levels_of
from a2mae.tasks.datasets.inputs import TaskBatch
from a2mae.tasks.finetune.heads import (
    AttentiveHead,
    ChangeFusion,
    ConvDecoder,
    DetailDecoder,
    LinearDecoder,
    LinearHead,
    RCFDecoder,
    RCFHead,
    UPerNetHead,
)
from a2mae.tasks.finetune.sets import SetJoiner, set_tokens
from a2mae.tasks.finetune.values import ValueScaling
from a2mae.tasks.registry import Task

TaskEncoder = Encoder | TimmEncoder
"""What a task model may be built on."""


@dataclass(frozen=True)
class Symmetry:
    """One of the eight symmetries of a square, which leave a satellite image a satellite image.

    Attributes:
        turns: Quarter turns, counter-clockwise.
        mirror: Left and right exchanged after the turns.
    """

    turns: int
    mirror: bool

    def move(self, images: Tensor) -> Tensor:
        """Turn and mirror `(..., H, W)`; its sides change places with an odd number of turns."""
        moved = torch.rot90(images, self.turns, (-2, -1))
        return (moved.flip(-1) if self.mirror else moved).contiguous()

    def undo(self, images: Tensor) -> Tensor:
        """Move `(..., H, W)` back: the inverse of `move`."""
        moved = images.flip(-1) if self.mirror else images
        return torch.rot90(moved, -self.turns, (-2, -1)).contiguous()


def symmetries(height: int, width: int) -> tuple[Symmetry, ...]:
    """Return those that keep an image's shape: eight of a square, else four; the first changes nothing."""
    turns = range(4) if height == width else (0, 2)
    return tuple(Symmetry(turn, mirror) for mirror, turn in itertools.product((False, True), turns))


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of low rank, which starts at zero.

    Layers that compute with another's `weight` and `bias` (Swin v2, EVA) find both.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and its update: `(..., in)` → `(..., out)`."""
        out: Tensor = self.linear(x)
        return out + F.linear(F.linear(x, self.down), self.up)

    @property
    def weight(self) -> Tensor:
        """The layer's weight with its update."""
        return self.linear.weight + self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.linear.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Fold the update into the plain layer."""
        self.linear.weight += self.up @ self.down
        return self.linear.requires_grad_(True)


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Freeze an encoder and put a low-rank update on every attention's `qkv` and `proj`.

    Raises:
        InputError: If it has no attention with such layers.
    """
    encoder.requires_grad_(False)
    updated = 0
    for name, module in list(encoder.named_modules()):
        if name.endswith("attn"):
            for layer in ("qkv", "q_proj", "k_proj", "v_proj", "proj"):
                if isinstance(found := getattr(module, layer, None), nn.Linear):
                    setattr(module, layer, LoRALinear(found, rank))
                    updated += 1
    if not updated:
        raise InputError("finetune.mode lora updates attention, and this encoder has none: take full or frozen")


def merge_lora(encoder: nn.Module) -> None:
    """Fold all updates into their layers: the encoder has its plain architecture again."""
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())


@dataclass(frozen=True)
class HeadConfig:
    """Everything that a task model is made of but the encoder; saved beside its weights.

    Attributes:
        task: What is predicted.
        head: One of `task.kind.heads`.
        classes: K; 1 for a value.
        views: How many views (groups of bands) an image has.
        bands_per_view: Bands of a view.
        fusion: How two dates are joined (change only): see `ChangeFusion`.
        multi_label: Classification with any number of classes per image.
        symmetric: Answer with the mean over the image's symmetries; in evaluation, eight times the work.
        scaling: How outputs stand for values; None: they are logits of classes.
        images: Of a set, at most; 1 where samples are no image sets.
        join: How the images of a set are joined: see `SetJoiner`.
    """

    task: Task
    head: str
    classes: int
    views: int = 1
    bands_per_view: int = 3
    fusion: str = "difference_concat"
    multi_label: bool = False
    symmetric: bool = False
    scaling: ValueScaling | None = None
    images: int = 1
    join: str = "attention"

    def __post_init__(self) -> None:
        """Reject a head that the task does not have."""
        heads = self.task.kind.heads
        if self.head not in heads:
            raise InputError(f"{self.task}: head must be one of {', '.join(heads)}, found {self.head!r}")

    @property
    def per_pixel(self) -> bool:
        """Whether there is an answer for every pixel; else there is one per image."""
        return self.task.kind.answers_pixels(self.head)

    def answers(self, outputs: Tensor) -> Tensor:
        """Turn outputs `(B, K, ...)` into classes (uint8) or values, `(B, ...)`; several labels are 0 and 1."""
        if self.scaling is not None:
            return self.scaling.values(outputs[:, 0])
        return (outputs > 0 if self.multi_label else outputs.argmax(dim=1)).to(torch.uint8)

    def to_dict(self) -> dict[str, object]:
        """Return it JSON-ready; `head_config_from_dict` reads it back."""
        found = dataclasses.asdict(self)
        if self.images == 1:  # models of single images are described as before there were sets
            del found["images"], found["join"]
        return found


def head_config_from_dict(data: Mapping[str, Any]) -> HeadConfig:
    """Read `HeadConfig.to_dict` back."""
    scaling = data.get("scaling")
    return HeadConfig(
        **{**data, "task": Task(data["task"]), "scaling": None if scaling is None else ValueScaling(**scaling)}
    )


class _Metadata(TypedDict):
    gsd_m: Tensor
    lonlat_deg: Tensor | None
    day: Tensor | None
    wavelength_nm: Tensor


class TaskModel(nn.Module):
    """Encoder and head. Views of three bands run through one shared encoder; so do the two dates of a pair."""

    def __init__(self, encoder: TaskEncoder, config: HeadConfig) -> None:
        """Join an encoder and a new head.

        Args:
            encoder: Pretrained or not.
            config: What to build.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder
        features = encoder.num_features * config.views
        bands = config.views * config.bands_per_view
        patch = encoder.patch_size
        self.head: nn.Module
        self.levels = levels_of(encoder.feature_info)
        if not config.per_pixel:
            self._add_joiner([encoder.num_features])
            if config.head == "rcf":
                self.head = RCFHead(features, config.classes, bands)
            elif config.head == "attentive":
                self.head = AttentiveHead(features, config.classes)
            else:
                self.head = LinearHead(features, config.classes, pool="cls" if config.head == "linear" else "mean")
            return
        fused = config.task.kind.dates == 2
        if config.head == "linear":
            self.levels = self.levels[-1:]
        channels = [encoder.feature_info[level].num_chs * config.views for level in self.levels]
        reductions = [encoder.feature_info[level].reduction for level in self.levels]
        if config.head == "linear":
            self.head = LinearDecoder(channels, config.classes, patch, fused=fused)
        elif config.head == "conv":
            self.head = ConvDecoder(channels, config.classes, patch, fused=fused)
        elif config.head == "rcf":
            self.head = RCFDecoder(channels, config.classes, patch, bands, fused=fused)
        elif config.head == "detail":
            self.head = DetailDecoder(channels, config.classes, bands * (3 if fused else 1), fused=fused)
        else:
            pyramid = len(set(reductions)) > 1
            self.head = UPerNetHead(channels, config.classes, reductions[0], pyramid=pyramid)
        if fused:
            self.fusion = ChangeFusion(channels, config.fusion)
        self._add_joiner([encoder.feature_info[level].num_chs for level in self.levels])

    def _add_joiner(self, channels: Sequence[int]) -> None:
        if self.config.images > 1:
            self.joiner = SetJoiner([*channels] * self.config.views, self.config.join)

    def forward(self, batch: TaskBatch) -> Tensor:
        """Predict `(B, K)` or `(B, K, H, W)` logits of a batch."""
        if self.training or not self.config.symmetric:
            return self._logits(batch)
        answers = []
        for symmetry in symmetries(*batch.images.shape[-2:]):
            logits = self._logits(batch.moved(symmetry.move))
            answers.append(symmetry.undo(logits) if self.config.per_pixel else logits)
        return torch.stack(answers).mean(dim=0)

    def _logits(self, batch: TaskBatch) -> Tensor:
        logits: Tensor
        if not self.config.per_pixel:
            tokens, pixels = self._tokens(batch)
            logits = self.head(tokens, pixels) if self.config.head == "rcf" else self.head(tokens)
            return logits
        maps, dates = self._maps(batch)
        if self.config.head != "upernet":
            maps = self._on_one_grid(maps)
        if self.config.head == "rcf":
            logits = self.head(maps, dates)
        else:
            logits = self.head(maps, _pixels(dates)) if self.config.head == "detail" else self.head(maps)
        size = batch.images.shape[-2:]
        if logits.shape[-2:] != size:  # the encoder was fed images of another size
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits

    def _on_one_grid(self, maps: list[Tensor]) -> list[Tensor]:
        """Bring a pyramid's levels to the grid of whole patches; a vision transformer's are there."""
        coarsest = self.encoder.feature_info[self.levels[-1]].reduction // self.encoder.patch_size
        height, width = (side * coarsest for side in maps[-1].shape[-2:])
        return [
            level
            if level.shape[-2:] == (height, width)
            else F.interpolate(level, (height, width), mode="bilinear", align_corners=False)
            for level in maps
        ]

    def _tokens(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Encode the only date or the set, views side by side: `(B, 1 + N, D * views)`; and give its pixels."""
        if batch.valid is not None:
            return self.joiner.tokens(set_tokens(self.encoder, batch, self.config.bands_per_view), batch)
        views = torch.split(batch.images[:, 0], self.config.bands_per_view, dim=1)
        tokens = [self.encoder.forward_features(v, **self._metadata(batch, 0, i)) for i, v in enumerate(views)]
        return torch.cat(tokens, dim=-1), batch.images[:, 0]

    def _maps(self, batch: TaskBatch) -> tuple[list[Tensor], Tensor]:
        """Encode all dates, or the set, to levels `(B, D * views, h, w)`; and give pixels `(B, dates, C, H, W)`."""
        if batch.valid is not None:
            views = set_tokens(self.encoder, batch, self.config.bands_per_view, self.levels)
            maps, pixels = self.joiner.maps(views, batch)
            return maps, pixels[:, None]
        maps = self._maps_of(batch, 0)
        if self.config.task.kind.dates == 2:
            maps = self.fusion(maps, self._maps_of(batch, 1))
        return maps, batch.images

    def _maps_of(self, batch: TaskBatch, time: int) -> list[Tensor]:
        """Encode one date to levels, views side by side: `(B, D * views, h, w)` each."""
        views = torch.split(batch.images[:, time], self.config.bands_per_view, dim=1)
        per_view = [
            self.encoder.forward_intermediates(v, self.levels, **self._metadata(batch, time, i))
            for i, v in enumerate(views)
        ]
        return [torch.cat(level, dim=1) for level in zip(*per_view, strict=True)]

    def _metadata(self, batch: TaskBatch, time: int, view: int) -> _Metadata:
        width = self.config.bands_per_view
        return {
            "gsd_m": batch.gsd_m,
            "lonlat_deg": batch.lonlat_deg,
            "day": None if batch.day is None else batch.day[:, time],
            "wavelength_nm": batch.wavelength_nm[view * width : (view + 1) * width],
        }

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """Group layers by depth for timm's layer-wise learning rate decay: the encoder's, then everything else."""
        return nested(self.encoder.group_matcher(coarse), "encoder.")


def _pixels(dates: Tensor) -> Tensor:
    """Return all bands of the date `(B, 1, C, H, W)`; of two dates both and their difference."""
    if dates.shape[1] == 1:
        return dates[:, 0]
    before, after = dates.unbind(1)
    return torch.cat([before, after, (after - before).abs()], dim=1)

"""Task models: an encoder with a task's head, and the symmetries of images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.encoder import Encoder
from a2mae.models.layers.blocks import Matcher, nested
from a2mae.models.precision import ComputePrecision, autocast
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
    of_dates,
)
from a2mae.tasks.finetune.sets import Encoded, SetJoiner, set_tokens
from a2mae.tasks.finetune.transitions import decided, split_outputs
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


def flipped(batch: TaskBatch, symmetry: Symmetry, *, pixels: bool) -> TaskBatch:
    """Flip and turn a batch; targets with it where they are pixels.

    One symmetry for the whole batch keeps it one cheap view; over the steps every image meets all eight.

    Args:
        batch: Square, or quarter turns become none and halves.
        symmetry: As drawn for squares.
        pixels: Targets are pixels.
    """
    height, width = batch.images.shape[-2:]
    chosen = symmetry if height == width else dataclasses.replace(symmetry, turns=2 * (symmetry.turns // 2))
    targets = chosen.move(batch.targets) if pixels else batch.targets
    return dataclasses.replace(batch.moved(chosen.move), targets=targets)


_MOST = 1_000
"""Classes, views, bands and images of a head."""


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
        temperature: What logits are divided by before they become probabilities.
        thresholds: Probability from which a yes is a yes: of each label, or of a change; empty: the most probable.
        images: Of a set, at most, at each date; None where samples are no image sets.
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
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    images: int | None = None
    join: str = "attention"

    def __post_init__(self) -> None:
        """Reject a head that the task does not have, and numbers that nobody builds: a foreign file may hold them."""
        for name in ("classes", "views", "bands_per_view", "images"):
            count = getattr(self, name)
            if (name, count) != ("images", None) and (type(count) is not int or not 0 < count <= _MOST):
                raise InputError(f"{name} must be a whole number from 1 to {_MOST:,}, found {str(count)[:80]!r}")
        heads = self.task.kind.heads
        if self.head not in heads:
            raise InputError(f"{self.task}: head must be one of {', '.join(heads)}, found {self.head!r}")
        if not 1e-3 <= self.temperature <= 1e3 or not all(0 <= least <= 1 for least in self.thresholds):
            raise InputError(
                f"temperature must be 0.001 to 1,000 and thresholds from 0 to 1, found {self.temperature}"
                f" and {self.thresholds}"
            )

    @property
    def per_pixel(self) -> bool:
        """Whether there is an answer for every pixel; else there is one per image."""
        return self.task.kind.answers_pixels(self.head)

    @property
    def outputs(self) -> int:
        """How many numbers a model gives: one per class, or the value; of semantic change K, K and 2."""
        return 2 * self.classes + 2 if self.task.kind.transitions else self.classes

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Turn outputs `(B, outputs, ...)` of classes into probabilities of the same shape.

        They are those of one class; of several labels of each; of semantic change of the class before, the class after,
        and of unchanged and changed.
        """
        logits = outputs.float() / self.temperature
        if self.multi_label:
            return logits.sigmoid()
        return torch.cat([part.softmax(dim=1) for part in self.parts(logits)], dim=1)

    def parts(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Split outputs `(B, outputs, ...)` into those of one distribution each."""
        return split_outputs(outputs, self.classes) if self.task.kind.transitions else (outputs,)

    def decided(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Decide by probabilities `(B, outputs, ...)`.

        Returns:
            Labels `(B, ...)` uint8, several are `(B, K)` of 0 and 1; and the probability of each.
        """
        if self.multi_label:
            least = probabilities.new_tensor(self.thresholds or [0.5] * self.classes)
            yes = probabilities > least
            return yes.to(torch.uint8), torch.where(yes, probabilities, 1 - probabilities)
        if self.task.kind.transitions:
            change = self.thresholds[0] if self.thresholds else 0.5
            return decided(*split_outputs(probabilities, self.classes), least=change)
        if self.thresholds:  # of the second class of two
            yes = probabilities[:, 1] > self.thresholds[0]
            return yes.to(torch.uint8), torch.where(yes, probabilities[:, 1], probabilities[:, 0])
        found = probabilities.max(dim=1)
        return found.indices.to(torch.uint8), found.values

    def answers(self, outputs: Tensor) -> Tensor:
        """Turn outputs `(B, outputs, ...)` into labels (uint8) or values, `(B, ...)`; several labels are 0 and 1."""
        if self.scaling is not None:
            return self.scaling.values(outputs[:, 0])
        return self.decided(self.probabilities(outputs))[0]

    def to_dict(self) -> dict[str, object]:
        """Return it JSON-ready; `config.read_back` reads it."""
        found = dataclasses.asdict(self)
        if self.images is None:  # models of single images are described as before there were sets
            del found["images"], found["join"]
        return found


class _Metadata(TypedDict):
    gsd_m: Tensor
    lonlat_deg: Tensor | None
    day: Tensor | None
    wavelength_nm: Tensor


class TaskModel(nn.Module):
    """Encoder and head. Views of three bands run through one shared encoder; so do the two dates of a pair.

    Attributes:
        precision: What it computes in; its weights and what it gives are float32.
    """

    precision: ComputePrecision = "32-true"

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
        self.head = self._decoder(config.classes, fused=fused and not config.task.kind.transitions)
        if fused:
            self.fusion = ChangeFusion(self._channels, config.fusion)
        if config.task.kind.transitions:
            self.change_head = self._decoder(2, fused=True)
        self._add_joiner([encoder.feature_info[level].num_chs for level in self.levels])

    def on(self, device: torch.device, precision: ComputePrecision) -> Self:
        """Move the model to a device, to compute there in a precision; see `models.precision`."""
        self.precision = precision
        return self.to(device)

    def _add_joiner(self, channels: Sequence[int]) -> None:
        if self.config.images is not None:
            self.joiner = SetJoiner([*channels] * self.config.views, self.config.join)

    @property
    def _channels(self) -> list[int]:
        """Width of each level, views side by side."""
        return [self.encoder.feature_info[level].num_chs * self.config.views for level in self.levels]

    def _decoder(self, classes: int, *, fused: bool) -> nn.Module:
        """Make a head for pixels, of one date or of two that are joined."""
        config, patch, channels = self.config, self.encoder.patch_size, self._channels
        bands = config.views * config.bands_per_view
        if config.head == "linear":
            return LinearDecoder(channels, classes, patch, fused=fused)
        if config.head == "conv":
            return ConvDecoder(channels, classes, patch, fused=fused)
        if config.head == "rcf":
            return RCFDecoder(channels, classes, patch, bands, fused=fused)
        if config.head == "detail":
            return DetailDecoder(channels, classes, bands * (3 if fused else 1), fused=fused)
        reductions = [self.encoder.feature_info[level].reduction for level in self.levels]
        return UPerNetHead(channels, classes, reductions[0], pyramid=len(set(reductions)) > 1)

    def forward(self, batch: TaskBatch, encoded: Encoded | None = None) -> Tensor:
        """Predict `(B, K)` or `(B, K, H, W)` float32 logits of a batch.

        Args:
            batch: What is asked about.
            encoded: What `encode` gave for it; None: it is encoded here, in evaluation in all symmetries if the head is
                to answer so.
        """
        with autocast(self.precision, batch.images.device.type):
            if encoded is not None or self.training or not self.config.symmetric:
                return self._logits(self.encode(batch) if encoded is None else encoded, batch).float()
            answers = []
            for symmetry in symmetries(*batch.images.shape[-2:]):
                moved = batch.moved(symmetry.move)
                logits = self._logits(self.encode(moved), moved).float()
                answers.append(symmetry.undo(logits) if self.config.per_pixel else logits)
            return torch.stack(answers).mean(dim=0)

    def encode(self, batch: TaskBatch) -> Encoded:
        """Give what the encoder makes of a batch: all that the head reads of it besides the pixels."""
        dates = range(self.config.task.kind.dates)
        with autocast(self.precision, batch.images.device.type):
            if batch.valid is None:
                return Encoded(images=[self._views(batch, date) for date in dates])
            levels = self.levels if self.config.per_pixel else None
            of_dates = [batch.of_date(date, len(dates)) for date in dates]
            width = self.config.bands_per_view
            return Encoded(sets=[list(set_tokens(self.encoder, one, width, levels)) for one in of_dates])

    def _views(self, batch: TaskBatch, date: int) -> list[list[Tensor]]:
        """Encode the views of an image: maps `(B, D, h, w)` of each level, or the last tokens `(B, 1 + N, D)`."""
        found = []
        for view, image in enumerate(torch.split(batch.images[:, date], self.config.bands_per_view, dim=1)):
            given = self._metadata(batch, date, view)
            if self.config.per_pixel:
                found.append(self.encoder.forward_intermediates(image, self.levels, **given))
            else:
                found.append([self.encoder.forward_features(image, **given)])
        return found

    def _logits(self, encoded: Encoded, batch: TaskBatch) -> Tensor:
        logits: Tensor
        if not self.config.per_pixel:
            tokens, pixels = self._tokens(encoded, batch)
            logits = self.head(tokens, pixels) if self.config.head == "rcf" else self.head(tokens)
            return logits
        read = [self._maps(encoded, batch, date) for date in range(self.config.task.kind.dates)]
        dates, images = [maps for maps, _ in read], torch.stack([image for _, image in read], dim=1)
        if self.config.task.kind.transitions:
            per_date = [self._decoded(self.head, maps, images[:, [date]]) for date, maps in enumerate(dates)]
            return torch.cat([*per_date, self._decoded(self.change_head, self.fusion(*dates), images)], dim=1)
        return self._decoded(self.head, self.fusion(*dates) if len(dates) == 2 else dates[0], images)

    def _decoded(self, head: nn.Module, maps: list[Tensor], images: Tensor) -> Tensor:
        """Decode levels, with the images `(B, T, bands, H, W)` that they are of, to logits of the images' size."""
        logits: Tensor
        if self.config.head != "upernet":
            maps = self._on_one_grid(maps)
        if self.config.head == "rcf":
            logits = head(maps, images)
        else:
            logits = head(maps, of_dates(images)) if self.config.head == "detail" else head(maps)
        size = images.shape[-2:]
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

    def _tokens(self, encoded: Encoded, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Join the tokens of the only date or set, views side by side: `(B, 1 + N, D * views)`; and give its pixels."""
        if batch.valid is not None:
            return self.joiner.tokens(encoded.sets[0], batch)
        return torch.cat([tokens for (tokens,) in encoded.images[0]], dim=-1), batch.images[:, 0]

    def _maps(self, encoded: Encoded, batch: TaskBatch, date: int) -> tuple[list[Tensor], Tensor]:
        """Join the levels of one date, views side by side: `(B, D * views, h, w)`; and give its pixels."""
        if batch.valid is not None:
            return self.joiner.maps(encoded.sets[date], batch.of_date(date, self.config.task.kind.dates))
        levels = zip(*encoded.images[date], strict=True)
        return [torch.cat(level, dim=1) for level in levels], batch.images[:, date]

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

"""Encoders of timm with weights from a local file, called as ours is.

Vision transformers, and pyramids (ResNet, Swin, ConvNeXt). Nothing is downloaded.
A network reads any number of bands: the kernels of its first layer are adapted by wavelength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError, did_you_mean
from a2mae.models.checkpoint import FORMAT_VERSION, Json
from a2mae.models.layers.blocks import Matcher, Stage, nested
from a2mae.models.released import CheckpointError, describe_difference
from a2mae.models.sources import RGB_NM, Row, read_tensors
from a2mae.models.start import map_bands

PREFIX = "timm/"
"""Begins the name of such a model in `config.json`."""
_PYRAMID = 4
"""Stages of a pyramid that are read: the last ones, at 4, 8, 16 and 32 pixels as a rule."""
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""How timm's networks are told to read images of any size."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """What defines an encoder of timm; it is saved with the weights.

    Attributes:
        model: timm's name.
        in_chans: Bands that it reads.
        img_size: Side of the images that its table of positions is for, pixels; None: timm's.
        scale: Pixels that the network is fed per pixel of an image.
    """

    model: str
    in_chans: int = 3
    img_size: int | None = None
    scale: float = 1.0

    def document(self) -> dict[str, Json]:
        """Return what `config.json` has of it; `timm_config` reads it back."""
        return {
            "format_version": FORMAT_VERSION,
            "model": f"{PREFIX}{self.model}",
            "kwargs": {name: value for name, value in asdict(self).items() if name != "model"},
        }


def timm_config(name: str, kwargs: dict[str, Any]) -> TimmConfig:
    """Read `TimmConfig.document` back.

    Raises:
        CheckpointError: If it is of another version.
    """
    try:
        return TimmConfig(model=name.removeprefix(PREFIX), **kwargs)
    except TypeError as error:
        raise CheckpointError(f"config.json describes no encoder of timm of this version: {error}") from error


class TimmEncoder(nn.Module):
    """A network of timm, called as `Encoder` is; what it cannot read (GSD, place, date, wavelengths) it is not given.

    Images are resized by the factor `config.scale`, to sides of whole patches (of a pyramid: of its coarsest pixels).

    Attributes:
        config: What defines it.
        network: timm's model without its classifier.
        num_features: Width D of the tokens.
        feature_info: What each block (vision transformer) or stage (pyramid) gives.
        patch_size: Side of what a decoder's finest token stands for, pixels: the patch; of a pyramid the second finest
            of its last four stages, 8 as a rule.
    """

    def __init__(self, config: TimmConfig) -> None:
        """Build it with timm's random weights.

        Raises:
            InputError: If timm has no such model, or it gives no feature maps.
        """
        super().__init__()
        self.config = config
        network = _create(config)
        self.network: Any = network
        stages = [Stage(int(one["num_chs"]), int(one["reduction"])) for one in network.feature_info]
        self.feature_info = tuple(stages)
        self.num_features = int(network.num_features)
        self.patch_size = stages[levels_of(stages)[1]].reduction

    @property
    def multiple_px(self) -> int:
        """What the sides of the images that the network is fed are multiples of."""
        return max(stage.reduction for stage in self.feature_info)

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of red, green and blue from 0 to 1 that the published weights were trained with."""
        return tuple(self.network.pretrained_cfg["mean"]), tuple(self.network.pretrained_cfg["std"])

    @property
    def input_size(self) -> int:
        """Side of the images that the published weights were trained on, pixels."""
        return int(self.network.pretrained_cfg["input_size"][-1])

    def forward_features(self, images: Tensor, **given: object) -> Tensor:
        """Encode images.

        Args:
            images: `(B, C, H, W)` normalised.
            given: What other encoders read besides the images; not read.

        Returns:
            `(B, 1 + N, D)`: timm's pooled feature (the class token where the network pools by it), then the tokens of
            the last block or stage.
        """
        features = self.network.forward_features(self._fed(images))
        pooled = self.network.forward_head(features, pre_logits=True)
        if features.ndim == 3:
            tokens = features[:, self.network.num_prefix_tokens :]
        elif getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            tokens = features.flatten(1, 2)
        else:
            tokens = features.flatten(2).transpose(1, 2)
        if pooled.shape[-1] != tokens.shape[-1]:  # pooled, then widened for its classifier
            pooled = tokens.mean(dim=1)
        return torch.cat([pooled[:, None], tokens], dim=1)

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int], *, norm: bool = False, **given: object
    ) -> list[Tensor]:
        """Give the feature maps `(B, D, h, w)` of the chosen blocks or stages, in the order of `indices`.

        Args:
            images: As for `forward_features`.
            indices: Numbers of `feature_info`.
            norm: Apply the network's final norm where it fits.
            given: Not read.
        """
        wanted = sorted(set(indices))
        maps = self.network.forward_intermediates(
            self._fed(images), indices=wanted, norm=norm, output_fmt="NCHW", intermediates_only=True
        )
        found = dict(zip(wanted, maps, strict=True))
        return [found[index] for index in indices]

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """Group parameters by depth as timm does, for layer-wise learning rate decay."""
        return nested(self.network.group_matcher(coarse=coarse), "network.")

    def _fed(self, images: Tensor) -> Tensor:
        whole = self.multiple_px
        size = [max(round(side * self.config.scale / whole), 1) * whole for side in images.shape[-2:]]
        if tuple(size) == tuple(images.shape[-2:]):
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=self.config.scale < 1)


def levels_of(stages: Sequence[Stage]) -> list[int]:
    """Choose four of what an encoder gives: blocks evenly through its depth, the last included; of a pyramid the last.

    Args:
        stages: `feature_info` of the encoder.
    """
    depth = len(stages)
    if len({stage.reduction for stage in stages}) > 1:
        return list(range(depth - _PYRAMID, depth))
    return [max(round(depth * quarter / 4) - 1, 0) for quarter in (1, 2, 3, 4)]


def load_timm(
    model: str,
    path: Path,
    *,
    bands: int,
    wavelength_nm: Sequence[float] | None = None,
    image_px: int | None = None,
    size_px: int | Literal["timm"] | None = None,
) -> tuple[TimmEncoder, tuple[Row, ...]]:
    """Build an encoder of timm and fill it from a file.

    It is built twice, first without memory: a name of a billion weights costs none where the file is of another.

    Args:
        model: timm's name.
        path: safetensors or a file of `torch.save`, with the tensors that timm gives the network.
        bands: How many it is to read. With other than the file's three channels (red, green, blue) each takes the
            kernel of the nearest in wavelength; a file with as many channels as bands is taken for these, in order.
        wavelength_nm: Of the bands; None: not known.
        image_px: Side of the images that it will mostly read; others are resized by the same factor.
        size_px: What those are resized to; `timm`: to the side of the published weights; None: to whole patches.

    Returns:
        The encoder in evaluation mode, and what became of each part of the file.

    Raises:
        CheckpointError: If the file cannot be read, or is of another network; nothing is loaded by half.
        InputError: If timm has no such model.
    """
    with torch.device("meta"):
        encoder = TimmEncoder(TimmConfig(model=model, in_chans=bands))
    found = read_tensors(path)
    rows: list[Row] = []
    side = _side_of_positions(encoder, found)
    if side is not None:
        with torch.device("meta"):
            encoder = TimmEncoder(replace(encoder.config, img_size=side))
        rows.append(Row("table of positions", "taken", f"for images of {side} px, resampled to the images' grid"))
    if image_px is not None:
        fed = encoder.input_size if size_px == "timm" else size_px
        if fed is None:
            fed = math.ceil(image_px / encoder.multiple_px) * encoder.multiple_px
        encoder.config = replace(encoder.config, scale=fed / image_px)
        if fed != image_px:
            rows.append(Row("images", "adapted", f"{image_px} px are resized to {fed} px, all by this factor"))
    network = encoder.network
    first = f"{network.pretrained_cfg['first_conv']}.weight"
    if first in found and found[first].ndim == 4:
        known = RGB_NM if found[first].shape[1] == len(RGB_NM) else None
        found[first], said = map_bands(found[first], bands, known, wavelength_nm, str(path))
        rows.append(Row("first layer", "adapted" if said else "taken", said or f"{bands} bands"))
    left_out = _left_out(network, found, rows)
    found = {name: value for name, value in found.items() if name not in left_out}
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    problems = describe_difference(expected, found)
    if problems:
        raise CheckpointError(
            f"{path} does not fit timm's {model}: {problems}. Name the model that the weights are of, as timm names it"
        )
    encoder = TimmEncoder(encoder.config)
    encoder.network.load_state_dict(found)
    rows.insert(0, Row("network", "taken", f"{len(found)} tensors of timm's {model}"))
    return encoder.eval(), tuple(rows)


def name_pyramid(family: str, found: Mapping[str, Tensor]) -> str | None:
    """Find the network of timm's that has a file's tensors, whatever its bands and classes; None if there is none.

    Args:
        family: `ResNet`, `Swin` or `ConvNeXt`.
        found: Tensors by name.
    """
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    for name in timm.list_models(f"{family.lower()}*"):
        with torch.device("meta"):
            network: Any = timm.create_model(name, num_classes=0)
        first = f"{network.pretrained_cfg['first_conv']}.weight"
        expected = {key: tuple(value.shape) for key, value in network.state_dict().items() if key != first}
        if all(shapes.get(key) == shape for key, shape in expected.items()):
            left = shapes.keys() - expected.keys() - {first, *(key for key, _ in network.named_buffers())}
            if all(key.startswith(("head.", "fc.")) for key in left):
                return str(name)
    return None


def _create(config: TimmConfig) -> Any:  # noqa: ANN401 (timm's model)
    """Build a network of timm without its classifier, for images of any size."""
    try:
        fixed = timm.is_model(config.model) and timm.get_pretrained_cfg_value(config.model, "fixed_input_size")
    except RuntimeError as error:  # of a tag behind the dot
        raise InputError(f"timm {timm.__version__} has no weights {config.model!r}: {error}") from error
    if not timm.is_model(config.model):
        near = did_you_mean(config.model, timm.list_models(), always=True)
        raise InputError(
            f"timm {timm.__version__} has no model {config.model!r}: {near}timm.list_models() has them all"
        )
    options: dict[str, Any] = {"in_chans": config.in_chans, "num_classes": 0, "pretrained": False}
    if config.img_size is not None:
        options["img_size"] = config.img_size
    network: Any = None
    for way in _ANY_SIZE if fixed else ({},):
        try:
            network = timm.create_model(config.model, **options, **way)
            break
        except TypeError:  # it does not know this way
            continue
    if network is None:
        raise InputError(f"timm's {config.model} reads images of one size alone: choose another model")
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise InputError(f"timm's {config.model} gives no feature maps (forward_intermediates): choose another model")
    several = len({stage["reduction"] for stage in network.feature_info}) > 1
    if several and len(network.feature_info) < _PYRAMID:
        count = len(network.feature_info)
        raise InputError(f"timm's {config.model} has {count} stages, and {_PYRAMID} are read: choose another model")
    return network


def _side_of_positions(encoder: TimmEncoder, found: dict[str, Tensor]) -> int | None:
    """Tell for which side of images a file's table of positions is, where it is another than timm's."""
    own, table = encoder.network.state_dict().get("pos_embed"), found.get("pos_embed")
    if own is None or table is None or own.ndim != 3 or table.ndim != 3 or own.shape[1] == table.shape[1]:
        return None
    grid = math.prod(encoder.network.patch_embed.grid_size)
    side = math.isqrt(max(table.shape[1] - (own.shape[1] - grid), 0))
    return side * encoder.patch_size if side and side * side == table.shape[1] - (own.shape[1] - grid) else None


def _left_out(network: Any, found: dict[str, Tensor], rows: list[Row]) -> set[str]:  # noqa: ANN401 (timm's model)
    """Name the tensors that the network has no place for, because they are no part of an encoder."""
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = network.state_dict().keys()
    computed: set[str] = {name for name, _ in network.named_buffers()} - own
    of_head = {name for name in found if name not in own and name.startswith(tuple(f"{head}." for head in heads))}
    if of_head:
        rows.append(Row("classification head", "left out", ", ".join(sorted(of_head))))
    return of_head | (computed & found.keys())

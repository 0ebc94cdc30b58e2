"""Use the encoder elsewhere: as a graph (torch.export, ONNX) and as the backbone of a segmentation model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.encoder import ENCODINGS, Encoder


class ExportableEncoder(nn.Module):
    """`forward_features` with positional inputs: images, what `ENCODINGS` names, and wavelengths if bands are free.

    The graph holds no checks of values: feed it what `Encoder.forward_features` would accept.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        wavelength = ("wavelength_nm",) if encoder.config.bands == "wavelength" else ()
        self.input_names = ("images", *ENCODINGS[encoder.config.encoding], *wavelength)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Encode tensors given in the order of `input_names`: `(B, 1 + N, D)`."""
        named = dict(zip(self.input_names, inputs, strict=True))
        return self.encoder.forward_features(named.pop("images"), **named)

    def example(self, batch: int = 2, height: int = 4, width: int = 6, bands: int = 3) -> tuple[Tensor, ...]:
        """Make inputs of `height` x `width` patches, for tracing."""
        config = self.encoder.config
        bands = bands if config.bands == "wavelength" else config.in_chans
        values = {
            "images": torch.randn(batch, bands, height * config.patch_size, width * config.patch_size),
            "gsd_m": torch.linspace(1, 30, batch),
            "lonlat_deg": torch.stack([torch.linspace(-70, 12.5, batch), torch.linspace(-33, 41.9, batch)], dim=1),
            "day": torch.linspace(18000, 19000, batch),
            "wavelength_nm": torch.linspace(450, 2200, bands).expand(batch, -1).contiguous(),
        }
        return tuple(values[name] for name in self.input_names)

    def dynamic_shapes(self) -> tuple[tuple[dict[int, object], ...]]:
        """Leave batch and both sides (in patches) free, and the bands where the encoder takes any number."""
        patch_size = self.encoder.patch_size
        batch, height, width = Dim("batch", min=2), Dim("h", min=2), Dim("w", min=2)
        shapes: dict[str, dict[int, object]] = {
            name: {0: batch} for name in ("gsd_m", "lonlat_deg", "day", "wavelength_nm")
        }
        shapes["images"] = {0: batch, 2: patch_size * height, 3: patch_size * width}
        if "wavelength_nm" in self.input_names:
            bands = Dim("bands", min=2)
            shapes["images"][1] = shapes["wavelength_nm"][1] = bands
        return (tuple(shapes[name] for name in self.input_names),)


def export_program(encoder: Encoder) -> ExportedProgram:
    """Export the encoder with torch.export; call `.module()(*inputs)` in the order of `input_names`."""
    model = ExportableEncoder(encoder).eval()
    return torch.export.export(model, model.example(), dynamic_shapes=model.dynamic_shapes())


def export_onnx(encoder: Encoder, path: str | os.PathLike[str]) -> Path:
    """Write the encoder as ONNX (needs the packages onnx and onnxscript).

    Returns:
        The path; the graph's inputs are named as `ExportableEncoder.input_names`, its output `features`.
    """
    model = ExportableEncoder(encoder).eval()
    program = torch.onnx.export(
        model,
        model.example(),
        dynamo=True,
        dynamic_shapes=model.dynamic_shapes(),
        input_names=list(model.input_names),
        output_names=["features"],
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    program.save(path)
    return Path(path)


class Backbone(nn.Module):
    """Feature maps at strides 2, 4, 8, 16 and 32 from five depths of a ViT, resized without learned weights.

    It has the interface of segmentation-models-pytorch's encoders: any of its decoders takes
    `encoder_channels=backbone.out_channels`.

    Attributes:
        out_channels: Of the input and the five maps.
        output_stride: 32; images need sides that are multiples of it and of the patch.
    """

    output_stride = 32

    def __init__(self, encoder: Encoder, *, gsd_m: float | None = None, indices: Sequence[int] | None = None) -> None:
        """Wrap an encoder.

        Args:
            encoder: From `load_encoder`; its weights are shared, not copied.
            gsd_m: Metres per pixel of the images to come; needed unless the encoding is `sincos`.
            indices: Five block numbers, the shallowest for the finest map; spread evenly if None.
        """
        super().__init__()
        depth = len(encoder.blocks)
        if indices is None:
            indices = [max(round((level + 1) * depth / 5) - 1, 0) for level in range(5)]
        if len(indices) != 5:
            raise InputError(f"indices must name five blocks, one per stride 2, 4, 8, 16, 32, found {list(indices)}")
        self.encoder = encoder
        self.gsd_m = gsd_m
        self.indices = tuple(indices)
        self.out_channels = (encoder.config.in_chans, *(encoder.num_features,) * 5)

    def forward(self, images: Tensor, gsd_m: Tensor | float | None = None) -> list[Tensor]:
        """Give the images `(B, C, H, W)` and five maps `(B, D, H / stride, W / stride)`.

        Args:
            images: Normalised.
            gsd_m: `(B,)` or one number; the one given at construction if None.
        """
        gsd = self.gsd_m if gsd_m is None else gsd_m
        height, width = images.shape[-2:]
        if height % self.output_stride or width % self.output_stride:
            raise InputError(f"image height and width must be multiples of 32 px, found {height} x {width}")
        levels = self.encoder.forward_intermediates(images, self.indices, norm=True, gsd_m=gsd)
        maps = [
            F.interpolate(level, (height // stride, width // stride), mode="bilinear", align_corners=False)
            for level, stride in zip(levels, (2, 4, 8, 16, 32), strict=True)
        ]
        return [images, *maps]

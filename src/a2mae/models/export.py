"""Use the encoder elsewhere: as a graph (torch.export, ONNX), as timm's model."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.checkpoint import Json
from a2mae.models.encoder import ENCODINGS, Encoder
from a2mae.models.layers.encodings import Place
from a2mae.models.registry import SIZES

_MOST_VALUES = 2**28
"""Of a table of positions: a gigabyte."""
_FINEST_M, _COARSEST_M = 0.001, 1e6


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


def timm_state(
    encoder: Encoder, *, image_px: int, gsd_m: float | None = None
) -> tuple[dict[str, Json], dict[str, Tensor]]:
    """Give the encoder as timm's vision transformer: its features are equal, for images of one size and GSD.

    The encoding of place, scale and date becomes timm's table of positions; place and date are unknown in it.

    Args:
        encoder: Its weights are shared, not copied.
        image_px: Side of the images; for others timm resamples the table, which is near and not equal.
        gsd_m: Metres per pixel; the reference GSD if None.

    Returns:
        What timm reads as `config.json` beside the weights (`timm.create_model("local-dir:FOLDER", pretrained=True)`),
        and the tensors under timm's names.

    Raises:
        InputError: If the architecture is not timm's, `image_px` is no multiple of the patch or too large for a table,
            or no pixel has so many metres.
    """
    config = encoder.config
    if config.bands != "draw3" or config.stem != "linear":
        raise InputError(
            "timm's vision transformer reads a fixed number of bands by one kernel each; this encoder has"
            f" bands={config.bands!r}, stem={config.stem!r}: export it as hub, onnx or torch-export"
        )
    if image_px % config.patch_size or image_px <= 0:
        raise InputError(f"image_px must be a multiple of the patch ({config.patch_size} px), found {image_px}")
    side = image_px // config.patch_size
    if side * side * config.embed_dim > _MOST_VALUES:
        raise InputError(f"image_px {image_px} would have a table of {side} x {side} positions: name fewer pixels")
    if gsd_m is not None and not _FINEST_M <= gsd_m <= _COARSEST_M:
        raise InputError(f"gsd_m is metres per pixel, {_FINEST_M:g} to {_COARSEST_M:g}, found {gsd_m:g}")
    gsd = torch.full((1, 1), config.gsd_reference_m if gsd_m is None else gsd_m)
    table = encoder.encode((side, side), Place(gsd)).reshape(1, side * side, -1)
    tensors = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    tensors["pos_embed"] = F.pad(table, (0, 0, 1, 0))  # the class token has no position
    size = next((size for size, values in SIZES.items() if values["embed_dim"] == config.embed_dim), "base")
    names = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "in_chans")
    sizes: dict[str, Json] = {name: getattr(config, name) for name in names}
    document: dict[str, Json] = {
        "architecture": f"vit_{size}_patch16_224",
        "num_classes": 0,
        "num_features": config.embed_dim,
        "global_pool": "token",
        "model_args": {**sizes, "img_size": image_px},
        "pretrained_cfg": {
            "input_size": [config.in_chans, image_px, image_px],
            "fixed_input_size": True,
            "mean": [0.0] * config.in_chans,  # images are normalised before
            "std": [1.0] * config.in_chans,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    return document, tensors

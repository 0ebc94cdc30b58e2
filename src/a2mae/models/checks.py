"""What comes in is looked at once, at the door; inside, the shapes are trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from a2mae.models.batch import ImageSetBatch


def check_images(images: Tensor, patch: int) -> None:
    """Images are finite floats `(B, C, H, W)` whose sides are multiples of the patch.

    Raises:
        ValueError: Naming the offending value.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (B, C, H, W), found {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(
            f"images must be normalised floats, found {images.dtype}: apply the model's normalisation first"
        )
    height, width = images.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ValueError(
            f"image height and width must be multiples of the patch ({patch} px), found {height} x {width}:"
            f" pad or resize, for example to {_fit(height, patch)} x {_fit(width, patch)}"
        )
    if reads_values():
        _check_finite(images, "images")


def check_gsd(gsd_m: Tensor, shape: tuple[int, ...]) -> None:
    """GSD is positive and finite, one value per image.

    Raises:
        ValueError: Naming the offending value.
    """
    if tuple(gsd_m.shape) != shape:
        raise ValueError(f"gsd_m must have shape {shape}, one value per image, found {tuple(gsd_m.shape)}")
    if reads_values():
        bad = ~(torch.isfinite(gsd_m) & (gsd_m > 0))
        if bad.any():
            raise ValueError(f"gsd_m must be positive, found {_first(gsd_m, bad)}")


def check_lonlat(lonlat_deg: Tensor, shape: tuple[int, ...]) -> None:
    """Longitudes lie in -180 to 180, latitudes in -90 to 90 degrees.

    Raises:
        ValueError: Naming the offending value.
    """
    if tuple(lonlat_deg.shape) != (*shape, 2):
        raise ValueError(
            f"lonlat_deg must have shape {(*shape, 2)}, (lon, lat) in degrees, found {tuple(lonlat_deg.shape)}"
        )
    if reads_values():
        for name, values, limit in (("longitude", lonlat_deg[..., 0], 180), ("latitude", lonlat_deg[..., 1], 90)):
            bad = ~(values.abs() <= limit)
            if bad.any():
                raise ValueError(
                    f"{name} must lie between -{limit} and {limit} degrees, found {_first(values, bad)}"
                    " (lonlat_deg holds the longitude first)"
                )


def check_batch(batch: ImageSetBatch, patch: int) -> None:
    """A training batch is what DESIGN.md says; call it where the batch is still on the CPU.

    Raises:
        ValueError: Naming the field, the offending value and the samples it is in.
    """
    if batch.pixels.ndim != 5:
        raise ValueError(f"pixels must have shape (B, K, C, H, W), found {tuple(batch.pixels.shape)}")
    samples, images, bands, height, width = batch.pixels.shape
    check_images_shape = {
        "gsd_m": (samples, images),
        "geosot_bits": (samples, images, 256),
        "sensor_id": (samples, images),
        "day": (samples, images),
        "same_source_as_anchor": (samples, images),
        "valid": (samples, images, height, width),
        "wavelength_nm": (samples, images, bands),
        "lonlat_deg": (samples, images, 2),
        "index": (samples,),
    }
    for name, shape in check_images_shape.items():
        found = tuple(getattr(batch, name).shape)
        if found != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with pixels {tuple(batch.pixels.shape)}, found {found}"
            )
    for name in ("valid", "same_source_as_anchor"):
        if getattr(batch, name).dtype != torch.bool:
            raise ValueError(f"{name} must be bool, found {getattr(batch, name).dtype}")
    # Values are read on the CPU only: on an accelerator that would wait for the device in every step.
    if batch.pixels.device.type == "cpu" and reads_values():
        finite = torch.isfinite(batch.pixels).flatten(1).all(1)
        if not finite.all():
            raise ValueError(f"pixels are not finite (NaN or infinite) in samples {batch.index[~finite].tolist()}")
        check_gsd(batch.gsd_m, (samples, images))
        check_lonlat(batch.lonlat_deg, (samples, images))
        if not batch.same_source_as_anchor[:, 0].all():
            raise ValueError("same_source_as_anchor must be True for image 0, the anchor itself")
    if height % patch or width % patch:
        raise ValueError(f"image height and width must be multiples of {patch} px, found {height} x {width}")


def reads_values() -> bool:
    """False while the model is traced: an exported graph holds no checks of values."""
    return not torch.compiler.is_compiling()


def _check_finite(values: Tensor, name: str) -> None:
    bad = ~torch.isfinite(values)
    if bad.any():
        where = [int(index) for index in bad.nonzero()[0]]
        raise ValueError(f"{name} must be finite, found {_first(values, bad)} at index {where}: set nodata to 0")


def _first(values: Tensor, bad: Tensor) -> float:
    return float(values[bad][0])


def _fit(side: int, patch: int) -> int:
    return max(patch, (side + patch - 1) // patch * patch)

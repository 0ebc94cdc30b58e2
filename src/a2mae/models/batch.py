"""The batch of image sets that passes from `training/data` to the models, and the checks of what a model is given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from a2mae.errors import InputError


@dataclass(frozen=True)
class ImageSetBatch:
    """B samples of K co-located images each; image 0 of a sample is its anchor.

    Attributes:
        pixels: `(B, K, C, H, W)` float32, normalised per band; invalid pixels are 0.
        gsd_m: `(B, K)` float32, metres per pixel *after* every crop and resize.
        geosot_bits: `(B, K, 256)` float32 of 0 and 1, the eight 32-bit GeoSOT-2D codes of the footprint's corners.
        sensor_id: `(B, K)` int64, index into the run's list of sensors.
        day: `(B, K)` float32, days since 1970-01-01 UTC.
        same_source_as_anchor: `(B, K)` bool, True for the anchor itself.
        valid: `(B, K, H, W)` bool, False where nothing usable was seen (nodata, cloud, shadow).
        wavelength_nm: `(B, K, C)` float32, centre wavelength of each drawn band; 0 for radar.
        lonlat_deg: `(B, K, 2)` float64, footprint centre (lon, lat) in degrees, WGS 84.
        index: `(B,)` int64, the sample's index in the data set: names samples in error messages.
    """

    pixels: Tensor
    gsd_m: Tensor
    geosot_bits: Tensor
    sensor_id: Tensor
    day: Tensor
    same_source_as_anchor: Tensor
    valid: Tensor
    wavelength_nm: Tensor
    lonlat_deg: Tensor
    index: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageSetBatch:
        """Give the same batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
            for field in dataclasses.fields(self)
        }
        return ImageSetBatch(**moved)

    def pin_memory(self) -> ImageSetBatch:
        """Give the same batch in page-locked memory (called by the DataLoader)."""
        return ImageSetBatch(**{f.name: getattr(self, f.name).pin_memory() for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class Singles:
    """Images as independent samples, for methods that know no sets.

    Attributes:
        images: `(M, C, H, W)` with M = B * K.
        gsd_m: `(M,)`.
        valid: `(M, H, W)` bool.
        wavelength_nm: `(M, C)`; None for plain images.
        shape: `(B, K)` of the batch of sets; None for plain images.
    """

    images: Tensor
    gsd_m: Tensor
    valid: Tensor
    wavelength_nm: Tensor | None
    shape: tuple[int, int] | None

    @property
    def sample(self) -> Tensor:
        """Which sample each image is of, `(M,)` int64."""
        images = 1 if self.shape is None else self.shape[1]
        return torch.arange(len(self.images), device=self.images.device) // images

    def back(self, values: Tensor) -> Tensor:
        """Bring `(M, ...)` back to `(B, K, ...)`; plain images stay as they are."""
        return values if self.shape is None else torch.unflatten(values, 0, self.shape)


def singles_of_batch(batch: ImageSetBatch) -> Singles:
    """Flatten the B sets of K images into B * K single images."""
    return Singles(
        images=batch.pixels.flatten(0, 1),
        gsd_m=batch.gsd_m.flatten(),
        valid=batch.valid.flatten(0, 1),
        wavelength_nm=batch.wavelength_nm.flatten(0, 1),
        shape=(batch.pixels.shape[0], batch.pixels.shape[1]),
    )


def check_images(images: Tensor, patch_size: int) -> None:
    """Check that images are finite floats `(B, C, H, W)` whose sides are multiples of the patch.

    Raises:
        InputError: Naming the offending value.
    """
    if images.ndim != 4:
        raise InputError(f"images must have shape (B, C, H, W), found {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(
            f"images must be normalised floats, found {images.dtype}: apply the model's normalisation first"
        )
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise InputError(
            f"image height and width must be multiples of the patch ({patch_size} px), found {height} x {width}:"
            f" pad or resize, for example to {_fit(height, patch_size)} x {_fit(width, patch_size)}"
        )
    if reads_values():
        _check_finite(images, "images")


def check_gsd(gsd_m: Tensor, shape: tuple[int, ...]) -> None:
    """Check that there is one GSD per image, positive and finite.

    Raises:
        InputError: Naming the offending value.
    """
    if tuple(gsd_m.shape) != shape:
        raise InputError(f"gsd_m must have shape {shape}, one value per image, found {tuple(gsd_m.shape)}")
    if reads_values():
        bad = ~(torch.isfinite(gsd_m) & (gsd_m > 0))
        if bad.any():
            raise InputError(f"gsd_m must be positive, found {_first(gsd_m, bad)}")


def check_lonlat(lonlat_deg: Tensor, shape: tuple[int, ...]) -> None:
    """Check that longitudes lie in -180 to 180 and latitudes in -90 to 90 degrees.

    Raises:
        InputError: Naming the offending value.
    """
    if tuple(lonlat_deg.shape) != (*shape, 2):
        raise InputError(
            f"lonlat_deg must have shape {(*shape, 2)}, (lon, lat) in degrees, found {tuple(lonlat_deg.shape)}"
        )
    if reads_values():
        for name, values, limit in (("longitude", lonlat_deg[..., 0], 180), ("latitude", lonlat_deg[..., 1], 90)):
            bad = ~(values.abs() <= limit)
            if bad.any():
                raise InputError(
                    f"{name} must lie between -{limit} and {limit} degrees, found {_first(values, bad)}"
                    " (lonlat_deg holds the longitude first)"
                )


def check_batch(batch: ImageSetBatch, patch_size: int) -> None:
    """Check shapes, types and values of a batch; values only on the CPU.

    Raises:
        InputError: Naming the field, the offending value and the samples it is in.
    """
    if batch.pixels.ndim != 5:
        raise InputError(f"pixels must have shape (B, K, C, H, W), found {tuple(batch.pixels.shape)}")
    samples, images, bands, height, width = batch.pixels.shape
    shapes = {
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
    for name, shape in shapes.items():
        found = tuple(getattr(batch, name).shape)
        if found != shape:
            raise InputError(
                f"{name} must have shape {shape} to go with pixels {tuple(batch.pixels.shape)}, found {found}"
            )
    for name in ("valid", "same_source_as_anchor"):
        if getattr(batch, name).dtype != torch.bool:
            raise InputError(f"{name} must be bool, found {getattr(batch, name).dtype}")
    # On an accelerator reading values would wait for the device in every step.
    if batch.pixels.device.type == "cpu" and reads_values():
        finite = torch.isfinite(batch.pixels).flatten(1).all(1)
        if not finite.all():
            raise InputError(f"pixels are not finite (NaN or infinite) in samples {batch.index[~finite].tolist()}")
        check_gsd(batch.gsd_m, (samples, images))
        check_lonlat(batch.lonlat_deg, (samples, images))
        if not batch.same_source_as_anchor[:, 0].all():
            raise InputError("same_source_as_anchor must be True for image 0, the anchor itself")
    if height % patch_size or width % patch_size:
        raise InputError(f"image height and width must be multiples of {patch_size} px, found {height} x {width}")


def reads_values() -> bool:
    """Tell whether values may be looked at: not while the model is traced, so that graphs hold no checks."""
    return not torch.compiler.is_compiling()


def _check_finite(values: Tensor, name: str) -> None:
    bad = ~torch.isfinite(values)
    if bad.any():
        where = [int(index) for index in bad.nonzero()[0]]
        raise InputError(f"{name} must be finite, found {_first(values, bad)} at index {where}: set nodata to 0")


def _first(values: Tensor, bad: Tensor) -> float:
    return float(values[bad][0])


def _fit(side: int, patch_size: int) -> int:
    return max(patch_size, (side + patch_size - 1) // patch_size * patch_size)

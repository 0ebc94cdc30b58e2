"""The training sample, batched: what passes from `training.samples` to the models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSetBatch:
    """B samples of K co-located images each; image 0 of a sample is its anchor.

    Attributes:
        pixels: `(B, K, C, H, W)` float32, normalised per band; invalid pixels are 0.
        gsd_m: `(B, K)` float32, metres per pixel *after* every crop and resize.
        geosot_bits: `(B, K, 256)` float32 of 0 and 1: eight unsigned 32-bit GeoSOT-2D codes of the footprint's corners.
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
        """The same batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
            for field in dataclasses.fields(self)
        }
        return ImageSetBatch(**moved)

    def pin_memory(self) -> ImageSetBatch:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return ImageSetBatch(**{f.name: getattr(self, f.name).pin_memory() for f in dataclasses.fields(self)})

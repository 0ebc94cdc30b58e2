"""What all pretraining models share: an encoder that tasks can use as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2mae.models.batch import ImageSetBatch
from a2mae.models.encoder import Encoder, EncoderConfig


class Pretrainer(nn.Module):
    """An encoder plus whatever a method needs to train it.

    Attributes:
        name: As given to `create_model`.
        config: Everything that `create_model` needs to build it again.
        encoder: What tasks keep.
    """

    name: str = ""

    def __init__(self, config: EncoderConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.num_features = encoder.num_features
        self.patch_size = encoder.patch_size

    @property
    def pixels_per_token(self) -> int:
        """Side, in pixels of the training image, of what one entry of `PretrainOutput.hidden` covers."""
        return self.patch_size

    def forward_features(
        self,
        images: Tensor,
        *,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        sensor_id: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> Tensor:
        """See `Encoder.forward_features`."""
        return self.encoder.forward_features(
            images, gsd_m=gsd_m, lonlat_deg=lonlat_deg, day=day, sensor_id=sensor_id, wavelength_nm=wavelength_nm
        )

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | int | None = None,
        *,
        norm: bool = False,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        sensor_id: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> list[Tensor]:
        """See `Encoder.forward_intermediates`."""
        return self.encoder.forward_intermediates(
            images,
            indices,
            norm=norm,
            gsd_m=gsd_m,
            lonlat_deg=lonlat_deg,
            day=day,
            sensor_id=sensor_id,
            wavelength_nm=wavelength_nm,
        )


@dataclass(frozen=True)
class Singles:
    """The images of a batch of sets as independent samples, for methods that know no sets.

    Attributes:
        images: `(M, C, H, W)` with M = B * K.
        gsd_m: `(M,)`.
        valid: `(M, H, W)` bool.
        wavelength_nm: `(M, C)`; None for plain images.
        shape: `(B, K)`, to put results back; None for plain images.
    """

    images: Tensor
    gsd_m: Tensor
    valid: Tensor
    wavelength_nm: Tensor | None
    shape: tuple[int, int] | None

    def back(self, values: Tensor) -> Tensor:
        """`(M, ...)` to `(B, K, ...)`, or unchanged for plain images."""
        return values if self.shape is None else torch.unflatten(values, 0, self.shape)


def singles_of_batch(batch: ImageSetBatch) -> Singles:
    """Flatten sets to single images."""
    return Singles(
        images=batch.pixels.flatten(0, 1),
        gsd_m=batch.gsd_m.flatten(),
        valid=batch.valid.flatten(0, 1),
        wavelength_nm=batch.wavelength_nm.flatten(0, 1),
        shape=(batch.pixels.shape[0], batch.pixels.shape[1]),
    )

"""What all pretraining models share: an encoder that tasks can use as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2mae.models.batch import ImageSetBatch
from a2mae.models.encoder import Encoder, EncoderConfig
from a2mae.models.layers.masking import kept_count
from a2mae.models.released import ReleasedTables, load_released_state_dict, released_state_dict


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(EncoderConfig):
    """What all methods have beside an encoder.

    Attributes:
        keep_ratio: Share of the patches that stays visible.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_num_heads: Heads of the decoder.
        prediction_init: Scale of the prediction head's initial weights: 1 as published; a small one starts from the
            mean instead of from noise, which training would first have to silence [ours]. Not read by Scale-MAE.
        released_tables: Carry the published files' unread tensors (`released.ReleasedTables`); on for ViT-L/16.
    """

    keep_ratio: float = 0.25
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    prediction_init: float = 1.0
    released_tables: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        kept_count(4, self.keep_ratio)
        for name in ("decoder_dim", "decoder_depth", "decoder_num_heads", "prediction_init"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        if self.decoder_dim % self.decoder_num_heads or self.decoder_dim % 4:
            raise ValueError(
                f"decoder_dim ({self.decoder_dim}) must be a multiple of 4 and of decoder_num_heads"
                f" ({self.decoder_num_heads})"
            )


class Pretrainer(nn.Module):
    """An encoder plus whatever a method needs to train it.

    Attributes:
        name: As given to `create_model`.
        config: Everything that `create_model` needs to build it again.
        encoder: What tasks keep.
    """

    name: str = ""
    config: PretrainConfig
    _second_mask_token = False  # only Scale-MAE's file has one

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.num_features = self.encoder.num_features
        self.patch_size = self.encoder.patch_size
        if config.released_tables:
            self.released = ReleasedTables(
                self._released_width(), config.decoder_dim, config.patch_size, second_mask_token=self._second_mask_token
            )

    def load_released_state_dict(
        self, state_dict: Mapping[str, object], *, parts: str = "all", same_method: bool = True
    ) -> None:
        """Fill the model from the authors' checkpoint, strictly; see `released.load_released_state_dict`."""
        load_released_state_dict(self, state_dict, parts=parts, same_method=same_method)

    def released_state_dict(self) -> dict[str, Tensor]:
        """All tensors under the authors' names."""
        return released_state_dict(self)

    def _released_width(self) -> int:
        return self.config.embed_dim

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

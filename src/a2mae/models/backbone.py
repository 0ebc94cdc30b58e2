"""An encoder as a feature pyramid, with the contract of segmentation-models-pytorch's encoders."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.models.encoder import Encoder


class Backbone(nn.Module):
    """Feature maps at strides 2, 4, 8, 16 and 32 from five depths of a ViT, resized without learned weights.

    Any decoder of segmentation-models-pytorch takes it: `Decoder(encoder_channels=backbone.out_channels, ...)`.

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
            raise ValueError(f"indices must name five blocks, one per stride 2, 4, 8, 16, 32, found {list(indices)}")
        self.encoder = encoder
        self.gsd_m = gsd_m
        self.indices = tuple(indices)
        self.out_channels = (encoder.config.in_chans, *(encoder.num_features,) * 5)

    def forward(self, images: Tensor, gsd_m: Tensor | float | None = None) -> list[Tensor]:
        """`(B, C, H, W)` to the images and five maps `(B, D, H / stride, W / stride)`.

        Args:
            images: Normalised.
            gsd_m: `(B,)` or one number; the one given at construction if None.
        """
        gsd = self.gsd_m if gsd_m is None else gsd_m
        height, width = images.shape[-2:]
        if height % self.output_stride or width % self.output_stride:
            raise ValueError(f"image height and width must be multiples of 32 px, found {height} x {width}")
        levels = self.encoder.forward_intermediates(images, self.indices, norm=True, gsd_m=gsd)
        maps = [
            F.interpolate(level, (height // stride, width // stride), mode="bilinear", align_corners=False)
            for level, stride in zip(levels, (2, 4, 8, 16, 32), strict=True)
        ]
        return [images, *maps]

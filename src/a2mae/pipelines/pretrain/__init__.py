"""The `pretrain` stage: the image sets → a pretrained model."""

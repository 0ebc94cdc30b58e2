"""A linear head on random convolution features: beside random_init, the bar that a pretrained encoder has to clear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from a2mae.models.encoder import Encoder
from a2mae.models.layers.blocks import Stage
from a2mae.models.layers.rcf import KERNEL_SIZE, RandomConvolutionFeatures
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.finetune.heads import on_patches
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import finetune, head_for
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters

FITTED_IMAGES = 200
"""Training images that a task's random convolution features are drawn from, at most."""
_STEPS, _LR = 300, 1e-2


class ConvolutionEncoder(nn.Module):
    """Random convolution features of patches, where a task model has an encoder's tokens; nothing in it is trained."""

    def __init__(self, features: RandomConvolutionFeatures, patch_size: int) -> None:
        super().__init__()
        self.features = features
        self.num_features = features.num_features
        self.patch_size = patch_size
        self.feature_info = (Stage(features.num_features, patch_size),)

    def forward_intermediates(self, images: Tensor, indices: Sequence[int], **given: object) -> list[Tensor]:
        """Give `(B, 2 J, h, w)` features for each of `indices`; `given` is what encoders read besides the images."""
        height, width = (side // self.patch_size for side in images.shape[-2:])
        features = self.features.of_patches(images, self.patch_size)  # (B, N, 2 J)
        return [torch.unflatten(features.transpose(1, 2), 2, (height, width)) for _ in indices]


def drawn_features(
    inputs: TaskInputs, seed: int, *, most: int, patch_size: int | None = None
) -> RandomConvolutionFeatures:
    """Draw random convolution features of all bands from training images.

    Args:
        inputs: The data.
        seed: Of the images and windows that become filters.
        most: How many images, at most.
        patch_size: Side of the patches that they are pooled over, pixels; None: whole images.
    """
    rows = np.random.default_rng(seed).permutation(inputs.data.rows("train"))[:most]
    batch = inputs.batch(np.sort(rows))
    images = batch.images.flatten(0, 1)  # of both dates, where there are two
    if batch.valid is not None:
        images = images[batch.valid.flatten(2).any(dim=2).flatten()]  # without those that are missing from a set
    if patch_size is not None:
        height, width = images.shape[-2:]
        images = on_patches(images, patch_size, (-(-height // patch_size), -(-width // patch_size)))
    features = RandomConvolutionFeatures(images.shape[1], kernel_size=min(KERNEL_SIZE, patch_size or KERNEL_SIZE))
    features.fit(images, patch_size=patch_size, generator=torch.Generator().manual_seed(seed))
    return features


def linear_head(recipe: FinetuneParameters) -> FinetuneParameters:
    """Change a recipe for whole models to one for a linear head alone: more steps at a higher rate."""
    changes = {"mode": "frozen", "steps": max(recipe.steps, _STEPS), "lr": _LR, "head_lr_scale": 1.0}
    return recipe.model_copy(update={**changes, "lr_grid": (), "val_checks": 0})


def convolution_baseline(
    options: TaskParameters, data: TaskData, patch_size: int, device: torch.device
) -> tuple[TaskModel, TaskInputs]:
    """Train a linear head on random convolution features of all bands, on the labels that the task's models have.

    Args:
        options: The task's parameters: bands, loss, batch size, seed.
        data: Samples with a label per pixel.
        patch_size: Side of a patch of the task's models, pixels; the next smaller one of which images are whole
            patches is taken.
        device: Where to train.

    Returns:
        The trained model, and its inputs.
    """
    inputs = TaskInputs(data, plan_inputs(data, tuple(dict.fromkeys(options.bands)), {}, bands_per_view=None))
    train = data.rows("train")
    sides = math.gcd(*data.image_shape[-2:])
    patch_size = next(side for side in range(patch_size, 0, -1) if sides % side == 0)
    features = drawn_features(inputs, options.seed, most=FITTED_IMAGES, patch_size=patch_size)
    recipe = linear_head(options.finetune)
    head = head_for(data, inputs.plan, options, "linear")
    torch.manual_seed(options.seed)
    model = TaskModel(cast(Encoder, ConvolutionEncoder(features, patch_size)), head)
    finetune(
        model, inputs, train, recipe, seed=options.seed, device=device, name=f"{data.spec.task}, linear head on rcf"
    )
    return model, inputs

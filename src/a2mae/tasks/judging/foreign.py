"""Encoders that this project did not train, from a local file: timm's, and torchgeo's weights for timm's architectures.

Nothing is downloaded. What such a network expects of its input (mean, deviation, size) is stated by the user; without
it the data's own training statistics are used and the size stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.tasks.parameters import OtherEncoderParameters
from a2mae.tasks.samples.inputs import Normalisation, TaskBatch
from a2mae.tasks.samples.task_data import TaskData, TaskDataError

LISTED = 5


class ForeignFeatures:
    """A timm network's pooled features.

    Attributes:
        patch: Image sides must be a multiple of it.
    """

    def __init__(self, entry: OtherEncoderParameters, channels: int) -> None:
        """Make the network and load its weights.

        Args:
            entry: Which one, and its file.
            channels: Bands that it gets.

        Raises:
            TaskDataError: If timm has no such model, or the file's tensors are not the model's; they are named.
        """
        if not timm.is_model(entry.model):
            near = ", ".join(timm.list_models(f"*{entry.model.split('_')[0]}*")[:LISTED])
            raise TaskDataError(f"evaluate.others {entry.name!r}: timm has no model {entry.model!r}; near it: {near}")
        options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": False}
        is_vit = "vit" in entry.model or "deit" in entry.model
        if is_vit:
            options["dynamic_img_size"] = True
        model = timm.create_model(entry.model, **options)
        _load(model, entry)
        self._model = model.eval()
        self._size = entry.size_px
        self.patch = int(cast(Any, model.patch_embed).patch_size[0]) if is_vit else 1

    def to(self, device: torch.device) -> ForeignFeatures:
        """The same network on another device."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, batch: TaskBatch) -> Tensor:
        """A batch with one date → `(B, D)` float32."""
        images = batch.images[:, 0]
        if self._size is not None:
            images = F.interpolate(images, size=(self._size, self._size), mode="bilinear", align_corners=False)
        return cast(Tensor, self._model(images)).float()


def _load(model: nn.Module, entry: OtherEncoderParameters) -> None:
    path = Path(str(entry.weights))
    if not path.is_file():
        raise TaskDataError(f"evaluate.others {entry.name!r}: no weights at {path}")
    stored: dict[str, Any] = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    )
    state: dict[str, Tensor] = stored.get("state_dict", stored.get("model", stored))
    expected = model.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    missing = [name for name in expected if name not in state]
    if missing or wrong:
        raise TaskDataError(
            f"evaluate.others {entry.name!r}: {path.name} does not fit timm's {entry.model}: {len(missing)} tensors are"
            f" missing ({', '.join(missing[:LISTED])}), {len(wrong)} differ in shape ({'; '.join(wrong[:LISTED])})"
        )
    model.load_state_dict({name: state[name] for name in expected})


def stated_normalisation(entry: OtherEncoderParameters, data: TaskData, bands: tuple[str, ...]) -> Normalisation:
    """The user's mean and deviation per band for every sensor of the data; empty where none are stated.

    Raises:
        TaskDataError: If there are not as many as bands.
    """
    if not entry.mean:
        return {}
    if not len(bands) == len(entry.mean) == len(entry.std):
        raise TaskDataError(
            f"evaluate.others {entry.name!r}: {len(bands)} bands need as many means and deviations, found"
            f" {len(entry.mean)} and {len(entry.std)}"
        )
    names = [data.spec.bands[data.spec.band_index(name, "evaluate")].name for name in bands]
    pairs = {name: (mean, std) for name, mean, std in zip(names, entry.mean, entry.std, strict=True)}
    return {sensor: pairs for sensor in set(data.samples["sensor"])}

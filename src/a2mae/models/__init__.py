"""A²-MAE, Scale-MAE and MAE: encodings, masking, encoders, decoders. Torch and timm only.

One page per model: `a2mae.py`, `scale_mae.py`, `mae.py`. `docs/models.md` holds each decision with its reason.
"""

from a2mae.models.batch import ImageSetBatch
from a2mae.models.checkpoint import from_pretrained, load_encoder, save_pretrained
from a2mae.models.encoder import Encoder, EncoderConfig
from a2mae.models.pretrainer import MASK_GROUPS, Pretrainer, PretrainOutput, loss_by_group
from a2mae.models.registry import create_model, list_models
from a2mae.models.released import CheckpointError, read_published

__all__ = [
    "MASK_GROUPS",
    "CheckpointError",
    "Encoder",
    "EncoderConfig",
    "ImageSetBatch",
    "PretrainOutput",
    "Pretrainer",
    "create_model",
    "from_pretrained",
    "list_models",
    "load_encoder",
    "loss_by_group",
    "read_published",
    "save_pretrained",
]

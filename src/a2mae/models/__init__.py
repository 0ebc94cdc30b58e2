"""A²-MAE, Scale-MAE, MAE and SatMAE on one encoder, with torch and timm alone.

One page per model: `a2mae.py`, `scale_mae.py`, `mae.py`, `satmae.py`. docs/models.md gives the reason of each decision.
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

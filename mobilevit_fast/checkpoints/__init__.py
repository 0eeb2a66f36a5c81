"""Checkpoints of MobileViT: read and written under the names of transformers, apple/ml-cvnets and timm."""

from mobilevit_fast.checkpoints.errors import CheckpointError
from mobilevit_fast.checkpoints.infer import infer_config
from mobilevit_fast.checkpoints.io import (
    Checkpoint,
    build_model,
    load_model,
    load_pretrained,
    read_checkpoint,
)
from mobilevit_fast.checkpoints.loading import load_weights
from mobilevit_fast.checkpoints.names import NAMINGS, Naming, detect_naming, from_huggingface, to_huggingface
from mobilevit_fast.checkpoints.writing import write_checkpoint

__all__ = [
    "NAMINGS",
    "Checkpoint",
    "CheckpointError",
    "Naming",
    "build_model",
    "detect_naming",
    "from_huggingface",
    "infer_config",
    "load_model",
    "load_pretrained",
    "load_weights",
    "read_checkpoint",
    "to_huggingface",
    "write_checkpoint",
]

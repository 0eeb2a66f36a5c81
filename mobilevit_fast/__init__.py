"""MobileViT with fused kernels: drop-in acceleration for models people already have, and a MobileViT of its own."""

from mobilevit_fast import interrupts, limits, nn, ops  # noqa: F401  # interrupts is the first, and all it does is being imported
from mobilevit_fast.acceleration import PixelNormalization, accelerate, accelerated, plan, report, restore
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.engine import Engine
from mobilevit_fast.export import export_onnx
from mobilevit_fast.images import MobileViTFeatureExtractor, MobileViTImageProcessor
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from mobilevit_fast.version import __version__  # noqa: F401

__all__ = [
    "Engine",
    "MobileViTConfig",
    "MobileViTFeatureExtractor",
    "MobileViTForImageClassification",
    "MobileViTForSemanticSegmentation",
    "MobileViTImageProcessor",
    "MobileViTModel",
    "PixelNormalization",
    "accelerate",
    "accelerated",
    "export_onnx",
    "limits",
    "nn",
    "ops",
    "plan",
    "report",
    "restore",
]

"""The configuration of a MobileViT: what its fields may hold, and how large it makes a model."""

from mobilevit_fast.config.configuration import PRESETS, MobileViTConfig

__all__ = [
    "PRESETS",
    "MobileViTConfig",
]

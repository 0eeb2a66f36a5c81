"""Images in, tensors for MobileViT out: the image processor and its steps."""

from mobilevit_fast.images.features import BatchFeature
from mobilevit_fast.images.processor import MobileViTFeatureExtractor, MobileViTImageProcessor
from mobilevit_fast.images.settings import ImageSettings
from mobilevit_fast.images.transforms import ImageError

__all__ = [
    "BatchFeature",
    "ImageError",
    "ImageSettings",
    "MobileViTFeatureExtractor",
    "MobileViTImageProcessor",
]

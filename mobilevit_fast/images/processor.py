"""Images in, tensors for MobileViT out; and segmentation logits back to maps of class ids."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import starmap
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobilevit_fast.config.configuration import CONFIG_FILE
from mobilevit_fast.files import (
    HubOptions,
    download_or_explain,
    find,
    read_json_object,
    user_path,
    write_atomically,
)
from mobilevit_fast.images.families import family_settings
from mobilevit_fast.images.features import BatchFeature
from mobilevit_fast.images.inputs import list_images
from mobilevit_fast.images.pipeline import process_image, process_segmentation_map, stack
from mobilevit_fast.images.settings import SETTING_NAMES, ImageSettings, check_names
from mobilevit_fast.images.transforms import ImageError
from mobilevit_fast.limits import shortened

if TYPE_CHECKING:
    from mobilevit_fast.checkpoints import Checkpoint

__all__ = [
    "BatchFeature",
    "ImageError",
    "ImageSettings",
    "MobileViTFeatureExtractor",
    "MobileViTImageProcessor",
]

PREPROCESSOR_CONFIG = "preprocessor_config.json"
_SCORES_AT_ONCE = 1 << 24  # of a segmentation, while they are resized
_TYPE_KEYS = ("image_processor_type", "feature_extractor_type")
_TYPES = (
    "MobileViTImageProcessor",
    "MobileViTImageProcessorPil",
    "MobileViTImageProcessorFast",
    "MobileViTFeatureExtractor",
)


class MobileViTImageProcessor:
    """Prepares images for MobileViT as the Pillow-based processor of transformers does, bit for bit.

    The settings and their defaults are those of `ImageSettings`; each can be read and set as an attribute and
    replaced for one call by a keyword. One thing is added: transformers' MobileViT processor reads
    `do_normalize` but never normalises, this one does, whoever wrote the file: pass `do_normalize=False` for
    images like theirs. `image_mean` and `image_std` are given in RGB order, whatever `do_flip_channel_order` says.

    Example:
        processor = MobileViTImageProcessor.from_pretrained(folder)
        outputs = model(**processor(["a.jpg", "b.png"]))
    """

    model_input_names = ("pixel_values",)
    file_name = PREPROCESSOR_CONFIG

    settings: ImageSettings
    unknown_keys: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        """
        Args:
            **settings: see `ImageSettings`; None means the default.

        Raises:
            TypeError: a keyword that is no setting.
            ValueError: a value that does not fit its setting.
        """
        check_names(settings, type(self).__name__)
        self.settings = ImageSettings(**{name: value for name, value in settings.items() if value is not None})
        self.unknown_keys = {}

    def __getattr__(self, name: str) -> Any:
        if name in SETTING_NAMES:
            return getattr(self.settings, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SETTING_NAMES:
            self.settings = replace(self.settings, **{name: value})
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __call__(
        self, images: Any, segmentation_maps: Any = None, return_tensors: str | None = "pt", **overrides: Any
    ) -> BatchFeature:
        """Prepare images, and segmentation maps with them.

        Args:
            images: one of, a list of, or a nested list of: PIL images; paths; encoded image files as bytes;
                numpy arrays and torch tensors of (height, width), (channels, height, width) or (height,
                width, channels) with 1, 3 or 4 channels, or with a leading batch axis. Pixels are whole
                numbers in [0, 255], or beyond in [0, 65535], of which the upper 8 bits are taken, or, to be
                resized, fractions in [0, 1]; for fractions pass `do_rescale=False`. Paths and bytes are turned
                upright by their EXIF orientation and read as RGB. PIL images and arrays keep their channels
                unless `do_convert_rgb`; grey then stays one channel, which the models refuse.
            segmentation_maps: None, or one map of class ids for each image: the same kinds of input, with
                (height, width) for arrays. They are resized to the nearest pixel and cropped along with the
                images.
            return_tensors: "pt" for torch tensors, "np" for numpy arrays, None for a list of numpy arrays,
                which is the only way to take results of different sizes.
            **overrides: settings for this call, see `ImageSettings`. None switches a `do_...` setting off.

        Returns:
            `pixel_values`: (images, channels, height, width), float32 if rescaled or normalised.
            `labels`, if there are maps: (images, height, width), int64.

        Raises:
            TypeError: a keyword that is no setting, or an item that is no image.
            ImageError: an image that cannot be read or processed (the message has its index and path),
                results of different sizes that cannot be stacked, another number of maps than of images.
            ValueError: a value that does not fit its setting.
        """
        check_names(overrides, type(self).__name__)
        if return_tensors not in ("pt", "np", None):
            raise ValueError(f'return_tensors: expected "pt", "np" or None, got {return_tensors!r}')
        settings = replace(self.settings, **overrides)
        sources = list_images(images, ndim=3, kind="image")
        features = BatchFeature()
        values = list(starmap(partial(process_image, settings=settings), sources))
        features["pixel_values"] = stack(values, return_tensors, "image")
        if segmentation_maps is not None:
            maps = list_images(segmentation_maps, ndim=2, kind="segmentation map")
            if len(maps) != len(sources):
                raise ImageError(
                    f"expected one segmentation map for each image, got {len(maps)} for {len(sources)} images"
                )
            labels = list(starmap(partial(process_segmentation_map, settings=settings), maps))
            features["labels"] = stack(labels, return_tensors, "segmentation map")
        return features

    preprocess = __call__

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Iterable[tuple[int, int]] | torch.Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[torch.Tensor] | list[BatchFeature]:
        """The class of every pixel.

        Args:
            outputs: of a segmentation model; its `logits` are (images, labels, height, width), floating
                point.
            target_sizes: (height, width) in pixels for each image, as a list or a tensor (images, 2): the
                logits are resized to it, bilinearly, before the class is taken. None keeps the size of the
                logits.
            return_segmentation_scores: also return the logits that were compared.

        Returns:
            For each image the class ids, (height, width), int64; with scores, mappings of `segmentation`
            (those ids) and `segmentation_scores` (labels, height, width).

        Raises:
            ValueError: another number of sizes than of images, or a size that is no pair of positive ints.
            TypeError: `outputs` has no logits.
        """
        logits = getattr(outputs, "logits", None)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 4:
            came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(outputs).__name__
            raise TypeError(f"expected outputs with logits (images, labels, height, width), got {came}")
        scores = list(logits)
        if target_sizes is not None:
            sizes = _target_sizes(target_sizes, len(scores))
            if not return_segmentation_scores:
                return [_best_classes(one, size) for one, size in zip(scores, sizes, strict=True)]
            scores = [
                torch.nn.functional.interpolate(one[None], size=size, mode="bilinear", align_corners=False)[0]
                for one, size in zip(scores, sizes, strict=True)
            ]
        maps = [one.argmax(dim=0) for one in scores]
        if not return_segmentation_scores:
            return maps
        return [
            BatchFeature({"segmentation": labels, "segmentation_scores": one})
            for labels, one in zip(maps, scores, strict=True)
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> "MobileViTImageProcessor":
        """From the content of a preprocessor_config.json, with settings replaced.

        Older spellings are understood: `feature_extractor_type`, `reduce_labels`, sizes given as an int or a
        pair. Null means the default. Keys that are no setting are kept in `unknown_keys` and written again by
        `to_dict`.

        Raises:
            TypeError: an override that is no setting.
            ValueError: a value that does not fit its setting, or the configuration of another kind of
                processor.
        """
        check_names(overrides, cls.__name__)
        values = dict(values)
        types = [values.pop(key) for key in _TYPE_KEYS if values.get(key) is not None]
        if types and types[0] not in _TYPES:
            raise ValueError(f"expected the configuration of a {_TYPES[0]}, got {shortened(types[0])}")
        older = values.pop("reduce_labels", None)
        if values.get("do_reduce_labels") is None:
            values["do_reduce_labels"] = older
        settings = {name: values.pop(name, None) for name in SETTING_NAMES}
        processor = cls(**{**settings, **overrides})
        processor.unknown_keys = values
        return processor

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> "MobileViTImageProcessor":
        """From a folder that holds preprocessor_config.json, from such a file, or from a model of the Hugging
        Face hub.

        Args:
            folder_or_id: a path, or an id such as "apple/mobilevit-small" where no such path exists.
            revision: branch, tag or commit on the hub.
            token: the hub's access token, or True for the stored one.
            cache_dir: folder for downloads instead of the hub's own.
            local_files_only: use what was downloaded before, without a connection.
            **overrides: settings to replace.

        Raises:
            OSError: there is no such file, here or on the hub.
            TypeError: an override that is no setting.
            ValueError: the file is not such a configuration.
        """
        check_names(overrides, cls.__name__)
        path = user_path(folder_or_id)
        if path.is_dir():
            path = path / PREPROCESSOR_CONFIG
            if find(path) is None:
                raise FileNotFoundError(f"expected a file {PREPROCESSOR_CONFIG} in {os.fspath(folder_or_id)}, got none")
        elif find(path) is None:
            hub = HubOptions(revision, token, cache_dir, local_files_only)
            path = download_or_explain(
                folder_or_id, PREPROCESSOR_CONFIG, hub, holding=f" that holds {PREPROCESSOR_CONFIG}"
            )
        values = read_json_object(path)
        try:
            return cls.from_dict(values, **overrides)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def for_checkpoint(cls, checkpoint: "Checkpoint", **overrides: Any) -> "MobileViTImageProcessor":
        """With the settings that the family of a checkpoint was trained with, where no file tells them.

        Images are cropped to the size in the model's configuration, S by S pixels, and then are

        - of ml-cvnets and transformers: the shorter edge resized to S + 32, bilinear; BGR in [0, 1], not normalised.
          ml-cvnets reads images by OpenCV, in BGR, and resizes to 288 before it crops 256
          (config/classification/imagenet/mobilevit.yaml); the preprocessor_config.json of apple/mobilevit-small and
          apple/deeplabv3-mobilevit-small (544 and 512) say the same.
        - of timm: the shorter edge resized to S / 0.9, bicubic; RGB in [0, 1] with mean 0 and standard deviation 1 (the
          default configuration in timm/models/mobilevit.py), or what `pretrained_cfg` in the config.json beside the
          weights says of `crop_pct`, `interpolation`, `mean` and `std`.

        It is a guess for weights that were trained with other settings.

        Args:
            checkpoint: as `mobilevit_fast.checkpoints.read_checkpoint` returns it.
            **overrides: settings to replace.

        Raises:
            TypeError: an override that is no setting.
            OSError, ValueError: another family, whose settings are not known; or a config.json that cannot be read, or
                has other values than settings can have.
        """
        check_names(overrides, cls.__name__)
        config_file = checkpoint.path.parent / CONFIG_FILE
        settings = family_settings(checkpoint.naming, checkpoint.config.image_size, config_file)
        processor = cls()
        processor.settings = replace(settings, **overrides)
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Settings, kept keys and `image_processor_type`, as values that JSON can hold."""
        return {**self.unknown_keys, **self.settings.to_dict(), "image_processor_type": _TYPES[0]}

    def to_json_string(self) -> str:
        """The text of preprocessor_config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write preprocessor_config.json into `folder`, made if it does not exist, and return the file's
        path; the whole file or nothing.

        transformers reads it back, but leaves out the normalisation that `do_normalize` asks for.
        """
        content = self.to_json_string().encode()
        path = user_path(folder) / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return path


MobileViTFeatureExtractor = MobileViTImageProcessor
"""The older name."""


def _best_classes(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The classes (height, width) of one image's logits (labels, h, w), resized a few labels at a time.

    All of them at the size of a photo would take gigabytes.
    """
    step = max(1, _SCORES_AT_ONCE // (size[0] * size[1]))
    best: torch.Tensor | None = None
    classes = torch.zeros(size, dtype=torch.int64, device=logits.device)
    for first, part in zip(range(0, len(logits), step), logits.split(step), strict=True):
        resized = torch.nn.functional.interpolate(part[None], size=size, mode="bilinear", align_corners=False)[0]
        values, indices = resized.max(dim=0)
        if best is None:
            best, classes = values, indices
        else:
            better = values > best  # of equal scores the first counts
            best = torch.where(better, values, best)
            classes = torch.where(better, indices + first, classes)
    return classes


def _target_sizes(sizes: Any, images: int) -> list[tuple[int, int]]:
    """Pairs (height, width), one for each image."""
    pairs = sizes.tolist() if isinstance(sizes, torch.Tensor) else list(sizes)
    if len(pairs) != images:
        raise ValueError(f"target_sizes: expected one size for each of {images} images, got {len(pairs)}")
    for i, pair in enumerate(pairs):
        is_pair = isinstance(pair, (tuple, list, torch.Size)) and len(pair) == 2
        if not is_pair or not all(isinstance(edge, Integral) and int(edge) > 0 for edge in pair):
            raise ValueError(f"target_sizes[{i}]: expected two positive ints (height, width), got {pair!r}")
    return [(int(height), int(width)) for height, width in pairs]

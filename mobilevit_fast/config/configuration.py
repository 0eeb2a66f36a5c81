"""The configuration of a MobileViT, in the JSON format of Hugging Face."""

import copy
import inspect
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from mobilevit_fast.config.checks import (
    check_fields,
    default_id2label,
    listed,
    parse_dtype,
    parse_id2label,
    parse_label2id,
    require,
)
from mobilevit_fast.files import (
    HubOptions,
    download_or_explain,
    find,
    read_json_object,
    user_path,
    write_atomically,
)

CONFIG_FILE = "config.json"

# The three sizes of the paper (arXiv 2110.02178, section 3.2 and table 4). What is not named here is the default.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "x_small": {
        "hidden_sizes": [96, 120, 144],
        "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384],
    },
    "xx_small": {
        "hidden_sizes": [64, 80, 96],
        "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
        "hidden_dropout_prob": 0.05,
        "expand_ratio": 2.0,
    },
}

# Written to JSON only where they differ from these values, as Hugging Face does.
_OMITTED_DEFAULTS: dict[str, Any] = {
    "return_dict": True,
    "output_hidden_states": False,
    "problem_type": None,
    "architectures": None,
    "dtype": None,
}
_DEFAULT_LABELS = {0: "LABEL_0", 1: "LABEL_1"}


class MobileViTConfig:
    """Sizes and options of a MobileViT. Names, meanings and defaults are those of Hugging Face's class.

    All arguments are keywords. A key that is not listed becomes an attribute of the same name and is written back to
    JSON, so that configurations of other versions survive a round trip.

    Args:
        num_channels: channels of the image.
        image_size: pixels, one int or (height, width). Information for users; the model takes any size.
        patch_size: pixels per side of a patch of the feature map, one int or (height, width).
        hidden_sizes: width of the transformers of the three MobileViT blocks, each a multiple of `num_attention_heads`.
        neck_hidden_sizes: channels of the stem, of the five encoder layers and of the last 1x1 convolution.
        num_attention_heads: attention heads of every transformer layer.
        mlp_ratio: width of the transformer's MLP over its input.
        expand_ratio: width of the inverted residuals' middle over their input (arXiv 1801.04381).
        hidden_act: a name in `mobilevit_fast.config.activations.ACTIVATIONS`.
        conv_kernel_size: the n of the n x n convolutions of a MobileViT block, odd.
        output_stride: image size over size of the last features, 8, 16 or 32. Less than 32 trades stride for dilation.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout in the transformers.
        classifier_dropout_prob: dropout before the classifier of either head.
        initializer_range: standard deviation of freshly made weights.
        layer_norm_eps: epsilon of the layer norms.
        qkv_bias: whether query, key and value have a bias.
        aspp_out_channels, atrous_rates, aspp_dropout_prob: the DeepLabV3 head (arXiv 1706.05587): channels, the three
            dilations, dropout.
        semantic_loss_ignore_index: label of pixels that the segmentation loss leaves out.
        num_labels: classes. 0 leaves out the classifier. Default: as many as `id2label` has, else 2. Where `id2label`
            has another number of names, these count and a warning says so.
        id2label, label2id: names of the classes. Keys of `id2label` may be numbers written as strings, as in JSON.
            `label2id` by itself names the classes too, unless `num_labels` is another number (in transformers it never
            does).
        problem_type: "regression", "single_label_classification", "multi_label_classification", or None to tell from
            `num_labels` and the dtype of the labels.
        return_dict: whether models return a `ModelOutput` (else a tuple) when the call does not say.
        output_hidden_states: whether models return hidden states when the call does not say.
        architectures: names of the classes that the weights were saved from.
        dtype: dtype of the saved weights, a `torch.dtype` or its name.
        **extra: further keys, kept.

    Raises:
        ValueError: a value does not fit; the message names the field, what was expected and what came.
    """

    model_type = "mobilevit"

    def __init__(
        self,
        /,
        *,
        num_channels: int = 3,
        image_size: int | Sequence[int] = 256,
        patch_size: int | Sequence[int] = 2,
        hidden_sizes: Sequence[int] = (144, 192, 240),
        neck_hidden_sizes: Sequence[int] = (16, 32, 64, 96, 128, 160, 640),
        num_attention_heads: int = 4,
        mlp_ratio: float = 2.0,
        expand_ratio: float = 4.0,
        hidden_act: str = "silu",
        conv_kernel_size: int = 3,
        output_stride: int = 32,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.0,
        classifier_dropout_prob: float = 0.1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        qkv_bias: bool = True,
        aspp_out_channels: int = 256,
        atrous_rates: Sequence[int] = (6, 12, 18),
        aspp_dropout_prob: float = 0.1,
        semantic_loss_ignore_index: int = 255,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | Mapping[str, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        return_dict: bool = True,
        output_hidden_states: bool = False,
        architectures: Sequence[str] | None = None,
        dtype: str | torch.dtype | None = None,
        **extra: Any,
    ) -> None:
        self.num_channels = num_channels
        self.image_size = listed(image_size)
        self.patch_size = listed(patch_size)
        self.hidden_sizes = listed(hidden_sizes)
        self.neck_hidden_sizes = listed(neck_hidden_sizes)
        self.num_attention_heads = num_attention_heads
        self.mlp_ratio = mlp_ratio
        self.expand_ratio = expand_ratio
        self.hidden_act = hidden_act
        self.conv_kernel_size = conv_kernel_size
        self.output_stride = output_stride
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.classifier_dropout_prob = classifier_dropout_prob
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.qkv_bias = qkv_bias
        self.aspp_out_channels = aspp_out_channels
        self.atrous_rates = listed(atrous_rates)
        self.aspp_dropout_prob = aspp_dropout_prob
        self.semantic_loss_ignore_index = semantic_loss_ignore_index
        self.problem_type = problem_type
        self.return_dict = return_dict
        self.output_hidden_states = output_hidden_states
        self.architectures = listed(architectures)
        # Files written by older versions of transformers call it torch_dtype.
        old_dtype = extra.pop("torch_dtype", None)
        self.dtype = parse_dtype(dtype if dtype is not None else old_dtype)

        self._set_labels(num_labels, id2label, label2id)
        self._keep_extra(extra)
        self.validate()

    def _set_labels(self, num_labels: Any, id2label: Any, label2id: Any) -> None:
        names = None if id2label is None else parse_id2label(id2label)
        indices = None if label2id is None else parse_label2id(label2id)
        count = None if num_labels is None else len(default_id2label(num_labels))
        if names is not None and count not in (None, len(names)):
            warnings.warn(
                f"MobileViTConfig.num_labels: expected {len(names)}, the number of names in id2label, which count; "
                f"got {count}",
                stacklevel=3,
            )
        elif names is None and indices is not None and count in (None, len(indices)):
            names = {index: name for name, index in indices.items()}
        elif names is None:
            names = default_id2label(2 if count is None else count)
            if indices is not None:
                warnings.warn(
                    f"MobileViTConfig.num_labels: {count} replaces the {len(indices)} names of label2id", stacklevel=3
                )
                indices = None
        if indices is None:
            indices = {name: index for index, name in names.items()}
        self.id2label, self.label2id = names, indices

    def _keep_extra(self, extra: dict[str, Any]) -> None:
        model_type = extra.pop("model_type", self.model_type)
        require("model_type", model_type == self.model_type, repr(self.model_type), model_type)
        for key, value in extra.items():
            require(key, not hasattr(type(self), key), "no such field, the name is taken by a method", value)
            setattr(self, key, value)

    def validate(self) -> None:
        """Check the fields again, as after assignments. Models do so when they are built.

        Raises:
            ValueError: a value does not fit; the message names its field.
        """
        check_fields(vars(self), self.num_labels)

    @property
    def num_labels(self) -> int:
        """Number of classes, the length of `id2label`. Setting another number renames the classes to LABEL_<i>."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if value != len(self.id2label):
            self.id2label = default_id2label(value)
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def patch_height_and_width(self) -> tuple[int, int]:
        """`patch_size` as (height, width)."""
        if isinstance(self.patch_size, int):
            return self.patch_size, self.patch_size
        height, width = self.patch_size
        return height, width

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """The configuration of one of the paper's sizes: "small", "x_small" or "xx_small", with fields replaced."""
        if name not in PRESETS:
            raise ValueError(f"MobileViTConfig.preset: expected one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def converted(cls, config: Any, caller: str) -> "MobileViTConfig":
        """`config` itself where it is of this class, else one of the same values as transformers' MobileViTConfig.

        Raises:
            TypeError: something else; the message begins with `caller`.
        """
        if isinstance(config, MobileViTConfig):
            return config
        if getattr(config, "model_type", None) != cls.model_type or not hasattr(config, "to_dict"):
            raise TypeError(f"{caller}: expected a MobileViTConfig, got {type(config).__name__}")
        return cls.from_dict({name: value for name, value in config.to_dict().items() if not name.startswith("_")})

    @classmethod
    def field_names(cls) -> set[str]:
        """The fields that have a meaning here; others are only kept."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """From the dictionary that a JSON file holds, with fields replaced.

        An override of `id2label` replaces `label2id` as well, and one of `num_labels` gives the classes new names
        when their number changes.
        """
        values = dict(values)
        names = values.get("id2label")
        count = len(names) if isinstance(names, Mapping) else 2
        if "id2label" in overrides or overrides.get("num_labels", count) != count:
            for key in ("num_labels", "id2label", "label2id"):
                values.pop(key, None)
        return cls(**{**values, **overrides})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """From a JSON file, with fields replaced.

        Raises:
            OSError: the file cannot be read.
            ValueError: it does not hold a JSON object, or a value in it does not fit.
        """
        return cls.from_dict(read_json_object(user_path(path)), **overrides)

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
    ) -> Self:
        """From a folder that holds config.json, from a JSON file, or from a model of the Hugging Face hub.

        Args:
            folder_or_id: a path, or an id such as "apple/mobilevit-small" where no such path exists.
            revision: branch, tag or commit on the hub.
            token: the hub's access token, or True for the stored one.
            cache_dir: folder for downloads instead of the hub's own.
            local_files_only: use what was downloaded before, without a connection.
            **overrides: fields to replace.

        Raises:
            OSError: there is no such file, here or on the hub.
            ValueError: the file is not such a configuration.
        """
        path = user_path(folder_or_id)
        if path.is_dir():
            path = path / CONFIG_FILE
        elif not path.exists() and find(path) is None:
            hub = HubOptions(revision, token, cache_dir, local_files_only)
            path = download_or_explain(folder_or_id, CONFIG_FILE, hub)
        return cls.from_json_file(path, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Every field and kept key: sequences as lists, the dtype as its name, integer keys in `id2label`."""
        values = {key: copy.deepcopy(value) for key, value in vars(self).items()}
        if self.dtype is not None:
            values["dtype"] = str(self.dtype).removeprefix("torch.")
        values["model_type"] = self.model_type
        return values

    def to_json_string(self) -> str:
        """The text of config.json: sorted keys, without the fields that Hugging Face leaves out at their defaults."""
        values = self.to_dict()
        for key, default in _OMITTED_DEFAULTS.items():
            if values[key] == default:
                del values[key]
        if self.id2label == _DEFAULT_LABELS:
            del values["id2label"], values["label2id"]
        # sort_keys sorts before keys become strings, which keeps id2label in numeric order.
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json into `folder`, which is made if it does not exist: the whole file or nothing."""
        self.validate()
        content = self.to_json_string().encode()
        path = user_path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / CONFIG_FILE, content)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MobileViTConfig):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a configuration can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

"""The configuration of a checkpoint that came without one, read from the shapes of its tensors."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from torch import Tensor

from mobilevit_fast.checkpoints.errors import CheckpointError
from mobilevit_fast.checkpoints.names import MOBILENET_BLOCKS, is_known_head
from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.config.size import TRANSFORMER_DEPTHS, make_divisible

ARCHITECTURES = {
    "base": "MobileViTModel",
    "classification": "MobileViTForImageClassification",
    "segmentation": "MobileViTForSemanticSegmentation",
}
"""The class of a model for each task."""

# Not visible in any shape; what all published checkpoints use (arXiv 2110.02178, sections 4.1 and 4.2.2).
_IMAGE_SIZE = {"base": 256, "classification": 256, "segmentation": 512}
_OUTPUT_STRIDE = {"base": 32, "classification": 32, "segmentation": 16}


def task_of(state_dict: Mapping[str, Tensor]) -> str:
    """The task of a state dict with Hugging Face's names: "base", "classification" or "segmentation"."""
    heads = [name for name in state_dict if is_known_head(name)]
    if any(name.startswith("segmentation_head.") for name in heads):
        return "segmentation"
    return "classification" if heads else "base"


def infer_config(state_dict: Mapping[str, Tensor]) -> MobileViTConfig:
    """Read a configuration from the shapes of a state dict with Hugging Face's names.

    Sizes, ratios, kernel size, biases and the number of labels are read from shapes. These cannot be, and get
    the values that all published checkpoints use: 4 attention heads, patches of 2, SiLU, an output stride of
    32 (16 and atrous rates 6, 12, 18 with a segmentation head), images of 256 (512) pixels. Where the sizes are
    those of a preset, dropout probabilities are its own. A model without `conv_1x1_exp` gets the width that
    ml-cvnets gives it: 4 times the last block, at most 960.

    Raises:
        CheckpointError: a tensor that is needed is missing, or no configuration gives its shape.
    """
    shapes = _Shapes(state_dict)
    first_block = len(MOBILENET_BLOCKS)
    block_names = [f"encoder.layer.{first_block + index}" for index in range(len(TRANSFORMER_DEPTHS))]

    necks = [
        shapes.convolution("conv_stem")[0],
        shapes.convolution("encoder.layer.0.layer.0.reduce_1x1")[0],
        shapes.convolution("encoder.layer.1.layer.0.reduce_1x1")[0],
        *(shapes.convolution(f"{name}.downsampling_layer.reduce_1x1")[0] for name in block_names),
    ]
    if shapes.has("conv_1x1_exp.convolution.weight"):
        necks.append(shapes.convolution("conv_1x1_exp")[0])
    else:
        necks.append(min(4 * necks[-1], 960))

    hidden_sizes = [shapes.convolution(f"{name}.conv_1x1")[0] for name in block_names]
    kernel_size = shapes.convolution(f"{block_names[0]}.conv_kxk")[2]
    layer = f"{block_names[0]}.transformer.layer.0"
    task = task_of(state_dict)
    fields: dict[str, Any] = {
        "num_channels": shapes.convolution("conv_stem")[1],
        "image_size": _IMAGE_SIZE[task],
        "output_stride": _OUTPUT_STRIDE[task],
        "hidden_sizes": hidden_sizes,
        "neck_hidden_sizes": necks,
        "expand_ratio": _expand_ratio(shapes, block_names),
        "mlp_ratio": _mlp_ratio(shapes, block_names, hidden_sizes),
        "conv_kernel_size": kernel_size,
        "qkv_bias": shapes.has(f"{layer}.attention.attention.query.bias"),
        "num_labels": _num_labels(shapes, task),
        "architectures": [ARCHITECTURES[task]],
    }
    if task == "segmentation":
        fields["aspp_out_channels"] = shapes.convolution("segmentation_head.aspp.convs.0")[0]

    for name in PRESETS:
        preset = MobileViTConfig.preset(name)
        sizes = (list(preset.hidden_sizes), list(preset.neck_hidden_sizes), preset.expand_ratio)
        if sizes == (hidden_sizes, necks, fields["expand_ratio"]):
            return MobileViTConfig.preset(name, **fields)
    try:
        return MobileViTConfig(**fields)
    except ValueError as error:
        raise CheckpointError(f"the tensors' shapes give no valid configuration: {error}") from error


class _Shapes:
    """Shapes of a state dict by name, with or without the prefix of the backbone."""

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self._shapes = {name.removeprefix("mobilevit."): tuple(t.shape) for name, t in state_dict.items()}

    def has(self, name: str) -> bool:
        return name in self._shapes

    def of(self, name: str, ndim: int) -> tuple[int, ...]:
        if name not in self._shapes:
            raise CheckpointError(f"cannot read the configuration from the tensors: {name} is missing")
        shape = self._shapes[name]
        if len(shape) != ndim or 0 in shape:
            raise CheckpointError(f"{name}: expected {ndim} dimensions, none empty, got shape {shape}")
        return shape

    def convolution(self, name: str) -> tuple[int, ...]:
        """(out channels, in channels, height, width) of a convolution's kernel."""
        return self.of(f"{name}.convolution.weight", 4)


def _num_labels(shapes: _Shapes, task: str) -> int:
    if task == "segmentation":
        return shapes.convolution("segmentation_head.classifier")[0]
    return shapes.of("classifier.weight", 2)[0] if task == "classification" else 0


def _expand_ratio(shapes: _Shapes, block_names: list[str]) -> float:
    """The factor that gives the expanded channels of all seven inverted residuals, each rounded by itself."""
    names = [
        f"encoder.layer.{stage}.layer.{block}"
        for stage, blocks in enumerate(MOBILENET_BLOCKS)
        for block in range(blocks)
    ]
    names += [f"{name}.downsampling_layer" for name in block_names]
    expansions = [shapes.convolution(f"{name}.expand_1x1")[:2] for name in names]
    # Expanded channels are rounded to multiples of 8 by less than 8.
    bounds = [(Fraction(out - 8, into), Fraction(out + 8, into)) for out, into in expansions]
    return _simplest(
        bounds,
        lambda ratio: all(make_divisible(round(into * ratio)) == out for out, into in expansions),
        f"expand_ratio for expansions {', '.join(f'{into} to {out}' for out, into in expansions)}",
    )


def _mlp_ratio(shapes: _Shapes, block_names: list[str], hidden_sizes: list[int]) -> float:
    widths = [shapes.of(f"{name}.transformer.layer.0.intermediate.dense.weight", 2)[0] for name in block_names]
    pairs = list(zip(widths, hidden_sizes, strict=True))
    return _simplest(
        [(Fraction(width, hidden), Fraction(width + 1, hidden)) for width, hidden in pairs],
        lambda ratio: all(int(hidden * ratio) == width for width, hidden in pairs),
        f"mlp_ratio for hidden layers {', '.join(f'{hidden} to {width}' for width, hidden in pairs)}",
    )


def _simplest(bounds: list[tuple[Fraction, Fraction]], fits: Callable[[float], bool], what: str) -> float:
    """The fraction of smallest denominator inside all bounds for which `fits` holds."""
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    for denominator in range(1, 1001):
        for numerator in range(max(1, math.ceil(low * denominator)), math.floor(high * denominator) + 1):
            if fits(numerator / denominator):
                return numerator / denominator
    raise CheckpointError(f"the tensors' shapes give no {what}")

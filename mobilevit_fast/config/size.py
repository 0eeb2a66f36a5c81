"""How large a model becomes, from its configuration alone: known before any memory is taken."""

from mobilevit_fast import limits
from mobilevit_fast.config.configuration import MobileViTConfig

TRANSFORMER_DEPTHS = (2, 4, 3)
"""Transformer layers in the three MobileViT blocks, the same for all sizes (arXiv 2110.02178, table 4)."""

_LARGEST_WIDTH = 2**62  # a ratio may be any number


def make_divisible(value: float, divisor: int = 8) -> int:
    """`value` rounded to a multiple of `divisor`, but never to less than 90 % of it (ml-cvnets, MobileNetV2)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    if rounded < 0.9 * value:
        rounded += divisor
    return rounded


def parameter_count(config: MobileViTConfig) -> int:
    """Parameters of the backbone with its last convolution and both heads, the classifier and DeepLabV3's."""
    necks, labels = config.neck_hidden_sizes, config.num_labels
    count = _convolution(config.num_channels, necks[0], 3) + _inverted_residual(config, necks[0], necks[1])
    count += _inverted_residual(config, necks[1], necks[2]) + 2 * _inverted_residual(config, necks[2], necks[2])
    for block, depth in enumerate(TRANSFORMER_DEPTHS):
        channels, width = necks[3 + block], config.hidden_sizes[block]
        count += _inverted_residual(config, necks[2 + block], channels)
        count += _convolution(channels, channels, config.conv_kernel_size) + channels * width
        count += depth * _transformer_layer(config, width) + 2 * width
        count += _convolution(width, channels) + _convolution(2 * channels, channels, config.conv_kernel_size)
    count += _convolution(necks[5], necks[6]) + (necks[6] + 1) * labels
    pyramid = config.aspp_out_channels
    count += 2 * _convolution(necks[5], pyramid) + 3 * _convolution(necks[5], pyramid, 3)
    return count + _convolution(5 * pyramid, pyramid) + (pyramid + 1) * labels


def check_size(config: MobileViTConfig) -> None:
    """Raise a ValueError where a model of this configuration would have more parameters than the limit allows."""
    limits.check("MAX_PARAMETERS", parameter_count(config), "parameters of a model with this MobileViTConfig")


def _convolution(channels: int, outputs: int, kernel_size: int = 1) -> int:
    """Without bias, with its batch norm."""
    return channels * outputs * kernel_size**2 + 2 * outputs


def _inverted_residual(config: MobileViTConfig, channels: int, outputs: int) -> int:
    expanded = make_divisible(round(min(channels * config.expand_ratio, _LARGEST_WIDTH)))
    return _convolution(channels, expanded) + 11 * expanded + _convolution(expanded, outputs)


def _transformer_layer(config: MobileViTConfig, width: int) -> int:
    middle = int(min(width * config.mlp_ratio, _LARGEST_WIDTH))
    biases = 3 * width if config.qkv_bias else 0
    attention, mlp, norms = 4 * width**2 + width + biases, 2 * width * middle + middle + width, 4 * width
    return attention + mlp + norms

"""Convolutional parts: convolution with norm and activation, and the inverted residual of MobileNetV2.

Shapes in comments: N images, C input channels, K output channels, E expanded channels, H and W input height and width,
h and w output height and width. Feature maps are (N, C, H, W) of a floating point dtype, in any memory format.
"""

import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.activations import make_activation
from mobilevit_fast.config.size import make_divisible


@torch.no_grad()
def initialize_weights(module: nn.Module, initializer_range: float) -> None:
    """Give `module` and everything in it fresh weights.

    Linear and convolution weights are normal with standard deviation `initializer_range`, biases 0; norms start as the
    identity: weight 1, bias 0, running mean 0, running variance 1. transformers draws the weights of batch norms around
    0 instead, which shrinks every feature map by 1 / `initializer_range` and hardly trains.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.normal_(part.weight, mean=0.0, std=initializer_range)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            part.reset_parameters()


class MobileViTConvLayer(nn.Module):
    """2-d convolution, then batch norm, then activation; the last two can be left out.

    Padding keeps height and width at stride 1: zeros, `dilation * (kernel_size - 1) // 2` on each side.

    Args:
        use_activation: True for the configuration's `hidden_act`, False for none, or the name of one.
    """

    def __init__(
        self,
        config: MobileViTConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        dilation: int = 1,
        use_normalization: bool = True,
        use_activation: bool | str = True,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.normalization = nn.BatchNorm2d(out_channels) if use_normalization else None
        if use_activation:
            name = use_activation if isinstance(use_activation, str) else config.hidden_act
            self.activation: nn.Module | None = make_activation(name)
        else:
            self.activation = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.convolution(features)  # (N, C, H, W) -> (N, K, h, w)
        if self.normalization is not None:
            features = self.normalization(features)  # (N, K, h, w)
        if self.activation is not None:
            features = self.activation(features)  # (N, K, h, w)
        return features


class MobileViTInvertedResidual(nn.Module):
    """Inverted residual (arXiv 1801.04381, section 3.3): widen by 1x1, filter each channel by 3x3, narrow by 1x1.

    The narrow result is linear, without activation. It is added to the input where shapes allow.

    Args:
        stride: 1 or 2, of the 3x3 convolution.
        dilation: of the 3x3 convolution.
    """

    def __init__(
        self, config: MobileViTConfig, in_channels: int, out_channels: int, stride: int, dilation: int = 1
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"MobileViTInvertedResidual.stride: expected 1 or 2, got {stride}")
        expanded_channels = make_divisible(round(in_channels * config.expand_ratio))
        self.use_residual = stride == 1 and in_channels == out_channels
        self.expand_1x1 = MobileViTConvLayer(config, in_channels, expanded_channels, kernel_size=1)
        self.conv_3x3 = MobileViTConvLayer(
            config,
            expanded_channels,
            expanded_channels,
            kernel_size=3,
            stride=stride,
            groups=expanded_channels,
            dilation=dilation,
        )
        self.reduce_1x1 = MobileViTConvLayer(
            config, expanded_channels, out_channels, kernel_size=1, use_activation=False
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        residual = features  # (N, C, H, W)
        features = self.expand_1x1(features)  # (N, E, H, W)
        features = self.conv_3x3(features)  # (N, E, h, w)
        features = self.reduce_1x1(features)  # (N, K, h, w)
        return residual + features if self.use_residual else features  # (N, K, h, w)


class MobileViTMobileNetLayer(nn.Module):
    """`num_stages` inverted residuals in a row; only the first has the stride and changes the channels."""

    def __init__(
        self,
        config: MobileViTConfig,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        num_stages: int = 1,
    ) -> None:
        super().__init__()
        self.layer = nn.ModuleList()
        for stage in range(num_stages):
            self.layer.append(
                MobileViTInvertedResidual(
                    config,
                    in_channels if stage == 0 else out_channels,
                    out_channels,
                    stride=stride if stage == 0 else 1,
                )
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for layer_module in self.layer:
            features = layer_module(features)  # (N, C, H, W) -> (N, K, h, w)
        return features

"""The MobileViT block (arXiv 2110.02178, section 3.1): convolutions for near pixels, a transformer for far ones.

Shapes in comments: N images, C channels, D hidden size, H and W height and width, ph and pw those of a patch,
P = ph * pw positions inside a patch, T = nh * nw patches of an image, nh down and nw across.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models.layers import MobileViTConvLayer, MobileViTInvertedResidual
from mobilevit_fast.models.transformer import MobileViTTransformer


class UnfoldedShape(NamedTuple):
    """Shape of the feature map that was unfolded, as `folding` needs it."""

    batch_size: int
    patches_down: int
    patches_across: int
    original_size: tuple[int, int]


@contextmanager
def _scratch_running_statistics(module: nn.Module) -> Iterator[None]:
    """Let the batch norms in `module` update copies of their running statistics, which are then thrown away."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    originals = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


class MobileViTLayer(nn.Module):
    """MobileViT block, after an optional inverted residual that halves the resolution (or dilates instead).

    A token is a pixel. Patches only say which pixels attend to each other: those that lie at the same position inside
    their patches. With patches of 2x2 there are four sequences of a quarter of the pixels each,

        0 1 0 1
        2 3 2 3      pixels of one number form one sequence, in reading order,
        0 1 0 1      a token of D channels each
        2 3 2 3

    and because the n x n convolution before has mixed neighbours, every pixel still hears from every other.

    Args:
        stride: 2 puts an inverted residual first; 1 leaves it out.
        hidden_size: D, the transformer's width.
        num_stages: number of transformer layers.
        dilation: with a value above 1 the inverted residual keeps the resolution and has half this dilation, so that
            later features stay large (DeepLab, `output_stride`).
    """

    def __init__(
        self,
        config: MobileViTConfig,
        in_channels: int,
        out_channels: int,
        stride: int,
        hidden_size: int,
        num_stages: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.patch_height, self.patch_width = config.patch_height_and_width

        if stride == 2:
            self.downsampling_layer: MobileViTInvertedResidual | None = MobileViTInvertedResidual(
                config,
                in_channels,
                out_channels,
                stride=2 if dilation == 1 else 1,
                dilation=max(dilation // 2, 1),
            )
            in_channels = out_channels
        else:
            self.downsampling_layer = None

        self.conv_kxk = MobileViTConvLayer(config, in_channels, in_channels, config.conv_kernel_size)
        self.conv_1x1 = MobileViTConvLayer(
            config, in_channels, hidden_size, kernel_size=1, use_normalization=False, use_activation=False
        )
        self.transformer = MobileViTTransformer(config, hidden_size, num_stages)
        self.layernorm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.conv_projection = MobileViTConvLayer(config, hidden_size, in_channels, kernel_size=1)
        self.fusion = MobileViTConvLayer(config, 2 * in_channels, in_channels, config.conv_kernel_size)

    def unfolding(self, features: torch.Tensor) -> tuple[torch.Tensor, UnfoldedShape]:
        """Sort the pixels into sequences, one for each position inside a patch.

        Args:
            features: (N, D, H, W). Where a side is not a multiple of the patch's it is first resized, bilinearly, to
                the next multiple.

        Returns:
            (N * P, T, D), and what `folding` needs. Sequence n * P + i * pw + j holds row i, column j of the patches of
            image n; its token number is the patch's, in reading order.
        """
        batch_size, channels, height, width = features.shape
        patches_down = -(-height // self.patch_height)  # division that rounds up
        patches_across = -(-width // self.patch_width)
        new_size = (patches_down * self.patch_height, patches_across * self.patch_width)
        if new_size != (height, width):
            features = nn.functional.interpolate(
                features, size=new_size, mode="bilinear", align_corners=False
            )  # (N, D, nh*ph, nw*pw)

        patches = features.reshape(
            batch_size, channels, patches_down, self.patch_height, patches_across, self.patch_width
        )  # (N, D, nh, ph, nw, pw)
        patches = patches.permute(0, 3, 5, 2, 4, 1)  # (N, ph, pw, nh, nw, D)
        patches = patches.reshape(
            batch_size * self.patch_height * self.patch_width, patches_down * patches_across, channels
        )  # (N*P, T, D)
        return patches, UnfoldedShape(batch_size, patches_down, patches_across, (height, width))

    def folding(self, patches: torch.Tensor, shape: UnfoldedShape) -> torch.Tensor:
        """Put the tokens back where their pixels were, the inverse of `unfolding`: (N * P, T, D) -> (N, D, H, W)."""
        channels = patches.shape[-1]
        height = shape.patches_down * self.patch_height
        width = shape.patches_across * self.patch_width
        features = patches.reshape(
            shape.batch_size,
            self.patch_height,
            self.patch_width,
            shape.patches_down,
            shape.patches_across,
            channels,
        )  # (N, ph, pw, nh, nw, D)
        features = features.permute(0, 5, 3, 1, 4, 2)  # (N, D, nh, ph, nw, pw)
        features = features.reshape(shape.batch_size, channels, height, width)  # (N, D, nh*ph, nw*pw)
        if shape.original_size != (height, width):
            features = nn.functional.interpolate(
                features, size=shape.original_size, mode="bilinear", align_corners=False
            )  # (N, D, H, W)
        return features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, h, w), h and w halved (rounded up) where the stride is 2.

        With `gradient_checkpointing` in training mode only the input is stored, and the backward pass computes the
        rest a second time.
        """
        if not (self.gradient_checkpointing and self.training):
            return self.compute(features)
        if torch.compiler.is_compiling():
            # The compiler itself runs what it recomputes without side effects.
            return checkpoint(self.compute, features, use_reentrant=False)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            # The batch must enter the running statistics once, not again when it is computed again.
            return nullcontext(), _scratch_running_statistics(self)

        return checkpoint(self.compute, features, use_reentrant=False, context_fn=contexts)

    def compute(self, features: torch.Tensor) -> torch.Tensor:
        """The block itself, always storing what the backward pass needs."""
        if self.downsampling_layer is not None:
            features = self.downsampling_layer(features)  # (N, C, H, W)
        residual = features  # X in the paper

        features = self.conv_kxk(features)  # (N, C, H, W)
        features = self.conv_1x1(features)  # (N, D, H, W), X_L

        patches, shape = self.unfolding(features)  # (N*P, T, D), X_U
        patches = self.transformer(patches)  # (N*P, T, D), equation 1: X_G(p) = Transformer(X_U(p)) for each position p
        patches = self.layernorm(patches)  # (N*P, T, D)
        features = self.folding(patches, shape)  # (N, D, H, W), X_F

        features = self.conv_projection(features)  # (N, C, H, W)
        features = torch.cat((residual, features), dim=1)  # (N, 2*C, H, W)
        return self.fusion(features)  # (N, C, H, W)

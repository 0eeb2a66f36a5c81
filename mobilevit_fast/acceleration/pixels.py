"""Normalisation of uint8 images before the first convolution, and that convolution's weights with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from mobilevit_fast.acceleration.parts import AffineConv

_CHANNELS = (1, 3, 4)
"""Channels of images, where no mean or deviation tells their number."""


@dataclass(frozen=True)
class PixelNormalization:
    """(x·rescale_factor − mean) / std of every channel of uint8 images, which then may change their order.

    The defaults are those of Apple's checkpoints: uint8 images become [0, 1], RGB becomes BGR.

    Attributes:
        rescale_factor: what uint8 images are multiplied by.
        mean, std: one number, or one for each channel in the order in which the image comes (RGB).
        flip_channel_order: reverse the channels afterwards.

    Raises:
        ValueError: a factor or standard deviation of zero, or means and deviations of different numbers of channels.
    """

    rescale_factor: float = 1 / 255
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    flip_channel_order: bool = True

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, Iterable):
                object.__setattr__(self, name, tuple(map(float, value)))
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if self.rescale_factor == 0 or 0 in stds:
            raise ValueError(f"PixelNormalization: expected a factor and deviations other than 0, got {self}")
        sizes = {len(value) for value in (self.mean, self.std) if isinstance(value, tuple)}
        if len(sizes) > 1:
            raise ValueError(f"PixelNormalization: expected a mean and a deviation for each channel, got {self}")

    @classmethod
    def from_processor(cls, processor: Any) -> Self:
        """Normalisation of an image processor, this package's or transformers'.

        transformers' MobileViT processors have `do_normalize`, `image_mean` and `image_std`, and never normalise.

        Raises:
            TypeError: an object without an image processor's settings.
        """
        if not hasattr(processor, "do_rescale") or not hasattr(processor, "rescale_factor"):
            raise TypeError(
                f"PixelNormalization: expected an image processor with do_rescale and rescale_factor, got "
                f"{type(processor).__name__}"
            )
        means, stds = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
        normalizes = bool(getattr(processor, "do_normalize", False)) and not ignores_do_normalize(processor)
        return cls(
            rescale_factor=processor.rescale_factor if processor.do_rescale else 1.0,
            mean=means if normalizes and means is not None else 0.0,
            std=stds if normalizes and stds is not None else 1.0,
            flip_channel_order=bool(getattr(processor, "do_flip_channel_order", False)),
        )

    def check_channels(self, channels: int) -> None:
        """Refuse images of another number of channels than there are means or deviations.

        Raises:
            ValueError: with both numbers.
        """
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != channels:
                raise ValueError(
                    f"PixelNormalization: expected a {name} for each of {channels} channels, got {len(value)}"
                )

    def _check_layout(self, images: Tensor) -> None:
        per_channel = next((v for v in (self.mean, self.std) if isinstance(v, tuple)), None)
        counts = _CHANNELS if per_channel is None else (len(per_channel),)
        if images.ndim == 4 and (images.shape[1] in counts or images.shape[3] not in counts):
            return
        got = f"uint8 images of shape {tuple(images.shape)}"
        if images.ndim in (3, 4) and images.shape[-1] in counts:
            got += " with their channels last; images.movedim(-1, -3) has them first"
        raise ValueError(f"PixelNormalization: expected (batch, channels, height, width), got {got}")

    @property
    def subtracts(self) -> bool:
        """Whether there is a mean to subtract."""
        return any(self.mean) if isinstance(self.mean, tuple) else self.mean != 0

    def _by_channel(self, channels: int) -> list[tuple[float, float]]:
        """Mean and deviation of each, as plain numbers: a tensor of them would have to be copied to the GPU."""
        self.check_channels(channels)
        mean, std = ((v,) * channels if not isinstance(v, tuple) else v for v in (self.mean, self.std))
        return list(zip(mean, std, strict=True))

    def normalized(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 images (N, C, H, W) as the network expects them, in ``dtype``.

        Raises:
            ValueError: images with their channels last, or without a batch.
        """
        self._check_layout(images)
        x = images.to(torch.promote_types(dtype, torch.float32)) * self.rescale_factor
        parts = [(x[:, i : i + 1] - mean) / std for i, (mean, std) in enumerate(self._by_channel(images.shape[1]))]
        return torch.cat(parts[::-1] if self.flip_channel_order else parts, dim=1).to(dtype)

    def folded(self, conv: AffineConv) -> AffineConv:
        """The same convolution over uint8 images, as the operator ``conv2d_bias_act`` takes it.

        The factor goes into the scale, which float16 weights would lose digits to. A mean becomes the weights of one
        more channel, a constant, so that padding still means zero after normalisation. It is made from the weights as
        they are rounded to their type: their error then meets x − mean, not x.
        """
        weight = conv.weight.flip(1) if self.flip_channel_order else conv.weight  # (O, C, kh, kw)
        by_channel = self._by_channel(weight.shape[1])
        common = by_channel[0][1]
        weights = torch.cat(
            [(weight[:, i : i + 1].float() * (common / std)).to(weight.dtype) for i, (_, std) in enumerate(by_channel)],
            dim=1,
        )
        if self.subtracts:
            means = [weights[:, i].float() * (mean / self.rescale_factor) for i, (mean, _) in enumerate(by_channel)]
            constant = -sum(means[1:], means[0]).to(weight.dtype)[:, None]
            weights = torch.cat((weights, constant), dim=1)  # (O, C + 1, kh, kw)
        factor = self.rescale_factor / common
        scale = (
            weight.new_full((len(weight),), factor, dtype=torch.float32) if conv.scale is None else conv.scale * factor
        )
        return AffineConv(weights, scale, conv.bias)


def ignores_do_normalize(processor: Any) -> bool:
    """Whether pixels are processed by the code of transformers' MobileViT, not by that of a subclass."""
    for cls in type(processor).__mro__:
        if vars(cls).keys() & {"_preprocess", "preprocess", "normalize"}:
            return cls.__module__.startswith("transformers.models.mobilevit.")
    return False

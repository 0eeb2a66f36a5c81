"""Dense convolution with bias and activation over one tensor, or over the channels of two without a concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import conv2d_bias_act as cuda
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.reference import conv2d_bias_act as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.triton import rules as triton
from mobilevit_fast.kernels.triton import triton_kernel
from mobilevit_fast.kernels.weights import ConvWeights
from mobilevit_fast.ops.checks import (
    check_activation,
    check_image,
    check_parameter,
    convolved_size,
    pairs,
    refuse,
)
from mobilevit_fast.ops.registry import Op

_NAME = "conv2d_bias_act"


def _output_shape(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    sizes: dict[str, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> tuple[int, ...]:
    channels = sizes["inputs"]
    if x2 is not None and x2.dim() != 4:
        refuse(_NAME, "second input of shape (batch, channels, height, width)", f"{x2.dim()} dimensions", x)
    if x.dtype == torch.uint8 and x2 is None and x.dim() == 4:
        constant = int(x.shape[1] == channels - 1)
        check_image(_NAME, x, channels - constant, bytes_too=True)
        if x.device != weight.device:
            refuse(_NAME, f"input on {weight.device}, like the weight", x.device, x)
    elif x2 is None or x.dim() != 4:
        check_image(_NAME, x, channels)
    else:
        check_image(_NAME, x2, channels - x.shape[1], "second input")
        check_image(_NAME, x, channels - x2.shape[1])
        check_parameter(_NAME, x, "second input", x2, (x.shape[0], x2.shape[1], *x.shape[2:]))
    check_activation(_NAME, "activation", activation)
    kernel_size = (sizes["kernel height"], sizes["kernel width"])
    height, width = convolved_size(_NAME, x, kernel_size, stride, padding, dilation)
    return x.shape[0], sizes["outputs"], height, width


OP = Op(
    _NAME,
    ConvWeights,
    "int[2] stride, int[2] padding, int[2] dilation, str activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, cuda.pack, ("dilation",)),
        triton_kernel(_NAME, triton.conv2d_bias_act),
        cpu_kernel(_NAME, ("stride", "dilation")),
        reference_kernel(reference),
    ],
    images="Tensor x, Tensor? x2",
)


def conv2d_bias_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    x2: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    activation: str = "none",
    backend: str = "auto",
) -> Tensor:
    """activation(scale·conv(x) + bias), scale and bias per output channel.

    On a CPU, 3×3 windows without stride and dilation run by Winograd's F(2×2, 3×3) (arXiv 1509.09308) where inputs and
    outputs have 32 channels or more: sums of four inputs overflow from 8e37 on, an infinite input gives NaN or
    infinity, and where all weights but one corner of every window are zero, rounding errors are up to 2.4 times those
    of PyTorch.

    Args:
        x: (N, C1, H, W), floating point, any memory layout. Or of torch.uint8, for a model's first convolution: values
            from 0 to 255, computed in ``weight``'s type.
        weight: (O, C1 + C2, kh, kw), ``x``'s type. Over a uint8 image it may have one more input channel, over a
            constant that is 1 in the image and, like the image, 0 in the padding: what a mean that is subtracted from
            the image becomes.
        scale, bias: (O,), the type of ``weight`` or float32, or None.
        x2: (N, C2, H, W), the channels that follow ``x``'s, as if the two were concatenated; C2 = 0 without it.
        stride, padding, dilation: in pixels, one number or (vertical, horizontal). Padding is with zeros.
        activation: a name in ``ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Returns:
        (N, O, Ho, Wo), ``weight``'s type, channels_last.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    geometry = pairs(_NAME, stride=stride, padding=padding, dilation=dilation)
    return OP(backend, x, x2, weight, scale, bias, *geometry, activation)

"""Operators through their emulated CUDA kernels: tensors in, tensors and counts out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda import packing
from tests.emulator.build import load

emulated: Any = load()
ACTIVATIONS = {"none": 0, "relu": 1, "silu": 2}


def array(tensor: Tensor) -> Any:
    """The numbers of a tensor in the order of memory, 16-bit ones as their bits."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def inverted_residual(arguments: tuple[Any, ...], **options: Any) -> tuple[Tensor, dict[str, Any]]:
    """The result of the operator's arguments (``mobilevit_fast.ops.inverted_residual``), and what the launch did.

    Options are those of ``_fused``.
    """
    x, *parameters, stride, dilation, residual, activation = arguments
    arrays = packing.inverted_residual(*parameters)
    widths = (parameters[0].shape[0], parameters[6].shape[0])
    return _fused(x, arrays, widths, stride, dilation, residual, (activation, "none"), **options)


def depthwise_separable_conv2d(arguments: tuple[Any, ...], **options: Any) -> tuple[Tensor, dict[str, Any]]:
    """The same of ``mobilevit_fast.ops.depthwise_separable_conv2d``, where padding keeps the size."""
    x, *parameters, stride, padding, dilation, activation, project_activation = arguments
    assert padding == dilation
    arrays = packing.depthwise_separable_conv2d(*parameters)
    widths = (parameters[0].shape[0], parameters[3].shape[0])
    return _fused(x, arrays, widths, stride, dilation, False, (activation, project_activation), **options)


def _fused(
    x: Tensor,
    parameters: dict[str, Tensor],
    widths: tuple[int, int],
    stride: list[int],
    dilation: list[int],
    residual: bool,
    activations: tuple[str, str],
    *,
    tile: int,
    seed: int = 0,
    watch_banks: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """The kernel with tiles of one size, in the order of threads of a seed; with or without a count of banks."""
    batch, channels, height, width = x.shape
    out_h, out_w = (-(-size // stride[i]) for i, size in enumerate((height, width)))
    expanded, outputs = widths
    y = torch.full((batch, out_h, out_w, outputs), torch.nan, dtype=x.dtype)
    arrays = {name: array(tensor) for name, tensor in parameters.items()}
    arrays["x"], arrays["y"] = array(x.permute(0, 2, 3, 1)), array(y)
    sizes = {
        "batch": batch,
        "height": height,
        "width": width,
        "channels": channels,
        "expanded": expanded,
        "outputs": outputs,
        "out_h": out_h,
        "out_w": out_w,
        "padding": dilation[0],
        "dilation": dilation[0],
        "residual": int(residual),
        "activation": ACTIVATIONS[activations[0]],
        "project_activation": ACTIVATIONS[activations[1]],
    }
    bfloat16 = x.dtype == torch.bfloat16
    counts = emulated.inverted_residual(arrays, sizes, stride[0], tile, bfloat16, seed, watch_banks)
    return torch.from_numpy(arrays["y"]).view(x.dtype).permute(0, 3, 1, 2), counts


def depthwise_conv2d(
    arguments: tuple[Any, ...], *, tile: int, seed: int = 0, watch_banks: bool = False
) -> tuple[Tensor, dict[str, Any]]:
    """The result of the operator's arguments (``mobilevit_fast.ops.depthwise_conv2d``), and what the launch did."""
    x, weight, scale, bias, stride, padding, dilation, activation = arguments
    batch, channels, height, width = x.shape
    kernel = weight.shape[2]
    out_h, out_w = (
        (size + 2 * padding[i] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1
        for i, size in enumerate((height, width))
    )
    y = torch.full((batch, out_h, out_w, channels), torch.nan, dtype=x.dtype)
    arrays = {name: array(tensor) for name, tensor in packing.depthwise_conv2d(weight, scale, bias).items()}
    arrays["x"], arrays["y"] = array(x.permute(0, 2, 3, 1)), array(y)
    sizes = {
        "batch": batch,
        "height": height,
        "width": width,
        "channels": channels,
        "out_h": out_h,
        "out_w": out_w,
        "padding": padding[0],
        "dilation": dilation[0],
        "activation": ACTIVATIONS[activation],
    }
    bfloat16 = x.dtype == torch.bfloat16
    counts = emulated.depthwise_conv2d(arrays, sizes, kernel, stride[0], tile, bfloat16, seed, watch_banks)
    return torch.from_numpy(arrays["y"]).view(x.dtype).permute(0, 3, 1, 2), counts

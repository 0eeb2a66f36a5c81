"""The emulated dense convolution and classifier head: compiled like the other kernels, tensors in, tensors out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.classifier_head import classifier_head as pack_classifier_head
from mobilevit_fast.kernels.cuda.conv2d_bias_act import conv2d_bias_act as pack_conv2d_bias_act
from mobilevit_fast.kernels.cuda.conv2d_bias_act import is_stem
from tests.emulator.build import HERE, load

emulated: Any = load("mvf_scratch_conv", [HERE / "scratch_conv.cpp"])
PROCESSORS = 132
ACTIVATIONS = {"none": 0, "relu": 1, "silu": 2}


def array(tensor: Tensor) -> Any:
    """The numbers of a tensor in the order of memory, 16-bit ones as their bits."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def sizes_of(arguments: tuple[Any, ...]) -> dict[str, int]:
    """What the kernel has to know of the arguments of ``mobilevit_fast.ops.conv2d_bias_act``."""
    x, x2, weight, _, _, stride, padding, dilation, activation = arguments
    batch, channels, height, width = x.shape
    kernel = weight.shape[2:]
    out = [
        (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, size in enumerate((height, width))
    ]
    second = 0 if x2 is None else x2.shape[1]
    values = {"batch": batch, "height": height, "width": width, "channels": channels, "channels2": second}
    values |= {"outputs": weight.shape[0], "out_h": out[0], "out_w": out[1], "activation": ACTIVATIONS[activation]}
    for name, pair in {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}.items():
        values |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    stem = is_stem(channels, second, kernel[0] * kernel[1])
    return {**values, "stem": int(stem), "planar": int(stem and x.is_contiguous())}


def conv2d_bias_act(
    arguments: tuple[Any, ...],
    *,
    tile: list[int] | None = None,
    processors: int = PROCESSORS,
    seed: int = 0,
    watch_banks: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """The result of the operator's arguments, and what the launch did."""
    x, x2, weight, scale, bias = arguments[:5]
    sizes = sizes_of(arguments)
    arrays = {
        name: array(value) for name, value in pack_conv2d_bias_act(weight, scale, bias, sizes["channels2"]).items()
    }
    arrays["x"] = array(x if sizes["planar"] else x.permute(0, 2, 3, 1))
    if x2 is not None:
        arrays["x2"] = array(x2.permute(0, 2, 3, 1))
    y = torch.full((sizes["batch"], sizes["out_h"], sizes["out_w"], sizes["outputs"]), torch.nan, dtype=x.dtype)
    arrays["y"] = array(y)
    bfloat16 = x.dtype == torch.bfloat16
    counts = emulated.conv2d(arrays, sizes, tile or [], processors, bfloat16, seed, watch_banks)
    return torch.from_numpy(arrays["y"]).view(x.dtype).permute(0, 3, 1, 2), counts


def classifier_head(
    arguments: tuple[Any, ...],
    *,
    tile: list[int] | None = None,
    processors: int = PROCESSORS,
    seed: int = 0,
    watch_banks: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """The same of ``mobilevit_fast.ops.classifier_head``."""
    x, *parameters, activation = arguments
    packed = pack_classifier_head(*parameters)
    pointwise = (x, None, parameters[0], None, None, [1, 1], [0, 0], [1, 1], activation)
    sizes = sizes_of(pointwise)
    mean = torch.full((sizes["batch"], sizes["outputs"]), torch.nan, dtype=x.dtype)
    arrays = {name: array(packed[f"expand_{name}"]) for name in ("weight", "scale", "bias")}
    arrays |= {"x": array(x.permute(0, 2, 3, 1)), "mean": array(mean)}
    bfloat16 = x.dtype == torch.bfloat16
    counts = emulated.head(arrays, sizes, tile or [], processors, bfloat16, seed, watch_banks)
    return F.linear(torch.from_numpy(arrays["mean"]).view(x.dtype), packed["weight"], packed.get("bias")), counts

"""Weights of an inverted residual as ``csrc/cuda/sm90/rows_sm90_kernel.h`` reads them.

Those of the expansion are the ones that every CUDA kernel takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import fragments, in_pairs, neighbouring_columns, scale_and_bias
from mobilevit_fast.kernels.weights import ResidualWeights, part

PHASED = {
    (64, 256, 64): False,
    (96, 384, 128): False,
    (128, 512, 160): True,
    (48, 192, 48): False,
}
"""Channels of the kernels in ``csrc/cuda/sm90/rows_sm90.cu``, input, expanded and output: whether all warps project."""


def takes(w: ResidualWeights) -> bool:
    """Whether there is a kernel for these weights."""
    return w.expand_weight.dtype == torch.float16 and w.key in PHASED


def _constants(taps: Tensor, expand: Tensor, depthwise: Tensor) -> Tensor:
    """Windows (E, 1, 3, 3), scales and biases (E / 2, 4) as (E / 8, 68) words of a group of 8 channels."""
    pairs = taps.reshape(-1, 4, 2, 9).transpose(2, 3).contiguous().view(torch.float32).flatten(2)  # (E / 8, 4, 9)
    parts = (pairs[..., :8], pairs[..., 8:], expand / 2, depthwise / 2)  # SiLU takes half of its number
    return torch.cat([part.reshape(len(pairs), -1) for part in parts], 1)


def _swizzled(weight: Tensor) -> Tensor:
    """(O, E) as (E / 64, O, 8, 8): of each row the pieces of 16 bytes where a swizzle of 128 bytes has them."""
    outputs = weight.shape[0]
    row = torch.arange(outputs, device=weight.device)[:, None]
    piece = torch.arange(8, device=weight.device)[None]
    chunk_row_piece = weight.unflatten(1, (-1, 8, 8)).transpose(0, 1)
    return chunk_row_piece[:, row, piece ^ row % 8]


def pack(w: ResidualWeights) -> list[Tensor]:
    """Parts in the order of ``csrc/cuda/sm90/rows_sm90.h``."""
    expand, depthwise = (in_pairs(*scale_and_bias(part(w, name))) for name in ("expand", "depthwise"))
    weight = w.project_weight.flatten(1)
    scale, bias = scale_and_bias(part(w, "project"))
    if PHASED[w.key]:
        project = fragments(weight).unflatten(-1, (2, 4)).transpose(2, 3)  # (E / 16, O / 16, 2, 32, 4)
    else:
        weight, scale, bias = map(neighbouring_columns, (weight, scale, bias))
        project = _swizzled(weight)
    return [_constants(w.depthwise_weight, expand, depthwise), project, in_pairs(scale, bias)]

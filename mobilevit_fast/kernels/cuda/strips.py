"""Weights of an inverted residual as ``csrc/cuda/inverted_residual/strips_kernel.h`` has them in shared memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import fragments, in_pairs, neighbouring_columns, padded, scale_and_bias
from mobilevit_fast.kernels.weights import ResidualWeights, part

CHANNELS = {
    *((16, 64, 32), (32, 128, 64), (64, 256, 64), (64, 256, 96), (96, 384, 128)),  # S
    *((32, 128, 48), (48, 192, 48), (48, 192, 64), (64, 256, 80), (80, 320, 96)),  # XS
    *((16, 32, 16), (16, 32, 24), (24, 48, 24), (24, 48, 48), (48, 96, 64), (64, 128, 80)),  # XXS
}
"""Input, expanded and output channels of the shapes in ``csrc/cuda/inverted_residual/strips.h``."""

MATRIX_LOADS = False
"""Whether the kernel loads them by ldmatrix: its ``kStripsMatrixLoads``."""


def takes(w: ResidualWeights) -> bool:
    """Whether there is a kernel for these weights."""
    return w.key in CHANNELS


def _loads(lanes: Tensor) -> Tensor:
    """Fragments (..., 32, 8) as a warp loads them: what a lane gets beside each other, or four matrices of 8x8."""
    if not MATRIX_LOADS:
        return lanes
    return lanes.unflatten(-1, (4, 2)).transpose(-3, -2)  # (..., 4, 32, 2)


def _expand(weight: Tensor) -> Tensor:
    """(E, C, 1, 1) as (E / 16, C / 16, 32, 8), where of 16 channels a lane has four neighbours."""
    filled = F.pad(weight.flatten(1), (0, padded(weight.shape[1], 16) - weight.shape[1]))
    step_register_member_half = filled.unflatten(1, (-1, 4, 2, 2)).transpose(2, 3)
    return _loads(fragments(step_register_member_half.flatten(1)).transpose(0, 1))


def _taps(weight: Tensor) -> Tensor:
    """(E, 1, 3, 3) as (E / 16, 4, 40): of a pair of channels and the pair 8 further on nine words each, two free."""
    chunk_member_group_tap_half = weight.reshape(-1, 2, 4, 2, 9).permute(0, 2, 1, 4, 3)
    return F.pad(chunk_member_group_tap_half.flatten(2), (0, 4))


def _diagonals(weight: Tensor) -> Tensor:
    """(E, 1, 3, 3) as words of bfloat16 pairs: (E / 16, 8, 20) for lanes on the diagonal, then 20 zeros for others.

    Of channels q and 8 + q of a chunk lane q has ten words, in the half that q is of its pair. The last two of the
    first ten come behind the others, of the second ten before them, so that both lie in whole pieces.
    """
    taps = weight.reshape(-1, 2, 8, 9)[..., [0, 2, 3, 5, 6, 8, 1, 4, 4, 7]]  # columns 0 and 2 of each row, then 1
    taps = torch.stack((taps[:, 0], taps[:, 1].roll(2, -1)), 2).flatten(2)  # (E / 16, 8, 20)
    halves = taps.new_zeros(*taps.shape, 2)
    halves[:, 0::2, :, 0], halves[:, 1::2, :, 1] = taps[:, 0::2], taps[:, 1::2]
    return F.pad(halves.flatten(), (0, 40))


def pack(w: ResidualWeights) -> list[Tensor]:
    """Parts of whole pieces of 16 bytes, one after the other."""
    expand, depthwise = (in_pairs(*scale_and_bias(part(w, name), 16)) for name in ("expand", "depthwise"))
    result = in_pairs(*map(neighbouring_columns, scale_and_bias(part(w, "project"))))
    return [
        _expand(w.expand_weight),
        (_diagonals if w.expand_weight.dtype == torch.bfloat16 else _taps)(w.depthwise_weight),
        # SiLU takes half of its number. (E / 16, 2, 8, 4)
        torch.stack((expand.unflatten(0, (-1, 8)), depthwise.unflatten(0, (-1, 8))), 1) / 2,
        _loads(fragments(neighbouring_columns(w.project_weight.flatten(1)))),  # (E / 16, O / 16, 32, 8)
        F.pad(result, (0, 0, 0, padded(result.shape[0], 8) - result.shape[0])),
    ]

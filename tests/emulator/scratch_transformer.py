"""The transformer stack through its emulated CUDA kernels: tensors in, tensors and counts out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda.mobilevit_transformer import mobilevit_transformer as pack
from tests.emulator.build import load
from tests.emulator.run import ACTIVATIONS, array

emulated: Any = load("mvf_scratch_transformer")


def sizes_of(arguments: tuple[Any, ...]) -> dict[str, float]:
    """The sizes among the kernels' parameters, with the smallest tiles."""
    x, *parameters, heads, patch_size, eps, mlp_activation, out_activation = arguments
    batch, channels, height, width = x.shape
    in_weight, fc1_weight, out_weight = parameters[0], parameters[10], parameters[16]
    features, (layers, hidden), outputs = in_weight.shape[0], fc1_weight.shape[:2], out_weight.shape[0]
    return {
        "batch": batch,
        "height": height,
        "width": width,
        "channels": channels,
        "features": features,
        "hidden": hidden,
        "outputs": outputs,
        "heads": heads,
        "layers": layers,
        "patch_h": patch_size[0],
        "patch_w": patch_size[1],
        "eps": eps,
        "score_scale": math.log2(math.e) / math.sqrt(features / heads),
        "mlp_activation": ACTIVATIONS[mlp_activation],
        "out_activation": ACTIVATIONS[out_activation],
        "head_group": 1,
        "sequences": 1,
        "rows": 0,
        "keys": 16,
    }


def choose(arguments: tuple[Any, ...], processors: int, shared_kib: int) -> dict[str, int]:
    """The tiles of a chip with so many processors and KiB of shared memory for a block; {} where none fit."""
    return dict(emulated.choose(sizes_of(arguments), processors, shared_kib << 10))


def mobilevit_transformer(
    arguments: tuple[Any, ...],
    *,
    rows: int = 0,
    sequences: int = 1,
    head_group: int = 1,
    keys: int = 16,
    seed: int = 0,
    watch_banks: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """The result of the operator's arguments (``mobilevit_fast.ops.mobilevit_transformer``), and what was done for it.

    Args:
        arguments: those of the schema.
        rows: tokens of a block, in launches layer by layer; 0 is the kernel for the whole stack.
        sequences: those of a block of the whole stack.
        head_group: heads whose keys and values are in shared memory at a time.
        keys: keys at a time, layer by layer.
        seed: of the order of threads.
        watch_banks: whether to count wavefronts of shared memory.
    """
    x, *parameters, heads, _, _, _, _ = arguments
    sizes = {
        **sizes_of(arguments),
        "head_group": head_group,
        "sequences": sequences,
        "rows": rows,
        "keys": keys,
    }
    y = torch.full((x.shape[0], *x.shape[2:], parameters[16].shape[0]), torch.nan, dtype=x.dtype)
    arrays = {name: array(tensor) for name, tensor in pack(*parameters, num_heads=heads).items()}
    arrays["x"], arrays["y"] = array(x.permute(0, 2, 3, 1)), array(y)
    counts = emulated.mobilevit_transformer(arrays, sizes, x.dtype == torch.bfloat16, seed, watch_banks)
    return torch.from_numpy(arrays["y"]).view(x.dtype).permute(0, 3, 1, 2), counts

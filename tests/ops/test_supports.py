"""Backends answer for a call beforehand, and the call does what they answered."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import mobilevit_fast as mvf
from mobilevit_fast import ops
from mobilevit_fast.kernels.triton import backend as triton_backend
from mobilevit_fast.ops.registry import BackendError
from testing.samples import SAMPLES

META = torch.device("meta")

needs_triton = pytest.mark.skipif(not triton_backend.INSTALLED, reason="Triton is not installed")


def sample(op: str, **changed: Any) -> dict[str, Any]:
    """The first sample's arguments by name, without values, some of them others; tuples are shapes."""
    named = {**ops.OPS[op].named(next(SAMPLES[op]()).to(torch.float16)), **changed}
    for name, value in named.items():
        if isinstance(value, Tensor | tuple):
            shape = value.shape if isinstance(value, Tensor) else value
            named[name] = torch.empty(shape, dtype=torch.float16, device=META)
    return named


def transformer(d: int = 64, heads: int = 4, **changed: Any) -> dict[str, Any]:
    """One layer over tokens of ``d`` features."""
    shapes: dict[str, tuple[int, ...]] = {"in_weight": (d, 48, 1, 1), "out_weight": (48, d, 1, 1)}
    shapes |= dict.fromkeys(("in_bias", "norm_weight", "norm_bias"), (d,))
    of_layer = ("norm1_weight", "norm1_bias", "norm2_weight", "norm2_bias", "proj_bias", "fc2_bias")
    shapes |= dict.fromkeys(of_layer, (1, d))
    shapes |= {"qkv_weight": (1, 3 * d, d), "qkv_bias": (1, 3 * d), "proj_weight": (1, d, d)}
    shapes |= {"fc1_weight": (1, 32, d), "fc1_bias": (1, 32), "fc2_weight": (1, d, 32)}
    return sample("mobilevit_transformer", num_heads=heads, **{**shapes, **changed})


def convolution(inputs: int) -> dict[str, Any]:
    return sample("conv2d_bias_act", x=(1, inputs, 3, 3), weight=(16, inputs, 3, 3))


def head(expanded: int) -> dict[str, Any]:
    shapes = {"expand_weight": (expanded, 80, 1, 1), "expand_scale": (expanded,), "expand_bias": (expanded,)}
    return sample("classifier_head", weight=(10, expanded), **shapes)


SIDE, ROWS = r"a padded image of fewer than 2\^30 rows", r"fewer than 2\^31 rows in a batch"
FEW = 2**31 // 144, 2**31 // 80
BEYOND_TRITON = {
    "padding": (sample("conv2d_bias_act", padding=[1, 2**29]), SIDE),
    "images of a convolution": (sample("conv2d_bias_act", x=(2**28, 3, 8, 8)), ROWS),
    "weight of a convolution": (convolution(FEW[0] + 1), r"weight of fewer than 2\^31 numbers, got \(16, \d+, 3, 3\)"),
    "dilation": (sample("inverted_residual", dilation=[1, 2**29]), SIDE),
    "images of an inverted residual": (sample("inverted_residual", x=(2**11, 16, 2**20, 1)), ROWS),
    "rate": (sample("aspp", rates=[2, 2**29, 6]), SIDE),
    "images of a pyramid": (sample("aspp", x=(2**11, 24, 2**20, 1)), ROWS),
    "weight of a head": (head(FEW[1] + 1), r"expand weight of fewer than 2\^31 numbers, got \(\d+, 80, 1, 1\)"),
    "head of 516 channels": (transformer(516, 1), "heads of at most 512 channels, got 516"),
    "2052 hidden channels": (transformer(2052, 36), "at most 2048 hidden channels, got 2052"),
    "patch": (transformer(patch_size=[1, 2**30]), SIDE),
    "images resized to whole patches": (transformer(patch_size=[2**29, 1], x=(4, 48, 8, 8)), ROWS),
}
"""Arguments just beyond what the kernels take, and why they do not."""
WITHIN_TRITON = {
    "padding": sample("conv2d_bias_act", padding=[1, 2**29 - 9]),
    "images of a convolution": sample("conv2d_bias_act", x=(2**28 - 1, 3, 8, 8)),
    "weight of a convolution": convolution(FEW[0]),
    "dilation": sample("inverted_residual", dilation=[1, 2**29 - 7]),
    "images of an inverted residual": sample("inverted_residual", x=(2**11 - 1, 16, 2**20, 1)),
    "rate": sample("aspp", rates=[2, 2**29 - 7, 6]),
    "images of a pyramid": sample("aspp", x=(2**11 - 1, 24, 2**20, 1)),
    "weight of a head": head(FEW[1]),
    "head of 512 channels": transformer(512, 1),
    "2048 hidden channels": transformer(2048, 32),
    "patch": transformer(patch_size=[1, 2**30 - 1]),
    "images resized to whole patches": transformer(patch_size=[2**29 - 1, 1], x=(4, 48, 8, 8)),
}


def operator(named: dict[str, Any]) -> Any:
    """The operator whose arguments these are."""
    (found,) = (op for op in ops.OPS.values() if op.argument_names == list(named))
    return found


@needs_triton
@pytest.mark.parametrize(("named", "reason"), BEYOND_TRITON.values(), ids=BEYOND_TRITON)
def test_what_triton_does_not_take_goes_to_the_next_backend(named: dict[str, Any], reason: str) -> None:
    op, arguments = operator(named), tuple(named.values())
    support = op.supports("triton", META, torch.float16, named)
    assert not support.ok
    assert f"triton: {support.reason}" in op.choose("auto", META, torch.float16, named).passed_over
    message = rf"mobilevit_fast\.{op.name}: (triton: )?expected {reason}"
    with pytest.raises(BackendError, match=message):
        op("triton", *arguments)
    with pytest.raises(ValueError, match=message):  # the overload, which has no tensors without values
        op._checked("triton")(*arguments)


@needs_triton
@pytest.mark.parametrize("named", WITHIN_TRITON.values(), ids=WITHIN_TRITON)
def test_triton_takes_what_lies_within_its_limits(named: dict[str, Any]) -> None:
    assert operator(named).choose("auto", META, torch.float16, named).backend == "triton"


@needs_triton
def test_a_plan_says_why_triton_is_passed_over() -> None:
    config = mvf.MobileViTConfig(hidden_sizes=[516, 64, 64], num_attention_heads=1)
    with META:
        model = mvf.MobileViTForImageClassification(config).eval()
    wide, narrow, *_ = (region for region in mvf.plan(model) if region.kind == "mobilevit_block")
    assert wide.backends == {"local": "triton", "transformer": "reference", "fusion": "triton"}
    assert "triton: expected heads of at most 512 channels, got 516" in wide.passed_over
    assert set(narrow.backends.values()) == {"triton"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("op", ops.OPS)
def test_a_call_does_what_was_said_of_it(op: str, dtype: torch.dtype) -> None:
    """Of every backend on the CPU, for images with and without pixels, of bytes, and for every activation."""
    before = ops.OPS[op].named(next(SAMPLES[op]()).to(dtype))
    shapes = [(0, 8, 8), (1, 0, 8), (1, 8, 0), (1, 1, 1), (2, 9, 8)]
    images = [torch.ones(n, before["x"].shape[1], h, w, dtype=dtype) for n, h, w in shapes]
    activations = [name for name in before if name.endswith("activation")]
    cases = [{**before, "x": x} for x in (*images, images[-1].to(torch.uint8))]
    cases += [{**before, **dict.fromkeys(activations, name)} for name in (*ops.ACTIVATIONS, "softmax")]
    for named in cases:
        for backend in ops.OPS[op].kernels:
            check_call(op, backend, dtype, named)


def check_call(op: str, backend: str, dtype: torch.dtype, named: dict[str, Any]) -> None:
    definition, arguments = ops.OPS[op], tuple(named.values())
    support = definition.supports(backend, torch.device("cpu"), dtype, named)
    shape = shape_of(op, arguments)
    if shape is None:
        with pytest.raises(ValueError, match=rf"mobilevit_fast\.{op}: expected"):
            definition(backend, *arguments)
        if support.ok:
            with pytest.raises((ValueError, RuntimeError), match=rf"mobilevit_fast\.{op}: expected"):
                definition.run(backend, arguments)
    elif support.ok:
        assert definition(backend, *arguments).shape == shape
    else:
        with pytest.raises(BackendError, match=rf"mobilevit_fast\.{op}: {backend}: {re.escape(support.reason)}"):
            definition(backend, *arguments)


def shape_of(op: str, arguments: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Of the result; None where the arguments do not fit together, whatever the backend."""
    try:
        return tuple(ops.OPS[op].output_shape(*arguments))
    except ValueError:
        return None

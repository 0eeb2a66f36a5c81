"""Every C++ kernel in every variant of this machine, on the shapes that the three sizes of MobileViT have."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import mobilevit_fast as mvf
from mobilevit_fast import ops
from mobilevit_fast.config import PRESETS, MobileViTConfig
from testing.shapes import OperatorCall, operator_calls, operator_shape, preset_calls
from testing.tolerance import assert_within_twice
from tests.ops.variants import DTYPES, ISAS, NATIVE, exact_and_plain, in_type, run, using_isa

BATCH, IMAGE_SIZE = 2, 96  # the last stage has 3x3 pixels, no multiple of the patch


def segmentation_calls() -> list[OperatorCall]:
    """Those of a segmentation model, which dilates, also by more than the image has pixels."""
    config = MobileViTConfig.preset("xx_small", output_stride=8, num_labels=21)
    with torch.device("meta"):
        model = mvf.MobileViTForSemanticSegmentation(config).eval()
        images = torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    return operator_calls(model, images)


def parts(call: OperatorCall) -> list[tuple[str, dict[str, Any]]]:
    """Operator and arguments of a call; of an inverted residual also its depthwise and its depthwise separable part."""
    named = call.named
    found = [(call.op, named)]
    if call.op == "inverted_residual":
        image, weight = named["x"], named["depthwise_weight"]
        x = torch.empty(image.shape[0], len(weight), *image.shape[2:], device="meta")
        x = x.contiguous(memory_format=torch.channels_last)
        window = {"stride": named["stride"], "padding": named["dilation"], "dilation": named["dilation"]}
        depthwise = {k: named[f"depthwise_{k}"] for k in ("weight", "scale", "bias")}
        found.append(("depthwise_conv2d", {"x": x, **depthwise, **window, "activation": named["activation"]}))
        separable = {k: v for k, v in named.items() if k.startswith("depthwise_")}
        separable |= {f"pointwise_{k}": named[f"project_{k}"] for k in ("weight", "scale", "bias")}
        activations = {"depthwise_activation": named["activation"], "pointwise_activation": "none"}
        found.append(("depthwise_separable_conv2d", {"x": x, **separable, **window, **activations}))
    return found


def describe(op: str, named: dict[str, Any]) -> str:
    """The name of a case: "conv2d_bias_act-inputs16-height48-…"."""
    shape = operator_shape(op, named)
    if "dilation" in named:
        shape["dilation"] = named["dilation"][0]
    return "-".join([op, *(f"{name}{size}" for name, size in shape.items())])


def all_cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every different operator of the models, on tensors without values."""
    calls = [call for preset in PRESETS for call in preset_calls(preset, BATCH, IMAGE_SIZE)]
    found = [part for call in (*calls, *segmentation_calls()) for part in parts(call)]
    return {describe(*part): part for part in found}


CASES = all_cases()


@functools.lru_cache(maxsize=2)
def with_values(case: str) -> tuple[Any, ...]:
    """The arguments of a case, with numbers that keep a signal near 1; strides as in the model."""
    op, named = CASES[case]
    generator = torch.Generator().manual_seed(0)

    def values(name: str, meta: Any) -> Any:
        if not isinstance(meta, Tensor):
            return meta
        tensor = torch.empty_like(meta, device="cpu").normal_(generator=generator)
        if name.startswith("x"):
            return tensor
        if name.endswith("scale") or (name.endswith("weight") and "norm" in name):
            return 1 + 0.2 * tensor
        if name.endswith("bias"):
            return 0.5 * tensor
        inputs = tensor.shape[1:] if tensor.dim() == 4 else tensor.shape[-1:]
        return tensor * torch.Size(inputs).numel() ** -0.5

    return tuple(values(name, named[name]) for name in ops.OPS[op].argument_names)


@functools.lru_cache(maxsize=2)
def expected(case: str, dtype: torch.dtype) -> tuple[tuple[Any, ...], Tensor, Tensor]:
    arguments = in_type(with_values(case), dtype)
    return arguments, *exact_and_plain(CASES[case][0], arguments)


def test_every_native_operator_is_covered() -> None:
    assert {op for op, _ in CASES.values()} == set(NATIVE)
    assert len(CASES) > 60


# Types in turns for `make test`: a kernel's cases differ in their sizes.
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case}-{dtype}", marks=[pytest.mark.thorough] * ((i + j) % 2))
        for i, case in enumerate(CASES)
        for j, dtype in enumerate(DTYPES)
    ],
)
def test_error_is_within_twice_pytorchs(case: str, dtype: torch.dtype, isa: str) -> None:
    op = CASES[case][0]
    arguments, exact, plain = expected(case, dtype)
    with using_isa(isa):
        actual = run(op, arguments)
    assert actual.dtype == dtype
    assert actual.shape == plain.shape
    assert actual.stride() == plain.stride()
    assert_within_twice(actual, plain, exact)

"""Arguments that do not fit together are refused with what was expected and what came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast import nn, ops
from testing.samples import SAMPLES, Sample


def _x(*shape: int) -> Tensor:
    return torch.zeros(*shape)


W = torch.zeros(64, 1, 3, 3)

CASES: list[tuple[str, Callable[[], Any]]] = [
    (
        r"mobilevit_fast\.depthwise_conv2d: expected input of 64 channels, got 48 \(x\.shape=\(1, 48, 32, 32\)\)",
        lambda: ops.depthwise_conv2d(_x(1, 48, 32, 32), W),
    ),
    (r"expected input of shape \(batch, channels, .*got 3 dimensions", lambda: ops.depthwise_conv2d(_x(64, 8, 8), W)),
    (
        r"expected weight of shape \(64, 1, 3, 3\), got \(64, 2, 3, 3\)",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), _x(64, 2, 3, 3)),
    ),
    (r"expected bias of shape \(64,\), got \(63,\)", lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), W, _x(63))),
    (
        r"expected weight of type torch\.float16, like the input, got torch\.float32",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8).half(), W),
    ),
    (
        r"expected input of a floating point type, got torch\.uint8",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8).byte(), W),
    ),
    (
        r"expected weight on cpu|expected weight on meta, like the input, got cpu",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8).to("meta"), W),
    ),
    (r"expected stride of at least 1", lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), W, stride=0)),
    (r"expected padding of at least 0", lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), W, padding=-1)),
    (
        r"expected dilation to be a whole number or a pair",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), W, dilation=1.5),
    ),
    (r"expected an input that holds the 3x3 window", lambda: ops.depthwise_conv2d(_x(1, 64, 2, 8), W)),
    (
        r"expected activation among .*silu.*got 'swoosh'",
        lambda: ops.depthwise_conv2d(_x(1, 64, 8, 8), W, activation="swoosh"),
    ),
    (
        r"expected second input of 4 channels, got 5",
        lambda: ops.conv2d_bias_act(_x(1, 4, 8, 8), _x(2, 8, 1, 1), x2=_x(1, 5, 8, 8)),
    ),
    (
        r"expected second input of shape \(1, 4, 8, 8\), got \(1, 4, 8, 9\)",
        lambda: ops.conv2d_bias_act(_x(1, 4, 8, 8), _x(2, 8, 1, 1), x2=_x(1, 4, 8, 9)),
    ),
    (
        r"expected a depthwise window of odd size, got 2x2",
        lambda: ops.inverted_residual(
            _x(1, 4, 8, 8), _x(8, 4, 1, 1), _x(8), _x(8, 1, 2, 2), _x(8), _x(4, 8, 1, 1), _x(4)
        ),
    ),
    (
        r"expected stride 1 and as many outputs as inputs for a residual",
        lambda: ops.inverted_residual(
            _x(1, 4, 8, 8), _x(8, 4, 1, 1), _x(8), _x(8, 1, 3, 3), _x(8), _x(4, 8, 1, 1), _x(4), stride=2, residual=True
        ),
    ),
    (
        r"expected expand weight of shape \(24, 8, 1, 1\), got",
        lambda: ops.classifier_head(_x(1, 8, 4, 4), _x(24, 8, 3, 3), None, _x(3, 24)),
    ),
    (
        r"classifier_head: expected an image of at least one pixel, got none \(x.shape=\(1, 8, 0, 4\)\)",
        lambda: ops.classifier_head(_x(1, 8, 0, 4), _x(24, 8, 1, 1), None, _x(3, 24)),
    ),
]


@pytest.mark.parametrize(("message", "action"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_refused_with_what_was_expected_and_what_came(message: str, action: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        action()


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_width(heads: int) -> None:
    arguments = list(next(SAMPLES["mobilevit_transformer"]()).arguments)
    arguments[-5] = heads
    with pytest.raises(ValueError, match=f"expected a number of heads that divides the width 64, got {heads}"):
        ops.OPS["mobilevit_transformer"]("auto", *arguments)


ALL = [pytest.param(op, next(samples()), id=op) for op, samples in SAMPLES.items()]


def backends(op: str) -> list[str]:
    """All but the CUDA library's, which tests/cuda asks the same."""
    return [backend for backend in ops.OPS[op].kernels if backend != "cuda"]


WINDOW_DIMENSIONS = {
    ("depthwise_conv2d", 1): (2, 3),
    ("depthwise_separable_conv2d", 1): (2, 3),
    ("inverted_residual", 4): (2, 3),
    ("conv2d_bias_act", 2): (2, 3),
}
"""Dimensions, by operator and argument, that are free as long as the window fits into the image."""


@pytest.mark.parametrize(("op", "sample"), ALL)
@given(data=st.data())
def test_one_wrong_dimension_in_any_tensor_is_refused(op: str, sample: Sample, data: st.DataObject) -> None:
    """Every kernel refuses; nothing is read out of bounds and nothing is computed from what does not fit."""
    arguments = list(sample.arguments)
    tensors = [i for i, a in enumerate(arguments) if isinstance(a, Tensor) and i > 0]
    position = data.draw(st.sampled_from(tensors))
    dimension = data.draw(st.integers(0, arguments[position].dim() - 1))
    shape = list(arguments[position].shape)
    shape[dimension] += data.draw(st.sampled_from([-1, 1, 2]).filter(lambda step: shape[dimension] + step > 0))
    if dimension in WINDOW_DIMENSIONS.get((op, position), ()) and (op != "inverted_residual" or shape[dimension] % 2):
        return  # another window is another convolution, not an error
    changed = torch.zeros(shape)
    if op == "classifier_head" and position == 4 and dimension == 0:
        arguments[5] = None  # another number of classes is an error only beside the bias of the old one
        assert ops.OPS[op]("auto", *arguments[:4], changed, *arguments[5:]).shape[1] == shape[0]
        return
    arguments[position] = changed
    for backend in backends(op):
        with pytest.raises((ValueError, RuntimeError), match=f"mobilevit_fast.{op}: expected"):
            ops.OPS[op].run(backend, arguments)


@pytest.mark.parametrize(("op", "sample"), ALL)
def test_one_dimension_more_or_less_in_any_tensor_is_refused(op: str, sample: Sample) -> None:
    for position, argument in enumerate(sample.arguments):
        if not isinstance(argument, Tensor):
            continue
        for changed in (argument[None], argument[0], torch.zeros(())):
            arguments = [*sample.arguments[:position], changed, *sample.arguments[position + 1 :]]
            for backend in backends(op):
                with pytest.raises((ValueError, RuntimeError), match=f"mobilevit_fast.{op}: expected"):
                    ops.OPS[op].run(backend, arguments)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"depthwise_conv2d: expected weight to be a torch\.Tensor, got NoneType"):
        ops.depthwise_conv2d(_x(1, 64, 8, 8), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"conv2d_bias_act: expected bias to be a torch\.Tensor, got list"):
        ops.conv2d_bias_act(_x(1, 4, 8, 8), _x(2, 4, 1, 1), [0.0, 0.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"depthwise_conv2d: expected a torch\.Tensor, got list"):
        ops.depthwise_conv2d([1.0], W)  # type: ignore[arg-type]


def test_sizes_of_zero_are_refused() -> None:
    for x, weight in ((_x(1, 64, 0, 8), W), (_x(1, 64, 8, 8), _x(64, 1, 0, 3)), (_x(1, 0, 8, 8), _x(0, 1, 3, 3))):
        with pytest.raises(ValueError, match=r"mobilevit_fast\.depthwise_conv2d: expected"):
            ops.depthwise_conv2d(x, weight, padding=2)


def test_modules_refuse_an_unknown_activation_when_they_are_made() -> None:
    with pytest.raises(ValueError, match=r"expected activation among .*, got 'swish'"):
        nn.DepthwiseConv2d(4, 3, activation="swish")
    with pytest.raises(ValueError, match=r"expected pointwise_activation among .*, got 'swish'"):
        nn.DepthwiseSeparableConv2d(4, 4, 3, pointwise_activation="swish")

"""Transforms of torch.func and forward-mode differentiation, through operators and through accelerated models."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

import mobilevit_fast as mvf
from mobilevit_fast import ops
from testing.pairs import abridged
from testing.samples import SAMPLES
from testing.tiers import thorough_where
from testing.tolerance import close
from tests.integrations import zoo

OPS = list(ops.OPS)


def _double(op: str) -> tuple[list[Any], list[int]]:
    """The arguments of a sample in float64, and where its tensors are."""
    arguments = [a.double() if isinstance(a, Tensor) else a for a in next(SAMPLES[op]()).arguments]
    return arguments, [i for i, argument in enumerate(arguments) if isinstance(argument, Tensor)]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("api", ["torch.func", "dual numbers"])
def test_tangents_of_every_argument(op: str, api: str) -> None:
    """Against the quotient of differences."""
    arguments, positions = _double(op)
    tensors = tuple(arguments[i] for i in positions)
    tangents = tuple(torch.randn_like(t) for t in tensors)

    def call(*values: Tensor) -> Tensor:
        given = list(arguments)
        for position, value in zip(positions, values, strict=True):
            given[position] = value
        return ops.OPS[op]("reference" if values[0].dtype == torch.float64 else "auto", *given)

    step = 1e-6
    ahead = call(*(t + step * d for t, d in zip(tensors, tangents, strict=True)))
    behind = call(*(t - step * d for t, d in zip(tensors, tangents, strict=True)))
    expected = (ahead - behind) / (2 * step)
    floats, float_tangents = ([t.float() for t in ts] for ts in (tensors, tangents))
    arguments = [a.float() if isinstance(a, Tensor) else a for a in arguments]
    if api == "torch.func":
        value, tangent = jvp(call, tuple(floats), tuple(float_tangents))
    else:
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, d) for t, d in zip(floats, float_tangents, strict=True)]
            value, tangent = forward_ad.unpack_dual(call(*duals))
    assert tangent is not None
    close(value, call(*floats))
    torch.testing.assert_close(tangent.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("op", OPS)
def test_every_operator_over_stacked_arguments(op: str) -> None:
    arguments = next(SAMPLES[op]()).arguments
    stacked = [torch.stack([a, 1.1 * a, -a]) if isinstance(a, Tensor) else a for a in arguments]
    dims = tuple(0 if isinstance(a, Tensor) else None for a in arguments)
    result = vmap(lambda *given: ops.OPS[op]("auto", *given), dims)(*stacked)
    for i in range(3):
        close(result[i], ops.OPS[op]("auto", *(a[i] if isinstance(a, Tensor) else a for a in stacked)), terms=100.0)


def test_gradients_by_torch_func() -> None:
    arguments = next(SAMPLES["inverted_residual"]()).arguments
    x = arguments[0].clone().requires_grad_()
    ops.OPS["inverted_residual"]("auto", x, *arguments[1:]).square().sum().backward()
    actual = grad(lambda given: ops.OPS["inverted_residual"]("auto", given, *arguments[1:]).square().sum())(x.detach())
    torch.testing.assert_close(actual, x.grad)


# The gradient of a model, below, has those of the long operators in it; under vmap they are PyTorch's functions.
LONG = {"mobilevit_transformer", "inverted_residual", "depthwise_separable_conv2d"}


@pytest.mark.parametrize(
    ("op", "transform"),
    thorough_where(itertools.product(OPS, ["grad", "vmap"]), lambda case: case[0] in LONG),
)
def test_compiled_transforms(op: str, transform: str) -> None:
    """``torch.compile`` of a transform is the transform."""
    x, *others = next(SAMPLES[op]()).arguments

    def call(given: Tensor) -> Tensor:
        return ops.OPS[op]("auto", given, *others)

    transformed = {
        "grad": lambda given: grad(lambda value: call(value).square().sum())(given),
        "vmap": lambda given: vmap(call)(torch.stack([given, 1.1 * given])),
    }[transform]
    expected = transformed(x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(torch.compile(transformed, backend="eager", fullgraph=True)(x), expected)


@pytest.mark.parametrize("op", OPS)
def test_second_derivatives(op: str) -> None:
    """Of a gradient, along a direction, against the quotient of differences of gradients in float64."""
    arguments, positions = _double(op)
    tensors = [arguments[i].requires_grad_() for i in positions]
    directions = [torch.randn_like(t) for t in tensors]

    def gradients(step: float, create_graph: bool) -> tuple[Tensor, ...]:
        given = list(arguments)
        for position, tensor, direction in zip(positions, tensors, directions, strict=True):
            given[position] = tensor + step * direction
        result = ops.OPS[op]("reference", *given).square().sum()
        return torch.autograd.grad(result, tensors, create_graph=create_graph)

    along = sum((g * d).sum() for g, d in zip(gradients(0.0, True), directions, strict=True))
    actual = torch.autograd.grad(along, tensors)
    step = 1e-6
    for value, ahead, behind in zip(actual, gradients(step, False), gradients(-step, False), strict=True):
        expected = (ahead - behind) / (2 * step)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_a_compiled_tangent() -> None:
    """Without a normalisation: torch.compile itself fails at the tangent of any ``batch_norm``."""
    x, weight = torch.randn(1, 8, 6, 6), torch.randn(16, 8, 3, 3)

    def tangent(given: Tensor) -> Tensor:
        return jvp(lambda value: ops.conv2d_bias_act(value, weight, padding=1), (given,), (torch.ones_like(given),))[1]

    torch.testing.assert_close(torch.compile(tangent, backend="eager", fullgraph=True)(x), tangent(x))
    assert tangent(x).abs().max() > 0


def test_the_compiled_gradient_of_a_model() -> None:
    model, x = abridged(zoo.SMALL["native"]()).requires_grad_(False), zoo.images(1)
    gradient = grad(lambda given: zoo.first_output(model(given)).square().sum())
    expected = gradient(x)
    mvf.accelerate(model)
    actual = torch.compile(gradient, backend="eager")(x)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of attention, in the plain model too
@pytest.mark.parametrize("name", ["native", "transformers", "timm"])
def test_an_ensemble_of_models(name: str) -> None:
    """``vmap`` over stacked parameters works like the plain model."""
    models = [zoo.SMALL[name]() for _ in range(2)]
    x = zoo.images(1)
    expected = torch.stack([zoo.run(model, x) for model in models])
    base = mvf.accelerate(copy.deepcopy(models[0]))
    zoo.run(base, x)
    parameters, buffers = stack_module_state(models)

    def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return zoo.first_output(functional_call(base, (parameters, buffers), (x,)))

    with torch.no_grad():
        torch.testing.assert_close(vmap(call)(parameters, buffers), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(zoo.run(base, x), zoo.run(mvf.accelerate(models[0]), x))


def test_forward_mode_through_a_model() -> None:
    model = zoo.SMALL["native"]()
    x, direction = zoo.images(1), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = jvp(lambda given: zoo.first_output(model(given)), (x,), (direction,))[1]
        actual = jvp(lambda given: zoo.first_output(mvf.accelerate(model)(given)), (x,), (direction,))[1]
    torch.testing.assert_close(actual, expected)

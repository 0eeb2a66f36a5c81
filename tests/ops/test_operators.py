"""Every operator and every kernel: values, strides, fakes, gradients, registration."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mobilevit_fast import nn as mvf_nn
from mobilevit_fast import ops
from mobilevit_fast.ops.registry import BackendError
from testing.samples import LAYOUTS, SAMPLES, Sample
from testing.tiers import thorough_where
from testing.tolerance import assert_within_twice, close
from tests.ops.compositions import COMPOSITIONS

ALL = [pytest.param(op, s, id=f"{op}-{s.name}") for op, samples in SAMPLES.items() for s in samples()]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def kernels(op: str, dtype: torch.dtype, arguments: tuple) -> list[str]:
    """Backends that take these arguments on the CPU."""
    definition = ops.OPS[op]
    attributes = dict(zip(definition.argument_names, arguments, strict=True))
    return [b for b in definition.kernels if definition.supports(b, torch.device("cpu"), dtype, attributes).ok]


def call(op: str, backend: str, arguments: tuple) -> Tensor:
    return ops.OPS[op].run(backend, arguments)


def test_every_operator_has_samples_and_a_reference() -> None:
    assert set(SAMPLES) == set(ops.OPS)
    assert all("reference" in op.kernels for op in ops.OPS.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "sample"), ALL)
def test_error_is_within_twice_pytorchs(op: str, sample: Sample, dtype: torch.dtype) -> None:
    arguments = sample.to(dtype)
    layout = torch.channels_last
    arguments = (arguments[0].contiguous(memory_format=layout), *arguments[1:])  # PyTorch's error depends on it
    with torch.no_grad():
        exact = COMPOSITIONS[op](*(a.double() if isinstance(a, Tensor) else a for a in arguments))
        plain = COMPOSITIONS[op](*arguments)
    for backend in kernels(op, dtype, arguments):
        actual = call(op, backend, arguments)
        assert actual.dtype == dtype
        assert_within_twice(actual, plain, exact)


@pytest.mark.parametrize(("op", "sample"), ALL)
def test_result_is_what_the_fake_promises(op: str, sample: Sample) -> None:
    meta = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in sample.arguments)
    for backend in kernels(op, torch.float32, sample.arguments):
        actual, promised = call(op, backend, sample.arguments), call(op, backend, meta)
        assert (actual.shape, actual.stride(), actual.dtype) == (promised.shape, promised.stride(), promised.dtype)
        if actual.dim() == 4:
            _, c, h, w = actual.shape
            assert actual.stride() == (c * h * w, 1, w * c, c)


# Dynamic shapes, by far the longest of opcheck's tests, are of one layout in `make test`; the others, strides of fakes
# among them, are of all.
SHORT_TESTS = ("test_schema", "test_autograd_registration", "test_faketensor")
LONG_TESTS = (*SHORT_TESTS, "test_aot_dispatch_dynamic")
CHECKED = [
    (op, layout, tests)
    for op, samples in SAMPLES.items()
    for layout in sorted({sample.name.rpartition("-")[2] for sample in samples()})
    for tests in (SHORT_TESTS, LONG_TESTS)
    if layout != "channels_last" or tests is LONG_TESTS
]


@pytest.mark.parametrize(
    ("op", "layout", "tests"),
    thorough_where(CHECKED, lambda case: case[1] != "channels_last" and case[2] is LONG_TESTS),
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_registration(op: str, layout: str, tests: tuple[str, ...]) -> None:
    # One sample for each set of optional arguments.
    kinds = {
        tuple(a is None for a in sample.arguments): sample for sample in SAMPLES[op]() if sample.name.endswith(layout)
    }
    for sample in kinds.values():
        for backend in kernels(op, torch.float32, sample.arguments):
            given = ops.OPS[op].arguments_for(backend, sample.arguments)
            torch.library.opcheck(ops.OPS[op].overload(backend), given, test_utils=tests)


@pytest.mark.parametrize("op", SAMPLES)
def test_inputs_are_not_changed(op: str) -> None:
    sample = next(SAMPLES[op]())
    before = [a.clone() if isinstance(a, Tensor) else a for a in sample.arguments]
    for backend in kernels(op, torch.float32, sample.arguments):
        call(op, backend, sample.arguments)
    for old, new in zip(before, sample.arguments, strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new


@pytest.mark.parametrize("op", SAMPLES)
def test_an_empty_batch_gives_an_empty_result(op: str) -> None:
    sample = next(SAMPLES[op]())
    x, *rest = sample.arguments
    for backend in kernels(op, torch.float32, sample.arguments):
        if backend == "reference" and op == "mobilevit_transformer":
            continue  # PyTorch's attention refuses an empty batch
        assert call(op, backend, (x[:0], *rest)).shape[0] == 0


@pytest.mark.parametrize("op", SAMPLES)
def test_gradients_equal_the_references(op: str) -> None:
    sample = next(SAMPLES[op]())

    def gradients(dtype: torch.dtype, through_op: bool) -> list[Tensor]:
        inputs = [a.detach().to(dtype).requires_grad_() if isinstance(a, Tensor) else a for a in sample.arguments]
        definition = ops.OPS[op]
        y = definition("auto", *inputs) if through_op else definition.reference(*inputs)
        weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)
        (y * weights).sum().backward()
        return [a.grad for a in inputs if isinstance(a, Tensor)]

    actual, plain = gradients(torch.float32, True), gradients(torch.float32, False)
    exact = gradients(torch.float64, False)
    for a, p, e in zip(actual, plain, exact, strict=True):
        assert_within_twice(a, p, e, factor=3)


def test_only_the_gradients_asked_for_are_computed() -> None:
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 1, 3, 3, requires_grad=True)
    ops.depthwise_conv2d(x, weight, padding=1).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_activations_are_those_of_torch(activation: str) -> None:
    x = torch.linspace(-4, 4, 64).view(1, 4, 4, 4)
    y = ops.depthwise_conv2d(x, torch.ones(4, 1, 1, 1), activation=activation, backend="reference")
    modules = {
        "none": torch.nn.Identity(),
        "gelu_tanh": torch.nn.GELU("tanh"),
        "silu": torch.nn.SiLU(),
        "relu": torch.nn.ReLU(),
        "relu6": torch.nn.ReLU6(),
        "gelu": torch.nn.GELU(),
        "elu": torch.nn.ELU(),
    }
    expected = modules[activation](x) if activation in modules else getattr(F, activation, None)
    if activation == "quick_gelu":
        expected = x * torch.sigmoid(1.702 * x)
    elif callable(expected):
        expected = expected(x)
    assert torch.equal(y, expected)


def test_the_second_input_stands_for_a_concatenation() -> None:
    x, x2, weight = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6), torch.randn(7, 8, 3, 3)
    joined = ops.conv2d_bias_act(torch.cat((x, x2), 1), weight, padding=1)
    assert torch.equal(ops.conv2d_bias_act(x, weight, x2=x2, padding=1), joined)


def test_channel_innermost_keeps_the_values() -> None:
    weight = torch.randn(6, 1, 3, 5)
    stored = ops.channel_innermost(weight)
    assert torch.equal(stored, weight)
    assert stored.stride(0) == 1


def test_a_backend_that_does_not_take_the_case_says_why() -> None:
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(8, 4, 1, 1)
    with pytest.raises(BackendError, match="there is no triton kernel for depthwise_conv2d"):
        ops.depthwise_conv2d(x, torch.randn(4, 1, 3, 3), backend="triton")
    with pytest.raises(BackendError, match="cuda: expected a tensor on an NVIDIA GPU, got one on cpu"):
        ops.conv2d_bias_act(x, weight, backend="cuda")
    with pytest.raises(ValueError, match="expected a backend among auto, cuda, triton, cpu, reference, got 'tpu'"):
        ops.conv2d_bias_act(x, weight, backend="tpu")
    with pytest.raises(BackendError, match="expected activation among none, relu, silu, got 'gelu'"):
        ops.depthwise_conv2d(x, torch.randn(4, 1, 1, 1), activation="gelu", backend="cpu")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", SAMPLES)
def test_the_layout_of_the_input_changes_nothing(op: str, layout: str) -> None:
    for sample in SAMPLES[op]():
        if not sample.name.endswith(layout):
            continue
        x, *rest = sample.arguments
        for backend in kernels(op, torch.float32, sample.arguments):
            expected = call(op, backend, (x.contiguous(memory_format=torch.channels_last), *rest))
            close(call(op, backend, sample.arguments), expected)


@pytest.mark.parametrize("op", SAMPLES)
def test_autocast_around_an_operator_changes_nothing(op: str) -> None:
    sample = next(SAMPLES[op]())
    for backend in kernels(op, torch.float32, sample.arguments):
        expected = call(op, backend, sample.arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(call(op, backend, sample.arguments), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints_of_activations(use_reentrant: bool) -> None:
    """Saved tensors are given once, and computed again."""
    x, weight = torch.randn(1, 4, 5, 5, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)

    def call(given: Tensor) -> Tensor:
        return ops.depthwise_conv2d(given, weight, activation="silu").square()

    expected = torch.autograd.grad(call(x).sum(), (x, weight))
    checkpoint(call, x, use_reentrant=use_reentrant).sum().backward()
    for tensor, gradient in zip((x, weight), expected, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)


def test_a_differentiated_operator_compiles() -> None:
    torch._dynamo.reset()
    module = mvf_nn.DepthwiseConv2d(4, 3, padding=1, activation="silu")
    x = torch.randn(1, 4, 5, 5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    actual, module.weight.grad = module.weight.grad, None
    module(x).sum().backward()
    close(actual, module.weight.grad)

"""The C++ depthwise convolution in every variant that this machine can run, against float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast import native
from mobilevit_fast.ops import OPS
from testing.threads import using_threads
from tests.ops.variants import called

C = native.extension()
if C is None:
    pytest.skip(f"native libraries: {native.status()['_C'].reason}", allow_module_level=True)

ACTIVATIONS = {"none": lambda y: y, "relu": F.relu, "silu": F.silu}

# batch, channels, height, width, kernel, stride, padding, dilation
CASES = [
    (1, 64, 32, 32, 3, 1, 1, 1),
    (2, 128, 32, 32, 3, 2, 1, 1),
    (1, 512, 16, 16, 3, 2, 1, 1),
    (2, 48, 15, 17, 3, 2, 1, 1),  # odd sizes: one row and an overlapping tile are left over
    (1, 48, 16, 16, 3, 1, 1, 1),  # not a whole number of bfloat16 vectors
    (3, 72, 13, 11, 5, 1, 2, 1),
    (1, 80, 12, 12, 5, 2, 2, 1),
    (1, 64, 14, 10, 7, 1, 3, 1),
    (1, 64, 14, 10, 7, 2, 3, 1),
    (2, 96, 16, 16, 3, 1, 2, 2),
    (1, 160, 16, 16, 3, 1, 4, 4),
    (1, 64, 8, 8, 1, 1, 0, 1),
    (2, 64, 12, 12, 2, 3, 0, 1),
    (1, 64, 9, 9, 3, 1, 5, 1),  # whole tiles outside the image
    (4, 64, 8, 3, 3, 1, 1, 1),  # narrower than a tile
    (4, 3, 20, 20, 3, 1, 1, 1),  # fewer channels than a vector
    (4, 13, 20, 20, 3, 2, 1, 1),
    (4, 33, 10, 10, 3, 1, 1, 1),
    (8, 100, 1, 1, 3, 1, 1, 1),
]


def kernel(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    activation: str = "none",
    scale: Tensor | None = None,
) -> Tensor:
    """The operator, with one number for both directions."""
    poison = torch.full_like(x, math.nan)  # freed at once: memory that the result is likely to get
    del poison
    geometry = [stride] * 2, [padding] * 2, [dilation] * 2
    return OPS["depthwise_conv2d"].run("cpu", (x, weight, scale, bias, *geometry, activation))


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, activation: str
) -> Tensor:
    """The same in plain PyTorch, in the type of ``x``."""
    bias = None if bias is None else bias.to(x.dtype)
    return ACTIVATIONS[activation](F.conv2d(x, weight.to(x.dtype), bias, stride, padding, dilation, groups=x.shape[1]))


def assert_within_twice(result: Tensor, pytorch: Tensor, exact: Tensor) -> None:
    """Largest error at most twice PyTorch's. NaN anywhere fails."""
    error = (result.double() - exact).abs().max().item()
    allowed = 2 * (pytorch.double() - exact).abs().max().item()
    assert error <= allowed, f"error {error:.3g}, PyTorch's is {allowed / 2:.3g}"


def sample(case: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, w, k = case[:5]
    generator = torch.Generator().manual_seed(hash(case) % 2**31)
    x = torch.randn(n, c, h, w, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(c, 1, k, k, generator=generator) / k).to(dtype)
    return x, weight, torch.randn(c, generator=generator).to(dtype)


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case)))
def test_error_is_at_most_twice_that_of_pytorch(
    isa: str, case: tuple[int, ...], dtype: torch.dtype, activation: str
) -> None:
    x, weight, bias = sample(case, dtype)
    geometry = case[5:]
    result = kernel(x, weight, bias, *geometry, activation=activation)
    exact = plain(x.double(), weight, bias, *geometry, activation)
    assert_within_twice(result, plain(x, weight, bias, *geometry, activation), exact)
    _, c, h, w = exact.shape
    assert result.dtype == dtype
    assert result.shape == exact.shape
    assert result.stride() == (h * w * c, 1, w * c, c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "case", [(2, 64, 20, 20, 3, 2, 1, 1), (2, 80, 14, 14, 3, 1, 2, 2), (9, 13, 20, 20, 3, 1, 1, 1)]
)
def test_scale(isa: str, case: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias = sample(case, dtype)
    scale = torch.rand(x.shape[1], generator=torch.Generator().manual_seed(1)) + 0.5
    columns = (1, -1, 1, 1)
    for factor in (scale, scale.to(dtype)):
        for shift in (bias, bias.float(), None):
            result = kernel(x, weight, shift, *case[5:], activation="silu", scale=factor)
            exact = plain(x.double(), weight, None, *case[5:], "none") * factor.double().view(columns)
            pytorch = plain(x, weight, None, *case[5:], "none") * factor.to(dtype).view(columns)
            if shift is not None:
                exact = exact + shift.double().view(columns)
                pytorch = pytorch + shift.to(dtype).view(columns)
            assert_within_twice(result, F.silu(pytorch), F.silu(exact))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_layout_gives_the_same(isa: str, dtype: torch.dtype) -> None:
    x, weight, bias = sample((3, 64, 12, 10, 3), dtype)
    expected = kernel(x, weight, bias, 1, 1, 1, activation="silu")
    wide = torch.full((3, 200, 14, 12), math.nan, dtype=dtype).contiguous(memory_format=torch.channels_last)
    wide[:, 40:104, 1:13, 1:11] = x
    spread = torch.full((64, 2), math.nan, dtype=dtype)
    spread[:, 0] = bias
    inputs = {"contiguous": x.contiguous(), "slice": wide[:, 40:104, 1:13, 1:11], "transposed": x.mT.contiguous().mT}
    weights = {"contiguous": weight.contiguous(), "channels_last": weight.contiguous(memory_format=torch.channels_last)}
    for name, other in inputs.items():
        assert not other.is_contiguous(memory_format=torch.channels_last), name
        assert torch.equal(kernel(other, weight, bias, 1, 1, 1, activation="silu"), expected), name
    for name, other in weights.items():
        assert torch.equal(kernel(x, other, bias, 1, 1, 1, activation="silu"), expected), name
    assert torch.equal(kernel(x, weight, spread[:, 0], 1, 1, 1, activation="silu"), expected)
    one = torch.ones(64, 2)[:, 0]
    assert torch.equal(kernel(x, weight, bias, 1, 1, 1, activation="silu", scale=one), expected)
    assert torch.equal(kernel(x, weight, bias.float(), 1, 1, 1, activation="silu"), expected)
    expanded = x[:1].expand(3, -1, -1, -1)
    assert torch.equal(kernel(expanded, weight, bias, 1, 1, 1), kernel(expanded.contiguous(), weight, bias, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [5, 64, 72])
def test_scale_comes_before_bias_and_activation(isa: str, channels: int, dtype: torch.dtype) -> None:
    x, weight, bias = sample((2, channels, 11, 9, 3), dtype)
    scale = 1 + 0.3 * torch.randn(channels, generator=torch.Generator().manual_seed(1))

    def composed(to: torch.dtype) -> Tensor:
        y = F.conv2d(x.to(to), weight.to(to), padding=1, groups=channels)
        return F.silu(y * scale.to(to)[:, None, None] + bias.to(to)[:, None, None])

    for given in (scale, scale.repeat_interleave(2)[::2]):
        result = kernel(x, weight, bias, 1, 1, 1, "silu", scale=given)
        assert_within_twice(result, composed(dtype), composed(torch.float64))


def test_a_different_value_in_each_direction(isa: str) -> None:
    x, _, bias = sample((2, 64, 20, 17, 3), torch.float32)
    weight = torch.randn(64, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    result = OPS["depthwise_conv2d"].run("cpu", (x, weight, None, bias, [2, 1], [1, 3], [1, 2], "none"))
    exact = F.conv2d(x.double(), weight.double(), bias.double(), (2, 1), (1, 3), (1, 2), groups=64)
    assert_within_twice(result, F.conv2d(x, weight, bias, (2, 1), (1, 3), (1, 2), groups=64), exact)


@pytest.mark.parametrize("channels", [64, 640])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_number_of_threads_changes_nothing(isa: str, batch: int, channels: int) -> None:
    x, weight, bias = sample((batch, channels, 18, 18, 3), torch.float32)
    results = []
    for threads in (1, 2, 3, 16):
        with using_threads(threads):
            results.append(kernel(x, weight, bias, 1, 1, 1, activation="silu"))
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_silu_error_bound(isa: str) -> None:
    """float32 SiLU, by a 1x1 identity: within 4 units in the last place (PyTorch: 2.2), or within 4e-36 of zero."""
    values = torch.cat([torch.linspace(-87.0, 40.0, 1 << 18), torch.logspace(-30, 38, 1 << 14), torch.zeros(1)])
    values = torch.cat([values, -torch.logspace(-30, 1.93, 1 << 14)])
    values = values[: values.numel() // 64 * 64]
    x = values.view(1, 64, -1, 1)
    result = kernel(x, torch.ones(64, 1, 1, 1), activation="silu").flatten()
    exact = F.silu(values.double())
    normal = exact.abs() > 4e-36
    unit = torch.nextafter(exact.float().abs(), torch.tensor(math.inf)).double() - exact.float().abs().double()
    assert ((result.double() - exact).abs() / unit)[normal].max().item() <= 4
    assert (result.double() - exact).abs()[~normal].max().item() <= 4e-36


def test_bfloat16_silu_error_bound(isa: str) -> None:
    """All bfloat16 numbers: the error is at most 0.53 steps, of which 0.5 is the rounding of the result."""
    values = torch.arange(0, 1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    values = values[values.isfinite() & (values.abs() < 1e30)]
    values = values[: values.numel() // 64 * 64]
    result = kernel(values.view(1, 64, -1, 1), torch.ones(64, 1, 1, 1, dtype=torch.bfloat16), activation="silu")
    exact = F.silu(values.double())
    normal = exact.abs() > 4e-36
    step = 2.0 ** (exact.abs()[normal].log2().floor() - 7)
    assert ((result.flatten().double() - exact).abs()[normal] / step).max().item() <= 0.53


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_special_values(isa: str, dtype: torch.dtype) -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -1e38, 1e38, -200.0, 200.0] * 8, dtype=dtype)
    x, one = values.view(1, 64, 1, 1), torch.ones(64, 1, 1, 1, dtype=dtype)
    for activation in ("none", "relu"):
        result = kernel(x, one, activation=activation).flatten()
        torch.testing.assert_close(result, ACTIVATIONS[activation](values), rtol=0.0, atol=0.0, equal_nan=True)
    result = kernel(x, one, activation="silu").flatten()
    limit = torch.where(values < -86.0, torch.zeros_like(values), F.silu(values))  # PyTorch: NaN at minus infinity
    torch.testing.assert_close(result, limit, rtol=2**-22, atol=4e-36, equal_nan=True)


def test_a_neighbour_that_is_not_finite_stays_where_it_is(isa: str) -> None:
    """Zero padding is left out of the sum, not multiplied: nothing leaks across the border."""
    x, weight, bias = sample((2, 64, 8, 8, 3), torch.float32)
    x[0] = math.nan
    result = kernel(x, weight, bias, 1, 1, 1, activation="silu")
    assert result[0].isnan().all()
    assert not result[1].isnan().any()


def test_empty_batch() -> None:
    result = kernel(torch.empty(0, 64, 8, 8), torch.ones(64, 1, 3, 3), None, 2, 1, 1)
    assert result.shape == (0, 64, 4, 4)


BAD = [
    ("input of shape \\(batch, channels, height, width\\), got 3 dimensions", {"x": torch.zeros(64, 8, 8)}),
    ("input of 64 channels, got 48 \\(x.shape=\\(1, 48, 8, 8\\)\\)", {"x": torch.zeros(1, 48, 8, 8)}),
    ("input of type torch.float32, like the packed weights, got torch.float16", {"x": torch.zeros(1, 64, 8, 8).half()}),
    ("stride of at least 1 in both directions, got \\[0, 1\\]", {"stride": [0, 1]}),
    ("padding of at least 0 in both directions, got \\[0, -1\\]", {"padding": [0, -1]}),
    ("dilation of at least 1 in both directions, got \\[0, 0\\]", {"dilation": [0, 0]}),
    ("an input that holds the 3x3 window at least once", {"dilation": [9, 9]}),
    ("an input that holds the 3x3 window at least once", {"x": torch.zeros(1, 64, 0, 8), "padding": [2, 2]}),
    ("activation none, relu or silu, got 'gelu'", {"activation": "gelu"}),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message for message, _ in BAD])
def test_bad_arguments_are_refused(message: str, change: dict[str, Any]) -> None:
    geometry = [1, 1], [0, 0], [1, 1]
    arguments = (torch.zeros(1, 64, 8, 8), torch.zeros(64, 1, 3, 3), None, None, *geometry, "none")
    with pytest.raises(RuntimeError, match=f"^mobilevit_fast.depthwise_conv2d: expected {message}"):
        called("depthwise_conv2d", arguments, **change)


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of portable.*got 'sse9'"):
        C.set_cpu_isa("sse9")

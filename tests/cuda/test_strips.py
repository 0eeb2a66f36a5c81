"""Inverted residuals of MobileViT's shapes at the numbers of images that take other kernels, on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mobilevit_fast import ops
from mobilevit_fast.config import PRESETS
from testing.shapes import preset_calls
from testing.tolerance import assert_within_twice
from tests.cuda.conftest import EMULATED

pytestmark = pytest.mark.skipif(EMULATED, reason="whole batches take the emulator hours")

OP = ops.OPS["inverted_residual"]
DTYPES = [torch.float16, torch.bfloat16]


def model_shapes() -> list[Any]:
    """Channels, expanded channels, outputs, image size and stride of every inverted residual of the three sizes."""
    names = ("inputs", "expanded", "outputs", "height", "stride")
    calls = (call for preset in PRESETS for call in preset_calls(preset, 1, 256, torch.float16))
    shapes = {tuple(call.shape[name] for name in names) for call in calls if call.op == "inverted_residual"}
    return [pytest.param(*shape, id="-".join(map(str, shape))) for shape in sorted(shapes)]


def make(
    channels: int,
    expanded: int,
    outputs: int,
    size: tuple[int, int, int],
    stride: int,
    dtype: torch.dtype = torch.float16,
) -> tuple[Any, ...]:
    """Arguments of the operator, with scales and biases."""
    generator = torch.Generator("cuda").manual_seed(channels + outputs)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    def affine(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 + 0.2 * randn(count), 0.3 * randn(count)

    batch, height, width = size
    return (
        randn(batch, height, width, channels).to(dtype).permute(0, 3, 1, 2),
        *((randn(expanded, channels, 1, 1) * channels**-0.5).to(dtype), *affine(expanded)),
        *((randn(expanded, 1, 3, 3) / 3).to(dtype), *affine(expanded)),
        *((randn(outputs, expanded, 1, 1) * expanded**-0.5).to(dtype), *affine(outputs)),
        *([stride, stride], [1, 1], stride == 1 and channels == outputs, "silu"),
    )


def check(arguments: tuple[Any, ...]) -> None:
    """Hold a result to the rule for errors on the first, a middle and the last image; no number is missing."""
    x, *rest = arguments
    y = OP("cuda", x, *rest)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not y.isnan().any()
    images = sorted({0, len(x) // 2, len(x) - 1})
    exact = (a.double() if isinstance(a, torch.Tensor) else a for a in (x[images], *rest))
    with torch.no_grad():
        assert_within_twice(y[images], OP.reference(x[images], *rest), OP.reference(*exact))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 8, 32, 127, 256])
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), model_shapes())
def test_shapes_of_the_models(
    channels: int, expanded: int, outputs: int, size: int, stride: int, batch: int, dtype: torch.dtype
) -> None:
    check(make(channels, expanded, outputs, (batch, size, size), stride, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [(3, 3), (5, 4), (6, 7)], ids=lambda scale: "{}x{}".format(*(64 * s for s in scale)))
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), model_shapes())
def test_images_of_other_sizes(
    channels: int, expanded: int, outputs: int, size: int, stride: int, scale: tuple[int, int], dtype: torch.dtype
) -> None:
    """Those that images of these sizes lead to."""
    height, width = (size * s // 4 for s in scale)
    check(make(channels, expanded, outputs, (200, height, width), stride, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), model_shapes())
def test_results_are_the_same_every_time(
    channels: int, expanded: int, outputs: int, size: int, stride: int, dtype: torch.dtype
) -> None:
    arguments = make(channels, expanded, outputs, (256, size, size), stride, dtype)
    expected = OP("cuda", *arguments)
    assert all(torch.equal(OP("cuda", *arguments), expected) for _ in range(10))

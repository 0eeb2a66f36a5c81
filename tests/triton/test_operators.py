"""Every operator's Triton kernel: values, layouts, strides, registration, settings, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast import ops
from mobilevit_fast.kernels.triton import launch, tiles
from mobilevit_fast.kernels.triton.backend import INTERPRETING
from mobilevit_fast.ops.registry import BackendError
from testing.samples import SAMPLES, Sample, sharpened
from testing.tiers import thorough, thorough_where
from testing.tolerance import assert_within_twice, close, rms_error
from tests.ops.compositions import COMPOSITIONS
from tests.triton.conftest import ALLOCATE

OPS = [name for name, op in ops.OPS.items() if "triton" in op.kernels]
UNSHRUNK = settings(phases=[Phase.explicit, Phase.generate])
"""The interpreter is too slow to look for the smallest failing example."""
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def cases() -> Iterator[Any]:
    """Samples of every operator: other memory layouts in float32 and half precision, in turns for `make test`."""
    for op in OPS:
        halves = itertools.cycle([torch.bfloat16, torch.float16])
        layouts = itertools.cycle(["nchw", "sliced"])
        for sample in SAMPLES[op]():
            if sample.name.endswith("channels_last"):
                other = next(layouts)
            turn = next(halves) if sample.name.endswith("channels_last") else None
            for dtype in DTYPES if turn else [torch.float32]:
                is_next = dtype in (torch.float32, turn) if turn else sample.name.endswith(other)
                marks = [] if is_next else [pytest.mark.thorough]
                yield pytest.param(op, sample, dtype, marks=marks, id=f"{op}-{sample.name}-{dtype}")


def run(op: str, arguments: tuple[Any, ...]) -> Tensor:
    with torch.no_grad():
        result: Tensor = ops.OPS[op].overload("triton")(*arguments)
    return result


def on(device: torch.device, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)


def in_float64(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.double() if isinstance(a, Tensor) else a for a in arguments)


def check(op: str, arguments: tuple[Any, ...]) -> Tensor:
    """At most twice PyTorch's error in channels_last; returns the result."""
    x, *rest = arguments
    arguments = (x.contiguous(memory_format=torch.channels_last), *rest)
    with torch.no_grad():
        exact = COMPOSITIONS[op](*in_float64(arguments))
        plain = COMPOSITIONS[op](*arguments)
    actual = run(op, (x, *rest))
    assert actual.dtype == x.dtype
    assert_within_twice(actual, plain, exact)
    return actual


def check_closely(op: str, arguments: tuple[Any, ...]) -> None:
    """The float64 result but for float32 sums and one rounding, of cases too small for errors to be comparable."""
    with torch.no_grad():
        exact = ops.OPS[op].reference(*in_float64(arguments))
    close(run(op, arguments), exact)


def test_which_operators_have_a_kernel() -> None:
    assert set(OPS) == {
        "aspp",
        "classifier_head",
        "conv2d_bias_act",
        "inverted_residual",
        "mobilevit_transformer",
    }


@pytest.mark.parametrize("op", OPS)
def test_a_tensor_without_memory_is_refused(op: str, device: torch.device) -> None:
    """As FSDP leaves it between calls; a kernel would read from the address it has."""
    arguments = on(device, next(SAMPLES[op]()).arguments)
    for position, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            freed = torch.cat([argument.flatten(), argument.flatten()])[argument.numel() :].view(argument.shape)
            freed.untyped_storage().resize_(0)
            name = ops.OPS[op].argument_names[position]
            with pytest.raises(ValueError, match=rf"mobilevit_fast\.{op}: expected {name} with memory"):
                run(op, (*arguments[:position], freed, *arguments[position + 1 :]))


@pytest.mark.parametrize("reach", [2**28, 2**30, 2**40])
def test_positions_that_32_bits_do_not_hold_are_refused(reach: int, device: torch.device) -> None:
    x, weight = torch.randn(2, 8, 8, 8, device=device), torch.randn(16, 8, 3, 3, device=device)
    sparse = (x, None, weight, None, None, [reach] * 2, [reach] * 2, [1, 1], "none")
    wide = (x, None, weight, None, None, [1, 1], [reach] * 2, [reach] * 2, "none")
    for arguments in (sparse, wide):
        if reach < 2**29:
            check_closely("conv2d_bias_act", arguments)
            continue
        with pytest.raises(ValueError, match="conv2d_bias_act: expected a padded image of fewer than 2\\^30 rows"):
            run("conv2d_bias_act", arguments)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    thorough_where(
        itertools.product([torch.float32, torch.bfloat16], [1e3, 4e4, 1e14]),
        lambda case: case not in [(torch.float32, 1e14), (torch.bfloat16, 4e4)],
    ),
    ids=str,
)
def test_attention_with_large_scores(dtype: torch.dtype, factor: float, device: torch.device) -> None:
    """Up to a million, and on to the end of the types' range; one key takes all the weight."""
    for sample in list(SAMPLES["mobilevit_transformer"]())[0:10:4]:
        arguments = on(device, sharpened(sample.to(dtype), factor))
        exact = ops.OPS["mobilevit_transformer"].reference(*in_float64(arguments))
        plain = ops.OPS["mobilevit_transformer"].reference(*arguments)
        assert plain.isfinite().all()
        assert_within_twice(run("mobilevit_transformer", arguments), plain, exact, measure=rms_error)


@pytest.mark.parametrize(("op", "sample", "dtype"), cases())
def test_error_is_within_twice_pytorchs(op: str, sample: Sample, dtype: torch.dtype, device: torch.device) -> None:
    arguments = on(device, sample.to(dtype))
    actual = check(op, arguments)
    meta = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in arguments)
    promised = run(op, meta)
    assert (actual.shape, actual.stride(), actual.dtype) == (promised.shape, promised.stride(), promised.dtype)


@pytest.mark.parametrize("op", OPS)
def test_registration(op: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "allocate", ALLOCATE)  # a result behind a guard would not begin where its memory does
    sample = next(SAMPLES[op]())
    torch.library.opcheck(ops.OPS[op].overload("triton"), on(device, sample.arguments))


@pytest.mark.parametrize("op", OPS)
def test_inputs_are_not_changed(op: str, device: torch.device) -> None:
    arguments = on(device, next(SAMPLES[op]()).arguments)
    before = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    run(op, arguments)
    for old, new in zip(before, arguments, strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new


@pytest.mark.parametrize("op", OPS)
def test_an_empty_batch_gives_an_empty_result(op: str, device: torch.device) -> None:
    x, *rest = on(device, next(SAMPLES[op]()).arguments)
    assert run(op, (x[:0], *rest)).shape[0] == 0


@settings(UNSHRUNK, max_examples=12)
@given(data=st.data())
def test_random_convolutions(data: st.DataObject, device: torch.device) -> None:
    draw = data.draw
    number = st.integers
    n, c1, c2, o = draw(number(1, 2)), draw(number(1, 40)), draw(st.sampled_from([0, 0, 8, 13])), draw(number(1, 40))
    kernel, stride = draw(st.sampled_from([1, 2, 3, 5])), [draw(number(1, 3)), draw(number(1, 3))]
    padding, dilation = [draw(number(0, 4)), draw(number(0, 4))], [draw(number(1, 3)), draw(number(1, 3))]
    spans = [d * (kernel - 1) + 1 for d in dilation]
    h, w = (draw(number(max(1, spans[i] - 2 * padding[i]), spans[i] + 8)) for i in (0, 1))
    dtype, act = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(["none", "relu", "silu"]))

    def make(*shape: int) -> Tensor:
        return torch.randn(shape).to(device, dtype)

    weight = make(o, c1 + c2, kernel, kernel) / (kernel * (c1 + c2) ** 0.5)
    scale, bias = draw(st.sampled_from([None, make(o)])), draw(st.sampled_from([None, make(o)]))
    second = make(n, c2, h, w) if c2 else None
    geometry = (stride, padding, dilation)
    check_closely("conv2d_bias_act", (make(n, c1, h, w), second, weight, scale, bias, *geometry, act))


@settings(UNSHRUNK, max_examples=10)
@given(data=st.data())
def test_random_inverted_residuals(data: st.DataObject, device: torch.device) -> None:
    draw, number = data.draw, st.integers
    n, c, e, o = draw(number(1, 2)), draw(number(1, 40)), draw(number(1, 50)), draw(number(1, 70))
    stride, dilation = [draw(number(1, 2)), draw(number(1, 2))], [draw(number(1, 3)), draw(number(1, 3))]
    kernel = draw(st.sampled_from([1, 3, 5]))
    h, w = draw(number(1, 9)), draw(number(1, 9))
    residual = stride == [1, 1] and draw(st.booleans())
    act = draw(st.sampled_from(["none", "relu", "silu"]))
    o = c if residual else o

    def make(*shape: int) -> Tensor:
        return (torch.randn(shape) / torch.Size(shape[1:]).numel() ** 0.5).to(device)

    weights = (make(e, c, 1, 1), make(e), None, make(e, 1, kernel, kernel), None, make(e), make(o, e, 1, 1), None, None)
    check_closely("inverted_residual", (make(n, c, h, w), *weights, stride, dilation, residual, act))


def transformer(
    device: torch.device, x: Tensor, heads: int, head_dim: int, outputs: int, hidden: int, layers: int, patch: list[int]
) -> tuple[Any, ...]:
    """Arguments of mobilevit_transformer, random."""
    d = heads * head_dim

    def make(*shape: int) -> Tensor:
        return (torch.randn(shape) / shape[-1] ** 0.5).to(device)

    def norm() -> tuple[Tensor, Tensor]:
        return 1 + 0.1 * torch.randn(layers, d).to(device), 0.1 * make(layers, d)

    attention = (*norm(), make(layers, 3 * d, d), None, make(layers, d, d), make(layers, d))
    mlp = (*norm(), make(layers, hidden, d), make(layers, hidden), make(layers, d, hidden), make(layers, d))
    ends = (1 + 0.1 * make(d), make(d), make(outputs, d, 1, 1), None, make(outputs))
    in_weight = torch.randn(d, x.shape[1], 1, 1).to(device)
    return (x, in_weight, None, *attention, *mlp, *ends, heads, patch, 1e-5, "silu", "silu")


@settings(UNSHRUNK, max_examples=10)
@given(data=st.data())
def test_random_transformers(data: st.DataObject, device: torch.device) -> None:
    draw, number = data.draw, st.integers
    heads, head_dim = draw(number(1, 4)), draw(st.sampled_from([1, 5, 16, 20, 36]))
    c, o, m = draw(number(1, 20)), draw(number(1, 20)), draw(number(1, 70))
    layers, n = draw(number(1, 2)), draw(number(1, 2))
    patch = [draw(number(1, 3)), draw(number(1, 3))]
    x = torch.randn(n, c, draw(number(1, 14)), draw(number(1, 14))).to(device)
    check_closely("mobilevit_transformer", transformer(device, x, heads, head_dim, o, m, layers, patch))


def test_wide_heads(device: torch.device) -> None:
    """A head of 260 channels runs; one of more than a program can hold is refused."""
    x = torch.randn(1, 8, 6, 6).to(device)
    check_closely("mobilevit_transformer", transformer(device, x, 1, 260, 8, 16, 1, [2, 2]))
    with pytest.raises(ValueError, match="heads of at most 512 channels, got 516"):
        run("mobilevit_transformer", transformer(device, x, 1, 516, 8, 16, 1, [2, 2]))


@pytest.mark.parametrize("size", [thorough(((32, 32),)), (18, 30)])
def test_attention_over_several_blocks_of_keys(size: tuple[int, int], device: torch.device) -> None:
    arguments = list(on(device, next(SAMPLES["mobilevit_transformer"]()).arguments))
    arguments[0] = torch.randn(1, arguments[0].shape[1], *size).to(device)
    check("mobilevit_transformer", tuple(arguments))


def test_images_of_a_batch_do_not_mix(device: torch.device) -> None:
    """Sequences of 49 tokens, which blocks of queries cut: an image that is not a number stays alone.

    What it would touch would be no number either. The rest may differ by the order of sums: the second image lies
    elsewhere in its blocks, and NumPy, in which the interpreter multiplies, rounds by the place in a block.
    """
    arguments = list(on(device, next(SAMPLES["mobilevit_transformer"]()).arguments))
    x = torch.randn(2, arguments[0].shape[1], 14, 14).to(device)
    alone = run("mobilevit_transformer", (x[1:], *arguments[1:]))
    x[0] = torch.nan
    both = run("mobilevit_transformer", (x, *arguments[1:]))
    assert both[0].isnan().all()
    close(both[1:], alone)


def test_scores_of_any_size_are_taken(device: torch.device) -> None:
    """A softmax without its running maximum would overflow."""
    arguments = list(on(device, next(SAMPLES["mobilevit_transformer"]()).arguments))
    arguments[5] = arguments[5] * 30
    actual = run("mobilevit_transformer", tuple(arguments))
    assert actual.isfinite().all()
    check("mobilevit_transformer", tuple(arguments))


@pytest.mark.parametrize("activation", ["relu", "silu", "none"])
def test_not_a_number_stays(activation: str, device: torch.device) -> None:
    x = torch.ones(1, 16, 2, 2, device=device)
    x[0, 3, 1, 0] = torch.nan
    weight = torch.ones(16, 16, 1, 1, device=device)
    y = run("conv2d_bias_act", (x, None, weight, None, None, [1, 1], [0, 0], [1, 1], activation))
    assert y[:, :, 1, 0].isnan().all()
    assert y.isnan().sum() == 16


@pytest.mark.parametrize("op", OPS)
def test_tiles_of_the_table_are_used(op: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = on(device, next(SAMPLES[op]()).arguments)
    launched: list[launch.Launch] = []
    with launch.instead_of_launches(launched.append):
        run(op, arguments)
    one = launched[0]
    name, key = one.kernel.fn.__name__, tiles.shape_key(one.mode, one.shape)
    other = {**one.tile, "BLOCK_M": 32 if one.tile["BLOCK_M"] == 16 else 16}
    monkeypatch.setattr(tiles, "table", lambda: {"any": {name: {key: other}}})
    launched.clear()
    with tiles.for_chip("any"), launch.instead_of_launches(launched.append):
        run(op, arguments)
    assert launched[0].tile == other
    with tiles.for_chip("any"):
        check(op, arguments)


def test_tf32_follows_torch(device: torch.device) -> None:
    before, x = torch.get_float32_matmul_precision(), torch.ones(1, device=device)
    try:
        torch.set_float32_matmul_precision("high")
        for chip, expected in (("sm_90", "tf32"), ("gfx942", "tf32"), ("gfx1100", "ieee")):
            with tiles.for_chip(chip):
                assert launch.input_precision(x) == expected
        assert launch.input_precision(x.half()) == "ieee"
        torch.set_float32_matmul_precision("highest")
        assert launch.input_precision(x) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


def test_other_types_and_activations_are_refused(device: torch.device) -> None:
    x, weight = torch.ones(1, 4, 2, 2, device=device), torch.ones(4, 4, 1, 1, device=device)
    with pytest.raises(BackendError, match=r"triton: expected one of torch.float16, .*, got torch.float64"):
        ops.conv2d_bias_act(x.double(), weight.double(), backend="triton")
    with pytest.raises(BackendError, match=r"triton: expected activation among none, relu, silu, got 'gelu'"):
        ops.conv2d_bias_act(x, weight, activation="gelu", backend="triton")
    assert (device.type == "cpu") == INTERPRETING

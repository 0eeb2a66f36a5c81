"""Every operator of the CUDA library through its binding: values, layouts, fakes, refusals, what others get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast import ops
from mobilevit_fast.kernels.cuda import rules
from mobilevit_fast.ops.registry import BackendError
from testing.samples import SAMPLES, Sample
from testing.tolerance import assert_within_twice
from tests.ops.compositions import COMPOSITIONS

DTYPES = [torch.float16, torch.bfloat16]
OPS = [name for name, op in ops.OPS.items() if "cuda" in op.kernels]


def supported(op: str, sample: Sample) -> bool:
    """Whether the kernel takes a sample; the samples are the same on every device."""
    definition = ops.OPS[op]
    return definition.kernels["cuda"].takes(torch.float16, definition.named(sample.arguments)).ok


ALL = [(op, sample) for op in OPS for sample in SAMPLES[op]()]
TAKEN = [pytest.param(op, s, id=f"{op}-{s.name}") for op, s in ALL if supported(op, s)]
REFUSED = [pytest.param(op, s, id=f"{op}-{s.name}") for op, s in ALL if not supported(op, s)]


def kernel_of(op: str, sample: Sample) -> str:
    """What tells an operator's kernels apart: a dense convolution over few channels, over one input, over two."""
    if op != "conv2d_bias_act":
        return op
    inputs = 1 if sample.arguments[1] is None else 2
    return f"{op}-{'stem' if sample.arguments[0].shape[1] % 8 else inputs}"


KERNELS = {kernel_of(op, sample): (op, sample) for op, sample in reversed(ALL) if supported(op, sample)}
FIRST = [pytest.param(op, sample, id=kernel) for kernel, (op, sample) in KERNELS.items()]


def on(device: torch.device, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with their tensors on a device, strides kept."""
    return tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)


def kernel_arguments(op: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the overload takes: packed weights and their sizes in place of the weights."""
    return ops.OPS[op].arguments_for("cuda", arguments)


# The kernels are the same in both types, which samples of `make test` have in turns.
@pytest.mark.parametrize(
    ("op", "sample", "dtype"),
    [
        pytest.param(*case.values, dtype, id=f"{case.id}-{dtype}", marks=[pytest.mark.thorough] * ((i + j) % 2))
        for i, case in enumerate(TAKEN)
        for j, dtype in enumerate(DTYPES)
    ],
)
def test_error_is_within_twice_pytorchs(op: str, sample: Sample, dtype: torch.dtype, device: torch.device) -> None:
    arguments = on(device, sample.to(dtype))
    with torch.no_grad():
        exact = COMPOSITIONS[op](*(a.double() if isinstance(a, Tensor) else a for a in arguments))
        plain = COMPOSITIONS[op](*arguments)
        actual = ops.OPS[op]("cuda", *arguments)
    assert actual.dtype == dtype
    assert_within_twice(actual, plain, exact)


@pytest.mark.parametrize(("op", "sample"), REFUSED)
def test_what_the_kernel_does_not_take_has_a_reason(op: str, sample: Sample, device: torch.device) -> None:
    arguments = on(device, sample.to(torch.float16))
    with pytest.raises(BackendError, match=rf"mobilevit_fast\.{op}: cuda: expected .*, got "):
        ops.OPS[op]("cuda", *arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_other_types_and_activations_are_left_to_others(op: str, sample: Sample, device: torch.device) -> None:
    with pytest.raises(BackendError, match=r"expected one of torch\.float16, torch\.bfloat16, got torch\.float32"):
        ops.OPS[op]("cuda", *on(device, sample.arguments))
    arguments = ["gelu" if isinstance(a, str) else a for a in on(device, sample.to(torch.float16))]
    with pytest.raises(BackendError, match=r"expected \w*activation among none, relu, silu, got 'gelu'"):
        ops.OPS[op]("cuda", *arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_the_dispatcher_agrees(op: str, sample: Sample, device: torch.device) -> None:
    """Schema, fake kernel with its strides, dynamic shapes."""
    arguments = kernel_arguments(op, on(device, sample.to(torch.float16)))
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(ops.OPS[op].overload("cuda"), arguments, test_utils=tests)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_an_input_may_lie_anywhere(op: str, sample: Sample, device: torch.device) -> None:
    """Two bytes behind where 16 can be read at once; in rows cut out of longer ones; there may be no image at all."""
    arguments = on(device, sample.to(torch.float16))
    expected = ops.OPS[op]("cuda", *arguments)
    count = 2 if op == "conv2d_bias_act" and arguments[1] is not None else 1
    images, rest = arguments[:count], arguments[count:]

    def moved(x: Tensor) -> Tensor:
        memory = torch.empty(x.numel() + 1, dtype=x.dtype, device=device)
        n, c, h, w = x.shape
        return memory[1:].view(n, h, w, c).permute(0, 3, 1, 2).copy_(x)

    assert torch.equal(ops.OPS[op]("cuda", *map(moved, images), *rest), expected)
    cut = [torch.cat([x, x], dim=3)[..., : x.shape[3]] for x in images]
    assert torch.equal(ops.OPS[op]("cuda", *cut, *rest), expected)
    assert ops.OPS[op]("cuda", *(x[:0] for x in images), *rest).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_images_of_bytes(dtype: torch.dtype, constant: int, device: torch.device) -> None:
    """By the dispatcher's tests and the binding's checks; cut out of longer rows; no image at all."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 3, 9, 10), generator=generator, dtype=torch.uint8).to(device)
    weight = torch.randn(8, 3 + constant, 3, 3, generator=generator).to(device, dtype)
    rest = (None, weight, weight.new_full((8,), 1 / 255), None, [2, 2], [1, 1], [1, 1], "silu")
    operator = ops.OPS["conv2d_bias_act"]
    expected = operator("cuda", x, *rest)
    assert expected.dtype == dtype
    assert torch.equal(operator("cuda", torch.cat([x, x], dim=3)[..., :10], *rest), expected)
    assert operator("cuda", x[:0], *rest).shape == (0, *expected.shape[1:])
    arguments = kernel_arguments("conv2d_bias_act", (x, *rest))
    overload = operator.overload("cuda")
    torch.library.opcheck(
        overload, arguments, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    )
    wide = torch.zeros(2, 8, 9, 10, dtype=torch.uint8, device=device)
    for wrong in (x[:, :1], x.int(), x[0], wide):
        with pytest.raises(RuntimeError, match=r"mobilevit_fast\.conv2d_bias_act: expected"):
            overload(wrong, *arguments[1:])
    with pytest.raises(RuntimeError, match=r"mobilevit_fast\.conv2d_bias_act: expected"):
        overload(x, x, *arguments[2:])


@pytest.mark.parametrize(("op", "sample"), FIRST)
@given(data=st.data())
def test_one_wrong_dimension_in_any_tensor_is_refused(
    op: str, sample: Sample, device: torch.device, data: st.DataObject
) -> None:
    """By the binding itself, whoever calls it: nothing is read out of bounds."""
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    position = data.draw(st.sampled_from([i for i, a in enumerate(arguments) if isinstance(a, Tensor)]))
    shape = list(arguments[position].shape)
    dimension = data.draw(st.integers(0, len(shape) - 1))
    if position == 0 and dimension != 1:
        return  # another image is not an error
    shape[dimension] += data.draw(st.sampled_from([-1, 1, 2, 8]).filter(lambda step: shape[dimension] + step > 0))
    arguments[position] = arguments[position].new_zeros(shape)
    with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected"):
        overload(*arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_sizes_that_are_not_the_packings_are_refused(op: str, sample: Sample, device: torch.device) -> None:
    """Also those whose products do not fit 63 bits. The zeros behind the last weight may be taken for more weights."""
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    first = 3 if op == "conv2d_bias_act" else 2
    positions = range(first, first + len(ops.OPS[op].declaration.size_names))
    for changed in (*([position] for position in positions), positions):
        for step in (1, 8, 16, 4096, 2**31, 2**61, 2**62, -(2**62)):
            wrong = [a + step if i in changed else a for i, a in enumerate(arguments)]
            try:
                overload(*wrong)
                taken = True
            except RuntimeError as error:
                taken = False
                assert f"mobilevit_fast.{op}: expected" in str(error)  # noqa: PT017
            assert not taken or 0 < step <= 16


def test_packed_weights_of_every_other_kind_are_refused(device: torch.device) -> None:
    given = {
        (op, dtype): list(kernel_arguments(op, on(device, KERNELS[kernel_of(op, sample)][1].to(dtype))))
        for op, sample in KERNELS.values()
        for dtype in DTYPES
    }
    position = {op: 2 if op == "conv2d_bias_act" else 1 for op, _ in given}
    for (op, dtype), arguments in given.items():
        for (other, other_type), others in given.items():
            if (other, other_type) != (op, dtype):
                wrong = list(arguments)
                wrong[position[op]] = others[position[other]]
                refusal = rf"mobilevit_fast\.{op}: expected (input|packed weights) of"
                inputs, rest = wrong[: position[op]], wrong[position[op] :]
                for images in (inputs, [x if x is None else x[:0] for x in inputs]):  # also where there is no image
                    with pytest.raises(RuntimeError, match=refusal):
                        ops.OPS[op].overload("cuda")(*images, *rest)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_a_tensor_of_another_type_or_rank_is_refused(op: str, sample: Sample, device: torch.device) -> None:
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    for position, argument in enumerate(arguments):
        if not isinstance(argument, Tensor):
            continue
        for changed in (argument[None], argument[0], argument.to(torch.int32), argument.double()):
            changed_arguments = [*arguments[:position], changed, *arguments[position + 1 :]]
            with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected"):
                overload(*changed_arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_a_tensor_without_memory_is_refused(op: str, sample: Sample, device: torch.device) -> None:
    """As FSDP leaves it between calls, wherever in its storage it began."""
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    for position, argument in enumerate(arguments):
        for size, offset in ((0, 0), (0, 16), (30, 16)) if isinstance(argument, Tensor) else ():
            freed = argument.new_zeros(argument.numel() + offset)[offset:].view(argument.shape)
            freed.untyped_storage().resize_(size)
            with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected .* resized to {size} bytes"):
                overload(*arguments[:position], freed, *arguments[position + 1 :])


@pytest.mark.parametrize("op", [op for op in OPS if "conv2d" in op or op == "inverted_residual"])
@pytest.mark.parametrize("value", [2**15, 2**31, 2**60, 2**61, 2**63 - 1])
def test_a_window_too_large_to_count_is_refused(op: str, value: int, device: torch.device) -> None:
    """By the binding itself, one number at a time and all of them."""
    sample = next(sample for name, sample in KERNELS.values() if name == op)
    arguments = on(device, sample.to(torch.float16))
    packed = kernel_arguments(op, arguments)
    pairs = [i for i, argument in enumerate(arguments) if isinstance(argument, list)]
    for changed in (*([position] for position in pairs), pairs):
        wrong = [[value] * 2 if i in changed else a for i, a in enumerate(arguments)]
        assert_refused_alike(op, packed, wrong, "expected")


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_images_too_large_to_count_are_refused(op: str, sample: Sample, device: torch.device) -> None:
    """One pixel repeated, in as many images, rows or columns as kernels do not count."""
    fewest = rules.MAX_POSITIONS + 1 - (1 << 20 if op == "classifier_head" else 0)
    sizes = [(1 << 31, 8, 8), (2, 1 << 31, 8), (2, 8, 1 << 31)]
    if "depthwise" not in op and op != "inverted_residual":  # which count images, rows and columns by themselves
        sizes += [(1, 1 << 25, 1 << 25), (fewest // 64, 8, 8), (1, fewest // 4, 4), (1, 4, fewest // 4)]
    arguments = on(device, sample.to(torch.float16))
    packed = kernel_arguments(op, arguments)
    second = [1] if op == "conv2d_bias_act" and arguments[1] is not None else []
    for images, height, width in sizes:
        large = list(arguments)
        for i in (0, *second):
            large[i] = arguments[i][:1, :, :1, :1].expand(images, -1, height, width)
        assert_refused_alike(op, packed, large, "expected .*fewer than")


def assert_refused_alike(op: str, packed: Sequence[Any], changed: Sequence[Any], message: str) -> None:
    """By the binding, with the weights packed as they were before the change, and by the operator's rules."""
    definition = ops.OPS[op]
    images, _, settings = definition.split(changed)
    rest = len(images) + 1 + len(definition.declaration.size_names)
    with pytest.raises(RuntimeError, match=rf"mobilevit_fast.*: {message}"):
        definition.overload("cuda")(*images, *packed[len(images) : rest], *settings)
    with pytest.raises(ValueError, match=rf"mobilevit_fast\.{op}: (cuda: )?expected"):
        definition("cuda", *changed)


@pytest.mark.parametrize(
    "op", ["aspp", "conv2d_bias_act", "depthwise_conv2d", "inverted_residual", "mobilevit_transformer"]
)
@given(data=st.data())
def test_what_the_rules_take_the_binding_takes(op: str, device: torch.device, data: st.DataObject) -> None:
    """A call that the automatic choice may give to the kernel never fails; all others have a reason."""
    size = st.sampled_from([0, 1, 2, 3, 8, 9])
    channels, outputs = data.draw(st.sampled_from([1, 3, 8, 12, 16, 40])), data.draw(st.sampled_from([4, 8, 24]))
    x = torch.zeros(data.draw(st.integers(0, 2)), channels, data.draw(size), data.draw(size), dtype=torch.float16)
    stride, dilation = (data.draw(st.sampled_from([1, 2, 3, 128, 8191, 1 << 40])) for _ in range(2))
    k = data.draw(st.sampled_from([1, 3, 4, 5]))
    geometry = ([stride] * 2, [dilation * (k // 2)] * 2, [dilation] * 2)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float16)

    if op == "conv2d_bias_act":
        second = data.draw(st.sampled_from([None, 0, 4, 8, 24]))
        x2 = None if second is None else zeros(x.shape[0], second, *x.shape[2:])
        arguments = (x, x2, zeros(outputs, channels + (second or 0), k, k), None, None, *geometry, "relu")
    elif op == "aspp":
        features, none = data.draw(st.sampled_from([4, 8, 24])), (None, None)
        branches = (zeros(features, channels, 1, 1), *none, zeros(2, features, channels, 3, 3), *none)
        pooled = (zeros(features, channels, 1, 1), *none, zeros(outputs, 4 * features, 1, 1), *none)
        arguments = (x, *branches, *pooled, [1, dilation], "relu")
    elif op == "depthwise_conv2d":
        arguments = (x, zeros(channels, 1, k, k), None, None, *geometry, "relu")
    elif op == "inverted_residual":
        weights = zeros(16, channels, 1, 1), zeros(16, 1, k, k), zeros(outputs, 16, 1, 1)
        expand, depthwise, project = ((weight, None, None) for weight in weights)
        arguments = (x, *expand, *depthwise, *project, geometry[0], geometry[2], False, "relu")
    else:
        d, hidden = data.draw(st.sampled_from([8, 12, 64, 264])), data.draw(st.sampled_from([8, 64, 8192]))
        patch = [data.draw(st.sampled_from([1, 2, 5, 1 << 32])) for _ in range(2)]
        heads = data.draw(st.sampled_from([1, 2, 4]))
        norm, layers = (zeros(1, d), zeros(1, d)), (zeros(1, 3 * d, d), None, zeros(1, d, d), zeros(1, d))
        mlp = (zeros(1, hidden, d), zeros(1, hidden), zeros(1, d, hidden), zeros(1, d))
        ends = (zeros(d), zeros(d), zeros(outputs, d, 1, 1), None, None)
        arguments = (
            x,
            zeros(d, channels, 1, 1),
            None,
            *norm,
            *layers,
            *norm,
            *mlp,
            *ends,
            heads,
            patch,
            1e-5,
            *2 * ["relu"],
        )
    arguments = on(device, arguments)
    definition = ops.OPS[op]
    try:
        shape = definition.output_shape(*arguments)
    except ValueError:
        return  # no backend takes it
    if definition.kernels["cuda"].takes(torch.float16, definition.named(arguments)).ok:
        y = definition("cuda", *arguments)
        assert y.shape == tuple(shape)
        assert y.isfinite().all()
    else:
        with pytest.raises(BackendError, match=rf"mobilevit_fast\.{op}: cuda: expected .*, got "):
            definition("cuda", *arguments)

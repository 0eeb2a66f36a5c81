"""Packed weights of the C++ kernels in every variant: their size, and their use by another variant."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import native, ops
from mobilevit_fast.kernels.cuda import backend
from mobilevit_fast.kernels.packed import row_bytes
from testing.samples import SAMPLES
from tests.ops.variants import DTYPES, EXTENSION, ISAS, NATIVE, PAIRS, TILES, called, in_type, run, using_isa

ORDERS = ("numbers", "pairs", "tiles")


def pack(op: str, arguments: tuple[Any, ...]) -> Tensor:
    """An operator's weights for the variant in use."""
    definition = ops.OPS[op]
    images, _, _ = definition.split(arguments)
    packed: Tensor = definition.arguments_for("cpu", arguments)[len(images)]
    return packed


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", NATIVE)
def test_the_fake_promises_the_shape(op: str, dtype: torch.dtype, isa: str) -> None:
    for sample in SAMPLES[op]():
        arguments = in_type(sample.arguments, dtype)
        meta = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in arguments)
        with using_isa(isa):
            packed, promised = pack(op, arguments), pack(op, meta)
        assert (packed.shape, packed.dtype) == (promised.shape, dtype)


def test_no_two_kinds_have_rows_of_one_length() -> None:
    """By which kernels tell packed weights of another kind, wherever they lie."""
    kinds = [(op, order) for op in NATIVE for order in (*ORDERS, *backend.ORDERS)]
    assert len({row_bytes(*kind) for kind in kinds}) == len(kinds)


def test_packed_weights_of_every_other_kind_are_refused() -> None:
    packings = {}
    for op in NATIVE:
        for dtype in DTYPES:
            arguments = in_type(next(SAMPLES[op]()).arguments, dtype)
            for isa in ISAS:
                with using_isa(isa):
                    packed = pack(op, arguments)
                    length = packed.shape[1] * packed.element_size()
                assert length in [row_bytes(op, order) for order in ORDERS]
                packings[op, dtype, length] = packed
    for op in NATIVE:
        for dtype in DTYPES:
            arguments = in_type(next(SAMPLES[op]()).arguments, dtype)
            own = pack(op, arguments)
            for (other, other_type, length), packed in packings.items():
                if (other, other_type, length) == (op, dtype, own.shape[1] * own.element_size()):
                    assert torch.equal(packed, own)
                    assert torch.equal(called(op, arguments, packed=packed), run(op, arguments))
                    continue
                with pytest.raises(RuntimeError, match=rf"{op}: expected (packed weights|input) of .*, got"):
                    called(op, arguments, packed=packed)


@pytest.mark.parametrize("op", NATIVE)
def test_packed_weights_of_another_shape_or_layout_are_refused(op: str) -> None:
    arguments = next(SAMPLES[op]()).arguments
    own = pack(op, arguments)
    rows, numbers = own.shape
    unaligned = torch.zeros(own.numel() + 1)[1:].view(own.shape)
    transposed = torch.zeros(numbers, rows).t() if rows > 1 else torch.zeros(1, 2 * numbers)[:, ::2]
    for wrong in (own[:-1], own[:, :-1], own.flatten(), own[None], torch.cat([own, own]), transposed, unaligned):
        with pytest.raises(RuntimeError, match=f"{op}: expected packed weights (of shape|at an address)"):
            called(op, arguments, packed=wrong)
    for wrong in (own.double(), own.half(), own.int()):
        with pytest.raises(RuntimeError, match=f"{op}: expected packed weights of type torch.float32 or"):
            called(op, arguments, packed=wrong)
    with pytest.raises(RuntimeError, match=f"{op}: expected input of type torch.bfloat16, like the packed"):
        called(op, arguments, packed=own.bfloat16())
    with pytest.raises(RuntimeError, match=f"{op}: expected .* got .* not dense"):
        called(op, arguments, packed=torch.zeros(rows, 2 * numbers)[:, ::2])
    with pytest.raises(RuntimeError, match=f"{op}: expected packed weights, got none"):
        called(op, arguments, packed=None)
    # A tensor without values leads to the fake, which would hand out memory on the image's device.
    with pytest.raises(ValueError, match=f"{op}: expected packed weights on cpu, like the input, got meta"):
        called(op, arguments, packed=own.to("meta"))
    with pytest.raises(ValueError, match=f"{op}: expected packed weights of type torch.float32, like the input"):
        called(op, (arguments[0].to("meta"), *arguments[1:]), packed=own.to("meta").bfloat16())


@pytest.mark.parametrize("op", NATIVE)
def test_sizes_that_are_not_the_packings_are_refused(op: str) -> None:
    """Also those whose products do not fit 63 bits."""
    arguments = next(SAMPLES[op]()).arguments
    names = [name.replace(" ", "_") for name in ops.OPS[op].declaration.size_names]
    own = ops.OPS[op].declaration.sizes(op, None, ops.OPS[op].split(arguments)[1])
    for name, size in zip(names, own.values(), strict=True):
        for wrong in (size + 16, size * 2, 0, -1, -size, 2**31, 2**61, 2**63 - 1, -(2**63)):
            with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected .*, got"):
                called(op, arguments, **{name: wrong})
    for wrong in (2**31, 2**62, 2**63 - 1):
        with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected .*, got"):
            called(op, arguments, **dict.fromkeys(names, wrong))


@pytest.mark.parametrize(("made", "used"), itertools.permutations(("avx512", PAIRS, TILES), 2))
@pytest.mark.parametrize("op", NATIVE)
def test_weights_packed_for_another_variant_are_refused(op: str, made: str, used: str) -> None:
    if not {made, used} <= set(ISAS):
        pytest.skip(f"this machine does not run {made} and {used}")
    samples = (sample.arguments for sample in SAMPLES[op]())
    even = next(sample for sample in samples if sample[0].shape[1] % 2 == 0)
    arguments = in_type(even, torch.bfloat16)
    with using_isa(made):
        packed = pack(op, arguments)
    with using_isa(used):
        if in_order(op, made) != in_order(op, used):
            with pytest.raises(RuntimeError, match=rf"{op}: expected packed weights .* kernel variant \w+, got"):
                called(op, arguments, packed=packed)
        else:
            assert torch.equal(called(op, arguments, packed=packed), run(op, arguments))


def in_order(op: str, isa: str) -> str:
    """How a variant packs weights of bfloat16 for an operator."""
    if op in ("aspp", "depthwise_conv2d") or isa == "avx512" or (op == "conv2d_bias_act" and isa == PAIRS):
        return "numbers"
    return "tiles" if isa == TILES else "pairs"


@pytest.mark.parametrize("op", NATIVE)
def test_parameters_that_do_not_fit_are_not_packed(op: str) -> None:
    sample = next(SAMPLES[op]())
    named = dict(zip(ops.OPS[op].argument_names, sample.arguments, strict=True))
    packing = ops.OPS[op].kernels["cpu"].packing
    assert packing is not None
    given = [named[name] for name in (*ops.OPS[op].declaration.names, *packing.settings)]
    refused = 0
    for i, parameter in enumerate(given):
        if not isinstance(parameter, Tensor):
            continue
        if i == 0 and op != "aspp":
            shorter = [parameter[1:]]  # of fewer channels, the input's, only the first weight knows
        elif parameter.dim() >= 4:
            shorter = [p for p in (parameter[1:], parameter[:, 1:]) if p.numel() > 0]
        else:
            shorter = [parameter[..., 1:]]
        for wrong in (parameter.double(), parameter.long(), parameter[None], parameter[0], *shorter):
            with pytest.raises(RuntimeError, match=rf"^mobilevit_fast\.{op}: expected .*, got "):
                ops.OPS[op].overload("cpu_pack")(*given[:i], wrong, *given[i + 1 :])
            refused += 1
    assert refused > 4


def test_the_fastest_variant_is_the_default() -> None:
    """Intel's processors multiply float32 faster than pairs of bfloat16, but nothing as fast as tiles."""
    expected = [isa for isa in ISAS if isa != PAIRS or not _on_intel()]
    assert native.extension().cpu_isa() == expected[-1]
    features = EXTENSION.cpu_features()
    assert (PAIRS in ISAS) == features.get("avx512_bf16", False)
    if TILES in ISAS:
        assert features["amx_tile"]
        assert features["amx_bf16"]


def _on_intel() -> bool:
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")

"""Packed weights of the C++ kernels in every variant: their size, and their use by another variant."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mobilevit_fast import native, ops
from mobilevit_fast.kernels.cpu.packing import multiplies_tiles, word_factors
from testing.samples import SAMPLES
from tests.ops.variants import DTYPES, EXTENSION, ISAS, NATIVE, in_type, run, using_isa

PACKED = [name for name in NATIVE if ops.OPS[name].kernels["cpu"].packing]
PAIRS, TILES = "avx512_bf16", "avx512_amx"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", PACKED)
def test_the_fake_promises_the_size(op: str, dtype: torch.dtype, isa: str) -> None:
    for sample in SAMPLES[op]():
        arguments = in_type(sample.arguments, dtype)
        meta = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in arguments)
        with using_isa(isa):
            packed, promised = ops.OPS[op].pack("cpu", arguments), ops.OPS[op].pack("cpu", meta)
        assert packed is not None
        assert promised is not None
        assert (packed.shape, packed.dtype) == (promised.shape, torch.float32)


@pytest.mark.parametrize(("made", "used"), itertools.permutations(("avx512", PAIRS, TILES), 2))
@pytest.mark.parametrize("op", PACKED)
def test_weights_packed_for_another_variant_are_refused(op: str, made: str, used: str) -> None:
    if not {made, used} <= set(ISAS):
        pytest.skip(f"this machine does not run {made} and {used}")
    samples = (sample.arguments for sample in SAMPLES[op]())
    even = next(sample for sample in samples if sample[0].shape[1] % 2 == 0)
    arguments = in_type(even, torch.bfloat16)
    with using_isa(made):
        packed = ops.OPS[op].pack("cpu", arguments)
    with using_isa(used):
        if in_words(op, made) != in_words(op, used):
            with pytest.raises(RuntimeError, match=rf"{op}: expected packed weights .* kernel variant \w+, got"):
                run(op, (*arguments, packed))
        else:
            assert torch.equal(run(op, (*arguments, packed)), run(op, arguments))


def test_row_groups_and_tiles_have_different_sizes() -> None:
    """Of widths that are multiples of both, pairs in row groups and in tiles are equally many words."""
    if TILES not in ISAS:
        pytest.skip(f"this machine does not run {TILES}")
    width, hidden = 96, 192
    weights = ((width, width, 1, 1), None, *((1, width),) * 2, (1, 3 * width, width), None, (1, width, width))
    weights += ((1, width), *((1, width),) * 2, (1, hidden, width), (1, hidden), (1, width, hidden), (1, width))
    weights += ((width,), (width,), (width, width, 1, 1), None, None)
    made = [None if shape is None else torch.randn(shape).bfloat16() for shape in weights]
    sizes = set()
    for isa in (PAIRS, TILES):
        with using_isa(isa):
            sizes.add(ops.OPS["mobilevit_transformer"].overload("cpu_pack")(*made).numel())
    assert len(sizes) == 2


def in_words(op: str, isa: str) -> str:
    """How a variant packs weights of bfloat16 for an operator."""
    if op == "aspp" or isa == "avx512":
        return "numbers"
    if op == "mobilevit_transformer":
        return isa  # in pairs, and for tiles in groups of another size
    return "numbers" if op == "conv2d_bias_act" and isa == PAIRS else "pairs"


@pytest.mark.parametrize("op", PACKED)
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


@pytest.mark.parametrize("isa", ISAS)
def test_pairs_are_for_even_numbers_of_bfloat16(isa: str) -> None:
    even, odd = torch.empty(3, 4, 1, 1, dtype=torch.bfloat16), torch.empty(2, 6, 5, dtype=torch.bfloat16)
    with using_isa(isa):
        assert word_factors(even) == (2 if isa in (PAIRS, TILES) else 1)
        assert multiplies_tiles(even) == (isa == TILES)
        assert not multiplies_tiles(even, odd)
        assert word_factors(even, odd) == word_factors(even, even.float()) == 1


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

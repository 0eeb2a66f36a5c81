"""Packed weights of the C++ kernels in every variant: their size, and their use by another variant."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mobilevit_fast import native, ops
from mobilevit_fast.ops.packing import word_factors
from tests.ops.variants import DTYPES, EXTENSION, ISAS, NATIVE, in_type, run, using_isa
from tests.samples import SAMPLES

PACKED = [name for name in NATIVE if ops.OPS[name].kernels["cpu"].packing]
PAIRS = "avx512_bf16"


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


@pytest.mark.parametrize("op", PACKED)
def test_weights_packed_for_another_variant_are_refused(op: str) -> None:
    if PAIRS not in ISAS:
        pytest.skip(f"this machine does not run {PAIRS}, the only variant that packs in another way")
    arguments = in_type(next(SAMPLES[op]()).arguments, torch.bfloat16)
    pairs = op not in ("aspp", "conv2d_bias_act")
    for made, used in itertools.permutations((PAIRS, "avx512")):
        with using_isa(made):
            packed = ops.OPS[op].pack("cpu", arguments)
        with using_isa(used):
            if pairs:
                with pytest.raises(RuntimeError, match=rf"{op}: expected packed weights .* kernel variant {used}, got"):
                    run(op, (*arguments, packed))
            else:
                assert torch.equal(run(op, (*arguments, packed)), run(op, arguments))


@pytest.mark.parametrize("op", PACKED)
def test_parameters_that_do_not_fit_are_not_packed(op: str) -> None:
    sample = next(SAMPLES[op]())
    named = dict(zip(ops.OPS[op].argument_names, sample.arguments, strict=True))
    packing = ops.OPS[op].kernels["cpu"].packing
    assert packing is not None
    given = [named[name] for name in packing.parameters]
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
        assert word_factors(even) == (2 if isa == PAIRS else 1)
        assert word_factors(even, odd) == word_factors(even, even.float()) == 1


def test_the_strongest_variant_is_the_default() -> None:
    assert native.extension().cpu_isa() == ISAS[-1]
    has_pairs = EXTENSION.cpu_features().get("avx512_bf16", False)
    assert not has_pairs or ISAS[-1] == PAIRS

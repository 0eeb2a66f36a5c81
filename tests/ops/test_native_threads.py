"""C++ kernels on any number of threads, from several threads at once, and in one variant after another."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from testing.samples import SAMPLES, Sample
from testing.threads import using_threads
from testing.tolerance import assert_within_twice
from tests.ops.variants import DTYPES, ISAS, NATIVE, exact_and_plain, in_type, run, using_isa

THREADS = (1, 2, 3, 7)
CALLERS, ROUNDS = 4, 6
# Rows enough for several groups, strips or tasks an image, and not the same number for every thread.
BATCHES_AND_SIZES = [(1, 33, 21), (3, 19, 26), (5, 4, 3)]
# By the way `run` in csrc/cpu/mobilevit_transformer/mobilevit_transformer.cpp cuts them: two threads take four
# sequences as they are, three or seven would wait for one another and go block by block; many short sequences are
# always taken as they are.
TRANSFORMER_BATCHES_AND_SIZES = [(1, 32, 32), (3, 24, 28), (3, 4, 4), (9, 8, 4)]


def samples(op: str) -> list[Sample]:
    """Those in channels_last, and a convolution whose rows of pixels leave out now this, now that row of the window."""
    found = [sample for sample in SAMPLES[op]() if sample.name.endswith("channels_last")]
    if op == "conv2d_bias_act":
        generator = torch.Generator().manual_seed(0)
        x, weight = torch.empty(1, 80, 16, 16), torch.randn(40, 80, 3, 3, generator=generator)
        found.append(Sample("c80-o40-k3-d12", (x, None, weight, None, None, [1, 1], [12, 12], [12, 12], "none")))
    return found


CASES = [pytest.param(op, sample, id=f"{op}-{sample.name}") for op in NATIVE for sample in samples(op)]


def enlarged(op: str, sample: Sample, batch: int, height: int, width: int) -> tuple[Any, ...]:
    """A sample's arguments with larger images."""
    generator = torch.Generator().manual_seed(batch)

    def image(old: Tensor) -> Tensor:
        x = torch.randn(batch, old.shape[1], height, width, generator=generator)
        return x.contiguous(memory_format=torch.channels_last)

    named = dict(zip(ops.OPS[op].argument_names, sample.arguments, strict=True))
    images = {name: image(value) for name, value in named.items() if name in ("x", "x2") and value is not None}
    return tuple((named | images).values())


def all_arguments(op: str, sample: Sample) -> list[tuple[Any, ...]]:
    """A sample with images of every size of this file that its windows fit, in every type."""
    sizes = TRANSFORMER_BATCHES_AND_SIZES if op == "mobilevit_transformer" else BATCHES_AND_SIZES
    found = [in_type(enlarged(op, sample, *size), dtype) for size in sizes for dtype in DTYPES]
    return [arguments for arguments in found if fits(op, arguments)]


def fits(op: str, arguments: tuple[Any, ...]) -> bool:
    try:
        ops.OPS[op].output_shape(*arguments)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_the_number_of_threads_changes_nothing(op: str, sample: Sample, isa: str) -> None:
    cases = all_arguments(op, sample)
    assert len(cases) >= 2 * len(DTYPES)
    with using_isa(isa):
        for arguments in cases:
            results = {}
            for count in THREADS:
                with using_threads(count):
                    results[count] = run(op, arguments)
            for count, result in results.items():
                assert torch.equal(result, results[1]), f"{count} threads, {tuple(arguments[0].shape)}"


@pytest.mark.parametrize("op", NATIVE)
def test_callers_do_not_disturb_each_other(op: str) -> None:
    cases = [arguments for sample in samples(op)[:2] for arguments in all_arguments(op, sample)]
    overload = ops.OPS[op].overload("cpu")
    cases = [ops.OPS[op].arguments_for("cpu", arguments) for arguments in cases]
    with using_threads(2):
        expected = [overload(*arguments) for arguments in cases]
    start = threading.Barrier(CALLERS)
    wrong: list[str] = []

    def call(caller: int) -> None:
        torch.set_num_threads(2)
        for turn in range(ROUNDS):
            start.wait(timeout=60)
            for i in range(len(cases)):
                case = (i + caller * len(cases) // CALLERS + turn) % len(cases)  # others compute something else
                if not torch.equal(overload(*cases[case]), expected[case]):
                    wrong.append(f"caller {caller}, case {case}")

    before = torch.get_num_threads()
    threads = [threading.Thread(target=call, args=(i,)) for i in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(before)
    assert not start.broken
    assert not wrong


@pytest.mark.parametrize("op", NATIVE)
def test_callers_may_use_different_operators(op: str) -> None:
    """One thread repeats an operator while another runs all the others: their working memory is not shared."""
    arguments = {name: next(SAMPLES[name]()).arguments for name in NATIVE}
    expected = {name: ops.OPS[name].run("cpu", arguments[name]) for name in NATIVE}
    wrong: list[str] = []

    def call(names: list[str]) -> None:
        for name in names:
            if not torch.equal(ops.OPS[name].run("cpu", arguments[name]), expected[name]):
                wrong.append(name)

    others = [name for name in NATIVE if name != op]
    threads = [threading.Thread(target=call, args=(names,)) for names in ([op] * 40, others * 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", NATIVE)
def test_variants_follow_one_another(op: str, dtype: torch.dtype) -> None:
    """What one variant leaves behind in working memory does not matter to the next."""
    arguments = in_type(enlarged(op, samples(op)[0], 3, 24, 20), dtype)
    exact, plain = exact_and_plain(op, arguments)
    first: dict[str, Tensor] = {}
    for isa in [*ISAS, *reversed(ISAS), *ISAS]:
        with using_isa(isa):
            result = run(op, arguments)
        assert_within_twice(result, plain, exact)
        assert torch.equal(result, first.setdefault(isa, result)), isa

"""The emulator itself: each thing of the device against a plain definition, and what it has to catch."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from emulator.build import SANITIZED, load
from testing.paths import REPOSITORY

emulated: Any = load()
Fault = emulated.Fault
LANES = np.arange(32)


def words(values: torch.Tensor, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """Pairs of 16-bit numbers along the last dimension."""
    return values.to(dtype).contiguous().view(torch.int16).numpy().view(np.uint32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_products_of_matrices(dtype: torch.dtype) -> None:
    """Fragments are filled and read by the formulas of the PTX ISA, number by number."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator).to(dtype) for shape in ((16, 16), (16, 8)))
    c = torch.randn(16, 8, generator=generator)
    group, member = torch.arange(32) // 4, torch.arange(32) % 4
    rows = torch.stack([group + (8 if 2 <= i < 4 or i >= 6 else 0) for i in range(8)], dim=1)
    columns = torch.stack([member * 2 + (i & 1) + (8 if i >= 4 else 0) for i in range(8)], dim=1)
    left = words(a[rows, columns], dtype)
    depth = torch.stack([member * 2 + (i & 1) + (8 if i >= 2 else 0) for i in range(4)], dim=1)
    right = words(b[depth, group[:, None]], dtype)
    sum_rows = torch.stack([group + (8 if i >= 2 else 0) for i in range(4)], dim=1)
    sum_columns = torch.stack([member * 2 + (i & 1) for i in range(4)], dim=1)
    d = c[sum_rows, sum_columns].numpy().copy()
    counts = emulated.multiply_fragments(left, right, d, dtype == torch.bfloat16)
    expected = c.double() + a.double() @ b.double()
    torch.testing.assert_close(torch.from_numpy(d), expected[sum_rows, sum_columns].float(), rtol=1e-6, atol=1e-6)
    assert counts["products"] == 1


@pytest.mark.parametrize("transposed", [False, True])
def test_loads_of_matrices(transposed: bool) -> None:
    matrices = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    fragments = np.zeros((32, 4), np.uint32)
    emulated.load_fragments(matrices.reshape(32, 8), fragments, transposed)
    pairs = fragments.view(np.uint16).reshape(32, 4, 2)
    seen = matrices.transpose(0, 2, 1) if transposed else matrices
    for lane in range(32):
        expected = seen[:, lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]
        assert (pairs[lane] == expected).all()


@pytest.mark.parametrize("mask", [1, 2, 4, 8, 16, 31])
def test_shuffles_stay_within_a_warp(mask: int) -> None:
    values = np.arange(96, dtype=np.float32)
    emulated.exchange(values, mask)
    assert (values == np.arange(96) // 32 * 32 + (np.arange(96) % 32 ^ mask)).all()


def test_halves_are_those_of_torch() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (torch.float16, torch.bfloat16):
        wanted = torch.from_numpy(bits.view(np.int16)).view(dtype).float().numpy()
        found = np.array([emulated.to_float(int(b), dtype == torch.bfloat16) for b in bits], np.float32)
        assert np.array_equal(found, wanted, equal_nan=True)


def test_rounding_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    any_bits = torch.randint(-(2**31), 2**31 - 1, (20000,), generator=generator, dtype=torch.int32).view(torch.float32)
    near = torch.randn(20000, generator=generator) * torch.logspace(-9, 6, 20000)
    edges = torch.tensor([0.0, -0.0, 65504, 65519.99, 65520, 1e5, torch.inf, -torch.inf, 2**-24, 2**-25, 2**-25 * 1.01])
    ties = (torch.arange(0x3C00, 0x4400, dtype=torch.int16).view(torch.float16).float() * (1 + 2**-11)).float()
    values = torch.cat([any_bits, near, edges, ties])
    values = values[~values.isnan()]
    for dtype in (torch.float16, torch.bfloat16):
        found = np.array([emulated.from_float(float(v), dtype == torch.bfloat16) for v in values], np.uint16)
        assert (found == values.to(dtype).view(torch.int16).numpy().view(np.uint16)).all()


def test_roots_and_maxima() -> None:
    x = np.random.default_rng(0).uniform(1e-6, 1e6, 64).astype(np.float32)
    x[:2] = np.nan, 4.0
    y = np.random.default_rng(1).uniform(1e-6, 1e6, 64).astype(np.float32)
    root, larger = x.copy(), y.copy()
    emulated.combine(root, larger)
    assert np.isnan(root[0])
    assert np.allclose(root[1:], 1 / np.sqrt(x[1:].astype(np.float64)), rtol=2**-22, atol=0)
    assert np.array_equal(larger, np.fmax(x, y))


def test_approximations_are_no_better_than_the_instructions() -> None:
    """The PTX ISA has relative errors of 2^-10.987 for tanh, two units in the last place for 2^x, one for 1 / x.

    Here they are about that or up to half as much again.
    """
    x = np.random.default_rng(0).uniform(-20, 20, 1024).astype(np.float32)
    x[:4] = 1e-6, -1e-6, 0.5, 100
    exact = x.astype(np.float64)
    tanh, power, inverse = x.copy(), np.zeros_like(x), np.zeros_like(x)
    counts = emulated.approximate(tanh, power, inverse)
    for found, wanted, error in (
        (tanh, np.tanh(exact), 2**-10.987),
        (power, np.exp2(exact), 2**-22),
        (inverse, 1 / exact, 2**-23),
    ):
        assert 0.9 * error < np.abs(found / wanted - 1).max() < 1.5 * error
    assert counts["exponentials"] == 3 * x.size


@pytest.mark.parametrize(("stride", "sectors"), [(0, 1), (1, 4), (2, 8), (8, 32), (32, 32)])
def test_sectors_of_global_memory(stride: int, sectors: int) -> None:
    """Those of 32 bytes that a warp's loads touch; the array may begin in the middle of one."""
    x, y = np.arange(1024, dtype=np.float32), np.zeros(32, np.float32)
    counts = emulated.read_sectors(x, y, stride)
    assert (y == x[np.arange(32) * stride]).all()
    assert sectors <= counts["sectors"] <= sectors + (stride in (1, 2))
    assert counts["x"] == (32 * 4, 0)


@pytest.mark.parametrize("with_barrier", [True, False])
def test_a_missing_barrier_moves_the_result_with_the_seed(with_barrier: bool) -> None:
    results = set()
    for seed in range(5):
        y = np.full(128, np.nan, np.float32)
        emulated.pass_on(y, with_barrier, seed)
        results.add(y.tobytes())
    right = ((np.arange(128) + 1) % 128).astype(np.float32).tobytes()
    assert (results == {right}) == with_barrier
    assert len(results) == (1 if with_barrier else 5)


@pytest.mark.parametrize("with_wait", [True, False])
def test_asynchronous_copies_arrive_at_the_wait(with_wait: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 64, 4)).astype(np.float32)
    y = np.zeros((2, 64, 4), np.float32)
    counts = emulated.copy_stages(x, y, with_wait)
    expected = x.copy()
    expected[:, 3::4] = 0  # those that were not there
    assert (y[1] == expected[1]).all()
    if with_wait:
        assert (y[0] == expected[0]).all()
    else:
        assert np.isnan(y[0]).all()  # read too early
    assert counts["x"] == (2 * 48 * 16, 0)
    assert counts["y"] == (0, 2 * 64 * 16)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.barrier_missed, r"deadlock: thread \d+ at barrier \(primitives.h:\d+\), thread 5 at its end"),
        (
            Fault.barriers_of_two_lines,
            r"divergent barrier: thread \d+ at barrier \(primitives.h:\d+\), thread \d+ at barrier",
        ),
        (Fault.lane_missing, r"deadlock: .*thread 32 at shuffle \(primitives.h:\d+\), thread 40 at its end"),
        (Fault.moved_load, r"y by load_global at primitives.h:\d+, which may be moved .*: expected load_written"),
        (Fault.global_overflow, r"global memory: 4 bytes outside of every array at primitives.h:\d+"),
        (Fault.too_large, r"shared memory: expected at most the 65536 bytes of the launch, got 4194304"),
    ],
)
def test_faults_are_reported(fault: Any, message: str) -> None:
    with pytest.raises(emulated.Error, match=message):
        emulated.go_wrong(np.zeros(64, np.float32), fault)


def test_without_a_fault_it_runs() -> None:
    y = np.zeros(64, np.float32)
    counts = emulated.go_wrong(y, Fault.none)
    assert (y == (np.arange(64) ^ 1)).all()
    assert counts["y"] == (0, 64 * 4)


@pytest.mark.skipif(not SANITIZED, reason="AddressSanitizer is not loaded: `make test` runs these tests with it")
def test_an_access_beside_a_shared_array_is_reported() -> None:
    code = (
        "import numpy as np; from emulator.build import load; m = load(); "
        "m.go_wrong(np.zeros(64, np.float32), m.Fault.shared_overflow)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in result.stderr
    assert re.search(r"go_wrong.*primitives.h:\d+", result.stderr)


@pytest.mark.parametrize(("stride", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (8, 8), (32, 32)])
def test_bank_conflicts(stride: int, wavefronts: int) -> None:
    counts = emulated.read_banks(np.zeros(32, np.float32), stride)
    assert counts["wavefronts"] == wavefronts
    assert counts["conflicts"] == wavefronts - 1

"""The kernels for every chip on a GPU of compute capability 9.0, where others come first for most of a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mobilevit_fast import ops
from mobilevit_fast.kernels.cuda.rules import packed_for_every_chip
from testing.shapes import OperatorCall
from tests.cuda.conftest import EMULATED
from tests.cuda.test_every_kernel import MANY
from tests.cuda.test_sm90_small import check, kernels
from tests.regions import arguments, regions

pytestmark = pytest.mark.skipif(
    EMULATED or not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a GPU of compute capability 9.0; on another these kernels run anyway, and in the emulator",
)


@pytest.fixture(autouse=True)
def _weights_as_other_chips_have_them() -> Iterator[None]:
    with packed_for_every_chip():
        yield


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 128])
@pytest.mark.parametrize("call", regions())
def test_error_is_within_twice_pytorchs(call: OperatorCall, batch: int, dtype: torch.dtype) -> None:
    """And the same every time, although a kernel begins before the one before it has ended."""
    given = arguments(call, batch, seed=batch, device="cuda", dtype=dtype)
    expected = check(call.op, given)
    assert all(torch.equal(ops.OPS[call.op]("cuda", *given), expected) for _ in range(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", regions())
def test_many_images_are_for_these_kernels(call: OperatorCall, dtype: torch.dtype) -> None:
    found = kernels(call.op, arguments(call, MANY, device="cuda", dtype=dtype))
    assert not [name for name in found if "sm90" in name.lower()]
    if call.op == "mobilevit_transformer":
        by_warps = call.shape["hidden_size"] <= 128
        assert any(("TransformerWarps" if by_warps else "TransformerStack<") in name for name in found), found

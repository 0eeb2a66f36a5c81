"""Every kernel of the models' regions once, on a GPU: what compute-sanitizer looks at in a session."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from mobilevit_fast import ops
from mobilevit_fast.kernels.cuda.rules import packed_for_every_chip
from tests.cuda.conftest import EMULATED
from tests.regions import arguments, regions

pytestmark = pytest.mark.skipif(EMULATED, reason="whole batches take the emulator hours")

MANY = 272
"""Images enough for all kernels for many of them: of 16 tokens, 256 to a block, on half of 132 multiprocessors."""


@pytest.mark.parametrize("own", [True, False], ids=["chosen", "for every chip"])
@pytest.mark.parametrize("batch", [1, MANY])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_regions(dtype: torch.dtype, batch: int, own: bool) -> None:
    """By the kernels that are chosen, and by those for every chip where a GPU has others."""
    with nullcontext() if own else packed_for_every_chip():
        for (call,) in (region.values for region in regions()):
            given = arguments(call, batch, device="cuda", dtype=dtype)
            assert ops.OPS[call.op]("cuda", *given).isfinite().all(), call

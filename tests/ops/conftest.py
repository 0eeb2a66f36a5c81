"""What tests of single operators share."""

from collections.abc import Iterator
from typing import Any

import pytest

from mobilevit_fast import native

_EXTENSION: Any = native.extension()


@pytest.fixture(params=[] if _EXTENSION is None else _EXTENSION.cpu_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every variant of the C++ kernels that this machine can run, in use during the test."""
    from tests.ops.variants import using_isa

    with using_isa(request.param):
        assert _EXTENSION.cpu_isa() == request.param
        yield request.param

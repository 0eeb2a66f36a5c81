"""Memory of a stream, which does not grow with the number of its sources."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.sources import Source
from testing.tiers import thorough
from tests.engine.pictures import encoded, picture
from tests.engine.test_engine import Counting

_PAGE = 4096
_FEW = 3_000
_BYTES_A_SOURCE = 500
"""A file has six times as many, and so have its pixels; a digest of its name has fewer."""


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell the memory of a process")
@pytest.mark.parametrize("many", [20_000, thorough(100_000)])
def test_many_files_take_no_more_memory_than_few(tmp_path: Path, many: int) -> None:
    processor = mvf.MobileViTImageProcessor(do_resize=False, crop_size=32)
    engine = Engine(Counting(), processor, (64,), 2, acceleration=False)
    file = tmp_path / "tiny.bmp"
    file.write_bytes(encoded(picture(32, 32), "BMP"))

    def sources() -> Iterator[Source]:
        for number in range(many):
            yield Source(f"{number}.bmp", file.read_bytes)

    few = grown = 0
    for number, one in enumerate(engine.stream(sources()), 1):
        assert one.error is None
        if number == _FEW:
            few = resident()
        elif number > _FEW and number % 1000 == 0:
            grown = max(grown, resident() - few)
    assert number == many
    assert grown < (many - _FEW) * _BYTES_A_SOURCE

"""Table of speeds: how many times faster than transformers, and than the fastest of all others."""

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import freshness
from benchmarks.cpu.table import Rows, grid, machine_text
from benchmarks.ratios import fastest
from benchmarks.registry import SIZES

BEGIN, END = "<!-- speedups:begin -->", "<!-- speedups:end -->"
THEIRS = "transformers"
OURS = {"cpu": "ours", "cuda": "ours-cuda-graph"}
"""Provider that is compared: this package as users call it; on a GPU as a CUDA graph, which the peers have as well."""
CASES = {"cpu": (("float32", 1), ("float32", 8), ("bfloat16", 8)), "cuda": (("float16", 1), ("float16", 256))}
_MISSING = "–"


def markdown(models: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Table of devices and results of models on them: a line for each case that was measured."""
    lines = [line for device, results in models for line in _lines(device, results)]
    header = ["times faster than transformers / than the fastest peer", *SIZES]
    return grid(header, lines)


def _lines(device: str, results: dict[str, Any]) -> Iterator[list[str]]:
    environment = results["environment"]
    machine = machine_text(environment)
    rows = [row for row in results["rows"] if row["kind"] == "model" and row.get("median_ms")]
    for dtype, batch in CASES[device]:
        cells = [
            _cell([r for r in rows if (r["model"], r["dtype"], r["batch"]) == (s, dtype, batch)], device) for s in SIZES
        ]
        if any(cell != _MISSING for cell in cells):
            how = ", CUDA graph" if device == "cuda" else ""
            when = environment["date"] + freshness.suffix(device, results)
            yield [f"{machine}, {dtype}, batch {batch}{how}, {when}", *cells]


def _cell(rows: Rows, device: str) -> str:
    """Two ratios of medians; of each that was not measured, a dash."""
    ours = next((row for row in rows if row["provider"] == OURS[device]), None)
    peers = [row for row in rows if not row["provider"].startswith("ours")]
    ratios = (fastest((row for row in peers if row["provider"] == THEIRS), ours), fastest(peers, ours))
    texts = [_MISSING if ratio is None else f"{ratio.median:.1f}×" for ratio in ratios]
    return _MISSING if set(texts) == {_MISSING} else " / ".join(texts)

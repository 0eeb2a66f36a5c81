"""Summary that the command prints at its end: short, the most important last."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from benchmarks.gpu.providers import ANCHOR
from benchmarks.loops import LABELS
from benchmarks.registry import COMPILED_OPERATORS, OPERATOR_BACKENDS

REASON_CHARACTERS = 120
_KEPT = (
    *("model", "operator", "shape", "dtype", "batch", "provider", "images_s", "median_ms", "p20_ms", "p80_ms"),
    *("latency_ms", "ours_beside_ms", "max_error", "top1_agreement", "peak_mb", "share_of_floor", "error", "reason"),
    *("case", "preprocessing", "graph_images_s", "share_of_graph", "bound_by", "images_per_second"),
)

Rows = list[dict[str, Any]]


def short(row: dict[str, Any]) -> dict[str, Any]:
    """The part of a row that tells most."""
    return {name: row[name] for name in _KEPT if name in row}


def tables(summary: dict[str, Any]) -> Iterator[Table]:
    """Operators, the engine, stages, models."""
    yield _operators(summary["operators"])
    if summary.get("engine"):
        yield _engine([row for row in summary["engine"] if "images_per_second" not in row])
        yield _loops([row for row in summary["engine"] if "images_per_second" in row])
    yield _stages(summary)
    yield _models(summary)


def _engine(rows: Rows) -> Table:
    """Images a second from files to answers, and what share of the rate of the graph that is."""
    table = Table("engine", "preprocessing", "images/s", "graph, images/s", "share", "bound by")
    for row in rows:
        if not row["reason"]:
            share = f"{100 * row['share_of_graph']:.0f} %"
            rates = (f"{row['images_s']:.0f}", f"{row['graph_images_s']:.0f}")
            table.add_row(row["case"], row["preprocessing"], *rates, share, row.get("bound_by", ""))
    return table


def _loops(rows: Rows) -> Table:
    """Images a second of the engine and of other loops over the same files."""
    table = Table("case", "way", "images/s", "ours")
    for row in rows:
        ours, *_ = row["images_per_second"].values()
        for way, rate in row["images_per_second"].items():
            table.add_row(row["case"], LABELS.get(way, way), f"{rate:.0f}", f"{ours / rate:.2f}×")
    return table


def _stages(summary: dict[str, Any]) -> Table:
    """How each stage went, and why rows have no measurement, once for each reason."""
    table = Table("stage", "seconds", "outcome")
    for stage, outcome in summary["stages"].items():
        table.add_row(stage, f"{outcome['seconds']:.0f}", (outcome["reason"] or "done")[:REASON_CHARACTERS])
    for kind in ("models", "operators", "engine"):
        reasons = Counter(row["reason"] for row in summary.get(kind, ()) if row["reason"])
        for reason, count in reasons.most_common():
            table.add_row(f"{count} of {kind}", "", reason[:REASON_CHARACTERS])
    return table


def _models(summary: dict[str, Any]) -> Table:
    """Speed and accuracy of what was measured, and how many times as fast this package was in the same rounds."""
    title = f"{summary['environment']['gpu']['name']}, images of 256 px"
    table = Table("model", "provider", "ms", "images/s", "ours", "error", "top-1", title=title)
    measured: Rows = [row for row in summary["models"] if not row["reason"]]
    ours = {case_of(row): row["median_ms"] for row in measured if row["provider"] == ANCHOR}
    for row in measured:
        beside = row.get("ours_beside_ms", ours.get(case_of(row)))
        table.add_row(
            f"{row['model']} {row['dtype']} batch {row['batch']}",
            row["provider"],
            f"{row['median_ms']:.4g}",
            f"{row['images_s']:.0f}",
            f"{row['median_ms'] / beside:.2f}×" if beside else "",
            f"{row['max_error']:.1e}",
            f"{100 * row['top1_agreement']:.0f} %",
        )
    return table


def case_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Fields that must be equal for times to be compared."""
    return row["model"], row["dtype"], row["batch"]


def _operators(rows: Rows) -> Table:
    """Milliseconds of each backend in a line, and the share that the CUDA kernel's floor has of its time."""
    names = (*OPERATOR_BACKENDS, *COMPILED_OPERATORS)
    table = Table("operator", "shape", "batch", *(f"{name}, ms" for name in names), "floor / cuda")
    lines: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if not row["reason"]:
            lines.setdefault((row["operator"], row["shape"], row["batch"]), {})[row["provider"]] = row
    for (operator, shape, batch), found in lines.items():
        times = [f"{found[name]['median_ms']:.3g}" if name in found else "" for name in names]
        share = f"{100 * found['cuda']['share_of_floor']:.0f} %" if "cuda" in found else ""
        table.add_row(operator, shape, str(batch), *times, share)
    return table

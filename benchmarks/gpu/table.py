"""Tables of a GPU for docs/benchmarks.md, from results; `python -m benchmarks report` writes them."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import freshness
from benchmarks.cpu.table import Rows, commit_text, grid, shape_text
from benchmarks.gpu.engine import CASES as ENGINE_CASES
from benchmarks.gpu.engine import LOOPS
from benchmarks.loops import LABELS
from benchmarks.predictions import Beside, Region, region_of
from benchmarks.registry import OPERATOR_BACKENDS, SIZES, providers_on
from mobilevit_fast.engine.statistics import COPY, DECODE, FORWARD, READ, RESIZE

BEGIN, END = "<!-- gpu-table:begin -->", "<!-- gpu-table:end -->"
ENGINE_BEGIN, ENGINE_END = "<!-- gpu-engine-table:begin -->", "<!-- gpu-engine-table:end -->"
REGIONS_BEGIN, REGIONS_END = "<!-- regions:begin -->", "<!-- regions:end -->"
DTYPE, MANY, LARGEST = "float16", 256, next(iter(SIZES))
_MISSING = "–"
_ENGINE_STAGES = (READ, DECODE, RESIZE, COPY, FORWARD)


def markdown(models: dict[str, Any], operators: dict[str, Any]) -> str:
    """The tables of two files of results: whole models, operators, and what they were measured on."""
    of_models, of_operators = map(_conditions, (models, operators))
    tables = _models(models["rows"]), _operators(operators["rows"])
    if of_models == of_operators:
        return "\n\n".join((of_models, *tables))
    return "\n\n".join((f"Models: {of_models}", tables[0], f"Operators: {of_operators}", tables[1]))


def _conditions(results: dict[str, Any]) -> str:
    stamp, commit = results["stamp"], commit_text(results["environment"])
    versions = ", ".join(f"{name} {stamp[name]}" for name in ("torch", "triton", "transformers", "timm"))
    unverified = "" if results["environment"].get("verified", True) else " The operators' tests were not run before."
    return (
        f"{stamp['device']}, driver {stamp['driver']}; {versions}; {stamp['date']}, commit {commit}. "
        f"{DTYPE}, images of 256 px; medians of interleaved rounds.{unverified}{freshness.remark('cuda', results)}"
    )


def _models(rows: Rows) -> str:
    """Images a second of many, milliseconds of one, and the largest error of any of these."""
    measured = [row for row in rows if row["kind"] == "model" and row["dtype"] == DTYPE and not row["reason"]]
    lines = []
    for name, provider in providers_on("cuda").items():
        own = {(row["model"], row["batch"]): row for row in measured if row["provider"] == name}
        if not own:
            continue
        many = [f"{own[s, MANY]['images_s']:,.0f}" if (s, MANY) in own else _MISSING for s in SIZES]
        one = [f"{own[s, 1]['median_ms']:.3g}" if (s, 1) in own else _MISSING for s in SIZES]
        if {*many, *one} != {_MISSING}:
            lines.append([provider.label, *many, *one, f"{max(row['max_error'] for row in own.values()):.1e}"])
    header = [f"{size}, images/s of {MANY}" for size in SIZES] + [f"{size}, ms of 1" for size in SIZES]
    return grid(["", *header, "error"], lines)


def _operators(rows: Rows) -> str:
    """Milliseconds of a batch by backend, and which part of the CUDA kernel's time its floor is."""
    found: dict[tuple[str, str, bool], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "operator" and (row["model"], row["batch"]) == (LARGEST, MANY) and not row["reason"]:
            found.setdefault((row["operator"], row["shape"], row["residual"]), {})[row["provider"]] = row
    lines = []
    for (operator, shape, _), own in found.items():
        times = [f"{own[name]['median_ms']:.3g}" if name in own else _MISSING for name in OPERATOR_BACKENDS]
        share = f"{100 * own['cuda']['share_of_floor']:.0f} %" if "cuda" in own else _MISSING
        lines.append([f"`{operator}` {shape}", *times, share])
    header = [
        f"ms of {MANY} images, {LARGEST}",
        *("PyTorch" if name == "plain" else name for name in OPERATOR_BACKENDS),
    ]
    return grid([*header, "floor / cuda"], lines)


def regions(results: dict[str, Any], beside: Mapping[Region, Beside]) -> str:
    """The table of regions on compute capability 9.0, what they were measured on, and what stands beside each."""
    groups: dict[tuple[str, int], Rows] = {}
    for row in results["rows"]:
        if not row.get("reason"):
            groups.setdefault((row["model"], row["batch"]), []).append(row)
    lines = []
    for (model, batch), rows in groups.items():
        for row in rows:
            twice = " (twice)" if row["calls"] > 1 else ""
            error = f"{row['error']:.1e} / {row['pytorch_error']:.1e}"
            shape = f"`{row['operator']}` {shape_text(row['shape'])}{twice}"
            other = beside.get(region_of(row))
            predicted = f"{other.predicted:.1f}, {other.busiest}" if other else _MISSING
            prototype = f"{other.prototype:.1f}" if other and other.prototype else _MISSING
            times = f"{row['us']:.1f}", f"{row['before_us']:.1f}", predicted, prototype
            lines.append([f"{model}, {batch}", shape, *times, error])
        now, before = (sum(row[name] * row["calls"] for row in rows) for name in ("us", "before_us"))
        found = [(beside[region_of(row)].predicted, row["calls"]) for row in rows if region_of(row) in beside]
        sums = now, before, *([sum(us * calls for us, calls in found)] if len(found) == len(rows) else [])
        cells = [*(f"**{us:,.0f}**" for us in sums), *[""] * (5 - len(sums))]
        lines.append([f"**{model}, {batch}**", "**all**", *cells])
    stamp, commit = results["stamp"], commit_text(results["environment"])
    conditions = (
        f"{stamp['device']}, driver {stamp['driver']}; torch {stamp['torch']}; {stamp['date']}, commit {commit}."
    )
    header = ["model, images", "region", "µs", "µs before", "predicted, busiest", "prototype", "error / PyTorch's"]
    table = grid(header, lines)
    return f"{conditions}{freshness.remark('cuda', results)}\n\n{table}"


def engine(results: dict[str, Any]) -> str:
    """The table of the engine, and what it was measured on."""
    measured = [row for row in results["rows"] if not row["reason"]]
    lines = []
    for row in (row for row in measured if row["kind"] == "engine"):
        alone = row.get("alone", {})
        stages = [f"{alone[stage]:,.0f}" if stage in alone else _MISSING for stage in _ENGINE_STAGES]
        slowest = f"{100 * row['together_by_slowest']:.0f} %" if "together_by_slowest" in row else _MISSING
        share = f"{100 * row['share_of_graph']:.0f} %"
        rates = [f"{row[name]:,.0f}" for name in ("images_s", "graph_images_s")]
        lines.append([f"{ENGINE_CASES[row['case']]}, {row['preprocessing']}", *rates, share, *stages, slowest])
    stamp, commit = results["stamp"], commit_text(results["environment"])
    which = ", ".join(dict.fromkeys(f"MobileViT-{row['model']} in {row['dtype']}" for row in measured))
    threads = ", ".join(dict.fromkeys(str(row["threads"]) for row in measured))
    photos = " The photos are made of smooth noise." if any(row.get("photos") == "made" for row in measured) else ""
    conditions = (
        f"{stamp['device']}, driver {stamp['driver']}, {threads} threads that decode; torch {stamp['torch']}; "
        f"{stamp['date']}, commit {commit}. {which}; images a second, of the stages alone with all their threads."
        f"{photos}{freshness.remark('cuda', results)}"
    )
    header = ["", "together", "CUDA graph", "share", *_ENGINE_STAGES, "together / slowest alone"]
    tables = [grid(header, lines), *_beside_loops([row for row in measured if row["kind"] == LOOPS])]
    return "\n\n".join((conditions, *tables))


def _beside_loops(rows: Rows) -> Iterator[str]:
    """The engine beside other loops, in images a second; in brackets how many times as fast the engine is."""
    if rows:
        lines = []
        for row in rows:
            ours, *others = row["images_per_second"].values()
            cells = [f"{rate:,.0f} ({ours / rate:.1f}×)" for rate in others]
            lines.append([ENGINE_CASES[row["case"]], f"{ours:,.0f}", *cells])
        first, *names = rows[0]["images_per_second"]
        yield grid(["in turns", first, *(LABELS[name] for name in names)], lines)

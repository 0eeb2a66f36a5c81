"""Tables of a CPU for docs/benchmarks.md, from results; `python -m benchmarks report` writes them."""

import re
from collections.abc import Iterator
from typing import Any

from benchmarks import freshness
from benchmarks.ratios import Ratio, fastest
from benchmarks.registry import YARDSTICK

BEGIN, END = "<!-- cpu-table:begin -->", "<!-- cpu-table:end -->"
_VERSIONS = ("torch", "transformers", "onnxruntime", "openvino")

Rows = list[dict[str, Any]]


def markdown(results: dict[str, Any], *, operators: bool = False) -> str:
    """The tables of a file of results, and what they were measured on."""
    rows: Rows = results["rows"]
    blocks = [_conditions(results["environment"], rows) + freshness.remark("cpu", results)]
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = [row for row in rows if row["kind"] == "model" and row["dtype"] == dtype]
        blocks.append(_model_table([row for row in own if row["model"] != YARDSTICK], dtype))
        # Of another network: its errors are no measure of the others', and its rows are no library's of a MobileViT.
        beside = [{**row, "label": _engine(row["label"])} for row in own if row["model"] == YARDSTICK]
        blocks.append(_model_table(beside, dtype))
        if operators:
            blocks.append(_operator_table([r for r in rows if r["kind"] == "operator" and r["dtype"] == dtype], dtype))
    blocks.append(_memory([row for row in rows if row["kind"] == "memory"]))
    return "\n\n".join(block for block in blocks if block)


def _engine(label: str) -> str:
    """Who runs the yardstick, a network of timm's, where the label names whose MobileViT it is otherwise."""
    return label.removeprefix("transformers, ")


def _rounds(environment: dict[str, Any], rows: Rows) -> str:
    """How many there were; where the time was up, fewer than were asked for."""
    made = [row["rounds"] for row in rows if row.get("rounds")] or [environment["rounds"]]
    least, most = min(made), max(made)
    return str(most) if least == most else f"{least} to {most}"


def _conditions(environment: dict[str, Any], rows: Rows) -> str:
    cpu, threads = environment["cpu"], environment["threads"]
    versions = [f"{name} {environment['versions'].get(name) or 'not installed'}" for name in _VERSIONS]
    rate = environment["machine"]["peak_gmac_s"]["float32"][str(threads)]
    unverified = "" if environment.get("verified", True) else " The operators' tests were not run before."
    return (
        f"{machine_text(environment)}, kernel variant {cpu['variant'] or 'none'}; "
        f"best float32 matrix product measured: {rate:.0f} · 10⁹ multiply-accumulates/s. {', '.join(versions)}; "
        f"{environment['date']}, commit {commit_text(environment)}. Median of {_rounds(environment, rows)} rounds, in "
        f"each of which every library is measured once, directly after a call of its own that is not, in one process, "
        f"on images of {_pixels(environment['image_size'])}.{unverified}"
    )


def _pixels(image_size: int | dict[str, int]) -> str:
    """Image size of all models, or the usual one and then those that differ, as text."""
    if isinstance(image_size, int):
        return f"{image_size} px"
    usual, *others = dict.fromkeys(image_size.values())
    names = {size: ", ".join(name for name in image_size if image_size[name] == size) for size in others}
    return "; ".join([f"{usual} px", *(f"{name}: {size} px" for size, name in names.items())])


def commit_text(environment: dict[str, Any]) -> str:
    """The commit that was measured, and whether the tree was another."""
    git = environment["git"]
    return f"{git['commit'][:7]}{' with changes' if git['dirty'] else ''}" if git["commit"] else "unknown"


def machine_text(environment: dict[str, Any]) -> str:
    """The GPU, or the processor and how many threads were used: what tells one machine's results from another's."""
    if gpu := environment.get("gpu"):
        return str(gpu["name"])
    threads = environment["threads"]
    return f"{environment['cpu']['name']}, {threads} thread{'s' if threads > 1 else ''}"


def slug(name: str) -> str:
    """A machine's name for names of files: words without trademarks."""
    words = re.findall(r"[a-z0-9.]+", re.sub(r"\((r|tm)\)|\b(processor|cpu)\b", " ", name.lower()))
    return "-".join(words)


def grid(header: list[str], lines: list[list[str]], left: int = 1) -> str:
    """A table in Markdown, all but its first columns aligned to the right."""
    rule = "|" + "".join("---|" if i < left else "---:|" for i in range(len(header)))
    return "\n".join([_line(header), rule, *map(_line, lines)])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _milliseconds(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.3f}"


def _model_table(rows: Rows, dtype: str) -> str:
    if not rows:
        return ""
    cases = list(dict.fromkeys((row["model"], row["batch"]) for row in rows))
    lines: list[list[str]] = []
    ratios, remarks = [], list[str]()
    agreed = any(row.get("top1_agreement") is not None for row in rows)
    for provider in dict.fromkeys(row["provider"] for row in rows):
        own = {(row["model"], row["batch"]): row for row in rows if row["provider"] == provider}
        times = [own[case].get("median_ms") for case in cases if case in own]
        if not any(times):
            continue
        errors = [row["error"] for row in own.values() if row["error"] is not None]
        cells = [_milliseconds(ms) if ms else "–" for ms in (own.get(c, {}).get("median_ms") for c in cases)]
        lines.append([next(iter(own.values()))["label"], *cells, f"{max(errors):.0e}"])
        if agreed:
            shares = [row["top1_agreement"] for row in own.values() if row.get("top1_agreement") is not None]
            lines[-1].append(f"{100 * min(shares):.4g} %")
    for case in cases:
        ratio = _fastest(rows, case)
        ratios.append("–" if ratio is None else str(ratio))
    if any(ratio != "–" for ratio in ratios):
        lines.append(["**fastest peer / mobilevit_fast**", *ratios, *[""] * (1 + agreed)])
        remarks = ["In brackets: the peer's 20 % quantile by this package's 80 %, and its 80 % by our 20 %."]
    header = [f"{dtype}, ms per image", *(f"{model}, batch {batch}" for model, batch in cases), "error"]
    header += ["top-1"] * agreed
    return "\n\n".join([grid(header, lines)] * bool(lines) + remarks + list(_reasons(rows)))


def _memory(rows: Rows) -> str:
    if not rows:
        return ""
    found = [
        f"{r['model']}, batch {r['batch']}: {r['eager_mb']:.0f} → {r['accelerated_mb']:.0f} MB ({r['dtype']})"
        for r in rows
        if not r["reason"]
    ]
    sentences = [f"Peak of the memory that a forward needs, transformers → mobilevit_fast: {'; '.join(found)}."]
    reasons = dict.fromkeys(row["reason"] for row in rows if row["reason"])
    return " ".join([*sentences[: bool(found)], *(f"Not measured: peak of memory: {reason}." for reason in reasons)])


def _fastest(rows: Rows, case: tuple[str, int]) -> Ratio | None:
    """The fastest of the others beside this package as users call it."""
    measured = [row for row in rows if (row["model"], row["batch"]) == case and row.get("median_ms")]
    ours = next((row for row in measured if row["provider"] == "ours"), None)
    return fastest((row for row in measured if not row["provider"].startswith("ours")), ours)


def _reasons(rows: Rows) -> Iterator[str]:
    """Why cells are empty, one sentence for each provider and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"]:
            found.setdefault((row["label"], row["reason"]), []).append(f"{row['model']}, batch {row['batch']}")
    every = len({(row["model"], row["batch"]) for row in rows})
    for (label, reason), cases in found.items():
        where = "" if len(cases) == every else f" ({'; '.join(cases)})"
        yield f"Not measured: {label}{where}: {reason}."


def _operator_table(rows: Rows, dtype: str) -> str:
    if not rows:
        return ""
    header = [f"{dtype}, operator", "backend", "model", "shape", "batch", "calls", "GMAC"]
    header += ["ms", "PyTorch, ms", "ratio", "GMAC/s", "of peak", "floor / ms", "error", "PyTorch's"]
    lines = [
        [
            f"`{row['operator']}`",
            row["backend"],
            row["model"],
            shape_text(row["shape"]),
            str(row["batch"]),
            str(row["calls"]),
            f"{row['gmac']:.3g}",
            _milliseconds(row["median_ms"]),
            _milliseconds(row["plain_median_ms"]),
            f"{row['ratio']:.2f}×",
            f"{row['gmac_s']:.1f}",
            f"{100 * row['share_of_peak']:.0f} %",
            f"{100 * row['share_of_floor']:.0f} %" if "share_of_floor" in row else "–",
            f"{row['error']:.0e}",
            f"{row['plain_error']:.0e}",
        ]
        for row in rows
    ]
    return grid(header, lines, left=4)


def shape_text(shape: dict[str, int]) -> str:
    """A shape on one line: channels in, between and out, then size, kernel, stride and layers."""
    inputs = f"{shape['inputs']}+{shape['second_inputs']}" if "second_inputs" in shape else str(shape["inputs"])
    between = [str(shape[name]) for name in ("hidden_size", "expanded", "features", "outputs") if name in shape]
    words = ["→".join([inputs, *between]), f"{shape['height']}×{shape['width']}"]
    words += [f"{name} {shape[name]}" for name in ("kernel", "stride", "layers") if name in shape]
    return ", ".join(words)


def replaced(page: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """The text of a page with the table between its markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"expected {begin} and then {end} in it, once each")
    before, after = page[: page.index(begin)], page[page.index(end) :]
    return f"{before}{begin}\n{table}\n{after}"

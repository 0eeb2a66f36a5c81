"""Which kernel comes first on a GPU: two tables, from committed results: `python -m benchmarks order`.

One is the package's, of backends by operator and sizes of weights. The other, in C++, is of the kernels for few images
on compute capability 9.0, whose times for one image and for eight stand beside those of the kernels for every chip.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cpu.table import shape_text
from benchmarks.gpu.ops import works
from benchmarks.registry import SIZES
from benchmarks.run import RESULTS
from mobilevit_fast.cli.console import FAILURE, note
from mobilevit_fast.files import write_atomically
from mobilevit_fast.kernels.order import FILE
from mobilevit_fast.ops import OPS
from testing.paths import REPOSITORY

FEW_FILE = REPOSITORY / "csrc/cuda/sm90/few_images_sm90.h"
FEW = (1, 8)
"""Images of its measurements."""
_FEW_SIZES = {
    "inverted_residual": ("inputs", "expanded", "outputs"),
    "mobilevit_transformer": ("inputs", "hidden_size"),
}
"""What tells an operator's regions apart; heads have one kernel."""

MANY = 256
"""Images of the measurements."""
_BACKENDS = {"plain": "reference"}

Row = dict[str, Any]


def sizes_by_shape() -> dict[tuple[str, str], dict[str, int]]:
    """Sizes of the weights of every operator of the models, by its name and its shape in results."""
    found = {}
    for size in SIZES:
        for work in works(size, 1):
            op = OPS[work.call.op]
            _, weights, _ = op.split(work.call.arguments)
            found[op.name, shape_text(work.call.shape)] = op.declaration.sizes(op.name, None, weights)
    return found


def measured(folder: Path) -> tuple[str, dict[str, list[Row]]]:
    """Compute capability of a session's results, and microseconds of each backend by operator, where there are several.

    The file of regions, where there is one, has newer times of the CUDA kernels than that of operators.
    """
    results = json.loads((folder / "gpu-ops.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if row["kind"] == "operator" and row["batch"] == MANY and not row["reason"]]
    times: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        provider: str = row["provider"]
        key = row["operator"], row["dtype"], row["shape"]
        times[key].setdefault(_BACKENDS.get(provider, provider), round(1e3 * row["median_ms"], 2))
    regions = folder / "gpu-sm90-regions.json"
    for row in json.loads(regions.read_text(encoding="utf-8"))["rows"] if regions.exists() else ():
        key = row["operator"], row["dtype"], shape_text(row["shape"])
        if row["batch"] == MANY and not row.get("reason") and key in times:
            times[key]["cuda"] = row["us"]
    sizes = sizes_by_shape()
    found: dict[str, dict[tuple[Any, ...], Row]] = defaultdict(dict)
    for (op, dtype, shape), microseconds in times.items():
        if len(microseconds) > 1:
            own = sizes[op, shape]
            row = {"dtype": dtype, "sizes": own, "microseconds": microseconds}
            found[op].setdefault((dtype, *own.values()), row)
    capability: str = results["environment"]["gpu"]["capability"]
    return capability, {op: list(rows.values()) for op, rows in found.items()}


def text(results: Path) -> str:
    """The table."""
    lines = []
    for capability, operators in (measured(file.parent) for file in sorted(results.glob("gpu-*/gpu-ops.json"))):
        parts = []
        for operator, entries in operators.items():
            inner = ",\n    ".join(json.dumps(entry) for entry in entries)
            parts.append(f'   "{operator}": [\n    {inner}\n   ]')
        lines.append(f'  "{capability}": {{\n' + ",\n".join(parts) + "\n  }")
    return '{\n "chips": {\n' + ",\n".join(lines) + "\n }\n}\n"


def few_rows(path: Path) -> list[tuple[str, tuple[int, ...], list[float], list[float]]]:
    """Operator, sizes, microseconds of the kernel for few images and of the others, of what has both for ``FEW``."""
    found: dict[tuple[str, tuple[int, ...]], dict[int, Row]] = defaultdict(dict)
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        sizes = tuple(row["shape"][name] for name in _FEW_SIZES.get(row["operator"], ()))
        if row["batch"] in FEW and not row.get("reason") and row["kernels"][0].startswith("few::"):
            found[row["operator"], sizes].setdefault(row["batch"], row)
    return [
        (op, sizes, [rows[n]["us"] for n in FEW], [rows[n]["before_us"] for n in FEW])
        for (op, sizes), rows in found.items()
        if rows.keys() >= set(FEW)
    ]


def few_text(path: Path) -> str:
    """The header of the kernels for few images, with its table by these results."""
    lines = []
    for op, sizes, few, others in few_rows(path):
        three = ", ".join(map(str, (*sizes, 0, 0, 0)[:3]))
        times = ", ".join("{" + ", ".join(f"{us:.2f}f" for us in both) + "}" for both in (few, others))
        lines.append(f"    {{FewOperator::{op}, {three}, {times}}},\n")
    before, rest = FEW_FILE.read_text(encoding="utf-8").split(_FEW_BEGIN)
    _, after = rest.split(_FEW_END, 1)
    return before + _FEW_BEGIN + "".join(lines) + _FEW_END + after


_FEW_BEGIN, _FEW_END = "constexpr FewTimes kFewTimes[] = {\n", "};\n"


def order(
    update: Annotated[bool, typer.Option("--update", help="Write the package's table.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = RESULTS,
    out: Annotated[Path, typer.Option(help="The package's table.", show_default="where it is")] = FILE,
    few_out: Annotated[Path, typer.Option(help="That of few images.", show_default="where it is")] = FEW_FILE,
) -> None:
    """Print the order of kernels by committed results, or write it; exit status 1 where a table is another."""
    wanted = {out: text(results), few_out: few_text(results / "gpu-h200" / "gpu-sm90-regions.json")}
    for path, content in wanted.items():
        if update:
            write_atomically(path, content.encode())
            continue
        typer.echo(content, nl=False)
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            note(f"error: {path.name} differs from the results; `python -m benchmarks order --update` writes it")
            raise typer.Exit(FAILURE)

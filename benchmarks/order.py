"""Which backend comes first on a GPU: the package's table, from committed results: `python -m benchmarks order`."""

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
        if row["batch"] == MANY and key in times:
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


def order(
    update: Annotated[bool, typer.Option("--update", help="Write the package's table.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = RESULTS,
    out: Annotated[Path, typer.Option(help="The table.", show_default="the package's")] = FILE,
) -> None:
    """Print the order of backends by committed results, or write it; exit status 1 where the table is another."""
    wanted = text(results)
    if update:
        write_atomically(out, wanted.encode())
        return
    typer.echo(wanted, nl=False)
    if not out.exists() or out.read_text(encoding="utf-8") != wanted:
        note(f"error: {out.name} differs from the results; `python -m benchmarks order --update` writes it")
        raise typer.Exit(FAILURE)

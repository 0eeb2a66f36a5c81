"""Which backend comes first on a GPU: the package's table, from committed results: `python -m benchmarks order`."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import ROOT
from mobilevit_fast.cli.console import FAILURE, note
from mobilevit_fast.files import write_atomically
from mobilevit_fast.kernels.order import FILE
from mobilevit_fast.ops import OPS

CHIPS = {"gpu-h200": "9.0"}
"""Compute capability of the GPU that a folder of results is from."""
MANY = 256
_BACKENDS = {"plain": "reference"}
_NAMES = {
    "channels": "inputs",
    "width": "hidden_size",
    "hidden units": "mlp_size",
    "expanded channels": "expanded",
    "kernel height": "kernel",
    "kernel width": "kernel",
    "classes": "outputs",
}
"""Names of sizes in the rows of regions, where they are not those of the declaration."""

Row = dict[str, Any]


def rows(folder: Path, name: str) -> list[Row]:
    """What was measured, in a file of results."""
    found: list[Row] = json.loads((folder / name).read_text(encoding="utf-8"))["rows"]
    return [row for row in found if row.get("reason") is None]


def sizes_of(row: Row) -> dict[str, int]:
    """Sizes of the weights of a region, by their declared names."""
    shape = row["shape"] | {"inputs": row["shape"]["inputs"] + row["shape"].get("second_inputs", 0)}
    return {name: shape[_NAMES.get(name, name)] for name in OPS[row["operator"]].declaration.size_names}


def text_of(row: Row) -> str:
    """Channels and size of a region, as the rows of operators write them."""
    shape = row["shape"]
    inputs = f"{shape['inputs']}+{shape['second_inputs']}" if "second_inputs" in shape else str(shape["inputs"])
    middle = shape.get("expanded", shape.get("hidden_size"))
    channels = [inputs, *([] if middle is None else [str(middle)]), str(shape["outputs"])]
    return f"{'→'.join(channels)}, {shape['height']}×{shape['width']}"


def measured(folder: Path) -> dict[str, list[Row]]:
    """Microseconds of each backend for many images, by operator, where more than one was measured.

    A region's time stands for that of the CUDA kernel, which the rows of operators may have from an earlier day.
    """
    others: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for row in rows(folder, "gpu-ops.json"):
        if row["kind"] == "operator" and row["batch"] == MANY:
            shape = row["shape"].partition(", kernel")[0].partition(", layers")[0]
            provider: str = row["provider"]
            others[row["operator"], row["dtype"], shape][_BACKENDS.get(provider, provider)] = round(
                1e3 * row["median_ms"], 2
            )
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows(folder, "gpu-sm90-regions.json"):
        times = others.get((row["operator"], row["dtype"], text_of(row)))
        if times and row["batch"] == MANY:
            entry = {"dtype": row["dtype"], "sizes": sizes_of(row), "microseconds": {**times, "cuda": row["us"]}}
            if entry["sizes"] not in [other["sizes"] for other in found[row["operator"]]]:
                found[row["operator"]].append(entry)
    return found


def text(results: Path) -> str:
    """The table."""
    chips = {capability: measured(results / folder) for folder, capability in CHIPS.items()}
    lines = []
    for capability, operators in chips.items():
        parts = []
        for operator, entries in operators.items():
            inner = ",\n    ".join(json.dumps(entry) for entry in entries)
            parts.append(f'   "{operator}": [\n    {inner}\n   ]')
        lines.append(f'  "{capability}": {{\n' + ",\n".join(parts) + "\n  }")
    return '{\n "chips": {\n' + ",\n".join(lines) + "\n }\n}\n"


def order(
    update: Annotated[bool, typer.Option("--update", help="Write the package's table.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = ROOT / "benchmarks" / "results",
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

"""The README's tables of a GPU: `python -m benchmarks.gpu.table FOLDER [--update README]`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cpu.table import commit_text, grid, replaced
from benchmarks.gpu.ops import BACKENDS
from benchmarks.gpu.providers import PROVIDERS
from benchmarks.gpu.report import Rows
from benchmarks.gpu.steps import file_of

BEGIN, END = "<!-- gpu-table:begin -->", "<!-- gpu-table:end -->"
SIZES = ("S", "XS", "XXS")
DTYPE, MANY = "float16", 256
_MISSING = "–"


def markdown(folder: Path) -> str:
    """The tables of a run's results: whole models, operators, and what they were measured on."""
    models, operators = (json.loads(file_of(folder, stage).read_text(encoding="utf-8")) for stage in ("models", "ops"))
    conditions = dict.fromkeys(map(_conditions, (models, operators)))  # once, where they are the same
    return "\n\n".join((*conditions, _models(models["rows"]), _operators(operators["rows"])))


def _conditions(results: dict[str, Any]) -> str:
    stamp, commit = results["stamp"], commit_text(results["environment"])
    versions = ", ".join(f"{name} {stamp[name]}" for name in ("torch", "triton", "transformers", "timm"))
    return (
        f"{stamp['device']}, driver {stamp['driver']}; {versions}; {stamp['date']}, commit {commit}. "
        f"{DTYPE}, images of 256 px; medians of interleaved rounds."
    )


def _models(rows: Rows) -> str:
    """Images a second of many, milliseconds of one, and the largest error of any of these."""
    measured = [row for row in rows if row["kind"] == "model" and row["dtype"] == DTYPE and not row["reason"]]
    lines = []
    for name, provider in PROVIDERS.items():
        own = {(row["model"], row["batch"]): row for row in measured if row["provider"] == name}
        if not own:
            continue
        many = [f"{own[s, MANY]['images_s']:,.0f}" if (s, MANY) in own else _MISSING for s in SIZES]
        one = [f"{own[s, 1]['median_ms']:.3g}" if (s, 1) in own else _MISSING for s in SIZES]
        lines.append([provider.label, *many, *one, f"{max(row['max_error'] for row in own.values()):.1e}"])
    header = [f"{size}, images/s of {MANY}" for size in SIZES] + [f"{size}, ms of 1" for size in SIZES]
    return grid(["", *header, "error"], lines)


def _operators(rows: Rows) -> str:
    """Milliseconds of a batch by backend, and which part of the CUDA kernel's time its floor is."""
    found: dict[tuple[str, str, bool], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "operator" and (row["model"], row["batch"]) == (SIZES[0], MANY) and not row["reason"]:
            found.setdefault((row["operator"], row["shape"], row["residual"]), {})[row["provider"]] = row
    lines = []
    for (operator, shape, _), own in found.items():
        times = [f"{own[name]['median_ms']:.3g}" if name in own else _MISSING for name in BACKENDS]
        share = f"{100 * own['cuda']['share_of_floor']:.0f} %" if "cuda" in own else _MISSING
        lines.append([f"`{operator}` {shape}", *times, share])
    header = [f"ms of {MANY} images, {SIZES[0]}", *("PyTorch" if name == "plain" else name for name in BACKENDS)]
    return grid([*header, "floor / cuda"], lines)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Results of `python -m benchmarks.gpu`.")],
    update: Annotated[Path | None, typer.Option(help="README to write the tables into, between their markers.")] = None,
) -> None:
    """Print the results as Markdown, or write them into a README."""
    text = markdown(folder)
    if update is None:
        typer.echo(text)
    else:
        readme = update.read_text(encoding="utf-8")
        update.write_text(replaced(readme, text, BEGIN, END), encoding="utf-8")


if __name__ == "__main__":
    app()

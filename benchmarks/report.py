"""The README's tables and the pictures of docs/plots, from committed results: `python -m benchmarks.report`.

`--update` writes them; `--check` writes nothing and exits with 1, naming what differs from the data.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks import speedups
from benchmarks.cpu import table as cpu_table
from benchmarks.cpu.table import replaced
from benchmarks.gpu import table as gpu_table
from benchmarks.plots import Picture, pictures
from mobilevit_fast.cli.console import FAILURE, note, usage_error

ROOT = Path(__file__).resolve().parents[1]
FILES = {"cpu": ("cpu-*.json",), "cuda": ("cuda-*.json", "gpu-*/gpu-*.json")}
"""Where the results of a device are: those of `benchmarks.run`, and the folders of `benchmarks.gpu`."""


class Sources(NamedTuple):
    """The newest results of a device: the files that have rows of models and rows of operators."""

    models: dict[str, Any]
    operators: dict[str, Any]

    @property
    def machine(self) -> str:
        """What it was measured on, for titles."""
        environment = self.models["environment"]
        gpu = environment.get("gpu")
        return str(gpu["name"] if gpu else f"{environment['cpu']['name']}, {environment['threads']} threads")


def sources(results: Path, device: str) -> Sources | None:
    """The results of a device in a folder, None where there are none of models."""
    files = [path for pattern in FILES[device] for path in sorted(results.glob(pattern))]
    loaded = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    loaded.sort(key=lambda content: content["environment"]["date"])  # stable: the last of a day is the last by name
    newest: dict[str, dict[str, Any]] = {}
    for content in loaded:
        newest |= dict.fromkeys((row["kind"] for row in content["rows"]), content)
    models = newest.get("model")
    return None if models is None else Sources(models, newest.get("operator", {**models, "rows": []}))


def drawn(found: dict[str, Sources]) -> dict[str, list[Picture]]:
    """The pictures of each device."""
    return {
        device: list(pictures(device, source.machine, source.models["rows"], source.operators["rows"]))
        for device, source in found.items()
    }


def blocks(found: dict[str, Sources], shown: dict[str, list[Picture]], plots: str) -> Iterator[tuple[str, str, str]]:
    """What goes into the README: tables and pictures, and the markers that these are between."""
    yield speedups.markdown({device: source.models for device, source in found.items()}), speedups.BEGIN, speedups.END
    for device, source in found.items():
        images = "\n".join(f"![{p.what}: {p.title}]({plots}/{p.name}.svg)" for p in shown[device])
        if device == "cpu":
            yield f"{cpu_table.markdown(source.models)}\n\n{images}", cpu_table.BEGIN, cpu_table.END
        else:
            yield f"{gpu_table.markdown(*source)}\n\n{images}", gpu_table.BEGIN, gpu_table.END


def report(
    update: Annotated[bool, typer.Option("--update", help="Write the tables and the pictures.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 where they differ from the data.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = ROOT / "benchmarks" / "results",
    readme: Annotated[Path, typer.Option(help="Text that has the tables.")] = ROOT / "README.md",
    plots: Annotated[Path, typer.Option(help="Folder of pictures.")] = ROOT / "docs" / "plots",
) -> None:
    """Print the tables of the committed results, write them and the pictures, or check both."""
    found = {device: source for device in FILES if (source := sources(results, device)) is not None}
    if not found:
        raise usage_error(f"--results: expected results of models in {results}, found none")
    pictured = drawn(found)
    texts = list(blocks(found, pictured, os.path.relpath(plots, readme.parent)))
    if not (update or check):
        typer.echo("\n\n".join(text for text, _, _ in texts))
        return
    current = wanted = readme.read_text(encoding="utf-8")
    try:
        for text, begin, end in texts:
            wanted = replaced(wanted, text, begin, end)
    except ValueError as error:
        note(f"error: {readme}: {error}")
        raise typer.Exit(FAILURE) from error
    differing = [] if current == wanted else [readme]
    shown = {plots / f"{picture.name}.svg": picture for own in pictured.values() for picture in own}
    for path, picture in shown.items():
        if not (path.exists() and picture.is_that_of(path.read_text(encoding="utf-8"))):
            differing.append(path)
    stale = sorted(set(plots.glob("*.svg")) - shown.keys())
    if update:
        readme.write_text(wanted, encoding="utf-8")
        plots.mkdir(parents=True, exist_ok=True)
        for path in differing:
            if path in shown:
                path.write_text(shown[path].svg(), encoding="utf-8")
        for path in stale:
            path.unlink()
    for path in [*differing, *stale]:
        note(f"{'written' if update else 'error: differs from the data'}: {path.name}")
    if check and not update and (differing or stale):
        note("`python -m benchmarks.report --update` writes them")
        raise typer.Exit(FAILURE)


if __name__ == "__main__":
    typer.run(report)

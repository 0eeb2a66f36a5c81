"""Tables of docs/benchmarks.md and pictures of docs/plots, from committed results: `python -m benchmarks report`.

`--update` writes them; `--check` writes nothing and exits with 1, naming what differs from the data.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks import engine, freshness, predictions, speedups
from benchmarks.cpu import resize
from benchmarks.cpu import table as cpu_table
from benchmarks.cpu.table import machine_text, replaced, slug
from benchmarks.fusion import fusion
from benchmarks.gpu import table as gpu_table
from benchmarks.overview import overview
from benchmarks.plots import Picture, pictures
from mobilevit_fast.cli.console import FAILURE, note, usage_error
from mobilevit_fast.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
FILES = {"cpu": ("*-cpu-*.json",), "cuda": ("*-cuda-*.json", "gpu-*/gpu-*.json")}
"""Where the results of a device are: those of `run`, and the folders of `session`."""
REGIONS = "gpu-*/gpu-sm90-regions.json"
"""Where the results of regions on compute capability 9.0 are."""


class Sources(NamedTuple):
    """The newest results of a machine: the files that have rows of models and rows of operators.

    Files with other types stand beside each other; ``name`` is that of pictures.
    """

    device: str
    name: str
    models: dict[str, Any]
    operators: dict[str, Any]

    @property
    def machine(self) -> str:
        """Machine that the results were measured on, for titles."""
        return machine_text(self.models["environment"])

    @property
    def title(self) -> str:
        """Machine, date, and whether the kernels changed since."""
        older = next((s for s in (freshness.suffix(self.device, r) for r in (self.models, self.operators)) if s), "")
        return f"{self.machine}, {self.models['environment']['date']}{older}"

    def pictures(self) -> list[Picture]:
        """Those that there are results for."""
        return list(pictures(self.device, self.name, self.title, self.models["rows"], self.operators["rows"]))


Key = tuple[str, tuple[str, ...]]
"""A machine, and types."""


def _newest(contents: list[dict[str, Any]], kind: str) -> dict[Key, dict[str, Any]]:
    """Content of the last file of each key that has rows of a kind."""
    found: dict[Key, dict[str, Any]] = {}
    for content in contents:
        dtypes = tuple(dict.fromkeys(row["dtype"] for row in content["rows"] if row["kind"] == kind))
        if dtypes:
            found[machine_text(content["environment"]), dtypes] = content
    return found


def sources(results: Path, device: str) -> list[Sources]:
    """The results of a device in a folder, the newest first; of machines without rows of models none."""
    files = [path for pattern in FILES[device] for path in sorted(results.glob(pattern))]
    loaded = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    loaded.sort(key=lambda content: content["environment"]["date"])  # stable: the last of a day is the last by name
    models, operators = _newest(loaded, "model"), _newest(loaded, "operator")
    files_of = Counter(machine for machine, _ in models)
    found = []
    for (machine, dtypes), content in models.items():
        same = [own for (of, _), own in operators.items() if of == machine]
        beside = operators.get((machine, dtypes)) or (same[-1] if same else {**content, "rows": []})
        name = slug(machine if files_of[machine] == 1 else f"{machine} {' '.join(dtypes)}")
        found.append(Sources(device, name, content, beside))
    return sorted(found, key=lambda source: source.models["environment"]["date"], reverse=True)


def newest_of(results: Path, pattern: str) -> dict[str, Any] | None:
    """The newest results among the files of a folder that match, None where none does."""
    loaded = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(pattern))]
    return max(loaded, key=lambda content: content["environment"]["date"], default=None)


def pictures_of(found: list[Sources], regions: dict[str, Any] | None) -> list[Picture]:
    """Pictures of every machine, the one of all that the README shows, and the one of what is fused."""
    newest = {source.device: (source.title, source.models["rows"]) for source in reversed(found)}
    several = [*overview(newest), *([] if regions is None else [fusion(regions)])]
    return [*(picture for source in found for picture in source.pictures()), *several]


def blocks(found: list[Sources], regions: dict[str, Any] | None, plots: str) -> Iterator[tuple[str, str, str]]:
    """Parts of the page that are generated: tables and pictures, and the markers that these are between."""
    yield speedups.markdown([(s.device, s.models) for s in found]), speedups.BEGIN, speedups.END
    for device, table in (("cpu", cpu_table), ("cuda", gpu_table)):
        texts = []
        for source in found:
            if source.device == device:
                own = (source.models,) if device == "cpu" else (source.models, source.operators)
                texts.append(table.markdown(*own))
                texts.append("\n".join(f"![{p.what}: {p.title}]({plots}/{p.name}.svg)" for p in source.pictures()))
        if texts:
            yield "\n\n".join(texts), table.BEGIN, table.END
    if regions is not None:
        yield gpu_table.regions(regions, predictions.beside()), gpu_table.REGIONS_BEGIN, gpu_table.REGIONS_END


def engine_blocks(results: Path) -> Iterator[tuple[str, str, str]]:
    """Tables of the page of the engine, of which a machine without results has none, and their markers."""
    for pattern, (table, begin, end) in {
        "engine-*.json": (engine.markdown, engine.BEGIN, engine.END),
        "gpu-*/gpu-engine.json": (gpu_table.engine, gpu_table.ENGINE_BEGIN, gpu_table.ENGINE_END),
        "resize-*.json": (resize.markdown, resize.BEGIN, resize.END),
    }.items():
        found = newest_of(results, pattern)
        if found is not None and found["rows"]:
            yield table(found), begin, end


def report(
    update: Annotated[bool, typer.Option("--update", help="Write the tables and the pictures.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 where they differ from the data.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of results.")] = ROOT / "benchmarks" / "results",
    page: Annotated[Path, typer.Option(help="Text that has the tables.")] = ROOT / "docs" / "benchmarks.md",
    engine_page: Annotated[Path, typer.Option(help="Text that has the tables of the engine.")] = ROOT
    / "docs"
    / "engine.md",
    plots: Annotated[Path, typer.Option(help="Folder of pictures.")] = ROOT / "docs" / "plots",
) -> None:
    """Print the tables of the committed results, write them and the pictures, or check both."""
    found = [source for device in FILES for source in sources(results, device)]
    if not found:
        raise usage_error(f"--results: expected results of models in {results}, found none")
    names = Counter(source.name for source in found)
    if doubled := [source.machine for source in found if names[source.name] > 1]:
        raise usage_error(f"--results: expected machines whose pictures have names of their own, got {doubled}")
    regions = newest_of(results, REGIONS)
    pages = {
        page: list(blocks(found, regions, os.path.relpath(plots, page.parent))),
        engine_page: list(engine_blocks(results)),
    }
    if not (update or check):
        typer.echo("\n\n".join(text for texts in pages.values() for text, _, _ in texts))
        return
    wanted = {path: _with_tables(path, texts) for path, texts in pages.items() if texts}
    differing = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    shown = {plots / f"{picture.name}.svg": picture for picture in pictures_of(found, regions)}
    for path, picture in shown.items():
        if not (path.exists() and picture.is_that_of(path.read_text(encoding="utf-8"))):
            differing.append(path)
    stale = sorted(set(plots.glob("*.svg")) - shown.keys())
    if update:
        for path, text in wanted.items():
            write_atomically(path, text.encode())
        plots.mkdir(parents=True, exist_ok=True)
        for path in differing:
            if path in shown:
                write_atomically(path, shown[path].svg().encode())
        for path in stale:
            path.unlink()
    for path in [*differing, *stale]:
        note(f"{'written' if update else 'error: differs from the data'}: {path.name}")
    if check and not update and (differing or stale):
        note("`python -m benchmarks report --update` writes them")
        raise typer.Exit(FAILURE)


def _with_tables(page: Path, texts: list[tuple[str, str, str]]) -> str:
    """The text of a page with what is to stand between its markers."""
    wanted = page.read_text(encoding="utf-8")
    try:
        for text, begin, end in texts:
            wanted = replaced(wanted, text, begin, end)
    except ValueError as error:
        note(f"error: {page}: {error}")
        raise typer.Exit(FAILURE) from error
    return wanted

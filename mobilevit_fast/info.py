"""State of this machine and what the package makes of it: ``python -m mobilevit_fast.info [--json]``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mobilevit_fast.kernels.triton.backend import INSTALLED, INTERPRETING
from mobilevit_fast.version import __version__

from . import native
from .ops import OPS

PACKAGE = "mobilevit_fast"
REQUIRED = ("torch", "numpy", "pillow", "safetensors", "huggingface_hub")
OPTIONAL = ("triton", "transformers", "timm", "torchvision", "matplotlib", "scikit-learn")


def collect() -> dict[str, Any]:
    """Everything the command prints, as plain dicts, lists, strings, numbers and None, ready for JSON.

    Keys: ``versions`` (name to version, None where not installed), ``platform``, ``threads``, ``devices``, ``cpu``
    (instruction sets and kernel variants), ``libraries`` (as :func:`mobilevit_fast.native.status`), ``build`` (how the
    libraries were built, None without them) and ``operators`` (name to the backends that have a kernel here).
    """
    return {
        "versions": {
            PACKAGE: __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in REQUIRED + OPTIONAL},
        },
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "devices": _devices(),
        "cpu": _cpu(),
        "libraries": {name: asdict(library) for name, library in native.status().items()},
        "build": _build(),
        "operators": {name: _backends(name) for name in OPS},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = [{"name": "cpu", "description": _cpu_model()}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        description = f"{properties.name}, sm_{properties.major}{properties.minor}, {memory:.0f} GiB"
        devices.append({"name": f"cuda:{index}", "description": description})
    return devices


def _cpu_model() -> str:
    """The processor's name from the operating system, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no such file outside Linux
    return platform.processor() or platform.machine()


def _cpu() -> dict[str, Any]:
    extension = native.extension()
    if extension is None:
        return {"features": None, "variants": None, "variant": None}
    return {
        "features": [name for name, available in extension.cpu_features().items() if available],
        "variants": extension.cpu_isas(),
        "variant": extension.cpu_isa(),
    }


def _build() -> dict[str, str] | None:
    extension = native.extension()
    return None if extension is None else extension.build_info()


def _backends(operator: str) -> list[str]:
    """Those whose libraries are loaded and whose device is here."""
    libraries = native.status()
    here = [b for b in OPS[operator].kernels if b not in libraries or libraries[b].loaded]
    usable = INSTALLED and (INTERPRETING or torch.cuda.is_available())
    return [b for b in here if b != "triton" or usable]


def show(collected: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` found as tables."""
    table = Table.grid(padding=(0, 2))
    for name, version in collected["versions"].items():
        table.add_row(name, version or "[dim]not installed[/dim]")
    console.print("[bold]Versions[/bold]", table, "", sep="\n")

    table = Table.grid(padding=(0, 2))
    for device in collected["devices"]:
        table.add_row(device["name"], device["description"])
    cpu = collected["cpu"]
    table.add_row("threads", str(collected["threads"]))
    table.add_row("instruction sets", _words(cpu["features"]))
    table.add_row("kernel variant", f"{cpu['variant'] or 'unknown'} (of {_words(cpu['variants'])})")
    console.print("[bold]Machine[/bold]", collected["platform"], table, "", sep="\n")

    table = Table.grid(padding=(0, 2))
    for name, library in collected["libraries"].items():
        state = "[green]loaded[/green]" if library["loaded"] else "[yellow]not loaded[/yellow]"
        table.add_row(name, state, library["path"] if library["loaded"] else library["reason"])
    console.print("[bold]Native libraries[/bold]", table, sep="\n")
    if collected["build"]:
        console.print(", ".join(f"{name}: {value}" for name, value in collected["build"].items()), style="dim")
    console.print()

    table = Table.grid(padding=(0, 2))
    for name, backends in collected["operators"].items():
        table.add_row(name, _words(backends))
    console.print("[bold]Operators and the backends they have here[/bold]", table, sep="\n")


def _words(names: Sequence[str] | None) -> str:
    return "unknown" if names is None else ", ".join(names) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mobilevit_fast.info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    collected = collect()
    if options.json:
        print(json.dumps(collected, indent=2))
    else:
        show(collected, Console(soft_wrap=True, highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

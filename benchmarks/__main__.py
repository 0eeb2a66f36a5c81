"""Measurements, and what they are compared with. `COMMAND --help` has the options of a command.

Options that name several things take them one after the other: --size S XS.
"""

import pkgutil
import sys
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses, as `mobilevit_fast.cli` has them, which imports torch."""


class Command(NamedTuple):
    """Where a command is and what it is for; its module is imported only when it is called."""

    function: str
    help: str


COMMANDS = {
    "run": Command("benchmarks.run:run", "Measure models or operators against every other way to run them."),
    "session": Command("benchmarks.gpu.command:session", "Build, test and measure on a GPU, all in so many minutes."),
    "report": Command("benchmarks.report:report", "Tables and pictures of the pages, from committed results."),
    "compare": Command("benchmarks.compare:main", "Differences between two files of results."),
    "roofline": Command("benchmarks.roofline:roofline", "The least time of a model on a chip, region by region."),
    "engine": Command("benchmarks.engine:engine", "Files to answers: the engine, its stages, and other ways."),
    "memory": Command("benchmarks.cpu.memory:memory", "Peak memory of a forward on the CPU."),
    "resize": Command("benchmarks.cpu.resize:resize", "Resizing photos, by the kernel and by Pillow."),
    "counts": Command(
        "benchmarks.counts:main", "Bytes, products and exponentials of the CUDA kernels for an image, by the emulator."
    ),
    "predict": Command(
        "benchmarks.predictions:predict", "Times of the kernels for Hopper by what the emulator counts."
    ),
    "host": Command("benchmarks.host:host", "The host's part of a forward on Hopper, by the emulator."),
    "traffic": Command("benchmarks.triton_traffic:traffic", "Bytes that the Triton kernels move."),
    "compile-report": Command(
        "benchmarks.compile_report:report", "Registers, spills and instructions of the compiled Triton kernels."
    ),
    "order": Command("benchmarks.order:order", "Which backend comes first on a GPU, by committed results."),
    "tune": Command("benchmarks.tune:tune", "Find the fastest tiles of the Triton kernels on this GPU."),
}


def repeat_options(arguments: Sequence[str], several: Collection[str]) -> list[str]:
    """`--size S XS` as `--size S --size XS`, the only form that the option parser has."""
    repeated: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("--"):
            option = argument if argument in several else None
        elif option is not None and repeated[-1] != option:
            repeated.append(option)
        repeated.append(argument)
    return repeated


class Commands(TyperGroup):
    """Commands of other modules. Of wrong options it says what is wrong, in one line."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is called."""
        name, _, rest = super().resolve_command(ctx, args)
        only = typer.Typer(add_completion=False)
        only.command()(pkgutil.resolve_name(COMMANDS[str(name)].function))
        command: Any = typer.main.get_command(only)
        several = {option for one in command.params if getattr(one, "multiple", False) for option in one.opts}
        return name, command, repeat_options(rest, several)

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line, and exit with its status."""
        try:
            status = super().main(*arguments, **{**options, "standalone_mode": False})
        except typer.Abort:
            status = INTERRUPTED
        except ModuleNotFoundError as missing:
            extras = "expected the extras test and bench (pip install -e '.[test,bench]')"
            typer.echo(f"error: {missing}: {extras}", err=True)
            status = FAILURE
        except Exception as error:
            if not hasattr(error, "format_message"):  # not about options
                raise
            context = getattr(error, "ctx", None)
            where = f" ({context.command_path} --help)" if context else ""
            typer.echo(f"error: {' '.join(error.format_message().split())}{where}", err=True)
            status = USAGE
        sys.exit(status)


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help)(lambda: None)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")

"""What goes where: results to stdout, everything else to stderr, and errors as one line with an exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import typer
from rich.console import Console

FAILURE = 1
"""Exit status when some or all of the work could not be done."""
USAGE = 2
"""Exit status when the arguments make no sense."""

_PIPE_WIDTH = 160


def stdout() -> Console:
    """For results. As wide as the terminal; in a pipe wide enough for a table not to be cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def stderr() -> Console:
    """For progress."""
    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """One line on stderr."""
    typer.echo(" ".join(message.split()), err=True)


def percent(share: float) -> str:
    """A share of 1 as text: `94.8 %`."""
    return f"{100 * share:.1f} %"


def usage_error(message: str) -> typer.Exit:
    """To be raised: arguments that make no sense."""
    note(f"error: {message}")
    return typer.Exit(USAGE)


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """Turn errors over files and their content into one line on stderr and exit status 1.

    Only for work on what the user named: the library raises ValueError (CheckpointError and ImageError are such) and
    OSError for it, with messages meant to be read.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        note(f"error: {error}")
        raise typer.Exit(FAILURE) from error


@contextmanager
def failing_without_memory(device: torch.device) -> Iterator[None]:
    """Turn a lack of the device's memory into one line on stderr and exit status 1."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        note(f"error: not enough memory on {device} for images of this size and number")
        raise typer.Exit(FAILURE) from error

"""Streams of the commands: results to stdout, everything else to stderr, and errors as one line with an exit status."""

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from mobilevit_fast.engine.errors import described
from mobilevit_fast.interrupts import interrupt_by_exceptions

FAILURE = 1
"""Exit status when some or all of the work could not be done."""
USAGE = 2
"""Exit status when the arguments make no sense."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

_PIPE_WIDTH = 160
_LONGEST_LINE = 1000


def stdout() -> Console:
    """For results. As wide as the terminal; in a pipe wide enough for a table not to be cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def stderr() -> Console:
    """For progress."""
    return Console(stderr=True, highlight=False)


def printable(text: object) -> str:
    """Text that a terminal shows as it is: control codes, and bytes of file names that are no text, are escaped."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def note(message: str) -> None:
    """One line on stderr."""
    line = printable(" ".join(message.split()))
    typer.echo(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}...", err=True)


def say(message: str) -> None:
    """One line on stdout."""
    typer.echo(printable(message))


def say_json(values: object) -> None:
    """JSON on stdout, which any reader takes: without NaN, in ASCII."""
    typer.echo(json.dumps(values, indent=2, allow_nan=False))


def percent(share: float) -> str:
    """A share of 1 as text: `94.8 %`."""
    return f"{100 * share:.1f} %"


class Failed(typer.Exit):
    """The end of a command: an error that is said on stderr when this is made."""

    def __init__(self, message: str, status: int = FAILURE) -> None:
        note(f"error: {message}")
        super().__init__(status)
        self.message = message


def usage_error(message: str) -> Failed:
    """To be raised: arguments that make no sense."""
    return Failed(message, USAGE)


class _Notes(logging.Handler):
    """Handler that writes log records as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"{record.levelname.lower()}: {record.getMessage()}")


class Commands(TyperGroup):
    """Commands that end with one line on stderr whatever happens, and with JSON on stdout if that was asked for."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        interrupt_by_exceptions()
        if sys.stdout is None:
            note("error: expected a standard output to write to, found it closed")
            sys.exit(FAILURE)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the terminal has no letters for must not end a command
                stream.reconfigure(errors="backslashreplace")
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
            handler = _Notes(logging.WARNING)
            logging.getLogger("mobilevit_fast").addHandler(handler)
            try:
                return super().main(*arguments, **options)
            finally:
                logging.getLogger("mobilevit_fast").removeHandler(handler)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether JSON is asked for, before anything can fail."""
        ctx.meta[__name__] = _asks_for_json(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if not _is_usage_error(error):
                raise
            failed = _refused(error, ctx)
        _fail_in_json(ctx, failed.message)
        raise failed

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named; see the class for what becomes of errors."""
        try:
            return super().invoke(ctx)
        except typer.Exit as error:
            if isinstance(error, Failed):
                _fail_in_json(ctx, error.message)
            raise
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            failed = Failed("interrupted", INTERRUPTED)
        except Exception as error:
            if _is_usage_error(error):
                _say_where_it_stands(error, self, ctx)
                failed = _refused(error, ctx)
            elif ctx.params.get("traceback"):
                _fail_in_json(ctx, described(error))
                raise
            else:
                failed = Failed(described(error))
        _fail_in_json(ctx, failed.message)
        raise failed


def _is_usage_error(error: Exception) -> bool:
    """Whether an error is click's, of wrong options; without any it is no error, it shows the help."""
    return hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError"


def _refused(error: Any, ctx: Any) -> Failed:
    """The end for wrong options, in one line."""
    command = (getattr(error, "ctx", None) or ctx).command_path
    return usage_error(f"{error.format_message().rstrip('.')}; {command} --help lists what there is")


def _say_where_it_stands(error: Any, commands: TyperGroup, ctx: Any) -> None:
    """Add to the message about an option of all commands that stands behind one."""
    option = getattr(error, "option_name", None)
    if option in {name for one in commands.params for name in one.opts}:
        error.message += f"; it stands before the command: {ctx.command_path} {option} ..."


def _asks_for_json(arguments: Sequence[str]) -> bool:
    return "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments


def _fail_in_json(ctx: Any, message: str) -> None:
    if ctx.meta[__name__]:
        with suppress(OSError):  # where stdout itself is what failed
            say_json({"error": message})

"""Programs with a time limit, whose end is described whatever it is."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_MERCY = 3.0
"""Seconds between asking a program to end and ending it."""


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
        code: its exit status, negative for a signal; None where it took too long or was not there.
        reason: why it did not do its work, in words; None if it did.
        output: what it printed, stdout and stderr together.
        seconds: how long it took.
    """

    code: int | None
    reason: str | None
    output: str
    seconds: float

    def tail(self, characters: int = 4000) -> str:
        """The end of the output."""
        return self.output[-characters:]


def run(command: Sequence[str], limit: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """Run a program in the repository's root (or ``cwd``) for at most ``limit`` seconds, then end it and its children.

    It has a process group of its own, so that its children (of compilers, of torch.compile) can be ended as well; its
    output goes to a file, which a child that outlives it cannot keep anybody waiting on.
    """
    if shutil.which(command[0]) is None:
        return Outcome(None, f"{command[0]} was not found", "", 0.0)
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd or ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        late = False
        try:
            process.wait(timeout=max(limit, 0.1))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
        seconds = time.monotonic() - start
        output.seek(0)
        text = output.read()
    if late:
        return Outcome(None, f"took longer than the {limit:.0f} s it had", text, seconds)
    return Outcome(process.returncode, _reason(process.returncode, text), text, seconds)


class Background:
    """Programs beside others; whatever becomes of them, they are over after ``finish``."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._running = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            for command in commands
        ]

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(0)

    def finish(self, seconds: float) -> int:
        """Wait for them so long at most, then end them; how many did their work."""
        end = time.monotonic() + seconds
        for process in self._running:
            try:
                process.wait(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _end(process)
        done = sum(process.returncode == 0 for process in self._running)
        self._running = []
        return done


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and whatever is left of its group."""
    for number, patience in ((signal.SIGTERM, _MERCY), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break  # nobody is left
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _reason(code: int, output: str) -> str | None:
    if code == 0:
        return None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = f": {without_folders(lines[-1])}" if lines else ""
    ending = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{ending}{last}"


def without_folders(text: str) -> str:
    """One line of a message, without the folders of the machine, since results are committed."""
    return re.sub(r"(?<![\w.:/])(/[\w.+@-]+)+/", "", " ".join(text.split()))[:300]

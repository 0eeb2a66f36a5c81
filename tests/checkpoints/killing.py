"""Writers that are killed with SIGKILL: in a forked process, at every call that changes something on the disk."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE = 20.0  # seconds


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does this and nothing else, and ends with status 0 if it comes to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def wait(child: int) -> int:
    """How a child ended: its exit status, or minus the signal. One that hangs is killed and fails the test."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the writer did not end within {DEADLINE} seconds")


def dying_at(step: int, write: Callable[[], object]) -> None:
    """Kill this process at so many-th call that changes something on the disk, half-way through where it writes."""
    left = step

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if function is write_bytes:
                    write_bytes(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    write_bytes = Path.write_bytes
    Path.write_bytes = counted(write_bytes)  # type: ignore[method-assign]
    for name in ("open", "fsync", "replace", "unlink", "close"):
        setattr(os, name, counted(getattr(os, name)))
    write()


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Have a folder hold these files and nothing else."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def killed_at_every_step(folder: Path, write: Callable[[], object]) -> Iterator[int]:
    """Write over what is in the folder again and again, killed one step later each time; the last one is not killed."""
    files, step, status = contents(folder), 0, -signal.SIGKILL
    while status != 0:
        step += 1
        put(folder, files)
        status = wait(forked(lambda step=step: dying_at(step, write)))  # type: ignore[misc]
        assert status in (0, -signal.SIGKILL)
        yield step


def in_place(folder: Path) -> dict[str, bytes]:
    """What other libraries see, without the headers of weights, whose metadata come in any order."""
    files = {name: content for name, content in contents(folder).items() if not name.startswith(".")}
    if "model.safetensors" in files:
        content = files["model.safetensors"]
        files["model.safetensors"] = content[8 + int.from_bytes(content[:8], "little") :]
    return files

"""Ctrl-C while a command is still importing what it needs: the process ends at once and prints nothing.

Python's own way is an exception, which would come out of whatever is being imported. The package imports this module
first, which lets the system end the process instead, if that is one of the package's commands that has just begun.
"""

import signal
import sys
import threading
from pathlib import PurePath

_COMMAND = "mobilevit-fast"
_MODULE_BEING_FOUND = "-m"  # what sys.argv begins with while `python -m` imports the packages around a module


def _replace(handler: object, other: object) -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is handler:
        signal.signal(signal.SIGINT, other)  # type: ignore[arg-type]


def interrupt_by_exceptions() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, so that what is being written can be taken away."""
    _replace(signal.SIG_DFL, signal.default_int_handler)


def _is_command() -> bool:
    """Whether the process is one of the package's commands, and not another program that imports the package."""
    begun = sys.argv[0] if getattr(sys, "argv", None) else ""
    if begun == _MODULE_BEING_FOUND:
        words = getattr(sys, "orig_argv", [])
        following = words[words.index("-m") + 1 :] if "-m" in words else []
        return bool(following) and following[0].split(".")[0] == __name__.split(".")[0]
    return PurePath(begun).name.removesuffix(".exe") == _COMMAND


if _is_command():
    _replace(signal.default_int_handler, signal.SIG_DFL)

"""The native libraries: loading them, and why one is missing.

Importing this module loads nothing. :func:`load` brings in what is there; a library that is not there, or does not
load, becomes a status with a reason, never an error and never a message on the terminal.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

LIBRARY_FOLDER = Path(__file__).parent / "_lib"
"""Where the build places the libraries of operators."""

_OPERATOR_LIBRARIES = ("cpu", "cuda")
# In a clone, Python imports the package that lies there before one that is installed.
_BUILD = "`pip install --no-build-isolation -e .` builds it there, and a package that is installed is found elsewhere"


@dataclass(frozen=True)
class LibraryStatus:
    """Whether a native library is in use.

    Attributes:
        loaded: its operators (or functions) can be called.
        path: the file, where there is one.
        reason: why it is not loaded, in words for the user; None if it is.
    """

    loaded: bool
    path: str | None = None
    reason: str | None = None


_lock = threading.Lock()
_statuses: dict[str, LibraryStatus] = {}
_module: ModuleType | None = None


def load() -> None:
    """Load every native library that was built. Later calls do nothing. CUDA is not initialised."""
    with _lock:
        if _statuses:
            return
        statuses = {name: _load_operators(name) for name in _OPERATOR_LIBRARIES}
        statuses["_C"] = _load_module(statuses["cpu"])
        if not statuses["cuda"].loaded and statuses["cuda"].path is None:
            statuses["cuda"] = LibraryStatus(False, None, _why_no_cuda())
        _statuses.update(statuses)


def status() -> dict[str, LibraryStatus]:
    """Status of the libraries "cpu" and "cuda" (operators) and "_C" (build information); loads them if need be."""
    if not _statuses:  # asked here too, without the lock, which torch.compile could not trace
        load()
    return dict(_statuses)


def extension() -> ModuleType | None:
    """The compiled module ``mobilevit_fast._C``, or None where it is not loaded (``status()["_C"]`` says why)."""
    load()
    return _module


def _load_operators(name: str) -> LibraryStatus:
    path = LIBRARY_FOLDER / f"libmobilevit_fast_{name}.so"
    if not path.is_file():
        return LibraryStatus(False, None, f"{path.name} was not built, in {path.parents[1]}; {_BUILD}")
    if name == "cuda" and torch.version.cuda is None:
        return LibraryStatus(False, str(path), f"torch {torch.__version__} is a build for the CPU only")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return LibraryStatus(False, str(path), f"it does not load with torch {torch.__version__}: {error}")
    return LibraryStatus(True, str(path))


def _load_module(cpu: LibraryStatus) -> LibraryStatus:
    """The module is linked to the CPU library, so it is only tried once that one is loaded."""
    global _module
    if not cpu.loaded:
        return LibraryStatus(False, None, f"it needs the CPU library: {cpu.reason}")
    try:
        _module = importlib.import_module("mobilevit_fast._C")
    except ImportError as error:
        return LibraryStatus(False, None, f"it does not load: {error}")
    return LibraryStatus(True, _module.__file__)


def _why_no_cuda() -> str:
    if _module is None:
        return "the CUDA library was not built"
    return f"the CUDA library was {_module.build_info()['cuda']}"

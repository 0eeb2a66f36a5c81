"""Compiles the emulator with the CUDA kernels and their bindings into a Python module.

With the sanitizers where their library is loaded already.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11
import torch

from testing.compiler import compiler_path
from testing.paths import REPOSITORY

HERE = Path(__file__).resolve().parent
NAME = "mvf_emulated"
SOURCES = [*sorted(HERE.glob("*.cpp")), *sorted((REPOSITORY / "csrc/cuda").rglob("*.c*"))]
SANITIZED = any(Path(name).is_file() for name in os.environ.get("LD_PRELOAD", "").split() if "libasan" in name)
"""AddressSanitizer has to be in the process from its start, so `make test` preloads it."""

FLAGS = ["-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
DEFINITIONS = ["-DMVF_EMULATED", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
SANITIZERS += ["-fno-sanitize=null,object-size,pointer-overflow"]  # AddressSanitizer sees what these lead to
TORCH = Path(torch.__file__).parent


def load() -> ModuleType:
    """The module, compiled if its sources changed. Loading it registers the operators' overloads ``.cuda``."""
    kind = "sanitized" if SANITIZED else "plain"
    folder = REPOSITORY / "build" / "emulator" / kind
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # test processes share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: _compile(source, folder), SOURCES))
        target = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
        stamp, linked = folder / "linked", "\n".join(map(str, objects))
        if not target.exists() or not stamp.exists() or stamp.read_text() != linked:
            target.unlink(missing_ok=True)
            libraries = [f"-L{TORCH / 'lib'}", f"-Wl,-rpath,{TORCH / 'lib'}", "-ltorch_cpu"]
            _call([*_compiler(), "-shared", *map(str, objects), *libraries, "-o", str(target)])
            stamp.write_text(linked)
    spec = importlib.util.spec_from_file_location(NAME, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compiler() -> list[str]:
    return [compiler_path(), *FLAGS, *(SANITIZERS if SANITIZED else [])]


def _compile(source: Path, folder: Path) -> Path:
    """The object of a source, compiled anew if it, a header that it includes or the command changed."""
    ours = [REPOSITORY / "csrc", HERE]
    others = [TORCH / "include", pybind11.get_include(), sysconfig.get_paths()["include"]]
    command = [*_compiler(), *DEFINITIONS, *(f"-I{path}" for path in ours), *(f"-isystem{path}" for path in others)]
    included = folder / f"{source.name}.d"
    target = _target(source, folder, command, included)
    if target is None or not target.exists():
        made = folder / f"{source.name}.new"
        _call([*command, "-MMD", "-MF", str(included), "-x", "c++", "-c", str(source), "-o", str(made)])
        for old in folder.glob(f"{source.name}-*.o"):
            old.unlink()
        target = _target(source, folder, command, included)
        assert target is not None
        made.rename(target)
    return target


def _target(source: Path, folder: Path, command: list[str], included: Path) -> Path | None:
    """The object's path by all that it is made of, or None where that is not known."""
    if not included.exists():
        return None
    _, _, names = included.read_text().partition(":")
    paths = [Path(name) for name in names.replace("\\\n", " ").split()]
    if not all(path.exists() for path in paths):
        return None
    digest = hashlib.sha256(repr(command).encode() + b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
    return folder / f"{source.name}-{digest}.o"


def _call(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # meant for the tests
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-6000:]
    assert "warning:" not in result.stderr, result.stderr[-6000:]

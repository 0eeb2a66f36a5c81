"""Compiles the emulator with the CUDA kernels and their bindings into a Python module.

With the sanitizers where their library is loaded already.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11
import torch

from testing.compiled import alone_in, compile_once, link_once
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
    folder = REPOSITORY / "build" / "emulator" / ("sanitized" if SANITIZED else "plain")
    with alone_in(folder):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: _compile(source, folder), SOURCES))
        libraries = [f"-L{TORCH / 'lib'}", f"-Wl,-rpath,{TORCH / 'lib'}", "-ltorch_cpu"]
        name = f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
        target = link_once([*_compiler(), "-shared"], objects, name, folder, libraries)
    spec = importlib.util.spec_from_file_location(NAME, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compiler() -> list[str]:
    return [compiler_path(), *FLAGS, *(SANITIZERS if SANITIZED else [])]


def _compile(source: Path, folder: Path) -> Path:
    ours = [REPOSITORY / "csrc", HERE]
    others = [TORCH / "include", pybind11.get_include(), sysconfig.get_paths()["include"]]
    includes = [*(f"-I{path}" for path in ours), *(f"-isystem{path}" for path in others)]
    compiled = compile_once([*_compiler(), *DEFINITIONS, *includes, "-x", "c++"], source, folder)
    assert "warning:" not in compiled.report, compiled.report[-6000:]
    return compiled.path

"""Compiles the emulated kernels into a Python module, with the sanitizers where their library is loaded already."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pybind11

from tests.native.compiler import compiler_path
from tests.paths import REPOSITORY

HERE = Path(__file__).resolve().parent
NAME = "mvf_emulated"
SOURCES = {NAME: "bindings.cpp", "mvf_scratch_transformer": "scratch_transformer.cpp"}
SANITIZED = any(Path(name).is_file() for name in os.environ.get("LD_PRELOAD", "").split() if "libasan" in name)
"""AddressSanitizer has to be in the process from its start, so `make test` preloads it."""


def load(name: str = NAME) -> ModuleType:
    """One of the modules, compiled if its sources changed."""
    compiler = compiler_path()
    flags = [
        "-std=c++17",
        "-O2",
        "-g1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-DMVF_EMULATED",
    ]
    if SANITIZED:
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    folders = [
        REPOSITORY / "csrc/include",
        REPOSITORY / "csrc/cuda",
        HERE,
        pybind11.get_include(),
        sysconfig.get_paths()["include"],
    ]
    command = [compiler, *flags, *(f"-I{folder}" for folder in folders), str(HERE / SOURCES[name])]
    texts = sorted([*HERE.glob("*.h"), *HERE.glob("*.cpp"), *(REPOSITORY / "csrc").rglob("*.h")])
    digest = hashlib.sha256(repr(command).encode() + b"".join(path.read_bytes() for path in texts)).hexdigest()[:16]
    folder = REPOSITORY / "build" / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    kind = f"{name}-{'sanitized' if SANITIZED else 'plain'}"
    target = folder / f"{kind}-{digest}{sysconfig.get_config_var('EXT_SUFFIX')}"
    with (folder / "lock").open("w") as lock:  # test processes share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            result = subprocess.run([*command, "-o", f"{target}.new"], capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr[-6000:]
            assert "warning:" not in result.stderr, result.stderr[-6000:]
            for old in folder.glob(f"{kind}-*.so"):
                old.unlink()
            Path(f"{target}.new").rename(target)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

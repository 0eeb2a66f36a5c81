"""Builds the native libraries by CMake and ninja; everything else about the package stands in pyproject.toml.

Environment: ``MVF_CUDA=auto|on|off`` (default auto: a CUDA library where nvcc and a CUDA build of torch are found);
``MVF_CUDA_ARCHITECTURES``, those to compile it for, as CMake writes them (``90``, ``80;120`` or, for the GPUs of this
machine, ``native``; default 8.0, 9.0 and 12.0; all others from 8.0 on have it translated when it is loaded).
``python setup.py compile_only`` sends every CUDA source through nvcc, whatever torch was built for and without a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

ROOT = Path(__file__).resolve().parent
PACKAGE = "mobilevit_fast"
OLDEST_TORCH = (2, 11)
# Whose limited API the module _C is built in (CMakeLists.txt): the wheel serves it and every later version.
OLDEST_PYTHON = "cp311"


def find_tool(name: str) -> str:
    """Path of cmake or ninja: of the pip package in this environment, or on PATH."""
    candidates = [Path(sys.executable).parent / name]
    if importlib.util.find_spec(name) is not None:
        module = importlib.import_module(name)
        folders = [getattr(module, constant, None) for constant in ("CMAKE_BIN_DIR", "BIN_DIR")]
        candidates += [Path(folder) / name for folder in folders if folder]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    path = shutil.which(name)
    if path is None:
        raise SetupError(f"{PACKAGE}: {name} was not found; install it with `pip install {name}`")
    return path


def check_cxx_compiler() -> None:
    """CMake takes $CXX or one of the usual names; without any, say so before it does at length."""
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        raise SetupError(
            f"{PACKAGE}: no C++ compiler was found (looked for {', '.join(names)}); install one, for example with "
            "`apt install g++`"
        )


def torch_settings() -> dict[str, str]:
    """Where torch is and what it was built for."""
    try:
        import torch
    except ImportError as error:
        raise SetupError(
            f"{PACKAGE}: the native libraries are built against torch, which cannot be imported here ({error}); "
            "install torch first and use `pip install --no-build-isolation`"
        ) from error
    version = torch.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        raise SetupError(f"{PACKAGE}: expected torch {'.'.join(map(str, OLDEST_TORCH))} or newer, got {version}")
    return {
        "MVF_TORCH_DIR": str(Path(torch.__file__).parent),
        "MVF_TORCH_VERSION": version,
        "MVF_TORCH_CUDA": torch.version.cuda or "",
    }


def cuda_setting() -> str:
    """Whether to build the CUDA library."""
    value = os.environ.get("MVF_CUDA", "auto")
    if value not in ("auto", "on", "off"):
        raise SetupError(f"MVF_CUDA: expected auto, on or off, got {value!r}")
    return value


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt; the libraries land in the package folder."""

    def run(self) -> None:
        """Build all targets."""
        self.build_targets(cuda_setting(), "all")

    def build_targets(self, cuda: str, target: str) -> None:
        """Configure, then build ``target``; the folder is kept, so that a second build is short."""
        settings = {"MVF_CUDA": cuda, **torch_settings()}
        check_cxx_compiler()
        settings |= {
            "CMAKE_MAKE_PROGRAM": find_tool("ninja"),
            "MVF_VERSION": self.distribution.get_version(),
            "MVF_OUTPUT_DIR": str(self.package_folder()),
            "Python_EXECUTABLE": sys.executable,
        }
        cmake, folder = find_tool("cmake"), ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        folder.mkdir(parents=True, exist_ok=True)
        for older in self.package_folder().glob("_C.cpython-*.so"):
            older.unlink()  # of a build for one version of Python, which would be imported first
        definitions = [f"-D{name}={value}" for name, value in settings.items()]
        architectures = os.environ.get("MVF_CUDA_ARCHITECTURES")
        # The folder is kept, and with it what an earlier build was given.
        definitions += [f"-DMVF_CUDA_ARCHITECTURES={architectures}" if architectures else "-UMVF_CUDA_ARCHITECTURES"]
        call([cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *definitions], "configuring")
        call([cmake, "--build", str(folder), "--target", target], f"building {target}")

    def package_folder(self) -> Path:
        """The package in the source tree for an editable install, otherwise in the tree that becomes the wheel."""
        return (ROOT if self.inplace else Path(self.build_lib).resolve()) / PACKAGE

    def get_outputs(self) -> list[str]:
        """Built files, for the installer's record."""
        folder = self.package_folder()
        return [str(path) for path in (*folder.glob("_C.abi3.so"), *folder.glob("_lib/*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing to copy in an editable install: the libraries are built in place."""
        return {}


class CompileOnly(CMakeBuild):
    """Compiles every CUDA source without linking a library."""

    description = "compile every CUDA source with nvcc, without linking"

    def run(self) -> None:
        """Build the target of that name; nvcc must be there."""
        self.inplace = True
        if not (shutil.which("nvcc") or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")):
            raise SetupError(f"{PACKAGE}: nvcc was not found on PATH or in CUDA_HOME; compile_only needs it")
        self.build_targets("auto", "compile-only")


class BuildEmulated(CMakeBuild):
    """Builds the CPU library of the tests, whose variants all run wherever AVX2 does, in the build folder."""

    description = "build the CPU library of the tests, with stand-ins for the instructions of AVX-512 and AMX"

    def run(self) -> None:
        """Build the target of that name."""
        self.inplace = True
        self.build_targets(cuda_setting(), "mobilevit_fast_cpu_emulated")


def call(command: list[str], step: str) -> None:
    """Run one step; its own output is the progress, and the diagnosis when it fails."""
    environment = {"NINJA_STATUS": "[%f of %t, %e s] ", **os.environ}
    result = subprocess.run(command, check=False, env=environment)
    if result.returncode != 0:
        raise CompileError(f"{PACKAGE}: {step} failed with exit status {result.returncode}, see the messages above")


setup(
    ext_modules=[Extension(f"{PACKAGE}._C", sources=[], py_limited_api=True)],
    options={"bdist_wheel": {"py_limited_api": OLDEST_PYTHON}},
    cmdclass={"build_ext": CMakeBuild, "compile_only": CompileOnly, "build_emulated": BuildEmulated},
)

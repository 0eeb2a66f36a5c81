"""The build: settings, what it says when something is missing, CUDA sources through nvcc."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("setuptools", "cmake", "ninja")


def missing(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


pytestmark = pytest.mark.skipif(any(map(missing, NEEDED)), reason=f"the build needs {', '.join(NEEDED)}")


def setup_py(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, check=False)


def configure(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """CMake's configuration alone, in a folder of its own."""
    values = {
        "MVF_TORCH_DIR": str(Path(torch.__file__).parent),
        "MVF_TORCH_VERSION": torch.__version__,
        "Python_EXECUTABLE": sys.executable,
        "CMAKE_MAKE_PROGRAM": str(tool("ninja")),
    } | settings
    definitions = [f"-D{name}={value}" for name, value in values.items()]
    command = [str(tool("cmake")), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *definitions]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tool(name: str) -> Path:
    """cmake or ninja, preferably of this environment."""
    beside = Path(sys.executable).parent / name
    return beside if beside.is_file() else Path(shutil.which(name) or name)


def test_unknown_cuda_setting_is_refused() -> None:
    result = setup_py("build_ext", "--inplace", MVF_CUDA="maybe")
    assert result.returncode != 0
    assert "MVF_CUDA: expected auto, on or off, got 'maybe'" in result.stderr


def test_without_a_compiler_the_message_says_so() -> None:
    result = setup_py("build_ext", "--inplace", CXX="/nowhere/c++")
    assert result.returncode != 0
    assert "no C++ compiler was found (looked for /nowhere/c++)" in result.stderr


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("raise ImportError('No module named torch')", "torch, which cannot be imported here (No module named torch)"),
        ("__version__ = '2.9.1'", "expected torch 2.11 or newer, got 2.9.1"),
    ],
)
def test_torch_missing_or_too_old(version: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(version)
    result = setup_py("build_ext", "--inplace", PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is a CUDA build here")
def test_cuda_on_needs_a_cuda_build_of_torch(tmp_path: Path) -> None:
    result = configure(tmp_path, MVF_CUDA="on")
    assert result.returncode != 0
    assert "MVF_CUDA=on, but the CUDA library cannot be built" in result.stderr


def test_cuda_off_is_recorded(tmp_path: Path) -> None:
    result = configure(tmp_path, MVF_CUDA="off")
    assert result.returncode == 0, result.stderr
    assert "CUDA library: not built: turned off by MVF_CUDA=off" in result.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_the_cuda_library_is_configured_for_a_cuda_build_of_torch(tmp_path: Path) -> None:
    """As far as a machine goes whose torch is a build for the CPU: nothing is compiled."""
    result = configure(tmp_path, MVF_CUDA="on", MVF_TORCH_CUDA="13.0", MVF_CUDA_ARCHITECTURES="90")
    assert result.returncode == 0, result.stderr
    assert "CUDA library: built for torch's CUDA 13.0" in result.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
@pytest.mark.parametrize(("body", "succeeds"), [("int i = threadIdx.x; (void)i;", True), ("int i = nothing;", False)])
def test_compile_only_compiles_every_cuda_source(body: str, succeeds: bool, tmp_path: Path) -> None:
    source = tmp_path / "probe.cu"
    source.write_text(f"__global__ void probe() {{ {body} }}\n")
    folder = tmp_path / "build"
    result = configure(folder, MVF_CUDA_SOURCES=str(source), MVF_CUDA_ARCHITECTURES="80")
    assert result.returncode == 0, result.stderr
    command = [str(tool("cmake")), "--build", str(folder), "--target", "compile-only"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (built.returncode == 0) == succeeds, built.stdout
    assert ("compile-only: 1 CUDA sources compiled" in built.stdout) == succeeds


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
def test_the_module_uses_no_symbol_beyond_the_limited_api() -> None:
    """Of Python 3.11: no private one but those behind its macros."""
    (module,) = (ROOT / "mobilevit_fast").glob("_C.*.so")
    assert module.name == "_C.abi3.so"
    listed = subprocess.run(["nm", "-D", str(module)], capture_output=True, text=True, check=True).stdout
    used = set(re.findall(r" U (_?Py\w+)", listed))
    assert len(used) > 20
    macros = {"_Py_Dealloc", "_Py_FalseStruct", "_Py_NoneStruct", "_Py_TrueStruct"}
    assert {name for name in used if name.startswith("_")} <= macros

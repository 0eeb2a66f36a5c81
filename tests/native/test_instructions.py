"""Which instructions the variants of the CPU kernels are made of."""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
from collections import defaultdict

import pytest

from mobilevit_fast import native

LIBRARY = native.LIBRARY_FOLDER / "libmobilevit_fast_cpu.so"
pytestmark = [
    pytest.mark.skipif(
        shutil.which("objdump") is None or platform.machine() not in ("x86_64", "AMD64"),
        reason="there is no objdump, or it would not show x86 instructions",
    ),
    pytest.mark.skipif(not LIBRARY.is_file(), reason="the CPU library was not built"),
]
WIDE = {"avx512", "avx512_bf16", "avx512_amx"}


@functools.cache
def instructions() -> dict[str, set[tuple[str, str]]]:
    """Names of instructions with the registers that they use, "zmm", "ymm" or others, by the namespace below
    mobilevit_fast::cpu of the functions in which they stand, or by the function where it has none.
    """
    command = ["objdump", "-d", "--no-show-raw-insn", str(LIBRARY)]
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    here: set[tuple[str, str]] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(">:\n"):
                name = re.search(r"mobilevit_fast3cpu(\d+)(\w+)", line)
                here = found[name[2][: int(name[1])] if name else line]
            elif line.startswith(" "):
                registers = "zmm" if "%zmm" in line else "ymm" if "%ymm" in line else ""
                here.add((line.split("\t", 2)[1].split(" ", 1)[0].rstrip(), registers))
    assert process.returncode == 0
    return found


def variants_with(instruction: str, registers: str = "") -> set[str]:
    """Namespaces of functions in which it stands, with such registers."""
    return {
        namespace
        for namespace, found in instructions().items()
        if any(name.startswith(instruction) and used.startswith(registers) for name, used in found)
    }


def test_pairs_are_multiplied_by_one_variant_alone() -> None:
    assert variants_with("vdpbf16ps", "zmm") == variants_with("vdpbf16ps") == {"avx512_bf16"}


def test_tiles_are_of_one_variant_alone() -> None:
    assert variants_with("tdpbf16ps") == variants_with("ldtilecfg") == variants_with("tilerelease") == {"avx512_amx"}


def test_wide_registers_are_used_by_variants_for_avx512_alone() -> None:
    assert variants_with("", "zmm") == WIDE
    assert variants_with("", "ymm") - WIDE == {"avx2"}

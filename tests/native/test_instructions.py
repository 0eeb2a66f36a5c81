"""Which instructions the variants of the CPU kernels are made of."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from mobilevit_fast import native

pytestmark = pytest.mark.skipif(
    shutil.which("objdump") is None or platform.machine() not in ("x86_64", "AMD64"),
    reason="there is no objdump, or it would not show x86 instructions",
)
WIDE = {"avx512", "avx512_bf16", "avx512_amx"}
LIBRARY = native.LIBRARY_FOLDER / "libmobilevit_fast_cpu.so"


def variants_with(instruction: str) -> set[str]:
    """Namespaces, below mobilevit_fast::cpu, of the functions in which it stands."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(LIBRARY)]
    found, function = set(), ""
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if line.endswith(">:"):
            function = line
        elif re.search(rf"\t{instruction}", line):
            name = re.search(r"mobilevit_fast3cpu(\d+)(\w+)", function)
            found.add(name[2][: int(name[1])] if name else function)
    return found


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the CPU library was not built")
def test_pairs_are_multiplied_by_one_variant_alone() -> None:
    assert variants_with(r"vdpbf16ps .*zmm") == variants_with("vdpbf16ps") == {"avx512_bf16"}


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the CPU library was not built")
def test_tiles_are_of_one_variant_alone() -> None:
    assert variants_with("tdpbf16ps") == variants_with("ldtilecfg") == variants_with("tilerelease") == {"avx512_amx"}


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the CPU library was not built")
def test_wide_registers_are_used_by_variants_for_avx512_alone() -> None:
    assert variants_with(".*%zmm") == WIDE
    assert variants_with(".*%ymm") - WIDE == {"avx2"}

"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, without torch; see sanitize.cpp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testing.compiled import FOLDER, alone_in, compile_once, link_once
from testing.compiler import INCLUDE, compiler_path, compiler_with, is_clang, run
from testing.paths import REPOSITORY
from testing.tiers import thorough

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
CPU = REPOSITORY / "csrc" / "cpu"
KEPT = FOLDER / "sanitizers"
PROCESSES = 2
# Of what UndefinedBehaviorSanitizer looks for, null, object-size and pointer-overflow are left out: AddressSanitizer
# reports the accesses that follow from them, and they would double the time to compile.
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize=null,object-size,pointer-overflow"]
# Checks are calls, not code in place: unrolled loops would take a compiler minutes.
CALLS = {
    "gcc": ["--param", "asan-instrumentation-with-call-threshold=0"],
    "clang": ["-mllvm", "-asan-instrumentation-with-call-threshold=0"],
}
FLAGS = [*SANITIZE, "-fno-sanitize-recover=all", "-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer"]


def cmake_list(name: str) -> list[str]:
    """The value of a variable in CMakeLists.txt, or nothing where it is not set."""
    found = re.search(rf"^\s*set\({name}\s+([^)]*)\)", (REPOSITORY / "CMakeLists.txt").read_text(), re.MULTILINE)
    words = [] if found is None else found[1].replace('"', "").split()
    return [part for word in words for part in (cmake_list(word[2:-1]) if word.startswith("${") else [word])]


def compile_all(compiler: Sequence[str]) -> Path:
    """The driver with all kernels, each compiled for every instruction set with the flags of the emulated library."""
    host = [*INCLUDE, "-DMVF_EMULATE_ISAS"]
    sources = [HERE / "sanitize.cpp", CPU / "cpu_isa.cpp", CPU / "resize_crop" / "windows.cpp"]
    jobs = [(source, host) for source in sources]
    emulated = ["-Wno-psabi", "-include", str(HERE / "avx512.h")]
    variants = {  # longest first: name, flags, kernels
        "avx512_amx": ([*emulated, "-DMVF_PAIRS", "-DMVF_TILES"], "MVF_CPU_TILE_KERNELS"),
        "avx512": (emulated, "MVF_CPU_KERNELS"),
        "avx512_bf16": ([*emulated, "-DMVF_PAIRS"], "MVF_CPU_PAIR_KERNELS"),
        "avx2": ([], "MVF_CPU_KERNELS"),
        "portable": ([], "MVF_CPU_KERNELS"),
    }
    for variant, (more, kernels) in variants.items():
        if variant == "portable" or "avx2" in cmake_list("MVF_ISAS"):
            isa = [] if variant == "portable" else cmake_list("MVF_ISA_FLAGS_avx2")
            flags = [*host, *cmake_list("MVF_KERNEL_FLAGS"), *isa, *more]
            jobs += [(REPOSITORY / kernel, [*flags, f"-DMVF_ISA={variant}"]) for kernel in cmake_list(kernels)]
    with alone_in(KEPT), ThreadPoolExecutor(PROCESSES) as pool:
        compiled = pool.map(lambda job: compile_once([*compiler, *job[1]], job[0], KEPT).path, jobs)
        return link_once(compiler, list(compiled), "sanitize", KEPT)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver."""
    calls = CALLS["clang" if is_clang(compiler_path()) else "gcc"]
    return compile_all(compiler_with([*FLAGS, *calls], tmp_path_factory.mktemp("sanitize")))


@pytest.mark.parametrize("others", [False, thorough(True)], ids=["", "others"])
def test_kernels_stay_within_their_memory(program: Path, others: bool) -> None:
    """Of variants that are another width, or a part, of one that `make test` has, `make test-all`."""
    found = run(program, "--variants").stdout.split()
    assert "portable" in found
    variants = [variant for variant in found if (variant in ("avx512", "avx512_bf16")) == others]
    with ThreadPoolExecutor(PROCESSES) as pool:
        results = list(pool.map(lambda variant: run(program, "--only", f"{variant} "), variants))
    for variant, result in zip(variants, results, strict=True):
        assert result.returncode == 0, f"{variant}: {result.stdout}{result.stderr[:6000]}"
        cases = int(re.fullmatch(r"(\d+) cases passed\n", result.stdout)[1])
        assert cases > (200 if variant in PAIRS else 1000)  # the others are another variant's


OPERATORS = [
    "depthwise_conv2d",
    "inverted_residual",
    "depthwise_separable_conv2d",
    "conv2d_bias_act",
    "conv2d_winograd",
    "mobilevit_transformer",
    "classifier_head",
    "aspp",
    "resize_crop",
    "pixels_to_float",
]
PAIR_OPERATORS = ["inverted_residual", "depthwise_separable_conv2d", "mobilevit_transformer", "classifier_head"]
# Variants of which only operators with matrix products have kernels, for one type.
PAIRS = {"avx512_bf16": PAIR_OPERATORS, "avx512_amx": [*PAIR_OPERATORS, "conv2d_bias_act"]}
FAULTS = [(buffer, operator) for buffer in ("x", "y", "packed") for operator in OPERATORS]
WITHOUT_PACKED = ("depthwise_conv2d", "resize_crop", "pixels_to_float")
FAULTS = [fault for fault in FAULTS if fault not in [("packed", operator) for operator in WITHOUT_PACKED]]
FAULTS.append(("scratch", "conv2d_bias_act"))  # of which the last array is used to its end


@pytest.mark.parametrize(("buffer", "operator"), FAULTS)
def test_a_buffer_that_is_too_short_is_reported(program: Path, buffer: str, operator: str) -> None:
    variants = [variant for variant in run(program, "--variants").stdout.split() if variant not in PAIRS]
    check_fault(program, variants[FAULTS.index((buffer, operator)) % len(variants)], buffer, operator)


@pytest.mark.parametrize("buffer", ["x", "y", "packed"])
@pytest.mark.parametrize(("variant", "operator"), [(v, operator) for v in PAIRS for operator in PAIRS[v]])
def test_a_buffer_that_is_too_short_is_reported_of_pairs(
    program: Path, variant: str, operator: str, buffer: str
) -> None:
    if variant not in run(program, "--variants").stdout.split():
        pytest.skip("this machine has no AVX2")
    check_fault(program, variant, buffer, operator)


def check_fault(program: Path, variant: str, buffer: str, operator: str) -> None:
    result = run(program, "--only", f"{variant} {operator}", "--plant", buffer)
    assert result.returncode != 0
    # An access that begins inside the block and ends outside is an "unknown-crash".
    assert re.search(r"ERROR: AddressSanitizer: (heap-buffer-overflow|unknown-crash)", result.stderr), result.stderr
    assert f"mobilevit_fast::cpu::{variant}::" in result.stderr


def test_an_overflow_is_reported(program: Path) -> None:
    for operator in OPERATORS:
        result = run(program, "--only", f"portable {operator}", "--plant", "stride")
        assert result.returncode != 0
        assert "runtime error: signed integer overflow" in result.stderr, result.stderr

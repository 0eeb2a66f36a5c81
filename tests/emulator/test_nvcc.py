"""The CUDA kernels through nvcc, where there is one: for every architecture, without a spilled register."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import triton

from testing.compiled import FOLDER, Compiled, compile_once
from testing.paths import REPOSITORY

SM90 = REPOSITORY / "csrc/cuda/sm90"
SOURCES = sorted(path for path in (REPOSITORY / "csrc/cuda").rglob("*.cu") if path.parent != SM90)
BINDINGS = sorted((REPOSITORY / "csrc/cuda").rglob("*.cpp"))
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
ARCHITECTURES = ("80", "90", "120")
KERNELS = {
    "aspp.cu": 4,
    "classifier_head.cu": 4,
    "conv2d_bias_act.cu": 24,
    "conv2d_stem.cu": 10,
    "depthwise_conv2d.cu": 24,
    "inverted_residual.cu": 66,
    "inverted_residual_bfloat16.cu": 66,
    "mobilevit_transformer.cu": 6,
    "mobilevit_transformer_warps.cu": 4,
    "mobilevit_transformer_warps_bfloat16.cu": 4,
    "resize.cu": 2,
    "resize_crop.cu": 4,
    "strips.cu": 32,
}
"""How many kernels of a file the compiler tells of, and functions that they call."""
STACK_BYTES = {"resize_crop.cu": 40}
"""Memory of a thread where it is not 0: of the sine, for angles far larger than those it is asked for."""

SM90_KERNELS = {
    "atrous_sm90.cu": 10,
    "atrous_sm90_bfloat16.cu": 10,
    "conv3x3_sm90.cu": 27,
    "conv3x3_sm90_bfloat16.cu": 27,
    "rows_sm90.cu": 4,
    "small_conv_sm90.cu": 18,
    "small_conv_sm90_bfloat16.cu": 18,
    "small_head_sm90.cu": 6,
    "small_residual_sm90.cu": 17,
    "small_residual_sm90_bfloat16.cu": 17,
    "small_stack_masked_sm90.cu": 9,
    "small_stack_masked_sm90_bfloat16.cu": 9,
    "small_stack_sm90.cu": 9,
    "small_stack_sm90_bfloat16.cu": 9,
    "stem_sm90.cu": 24,
    "strips_sm90.cu": 32,
    "transformer_stack_masked_sm90.cu": 9,
    "transformer_stack_masked_sm90_bfloat16.cu": 9,
    "transformer_stack_sm90.cu": 9,
    "transformer_stack_sm90_bfloat16.cu": 9,
}
"""The same of files for compute capability 9.0 alone."""
WITH_PRODUCTS = ("atrous_", "conv3x3_", "rows_", "transformer_stack_")
"""Beginnings of the names of those that multiply by warpgroups."""
SM90_SPILLS = {"rows_sm90.cu": (1, 4), "strips_sm90.cu": (2, 52), "transformer_stack_masked_sm90.cu": (1, 40)}
"""How many kernels store words and load them again, once a row or head, and how many bytes at most."""
SPILLS = {"strips.cu": (4, 60)}
"""The same of files for every chip, of an architecture: once a strip or a row."""


def nvcc(source: Path, *options: object) -> Compiled:
    """The object and what was printed, now or in the run that compiled the same."""
    command = ["nvcc", "-std=c++17", f"-I{REPOSITORY / 'csrc'}", *map(str, options)]
    compiled = compile_once(command, source, FOLDER / "nvcc")
    assert "warning" not in compiled.report, compiled.report[-4000:]
    return compiled


def sm90(name: str) -> Compiled:
    """A source for compute capability 9.0 alone, with its PTX."""
    return nvcc(SM90 / name, "-O3", "-Xptxas", "-v", "-gencode=arch=compute_90a,code=[sm_90a,compute_90a]")


def products(path: Path, kind: str, kernel: str, product: str) -> dict[str, list[str]]:
    """Widths of warpgroups' products by kernel, in an object's PTX or SASS."""
    (tool,) = Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump")
    text = subprocess.run([tool, f"-{kind}", path], check=True, capture_output=True, text=True).stdout
    _, *parts = re.split(kernel, text)
    return {name: sorted(re.findall(product, body)) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def gencode(architectures: Sequence[str]) -> list[str]:
    """Options for machine code, which comes from the same compilations as in the build."""
    found: dict[str, list[str]] = {}
    for architecture in architectures:
        found.setdefault("compute_90" if int(architecture) >= 90 else "compute_80", []).append(f"sm_{architecture}")
    return [f"-gencode=arch={virtual},code=[{','.join(codes)}]" for virtual, codes in found.items()]


MANY = 60
"""Kernels of a file of which `make test` has the oldest architecture alone: each takes the compiler half a minute."""


def compilations() -> list[Any]:
    """Sources with their architectures."""
    found = []
    for source in SOURCES:
        same = source.name.endswith("_bfloat16.cu")  # the same source in another type
        same |= source.name == "strips.cu"  # or that of strips_sm90.cu
        several = [ARCHITECTURES[:1], ARCHITECTURES[1:]] if KERNELS[source.name] > MANY else [ARCHITECTURES]
        for i, architectures in enumerate(several):
            marks = [pytest.mark.thorough] * (same or i > 0)
            found.append(
                pytest.param(source, architectures, id=f"{source.name}-{'-'.join(architectures)}", marks=marks)
            )
    return found


@needs_nvcc
@pytest.mark.parametrize(("source", "architectures"), compilations())
def test_no_register_is_spilled(source: Path, architectures: Sequence[str]) -> None:
    report = nvcc(source, "-O3", "-Xptxas", "-v", *gencode(architectures)).report
    found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(found) == KERNELS[source.name] * len(architectures)
    kernels, most = SPILLS.get(source.name, (0, 0))
    spilled = [max(int(stored), int(loaded)) for _, stored, loaded in found if (stored, loaded) != ("0", "0")]
    assert len(spilled) <= kernels * len(architectures)
    assert max(spilled, default=0) <= most
    assert max(int(stack) for stack, *_ in found) <= STACK_BYTES.get(source.name, most)


@needs_nvcc
@pytest.mark.parametrize("name", SM90_KERNELS)
def test_no_register_is_spilled_on_compute_capability_9(name: str) -> None:
    """Nor does the compiler wait between products that could follow each other."""
    report = sm90(name).report
    found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(found) == SM90_KERNELS[name]
    spilled = [max(int(stored), int(loaded)) for _, stored, loaded in found if stored != "0"]
    kernels, most = SM90_SPILLS.get(name, (0, 0))
    assert len(spilled) <= kernels
    assert max(spilled, default=0) <= most
    assert "C75" not in report


@needs_nvcc
@pytest.mark.parametrize("name", [name for name in SM90_KERNELS if name.startswith(WITH_PRODUCTS)])
def test_the_compiler_keeps_every_product(name: str) -> None:
    """Chains of products whose accumulators begin uninitialised it would merge."""
    path = sm90(name).path
    written = products(path, "ptx", r"\.entry (\w+)\(", r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16")
    made = products(path, "sass", r"Function : (\w+)", r"HGMMA\.64x(\d+)x16")
    assert len(written) == SM90_KERNELS[name]
    assert any(written.values())
    assert made == written


@needs_nvcc
@pytest.mark.parametrize("source", BINDINGS, ids=lambda path: path.name)
def test_bindings_compile_with_the_headers_of_cuda(source: Path) -> None:
    """The emulator's tests run them without."""
    torch_headers = ["-isystem", Path(torch.__file__).parent / "include", "-Xcompiler", "-fvisibility=hidden"]
    definitions = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    nvcc(source, "-O0", *torch_headers, *definitions)


def test_every_architecture_of_the_build_is_compiled() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    setting = re.search(r'set\(MVF_CUDA_ARCHITECTURES "([^"]+)"', text)
    assert setting is not None
    assert setting[1].split(";") == list(ARCHITECTURES)

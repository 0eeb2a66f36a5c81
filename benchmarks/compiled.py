"""Triton kernels compiled ahead of time for chips that are not here, and what the compilers made of them."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import MockTensor

from benchmarks.launches import recorded_launches
from mobilevit_fast.config import PRESETS
from mobilevit_fast.kernels.triton import device, tiles
from mobilevit_fast.kernels.triton.launch import Launch
from testing.shapes import OperatorCall, preset_calls

MODES = ("float16", "bfloat16", "float32", "tf32")
"""Types of tensors; "tf32" is float32 multiplied as TF32."""


@dataclass(frozen=True)
class Chip:
    """Resources of a processor (streaming multiprocessor, compute unit) of a chip.

    Attributes:
        target: for Triton.
        shared_memory: bytes that one program may use.
        shared_total: bytes of a processor.
        registers: 32-bit registers of a processor.
        warps: that a processor holds.
        products: what instructions of matrix units look like in its assembly.
    """

    target: GPUTarget
    shared_memory: int
    shared_total: int
    registers: int
    warps: int
    products: str


CHIPS = {
    "sm_80": Chip(GPUTarget("cuda", 80, 32), 163 << 10, 164 << 10, 65536, 64, r"\bHMMA\b"),
    "sm_90": Chip(GPUTarget("cuda", 90, 32), 227 << 10, 228 << 10, 65536, 64, r"\bH(G)?MMA\b"),
    "sm_100": Chip(GPUTarget("cuda", 100, 32), 227 << 10, 228 << 10, 65536, 64, r"\b(HMMA|UTC\w*MMA)\b"),
    "gfx942": Chip(GPUTarget("hip", "gfx942", 64), 64 << 10, 64 << 10, 4 * 512 * 64, 32, r"\bv_mfma_"),
}
"""A100, H100 and H200, B200, MI300X."""


@dataclass(frozen=True)
class Row:
    """One kernel compiled for one chip.

    Attributes:
        kernel, chip, mode, tile: which one.
        variant: its other constants, and which optional tensors it has.
        source: a digest of the text of the kernel and of its neighbours.
        registers: 32-bit ones of a thread.
        shared_memory: bytes of a program.
        spilled: bytes of a thread that went from registers to memory.
        products: instructions of matrix units in the code.
        programs: of them that a processor holds at once.
    """

    kernel: str
    chip: str
    mode: str
    tile: str
    variant: str
    source: str
    registers: int
    shared_memory: int
    spilled: int
    products: int
    programs: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def model_launches(
    chip: str, mode: str, batches: Sequence[int], presets: Sequence[str] = tuple(PRESETS)
) -> list[Launch]:
    """Launches of the presets at 256 px for classification, and at 512 px, one image, for segmentation."""
    dtype = torch.float32 if mode == "tf32" else getattr(torch, mode)
    launches: list[Launch] = []
    with torch_precision("tf32" if mode == "tf32" else "ieee"), tiles.for_chip(chip), torch.no_grad():
        for preset in presets:
            calls = [_with_batch(call, n) for n in batches for call in _calls(preset, 256, dtype, False)]
            for op, arguments in calls + [_with_batch(call, 1) for call in _calls(preset, 512, dtype, True)]:
                launches += recorded_launches(op, arguments)
    return launches


@functools.cache
def _calls(preset: str, image_size: int, dtype: torch.dtype, segmentation: bool) -> list[OperatorCall]:
    return preset_calls(preset, 1, image_size, dtype, segmentation=segmentation)


def _with_batch(call: OperatorCall, batch: int) -> tuple[str, tuple[Any, ...]]:
    """The operator and its arguments for more images: they are what "x" and "x2" name."""
    named = call.named
    for name in {"x", "x2"} & named.keys():
        if named[name] is not None:
            named[name] = torch.empty((batch, *named[name].shape[1:]), dtype=named[name].dtype, device="meta")
    return call.op, tuple(named.values())


@contextmanager
def torch_precision(precision: str) -> Iterator[None]:
    """torch's setting for float32 matrix products ("tf32" or "ieee") within a context."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def variant(one: Launch) -> tuple[tuple[str, Any], ...]:
    """Properties that need a kernel of their own, besides the tile: constants, types, which tensors are there."""
    parameters = one.kernel.params
    kinds: list[tuple[str, Any]] = []
    for parameter in parameters:
        value = one.arguments.get(parameter.name, one.tile.get(parameter.name))
        if isinstance(value, Tensor):
            value = str(value.dtype).removeprefix("torch.")
        elif not parameter.is_constexpr and not parameter.do_not_specialize and isinstance(value, int):
            value = value if value == 1 else "int" if value % 16 else "int16"
        elif not parameter.is_constexpr and isinstance(value, int | float):
            value = "wide" if isinstance(value, int) and value >= 1 << 31 else type(value).__name__
        kinds.append((parameter.name, value))
    return tuple(kinds)


def distinct(launches: Sequence[Launch]) -> list[Launch]:
    """One launch for each compiled kernel that they need."""
    found: dict[Any, Launch] = {}
    for one in launches:
        key = (one.kernel.fn.__name__, variant(one), tuple(sorted(one.tile.items())))
        found.setdefault(key, one)
    return list(found.values())


class _Driver:
    """Stands for a driver whose device is a chip that is not here."""

    def __init__(self, chip: str) -> None:
        self.chip = chip

    def get_current_device(self) -> str:
        return self.chip  # kernels are kept by device

    def get_current_stream(self, device: Any) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return CHIPS[self.chip].target


def compile_for(chip: str, one: Launch) -> Any:
    """The compiled kernel of a launch, specialised as the launch itself would specialise it on that chip."""
    arguments = {n: MockTensor(v.dtype) if isinstance(v, Tensor) else v for n, v in one.arguments.items()}
    triton.runtime.driver.set_active(_Driver(chip))
    try:
        return one.kernel.warmup(grid=(1,), **arguments, **one.tile)
    finally:
        if torch.cuda.is_available():  # else there is no driver to go back to
            triton.runtime.driver.reset_active()


@functools.cache
def _digest(module: str) -> str:
    """Digest of the text of every kernel of a module and every function that runs on the device."""
    names = {**vars(device), **vars(sys.modules[module])}
    functions = [f for f in names.values() if isinstance(f, triton.JITFunction)]
    return hashlib.sha256("".join(sorted(f.src for f in functions)).encode()).hexdigest()[:12]


def identity(chip: str, mode: str, one: Launch) -> dict[str, str]:
    """The fields of a row that say which kernel it is; nothing is compiled for them."""
    constants = {
        name: value for name, value in variant(one) if name not in one.tile and value not in ("int", "int16", "float")
    }
    return {
        "kernel": one.kernel.fn.__name__,
        "chip": chip,
        "mode": mode,
        "tile": " ".join(f"{name.lower()}={value}" for name, value in one.tile.items()),
        "variant": " ".join(f"{name.lower()}={value}" for name, value in constants.items()),
        "source": _digest(one.kernel.fn.__module__),
    }


def inspect(chip: str, mode: str, one: Launch) -> Row:
    """Compile a launch for a chip and read the result."""
    compiled, kind = compile_for(chip, one), CHIPS[chip]
    if kind.target.backend == "cuda":
        registers, spilled, text = _nvidia(compiled.asm["cubin"])
    else:
        registers, spilled, text = _amd(compiled.asm["amdgcn"])
    shared, warps = compiled.metadata.shared, one.tile["num_warps"]
    granule = -(-registers // 8) * 8 * kind.target.warp_size * warps
    fits = [kind.registers // granule, kind.warps // warps, 32]
    if shared:
        reserved = 1024 if kind.target.backend == "cuda" else 0  # of every program
        fits.append(kind.shared_total // (shared + reserved))
    products = len(re.findall(kind.products, text))
    return Row(
        **identity(chip, mode, one),
        registers=registers,
        shared_memory=shared,
        spilled=spilled,
        products=products,
        programs=min(fits),
    )


@functools.cache
def _cuobjdump() -> str:
    (tool,) = Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump")
    return str(tool)


def _nvidia(binary: bytes) -> tuple[int, int, str]:
    """Registers, bytes of stack (nothing else is there but spilled registers), and the assembly."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [_cuobjdump(), "-sass", "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (registers, stack, local), *rest = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert not rest
    return int(registers), int(stack) + int(local), text


def _amd(text: str) -> tuple[int, int, str]:
    def number(name: str) -> int:
        (found,) = re.findall(rf"\.{name}:\s+(\d+)", text)
        return int(found)

    return number("vgpr_count"), 4 * number("vgpr_spill_count") + number("private_segment_fixed_size"), text

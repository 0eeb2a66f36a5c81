"""Each thing of the device layer for compute capability 9.0 against a plain definition, emulated or on such a GPU.

Where matrices lie that a descriptor names, products of every size, tensor copies, moves of matrices, and a pipeline of
bulk copies, products and bulk stores in clusters.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from testing.paths import REPOSITORY
from tests.cuda.conftest import EMULATED

NONE, B128, B64, B32 = range(4)
WIDTH = {NONE: 16, B128: 128, B64: 64, B32: 32}


class Matrix(NamedTuple):
    """A matrix in shared memory by its descriptor: offsets in bytes."""

    start: int
    leading: int
    stride: int
    swizzle: int


def swizzled(address: np.ndarray[Any, Any], swizzle: int) -> np.ndarray[Any, Any]:
    """Bits 4 and on are exchanged by bits 7 and on."""
    return address ^ ((address >> 7 & (WIDTH[swizzle] // 16 - 1)) << 4)


def bytes_read(m: Matrix, transposed: bool, rows: int) -> np.ndarray[Any, Any]:
    """(rows, 16): the byte of each number of an operand with its depth innermost, or, transposed, its rows."""
    row, k = np.arange(rows)[:, None], np.arange(16)[None, :]
    width = WIDTH[m.swizzle]
    if not transposed and m.swizzle == NONE:
        at = row // 8 * m.stride + k // 8 * m.leading + row % 8 * 16 + k % 8 * 2
    elif not transposed:
        at = row // 8 * m.stride + row % 8 * width + k * 2
    elif m.swizzle == NONE:
        at = row // 8 * m.stride + k // 8 * m.leading + k % 8 * 16 + row % 8 * 2
    else:
        wide = width // 2
        at = row // wide * m.leading + k // 8 * m.stride + k % 8 * width + row % wide * 2
    return swizzled(at + m.start, m.swizzle)


def matrices(transposed: bool, swizzle: int) -> list[Matrix]:
    """Plain ones, views that begin at another row, pitches of images with a halo."""
    w = WIDTH[swizzle]
    if swizzle == NONE:
        plain = [(0, 128, 256), (0, 2048, 128), (16, 2064, 144)]
        shapes = plain if transposed else [*plain, (48, 3008, 160)]
    elif transposed:
        shapes = [(0, 8192, 8 * w), (3 * w, 8192, 8 * w), (32 % w, 8192, 8 * w), (13 * w, 4096, 10 * w)]
    else:
        shapes = [(0, leading, 8 * w) for leading in (16, 0, 1024)] + [(32 % w, 16, 8 * w), (96 % w + 3 * w, 16, 8 * w)]
        shapes += [(32 % w + 13 * w, 16, 10 * w), (64 % w + 19 * w, 16, 18 * w)]
    return [Matrix(*shape, swizzle) for shape in shapes]


SOURCES = [REPOSITORY / "tests/cuda/sm90_device.cu", *sorted((REPOSITORY / "emulator").glob("sm90_*.h"))]
SOURCES += [
    *sorted((REPOSITORY / "csrc/cuda/sm90").glob("[dltw]*.h")),
    REPOSITORY / "csrc/cuda/device.h",
]
FOLDERS = ("csrc", "emulator")
Case = Callable[..., None]


def sizes() -> list[int]:
    """Of N: those of the wrappers; the emulator has one wrapper for all."""
    if EMULATED:
        return [8, 96, 144, 256]
    wrappers = (REPOSITORY / "csrc/cuda/sm90/wgmma.h").read_text(encoding="utf-8")
    return [int(size) for size in re.findall(r"^MVF_WGMMA\((\d+),", wrappers, re.MULTILINE)]


def program() -> str:
    """The primitives compiled for a GPU, in the build folder, where they may lie already."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
    target = REPOSITORY / "build" / "sm90_device" / digest
    if not target.exists():
        if shutil.which("nvcc") is None:
            pytest.skip("there is no nvcc to compile the primitives with")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["nvcc", "-std=c++17", "-O2", "-gencode=arch=compute_90a,code=sm_90a"]
        command += [f"-I{REPOSITORY / folder}" for folder in FOLDERS]
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # meant for the tests
        command += ["-o", f"{target}.new", str(SOURCES[0])]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0, result.stderr[-4000:]
        Path(f"{target}.new").rename(target)
    return str(target)


@pytest.mark.slow
def test_the_program_for_a_gpu_compiles() -> None:
    assert Path(program()).exists()


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    """``case(name, numbers, from, to)`` runs a primitive, which reads the one array and writes the other."""
    if EMULATED:
        from emulator.run import emulated

        yield lambda name, numbers, source, target: emulated.run_case(name, list(numbers), source, target)
        return
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("these primitives are for compute capability 9.0")
    with subprocess.Popen([program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_process, from_process = process.stdin, process.stdout

        def run(name: str, numbers: Any, source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
            request = " ".join(map(str, (name, source.nbytes, target.nbytes, *numbers)))
            to_process.write(request.encode() + b"\n" + source.tobytes())
            to_process.flush()
            answer = from_process.readline().decode().strip()
            assert answer == "ok", answer
            target.reshape(-1).view(np.uint8)[:] = np.frombuffer(from_process.read(target.nbytes), np.uint8)

        yield run
        to_process.close()


@pytest.mark.parametrize("swizzle", [NONE, B128, B64, B32])
@pytest.mark.parametrize("transposed", [False, True], ids=["depth-innermost", "rows-innermost"])
@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
def test_what_descriptors_read(case: Case, left: bool, transposed: bool, swizzle: int) -> None:
    rows = 64 if left else 128
    for matrix in matrices(transposed, swizzle):
        found = np.full((2, rows, 16), np.nan, np.float32)
        case("probe", (int(left), int(transposed), *matrix, 0), np.zeros(16, np.uint8), found)
        assert (2 * (found[0] + 1024 * found[1]) == bytes_read(matrix, transposed, rows)).all(), matrix


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
def test_a_base_offset_is_not_for_views(case: Case, left: bool) -> None:
    """That a descriptor has for matrices that begin between two repeats of their swizzle; the emulator refuses it."""
    rows, wrong = 64 if left else 128, []
    for swizzle in (B128, B64, B32):
        w = WIDTH[swizzle]
        matrix, found = Matrix(32 % w + 13 * w, 16, 10 * w, swizzle), np.full((2, rows, 16), np.nan, np.float32)
        numbers = (int(left), 0, *matrix, (13 * w >> 7) & 7)
        if EMULATED:
            from emulator.run import emulated

            with pytest.raises(emulated.Error, match="a descriptor with a base offset"):
                case("probe", numbers, np.zeros(16, np.uint8), found)
        else:
            case("probe", numbers, np.zeros(16, np.uint8), found)
            wrong.append((2 * (found[0] + 1024 * found[1]) != bytes_read(matrix, False, rows)).any())
    assert EMULATED or any(wrong)


@pytest.mark.parametrize("n", sizes())
@pytest.mark.parametrize("registers", [False, True], ids=["ss", "rs"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_products(case: Case, dtype: torch.dtype, registers: bool, n: int) -> None:
    numbers = torch.randn(64 + n, 64, generator=torch.Generator().manual_seed(n)).to(dtype)
    found = np.full((64, n), np.nan, np.float32)
    case("product", (n, int(dtype == torch.bfloat16), int(registers)), numbers.view(torch.int16).numpy(), found)
    expected = numbers[:64].double() @ numbers[64:].double().T
    torch.testing.assert_close(torch.from_numpy(found), expected.float(), rtol=1e-5, atol=1e-4)


BOXES = [
    (1, -1, -1, 0, 64, 10, 18),
    (2, 15, 23, 64, 32, 10, 18),
    (0, -1, -1, 0, 32, 34, 6),
    (1, 28, -1, 64, 64, 18, 10),
    (1, 4, 3, 80, 16, 10, 10),
    (0, 0, -1, 88, 8, 10, 10),
]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_copies_of_boxes(case: Case, box: tuple[int, ...]) -> None:
    """With a halo around the images and channels beyond the last."""
    image, row, column, channel, channels, width, height = box
    x = np.arange(3 * 32 * 32 * 96, dtype=np.uint32).reshape(3, 32, 32, 96) * np.uint32(2654435761) >> 13
    x = x.astype(np.uint16) | 1
    swizzle = {64: B128, 32: B64, 16: B32, 8: NONE}[channels]
    found = np.zeros((height, width, channels), np.uint16)
    sizes_of_both = (*x.shape, 1, height, width, channels)
    case("box", (*sizes_of_both, swizzle, image, row, column, channel), x, found)
    expected = np.zeros_like(found)
    rows, columns, depth = (np.arange(n) + at for n, at in ((height, row), (width, column), (channels, channel)))
    inside = [(places >= 0) & (places < size) for places, size in ((rows, 32), (columns, 32), (depth, 96))]
    expected[np.ix_(*inside)] = x[image][np.ix_(rows[inside[0]], columns[inside[1]], depth[inside[2]])]
    address = np.arange(expected.size) * 2
    assert (found.reshape(-1)[swizzled(address, swizzle) // 2] == expected.reshape(-1)).all()


def test_moves_of_matrices(case: Case) -> None:
    """Stored as loaded, stored transposed, loaded transposed, transposed in registers."""
    x = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    found = np.zeros((4, 4, 8, 8), np.uint16)
    case("matrices", (), x, found)
    turned = x.transpose(0, 2, 1)
    for one, expected in zip(found, (x, turned, turned, turned), strict=True):
        assert (one == expected).all()


def pipeline() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pieces and weight of the pipeline as it reads them, and what its four blocks write."""
    random = np.random.default_rng(7)
    x = random.standard_normal((6, 64, 16)).astype(np.float16)
    weight = random.standard_normal((8, 16)).astype(np.float16)
    pieces = x.reshape(6, 8, 8, 2, 8).transpose(0, 3, 1, 2, 4).copy()
    expected = np.tile(x.astype(np.float64).sum(0) @ weight.astype(np.float64).T, (4, 1, 1))
    expected[:, 0, 0] *= 2
    return pieces, weight.reshape(8, 2, 8).transpose(1, 0, 2).copy(), expected


def test_pipeline(case: Case) -> None:
    """Of clusters of two: a ring of bulk copies, products, registers that move, st.async, a bulk store."""
    pieces, weight, expected = pipeline()
    found = np.full(expected.shape, np.nan, np.float32)
    case("pipeline", (pieces.nbytes,), np.concatenate([pieces.reshape(-1), weight.reshape(-1)]), found)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

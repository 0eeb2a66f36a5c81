"""Work of the CUDA kernels for an image, counted by the emulator: `python -m benchmarks counts [--preset SIZE]`.

Every operator of a classification model at full size, for one image (half of two where tiles have two): bytes of
images against the least there are (each read once, each written once); weights, which come from the second-level
cache, at most once for every block; instructions of the matrix unit and of the special-function unit; wavefronts of
shared memory and lines of the first-level cache. And the time that each of these would take alone on an H100 that has
enough blocks to do. It is a prediction; what a GPU took stands in docs/kernels/cuda.md.
"""

from __future__ import annotations

import torch
import typer
from torch import Tensor

from benchmarks.floors import CHIPS, bytes_of
from testing.shapes import OperatorCall, preset_calls

_H100 = CHIPS["h100"]
MEMORY, SECOND_LEVEL = _H100.bandwidth, 5.5e12
"""Bytes a second that an H100 was measured to move, and to take from its second-level cache."""
PROCESSORS, CLOCK = _H100.processors, _H100.clock
PRODUCTS = PROCESSORS * CLOCK * 1024 / 2048
"""Instructions m16n8k16 a second: 1024 multiply-adds of float16 a cycle and processor, 2048 an instruction."""
EXPONENTIALS = PROCESSORS * CLOCK * 16
WAVEFRONTS = PROCESSORS * CLOCK
LINES = WAVEFRONTS / 2
"""Lines of 128 bytes a second from the first-level cache: half of what its banks, the same as shared memory's, give."""

SMALL = 8
"""Rows of images of which a tile has two."""
IMAGES = ("x", "x2", "y", "mean", "residual_in", "residual_out", "qkv_in", "qkv_out")
"""Arrays that are no parameters."""
TIMES = ("memory", "weights", "products", "exponentials", "shared")


def name_of(call: OperatorCall) -> str:
    """Operator and sizes of a call, in a few words."""
    s = call.shape
    if call.op == "inverted_residual":
        return f"inverted residual {s['inputs']}→{s['expanded']}→{s['outputs']}, {s['height']}², stride {s['stride']}"
    if call.op == "mobilevit_transformer":
        return f"transformer {s['inputs']}→{s['hidden_size']}→{s['outputs']}, {s['height']}², {s['layers']} layers"
    if call.op == "conv2d_bias_act":
        inputs = f"{s['inputs']}+{s['second_inputs']}" if "second_inputs" in s else s["inputs"]
        return f"convolution {inputs}→{s['outputs']}, {s['height']}², stride {s['stride']}"
    return f"head {s['inputs']}→{s['expanded']}, {s['height']}²"


def count(call: OperatorCall, processors: int) -> tuple[str, list[float]]:
    """A line of the table without its times, and these in microseconds, in the order of ``TIMES``."""
    generator = torch.Generator().manual_seed(0)
    batch = call.arguments[0].shape[0]
    arguments = tuple(
        (0.1 * torch.randn(a.shape, generator=generator)).to(a.dtype) if isinstance(a, Tensor) else a
        for a in call.named.values()
    )
    from emulator import run  # compiles it

    tile = [1] if call.op == "inverted_residual" else ()  # by the kernel for every shape
    y, launches = run.run(call.op, arguments, watch_banks=True, processors=processors, tile=tile)
    images = arguments[:2] if call.op == "conv2d_bias_act" else arguments[:1]
    moved = sum(launch.moved(*(name for name in launch.arrays if name in IMAGES)) for launch in launches)
    least = bytes_of(*images, y)
    packed = run.weight_bytes(call.op, arguments)
    weights = sum(launch.blocks for launch in launches) / len(launches) * packed
    products, exponentials, wavefronts, conflicts, sectors = (
        sum(getattr(launch, field) for launch in launches)
        for field in ("products", "exponentials", "wavefronts", "conflicts", "sectors")
    )
    moved, weights, products, exponentials, wavefronts, sectors = (
        number / batch for number in (moved, weights, products, exponentials, wavefronts, sectors)
    )
    times = [
        moved / MEMORY,
        weights / SECOND_LEVEL,
        products / PRODUCTS,
        exponentials / EXPONENTIALS,
        wavefronts / WAVEFRONTS + sectors / 4 / LINES,
    ]
    clashes = 100 * conflicts / max(batch * wavefronts, 1)
    line = (
        f"| {name_of(call)} | {moved / 1e6:.2f} | {batch * moved / least:.2f} | {weights / 1e6:.2f} "
        f"| {products / 1e3:.0f} | {exponentials / 1e6:.2f} | {wavefronts / 1e3:.0f} | {clashes:.0f} % "
        f"| {sectors * 32 / 1e6:.1f} |"
    )
    return line, [1e6 * t for t in times]


def main(preset: str = "small", processors: int = 1) -> None:
    """Print the table with the tiles for a chip of so many multiprocessors; 1 gives those of many images."""
    from emulator import run

    run.enable()
    typer.echo(
        "| operator | MB moved | of the least | MB of weights | k products | M exponentials | k wavefronts | conflicts "
        "| MB of lines | µs: " + " | ".join(TIMES) + " |\n|---|" + "---:|" * (8 + len(TIMES))
    )
    total = [0.0] * len(TIMES)
    one, two = (preset_calls(preset, batch, 256, torch.float16) for batch in (1, 2))
    for call in (pair[pair[0].shape["height"] <= SMALL] for pair in zip(one, two, strict=True)):
        line, times = count(call, processors)
        total = [t + new for t, new in zip(total, times, strict=True)]
        typer.echo(line + "".join(f" {t:.2f} |" for t in times))
    typer.echo("| all |" + " |" * 8 + "".join(f" {t:.2f} |" for t in total))

"""What the CUDA kernels do for an image, counted by the emulator: `python -m benchmarks.counts [--preset SIZE]`.

Every inverted residual at full size, batch 1: bytes of input and output against the least there are, bytes of weights
(they come from the second-level cache or nearer), products, exponentials, wavefronts of shared memory; and the time
that each would take alone on an H100. It is a prediction: no GPU has measured it.
"""

from __future__ import annotations

import torch
import typer

from benchmarks.shapes import preset_calls
from tests.emulator import run

MEMORY = 3.0e12
"""Bytes a second that an H100 was measured to move."""
PROCESSORS, CLOCK = 132, 1.755e9
PRODUCTS = PROCESSORS * CLOCK * 1024 / 2048
"""Instructions m16n8k16 a second: 1024 multiply-adds of float16 a clock and processor, 2048 an instruction."""
EXPONENTIALS = PROCESSORS * CLOCK * 16
WAVEFRONTS = PROCESSORS * CLOCK
LINES = WAVEFRONTS / 2
"""Lines of 128 bytes a second from the first-level cache: half of what its banks, the same as shared memory's, give."""


def table(preset: str, processors: int) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| inverted residual | MB moved | of the least | MB from caches | k products | M exponentials | k wavefronts "
        "| conflicts | µs: memory | products | exponentials | shared |",
        "|---|" + "---:|" * 11,
    ]
    total = [0.0] * 4
    for call in preset_calls(preset, 1, 256, torch.float16):
        if call.op != "inverted_residual":
            continue
        generator = torch.Generator().manual_seed(0)
        arguments = tuple(
            (0.1 * torch.randn(a.shape, generator=generator)).to(a.dtype) if isinstance(a, torch.Tensor) else a
            for a in call.arguments[:14]
        )
        y, (launch,) = run.run("inverted_residual", arguments, watch_banks=True, processors=processors)
        moved = launch.moved("x", "y")
        times = [
            moved / MEMORY,
            launch.products / PRODUCTS,
            launch.exponentials / EXPONENTIALS,
            launch.wavefronts / WAVEFRONTS + launch.sectors / 4 / LINES,
        ]
        total = [t + 1e6 * new for t, new in zip(total, times, strict=True)]
        shape = call.shape
        name = f"{shape['inputs']}→{shape['expanded']}→{shape['outputs']}, {shape['height']}², stride {shape['stride']}"
        lines.append(
            f"| {name} | {moved / 1e6:.2f} | {moved / (arguments[0].nbytes + y.nbytes):.2f} "
            f"| {launch.sectors * 32 / 1e6:.2f} "
            f"| {launch.products / 1e3:.0f} | {launch.exponentials / 1e6:.2f} | {launch.wavefronts / 1e3:.0f} "
            f"| {100 * launch.conflicts / launch.wavefronts:.0f} % " + "".join(f"| {1e6 * t:.2f} " for t in times) + "|"
        )
    lines.append("| all |" + " |" * 7 + "".join(f" {t:.2f} |" for t in total))
    return lines


def main(preset: str = "small", processors: int = 0) -> None:
    """Print the table of a preset with the tiles for a chip of so many multiprocessors; 0 gives the largest."""
    run.enable()
    typer.echo("\n".join(table(preset, processors)))


if __name__ == "__main__":
    typer.run(main)

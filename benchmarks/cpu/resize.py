"""Resizing photos: the kernel against Pillow, and the image processor with either: `python -m benchmarks resize`.

On one thread, turn by turn. Both resize RGB to a shortest edge and keep the middle; the kernel computes what the crop
keeps, Pillow everything. Before anything is timed, results are compared bit for bit.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL
import torch
import typer
from PIL import Image
from PIL.Image import Resampling

from benchmarks import environment, freshness
from benchmarks.cpu.table import commit_text, grid, machine_text
from benchmarks.timing import HostClock, interleaved
from mobilevit_fast.images import MobileViTImageProcessor, pipeline, resizing
from mobilevit_fast.images.resizing import centred_slices, resize_and_crop, supports_pillow
from mobilevit_fast.images.transforms import resized_shape
from mobilevit_fast.kernels import Support
from testing.threads import using_threads

BEGIN, END = "<!-- resize-table:begin -->", "<!-- resize-table:end -->"
SHORTEST, CROP = 288, 256
PHOTOS = ((256, 256), (500, 375), (640, 480), (1920, 1080), (4000, 3000))
"""Widths and heights."""
FILTERS = (Resampling.BILINEAR, Resampling.BICUBIC)


@contextmanager
def _by_pillow() -> Iterator[None]:
    """The image processor without the kernel."""
    modules: tuple[Any, ...] = (pipeline, resizing)
    for module in modules:
        module.supports_pillow = lambda: Support(False, "measured without it")
    try:
        yield
    finally:
        for module in modules:
            module.supports_pillow = supports_pillow


def products(size: tuple[int, int], resized: tuple[int, int], resample: Resampling) -> float:
    """Millions of products of eight pairs (`vpmaddwd`) that the kernel needs for a crop in the middle of RGB.

    A pass over columns has six sums in eight lanes. Windows are of one length, a whole number of pairs.
    """
    pairs = []
    for edge, new in zip(size, resized, strict=True):
        support = {Resampling.BILINEAR: 1, Resampling.BICUBIC: 2}[resample] * max(1.0, edge / new)
        pairs.append((int(2 * support) + 2) // 2)
    rows = min(size[0], round(CROP * size[0] / resized[0]) + 2 * pairs[0])
    across = rows * CROP / 2 * pairs[1] * 2
    down = CROP * CROP * 3 / 8 * pairs[0] * 2
    return (across + down) / 1e6


def _calls(width: int, height: int, resample: Resampling) -> dict[str, Callable[[], Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    picture, image = Image.fromarray(pixels), torch.from_numpy(pixels)
    size = resized_shape(height, width, {"shortest_edge": SHORTEST})
    planes = torch.empty(3, CROP, CROP, dtype=torch.uint8)
    interleaved_out = torch.empty(CROP, CROP, 3, dtype=torch.uint8).permute(2, 0, 1)
    processor = MobileViTImageProcessor(size=SHORTEST, resample=resample)

    def processed_by_pillow() -> Any:
        with _by_pillow():
            return processor(picture)

    def kernel(out: torch.Tensor) -> torch.Tensor:
        return resize_and_crop(image, size, (CROP, CROP), resample, out=out)

    rows, columns = (centred_slices(edge, CROP)[1] for edge in size)
    expected = np.asarray(picture.resize(size[::-1], resample))[rows, columns].transpose(2, 0, 1)
    for out in (planes, interleaved_out):
        if not np.array_equal(kernel(out).numpy(), expected):
            raise RuntimeError(f"expected Pillow's pixels of {width}x{height}, got others")
    if not torch.equal(processor(picture)["pixel_values"], processed_by_pillow()["pixel_values"]):
        raise RuntimeError(f"expected the processor's values of {width}x{height}, got others")
    return {
        "Pillow": lambda: picture.resize(size[::-1], resample),
        "planes": lambda: kernel(planes),
        "interleaved": lambda: kernel(interleaved_out),
        "processor by Pillow": processed_by_pillow,
        "processor": lambda: processor(picture),
    }


def measured(width: int, height: int, resample: Resampling, seconds: float) -> dict[str, Any]:
    """Milliseconds of one photo, medians of turns on one thread.

    Raises:
        RuntimeError: pixels differ, or something could not be timed.
    """
    with using_threads(1):
        timed = interleaved(_calls(width, height, resample), HostClock(0.0), seconds)
    if timed.reasons:
        raise RuntimeError(str(timed.reasons))
    size = resized_shape(height, width, {"shortest_edge": SHORTEST})
    return {
        "kind": "resize",
        "width": width,
        "height": height,
        "resample": resample.name.lower(),
        "products_millions": round(products((height, width), size, resample), 3),
        "ms": {name: round(1e3 * float(np.median(timed.seconds[name])), 4) for name in timed.seconds},
    }


def markdown(results: dict[str, Any]) -> str:
    """The table of a file of results, and what they were measured on."""
    facts, stamp = results["environment"], results["stamp"]
    conditions = (
        f"{machine_text(facts)}, of which one is used; Pillow {facts['pillow']}; {stamp['date']}, commit "
        f"{commit_text(facts)}. Milliseconds of an RGB image, to a shortest edge of {SHORTEST} of which {CROP}×{CROP} "
        f"are kept; medians of turns; in brackets how many times as fast.{freshness.remark('cpu', results)}"
    )
    lines = []
    for row in results["rows"]:
        ms = row["ms"]
        cells = [f"{ms['Pillow']:.3f}"]
        cells += [f"{ms[name]:.3f} ({ms['Pillow'] / ms[name]:.1f}×)" for name in ("planes", "interleaved")]
        before, after = ms["processor by Pillow"], ms["processor"]
        cells += [f"{before:.3f}", f"{after:.3f} ({before / after:.1f}×)"]
        lines.append([f"{row['width']}×{row['height']}, {row['resample']}", *cells])
    kernel = ("kernel, (3, H, W)", "kernel, (H, W, 3)")
    return f"{conditions}\n\n{grid(['', 'Pillow', *kernel, 'processor with Pillow', 'with the kernel'], lines)}"


def resize(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    seconds: Annotated[float, typer.Option(help="For each size and filter.", min=0.1)] = 8.0,
) -> None:
    """Resize photos by the kernel and by Pillow."""
    support = supports_pillow()
    if not support.ok:
        raise typer.BadParameter(support.reason)
    results: dict[str, Any] = environment.head(torch.get_num_threads(), pillow=PIL.__version__)
    results["rows"] = []
    for (width, height), resample in itertools.product(PHOTOS, FILTERS):
        results["rows"].append(measured(width, height, resample, seconds))
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    typer.echo(markdown(results))

"""Resizing photos: the kernel against Pillow, and the image processor with either: `python -m benchmarks resize`.

On one thread, turn by turn. Both resize RGB to a shortest edge and keep the middle; the kernel computes what the crop
keeps, Pillow everything. Before anything is timed, results are compared bit for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from PIL.Image import Resampling

from benchmarks.timing import HostClock, interleaved
from mobilevit_fast.images import MobileViTImageProcessor, pipeline, resizing
from mobilevit_fast.images.resizing import centred_slices, resize_and_crop, supports_pillow
from mobilevit_fast.images.transforms import resized_shape
from mobilevit_fast.kernels import Support
from testing.threads import using_threads

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


def resize(
    seconds: Annotated[float, typer.Option(help="For each size and filter.", min=0.1)] = 8.0,
) -> None:
    """Resize photos by the kernel and by Pillow."""
    support = supports_pillow()
    if not support.ok:
        raise typer.BadParameter(support.reason)
    names = ("Pillow", "planes", "interleaved", "processor by Pillow", "processor")
    print(f"ms of an image on one thread: shortest edge {SHORTEST}, crop {CROP}; ratios are to Pillow's\n")
    print("| photo | filter | M products |", " | ".join(names), "| ratio | of the processor |")
    print("|---|---|" + "---:|" * (len(names) + 3))
    with using_threads(1):
        for width, height in PHOTOS:
            for resample in FILTERS:
                size = resized_shape(height, width, {"shortest_edge": SHORTEST})
                timed = interleaved(_calls(width, height, resample), HostClock(0.0), seconds)
                if timed.reasons:
                    raise RuntimeError(str(timed.reasons))
                best = {name: 1e3 * float(np.median(timed.seconds[name])) for name in names}
                count = products((height, width), size, resample)
                ratio, whole = best["Pillow"] / best["planes"], best["processor by Pillow"] / best["processor"]
                numbers = [f"{count:.2f}", *(f"{best[name]:.3f}" for name in names), f"{ratio:.1f}", f"{whole:.1f}"]
                print(f"| {width}x{height} | {resample.name.lower()} |", " | ".join(numbers), "|")

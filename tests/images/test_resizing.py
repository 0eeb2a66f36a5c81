"""The processor with the C++ resize is the processor with Pillow's, and who resizes is decided by what is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling

from mobilevit_fast.images import ImageError, MobileViTImageProcessor, pipeline, resizing, transforms
from mobilevit_fast.images.resizing import resize_and_crop, rows_come_first, supports, supports_pillow
from mobilevit_fast.kernels import Support
from mobilevit_fast.ops.resize_crop import supports_device
from tests.images.pictures import assert_identical, noise, picture

SUPPORT = supports_pillow()
NATIVE = pytest.mark.skipif(not SUPPORT.ok, reason=SUPPORT.reason)


def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (resizing, pipeline):
        monkeypatch.setattr(module, "supports_pillow", lambda: Support(False, "it is to be Pillow"))


def random_settings(generator: np.random.Generator) -> dict[str, Any]:
    def maybe(share: float) -> bool:
        return bool(generator.random() < share)

    def edge() -> int:
        return int(generator.integers(1, 70))

    sizes = [
        {"shortest_edge": edge()},
        {"height": edge(), "width": edge()},
        {"max_height": 80, "max_width": edge() + 9},
    ]
    return {
        "do_resize": maybe(0.8),
        "size": sizes[generator.integers(3)],
        "resample": int(generator.choice([0, 1, 2, 2, 3, 3, 4, 5])),
        "do_rescale": maybe(0.8),
        "rescale_factor": float(generator.choice([1 / 255, 1 / 255, 1 / 127.5, 0.1, 0.0, -1 / 255])),
        "do_center_crop": maybe(0.8),
        "crop_size": {"height": edge(), "width": edge()},
        "do_normalize": maybe(0.5),
        "image_mean": [0.5, 0.0, 0.4814][generator.integers(3)],
        "image_std": [0.25, 0.2686, -1.5][generator.integers(3)],
        "do_flip_channel_order": maybe(0.5),
        "do_convert_rgb": maybe(0.5),
    }


def random_image(generator: np.random.Generator) -> Any:
    """Pictures of several modes, and arrays of several types and memory layouts."""
    height, width = (int(edge) for edge in generator.integers(5, 120, 2))
    seed = int(generator.integers(1000))
    kind = int(generator.integers(9))
    if kind < 3:
        return picture(height, width, str(generator.choice(["RGB", "RGB", "L", "RGBA", "P", "CMYK"])), seed)
    array = noise((height, width, int(generator.choice([1, 3, 3, 4]))), seed=seed)
    if kind == 3:
        array.setflags(write=False)
    elif kind == 4:
        array = array[::-1, ::-1]
    elif kind == 5:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    elif kind == 6:
        array = array.astype(str(generator.choice(["int32", "float32", "uint16"])))
    elif kind == 7:
        array = noise((height, width, 3), "float32", seed)
    return array


def processed(settings: dict[str, Any], images: Any, return_tensors: str | None) -> Any:
    try:
        result = MobileViTImageProcessor(**settings)(images, return_tensors=return_tensors)["pixel_values"]
    except ImageError as error:
        return str(error)
    return result


@NATIVE
@pytest.mark.filterwarnings("ignore:.*its values lie within")
@pytest.mark.parametrize("chunk", range(5))
def test_the_processor_gives_the_bits_that_it_gives_by_pillow(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(chunk)
    cases = []
    for _ in range(80):
        images = [random_image(generator) for _ in range(int(generator.integers(1, 3)))]
        tensors = [None, "np", "pt"][generator.integers(3)]
        cases.append((random_settings(generator), images, tensors))
    ours = [processed(*case) for case in cases]
    without_kernel(monkeypatch)
    failures = 0
    for case, mine in zip(cases, ours, strict=True):
        theirs = processed(*case)
        failures += isinstance(theirs, str)
        if isinstance(theirs, str):
            assert mine == theirs
            continue
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_identical(one, other)
    assert failures < len(cases) / 2


@NATIVE
def test_the_kernel_is_what_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is not asked where the kernel takes the case."""
    for module in (resizing, transforms):
        monkeypatch.setattr(module, "resize_by_pillow", None)
    MobileViTImageProcessor()([picture(300, 200), picture(200, 300, "L").convert("RGB")])
    with pytest.raises(TypeError):
        MobileViTImageProcessor(resample=Resampling.NEAREST)(picture(300, 200))


@NATIVE
def test_inputs_are_not_changed_nor_shared() -> None:
    image = noise((3, 20, 30))
    before = image.copy()
    processor = MobileViTImageProcessor(do_rescale=False, do_resize=False, do_center_crop=False, do_normalize=False)
    for tensors in (None, "np", "pt"):
        result = processor([image], return_tensors=tensors)["pixel_values"][0]
        assert not np.shares_memory(np.asarray(result), image)
    assert np.array_equal(image, before)


@NATIVE
@pytest.mark.parametrize("resample", Resampling)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whoever_resizes_the_result_is_pillows(channels: int, resample: Resampling) -> None:
    pixels = noise((37, 61, channels))
    resized = np.asarray(Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).resize((43, 29), resample))
    expected = np.zeros((channels, 31, 35), np.uint8)
    expected[:, 1:30] = resized.reshape(29, 43, channels).transpose(2, 0, 1)[:, :, 4:39]
    for given in (pixels, torch.from_numpy(pixels), pixels.transpose(1, 0, 2).copy().transpose(1, 0, 2)):
        for flip in (False, True):
            out = torch.full((31, 35, channels), 9, dtype=torch.uint8).permute(2, 0, 1)
            result = resize_and_crop(given, (29, 43), (31, 35), resample, flip_channels=flip, out=out)
            assert result is out
            assert_identical(out.numpy(), expected[::-1] if flip else expected)
            new = resize_and_crop(given, (29, 43), (31, 35), resample, flip_channels=flip)
            assert torch.equal(new, out)


@NATIVE
def test_what_the_kernel_does_not_take_has_a_reason() -> None:
    assert supports((5, 5, 3), Resampling.BILINEAR).ok
    assert "expected a filter among lanczos" in supports((5, 5, 3), Resampling.NEAREST).reason
    assert "channels, got 4" in supports((5, 5, 4), Resampling.BILINEAR).reason
    assert "edges of fewer than" in supports((5, 2**24, 3), Resampling.BILINEAR).reason
    assert "without sines" in supports((5, 5, 3), Resampling.LANCZOS, "cuda").reason
    assert "got one on mps" in supports((5, 5, 3), Resampling.BILINEAR, "mps").reason
    assert supports((5, 5, 3), Resampling.BICUBIC, "cuda") == supports_device("cuda")
    for version in ("9.5.0", "13.1.0", "14.0.0", "10.0.0.post1", "12.0.0.dev0"):
        assert f"got {version}" in supports_pillow(version, "x86_64").reason
    for version in ("10.0.1", "10.4.0", "11.3.0", "12.2.0", "13.0.0"):
        assert supports_pillow(version, "x86_64").ok
    assert "got aarch64" in supports_pillow(PIL.__version__, "aarch64").reason


def test_pillow_13_turns_the_passes_of_tall_images() -> None:
    assert rows_come_first((100, 50), (40, 21), "13.0.0")
    assert not rows_come_first((100, 50), (40, 20), "13.0.0")
    assert rows_come_first((100, 50), (99, 60), "13.0.0")
    assert not rows_come_first((100, 50), (100, 60), "13.0.0")
    assert not rows_come_first((100, 50), (40, 40), "12.2.0")

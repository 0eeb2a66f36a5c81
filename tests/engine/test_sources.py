"""Sources of images by paths, patterns and from Python: which, in which order, and what becomes of those that fail."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast import limits
from mobilevit_fast.cli import photos
from mobilevit_fast.engine.names import digest, from_text, to_text
from mobilevit_fast.engine.sources import SUFFIXES, Source, iterate
from mobilevit_fast.images import ImageError
from tests.engine.helpers import answers, names, put

NOT_UTF8 = os.fsdecode(b"caf\xe9 \xff.jpg")


def test_a_file_whatever_its_suffix(tmp_path: Path) -> None:
    paths = put(tmp_path, "a.jpg", "b.raw", "c")
    assert answers(paths) == {path: Path(path).name.encode() for path in paths}
    assert answers(paths[0]) == {paths[0]: b"a.jpg"}
    assert names(map(Path, paths)) == paths


def test_a_folder_at_any_depth_in_the_order_of_names(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/2.PNG", "a/10.png", "a/.hidden.png", ".git/x.png", "c/d/e.webp", "notes.txt", "z")
    expected = [str(tmp_path / name) for name in ("a/10.png", "a/2.PNG", "b.jpg", "c/d/e.webp")]
    assert names(tmp_path) == expected
    assert names(f"{tmp_path}/") == expected
    assert SUFFIXES is photos.SUFFIXES


def test_relative_paths_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/b.jpg", "c.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(["a", "./a//b.jpg", "./c.jpg", "c.jpg"]) == ["a/b.jpg", "c.jpg"]
    assert names("~/a") == [str(tmp_path / "a/b.jpg")]
    assert names(".") == ["./a/b.jpg", "./c.jpg"]


def test_links(tmp_path: Path) -> None:
    """Those to files count; those to folders do not, since they may lead back to where they are."""
    put(tmp_path, "real/a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/b.jpg").symlink_to(tmp_path / "real/a.jpg")
    (tmp_path / "photos/broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    assert answers(tmp_path / "photos") == {
        str(tmp_path / "photos/b.jpg"): b"real/a.jpg",
        str(tmp_path / "photos/broken.jpg"): "no such file or folder",
    }
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names([tmp_path / "link", f"{tmp_path}/lin*"]) == [str(tmp_path / "link/a.jpg")]


def test_deep_folders(tmp_path: Path) -> None:
    """Deeper than Python calls functions."""
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    assert names(tmp_path) == [f"{tmp_path}/{'d/' * 1200}x.png"]
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)


def test_what_is_no_image_is_answered_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = put(tmp_path, "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    odd = ["\ud800.jpg", "a\0b.jpg", "a\0b", f"{path}/x.jpg", f"{path}/x", "y" * 300]
    given = [f"{tmp_path}/{name}" for name in ("empty", "folder.png", "pipe.png", "gone.png", "gone", "*.bmp")]
    found = answers([*given, *odd, path])
    assert list(found) == [*given, *odd, path]
    assert found.pop(path) == b"a.jpg"
    assert list(found.values()) == [
        f"expected a folder with images ({', '.join(SUFFIXES)}), found none",
        "expected an image file, got a folder",
        "expected an image file, got a pipe, a device or the like",
        "no such file or folder",
        "no such file or folder",
        "expected a pattern that matches files, found none",
        *["no such file or folder"] * 5,
        "File name too long",
    ]
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 4)
    assert answers(path)[path].startswith("expected an image of at most 4 (mobilevit_fast.limits.MAX_IMAGE_BYTES")


def test_a_file_that_vanishes_after_it_was_found(tmp_path: Path) -> None:
    first, _ = put(tmp_path, "a.jpg", "b.jpg")
    sources = list(iterate(tmp_path))
    Path(first).unlink()
    with pytest.raises((OSError, ImageError), match=r"^no such file or folder$"):
        sources[0].read()
    assert sources[1].read() == b"b.jpg"
    assert pickle.loads(pickle.dumps(sources[1])).read() == b"b.jpg"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    path, other = put(tmp_path, "a.jpg", "closed/b.jpg")
    os.chmod(path, 0)
    os.chmod(tmp_path / "closed", 0)
    found = answers(tmp_path)
    os.chmod(tmp_path / "closed", 0o700)
    assert found == {path: "Permission denied", str(Path(other).parent): "Permission denied"}


def is_odd(name: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in name) or name.startswith("bytes:")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    put(tmp_path, NOT_UTF8, f"d\udcff/{NOT_UTF8}", "bytes:x.jpg")
    found = answers([tmp_path, "\ud800.jpg"])
    assert len(found) == 4
    assert found[f"{tmp_path}/{NOT_UTF8}"] == b"caf\xe9 \xff.jpg"
    assert answers(f"{tmp_path}/caf*").keys() == {f"{tmp_path}/{NOT_UTF8}"}
    for name in [*found, NOT_UTF8, "bytes:%41", "ß%\n"]:
        text = to_text(name)
        assert text.encode().decode() == text
        assert (text == name) == (not is_odd(name))
        assert from_text(text) == name or "\ud800" in name
    assert to_text(NOT_UTF8) == "bytes:caf%E9 %FF.jpg"
    assert len({digest(name) for name in ["a", "bytes:a", "\udcff", "bytes:%FF", "%FF", "\xff"]}) == 6


def test_patterns(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/1.jpg",
        "a/2.png",
        "a/b/3.jpg",
        "a/b/c/4.jpg",
        "d/5.jpg",
        "d/x.raw",
        ".h/6.jpg",
        "a/.7.jpg",
        "[8].jpg",
    )

    def found(pattern: str) -> list[str]:
        return [name.removeprefix(f"{tmp_path}/") for name in names(f"{tmp_path}/{pattern}")]

    assert found("a/*.jpg") == ["a/1.jpg"]
    assert found("?/[0-9].jpg") == ["a/1.jpg", "d/5.jpg"]
    assert found("**/*.jpg") == ["[8].jpg", "a/1.jpg", "a/b/3.jpg", "a/b/c/4.jpg", "d/5.jpg"]
    assert found("a/**/c/*.jpg") == ["a/b/c/4.jpg"]
    assert found("a/**") == ["a/1.jpg", "a/2.png", "a/b/3.jpg", "a/b/c/4.jpg"]
    assert found("**") == ["[8].jpg", "a/1.jpg", "a/2.png", "a/b/3.jpg", "a/b/c/4.jpg", "d/5.jpg"]
    assert found("d/*") == ["d/5.jpg"]
    assert found("d/*.raw") == ["d/x.raw"]
    assert found("*/b") == ["a/b/3.jpg", "a/b/c/4.jpg"]
    assert found("**/.*.jpg") == ["a/.7.jpg"]
    assert found("*/5.jpg") == ["d/5.jpg"]
    assert found("[8].jpg") == ["[8].jpg"]
    assert names(tmp_path / "a/*.jpg") == [f"{tmp_path}/a/*.jpg"]  # a Path is never a pattern


def test_a_pattern_of_everything_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    assert names("**") == names(".") == ["./2.jpg", "./a/1.jpg"]


def test_patterns_leave_the_masks_of_results_out(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "results/_manifest.json", "results/masks/1.png", "results/2.png", "masks/3.png")
    found = ["1.png", "masks/3.png", "results/2.png"]
    for pattern in ("**/*.png", "**", "*"):
        assert sorted(name.removeprefix(f"{tmp_path}/") for name in names(f"{tmp_path}/{pattern}")) == found, pattern


def test_images_in_memory() -> None:
    array = np.zeros((4, 4, 3), np.uint8)
    items: list[Any] = [array, torch.zeros(3, 4, 4), Image.new("RGB", (2, 2)), b"png", bytearray(b"x"), None, {"a": 1}]
    found = answers(items)
    assert list(found) == ["array 0", "tensor 1", "image 2", "bytes 3", "bytes 4", "source 5", "source 6"]
    assert found["array 0"] is array
    assert found["image 2"] is items[2]
    assert found["bytes 4"] == b"x"
    assert found["source 5"] == "expected a path, a numpy array, a torch tensor, a PIL image or bytes, got NoneType"
    assert names(np.zeros((2, 4, 4, 3))) == ["array 0", "array 1"]
    assert names([np.array(["a.jpg", "b.jpg"]), [array, [array]], "c.jpg"]) == [
        *["a.jpg", "b.jpg", "array 2", "array 3", "c.jpg"]
    ]
    assert names(items, shard=(1, 3)) == ["tensor 1", "bytes 4"]
    mine = Source("mine", b"1")
    assert list(iterate([mine])) == [mine]
    assert mine.read() == b"1"


@pytest.mark.parametrize("sources", [None, 5, {"a.jpg": 1}])
def test_what_holds_no_images(sources: Any) -> None:
    with pytest.raises(TypeError, match="expected paths, images, or an iterable of them, got"):
        iterate(sources)


def test_the_same_name_is_one_source(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a.jpg", "b.jpg")
    assert names([b, a, tmp_path, Path(a)]) == [b, a]


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_shards_are_the_whole_together(tmp_path: Path, count: int) -> None:
    put(tmp_path, *(f"{number % 3}/{number}.jpg" for number in range(20)))
    given = [tmp_path / "1", "gone", "gone", tmp_path]
    whole = names(given)
    assert len(whole) == 21
    parts = [names(given, shard=(index, count)) for index in range(count)]
    for index, part in enumerate(parts):
        assert part == whole[index::count]
    limited = [names(given, shard=(index, count), limit=7) for index in range(count)]
    assert sorted(name for part in limited for name in part) == sorted(whole[:7])
    # What is done already has its position nonetheless.
    assert [names(given, shard=(index, count), skip=whole[:9].__contains__) for index in range(count)] == [
        [name for name in part if name not in whole[:9]] for part in parts
    ]


@pytest.mark.parametrize("options", [{"shard": (2, 2)}, {"shard": (-1, 2)}, {"shard": (0, 0)}, {"limit": -1}])
def test_shards_and_limits_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^expected a (shard|limit)"):
        iterate("a.jpg", **options)


def test_nothing_is_asked_for_before_its_turn() -> None:
    taken = []

    def generated() -> Iterator[str]:
        for number in range(10**9):
            taken.append(number)
            yield f"{number}.jpg"

    found = iterate(generated())
    assert taken == []
    assert [next(found).name for _ in range(3)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert taken == [0, 1, 2]
    assert names(generated(), limit=2) == ["0.jpg", "1.jpg"]
    assert taken == [0, 1, 2, 0, 1]
    assert names(generated(), limit=0) == []


def test_many_names_take_little_memory() -> None:
    count = 50_000
    tracemalloc.start()
    try:
        assert (
            sum(1 for _ in iterate(f"folder/of/a/name/that/is/rather/long/{number}.jpg" for number in range(count)))
            == count
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # all of it digests: 100 MB for a million


def test_the_package_needs_none_of_its_extras() -> None:
    code = """
import sys
for name in ("fsspec", "pyarrow", "ray", "simplejpeg"):
    sys.modules[name] = None
from mobilevit_fast.engine.sources import iterate
from mobilevit_fast.engine import predictions
for name in ("s3://bucket/a.jpg", "s3://bucket/a", "a.parquet"):
    try:
        next(iterate(name)).read()
    except ImportError as error:
        print(error)
try:
    import mobilevit_fast.integrations.ray
except ImportError as error:
    print(error)
"""
    with open("/dev/null") as nothing:
        result = subprocess.run(
            [sys.executable, "-c", code.replace("a.parquet", __file__)], stdin=nothing, capture_output=True, text=True
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        *["URLs: expected the package fsspec, which is not installed (pip install fsspec)"] * 2,
        "mobilevit_fast.integrations.ray: expected the package ray, which is not installed "
        "(pip install 'ray[data,serve]>=2.58')",
    ]

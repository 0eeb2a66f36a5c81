"""Images in tar files: in order, as a stream, and up to where they are damaged."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from mobilevit_fast import limits
from mobilevit_fast.engine.sources import count, iterate, storage
from mobilevit_fast.engine.sources.shards import Member
from tests.engine.helpers import answers, names, tar_of

IMAGES = {f"{number:03}.jpg": bytes([number]) * (700 + number) for number in range(6)}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    members = {"./": b""} | {
        name.replace(".jpg", kind): content for name, content in IMAGES.items() for kind in (".cls", ".jpg")
    }
    path = tmp_path / "shard.tar"
    path.write_bytes(tar_of({name: content for name, content in members.items() if name != "./"}))
    return path


def expected(shard: Path, count: int = 6) -> dict[str, bytes]:
    return {f"{shard}/{name}": content for name, content in list(IMAGES.items())[:count]}


def test_images_are_answered_and_what_belongs_to_them_is_not(shard: Path) -> None:
    assert answers(shard) == expected(shard)
    assert answers(str(shard.parent / "*.tar")) == expected(shard)


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")]
)
def test_compressed(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"s{suffix}"
    path.write_bytes(tar_of(IMAGES, mode))
    assert answers(path) == expected(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *_, (name, error) = answers(path).items()
    assert name == str(path)
    assert error.startswith("expected a whole tar file, got one that fails with: ")


def test_folders_links_and_hidden_members(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("./a/b/1.png", "a/._1.png", ".h/2.png", "a", "../3.png", "/4.png", f"{'long' * 60}.png", "ü.png"):
            header = tarfile.TarInfo(name)
            header.type, header.size = (tarfile.DIRTYPE, 0) if name == "a" else (tarfile.REGTYPE, 2)
            archive.addfile(header, io.BytesIO(b"ok"))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a/b/1.png"
        archive.addfile(link)
    found = answers(path)
    assert list(found) == [
        f"{path}/{name}" for name in ("a/b/1.png", "4.png", f"{'long' * 60}.png", "ü.png", "link.png")
    ]
    assert found.pop(f"{path}/link.png") == "expected an image file, got a link or a device in a tar file"
    assert set(found.values()) == {b"ok"}


def test_members_have_positions(shard: Path) -> None:
    given = [shard, "x.jpg", shard]
    whole = [*expected(shard), "x.jpg"]
    for index in range(3):
        assert names(given, shard=(index, 3)) == whole[index::3]
    assert names(given, limit=2) == whole[:2]


def test_only_what_is_asked_for_is_read(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    extractfile = tarfile.TarFile.extractfile

    def noted(self: tarfile.TarFile, member: tarfile.TarInfo) -> object:
        read.append(member.name)
        return extractfile(self, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", noted)
    done = set(list(expected(shard))[:3])
    assert names(shard, skip=done.__contains__) == list(expected(shard))[3:]
    assert read == list(IMAGES)[3:]


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_cut_off_anywhere(shard: Path, shards: int, compressed: bool) -> None:
    """The images before are answered, and there is one error, whichever shard meets the end."""
    whole = tar_of(IMAGES)
    ends = [512 * number + offset for number in range(len(whole) // 512) for offset in (0, 1, 511)]
    end_of_images = 6 * 3 * 512  # a header and two blocks each
    path = shard.parent / ("cut.tar.gz" if compressed else "cut.tar")
    for end in ends if not compressed else ends[::5]:
        path.write_bytes(gzip.compress(whole[:end], 1) if compressed else whole[:end])
        found: dict[str, object] = {}
        for index in range(shards):
            part = answers(path, shard=(index, shards))
            assert not part.keys() & found.keys()
            found |= part
        error = found.pop(str(path), None)
        complete = min(end // (3 * 512), 6)
        images = expected(path)
        assert found.items() <= images.items()
        assert list(images)[:complete] == sorted(found)[:complete]
        if end >= end_of_images + 512:  # a block of zeros is the end
            assert error is None
            assert len(found) == 6
        else:
            assert str(error).startswith("expected a ")


def test_damaged_in_the_middle(shard: Path) -> None:
    """Which tarfile itself takes for the end."""
    content = bytearray(tar_of(IMAGES))
    content[3 * 3 * 512 + 20] ^= 0xFF
    shard.write_bytes(content)
    found = answers([shard, "x.jpg"])
    assert list(found) == [*expected(shard, 3), str(shard), "x.jpg"]
    assert found[str(shard)] == ("expected a whole tar file, got one that fails with: it is damaged or was cut off")


@pytest.mark.parametrize("content", [b"", b"x", bytes(10240), b"\xff" * 10240, tar_of({"a.txt": b""})])
def test_no_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    found = answers([path, tmp_path / "gone.tar"])
    assert list(found) == [str(path), f"{tmp_path}/gone.tar"]
    assert found[str(path)].startswith(("expected a whole tar file", "expected a tar file with images, found none"))
    assert found[f"{tmp_path}/gone.tar"] == "no such file or folder"


def test_a_member_that_is_too_large(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 702)
    found = answers(shard)
    assert list(found) == list(expected(shard))
    assert [isinstance(content, bytes) for content in found.values()] == [True] * 3 + [False] * 3


def test_members_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of({f"{number}.jpg": bytes(2000) for number in range(2000)}))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iterate(path)) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "TAR"])
def test_archives_are_not_read_to_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(tar_of({f"{i}.jpg": b"image" for i in range(100)}))
    (tmp_path / "list.txt").write_text(f"a.{suffix}\n")
    monkeypatch.setattr(Member, "load", lambda self: pytest.fail("an image was read"))
    assert count([str(tmp_path / "list.txt")]) is None
    monkeypatch.setattr(storage, "open_stream", lambda name: pytest.fail(f"{name} was opened"))
    assert count([str(tmp_path / f"a.{suffix}")]) is None

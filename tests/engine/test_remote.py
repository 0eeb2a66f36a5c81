"""Sources at URLs, through fsspec."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from mobilevit_fast import limits
from tests.engine.helpers import answers, names, put, tar_of


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_files_folders_and_patterns(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("b/1.jpg", "b/2.png", "b/c/3.jpg", "b/.h.jpg", "b/x.txt", "4.raw"):
        memory.pipe(f"/{name}", name.encode())
    assert answers("memory://b/1.jpg") == {"memory://b/1.jpg": b"b/1.jpg"}
    assert answers("memory://4.raw") == {"memory://4.raw": b"4.raw"}
    assert answers("memory://b") == {
        f"memory://b/{name}": f"b/{name}".encode() for name in ("1.jpg", "2.png", "c/3.jpg")
    }
    assert names("memory://b/") == [f"memory://b/{name}" for name in ("1.jpg", "2.png", "c/3.jpg")]
    assert names("memory://b/*.jpg") == ["memory://b/1.jpg"]
    assert names("memory://**/*.jpg") == ["memory://b/1.jpg", "memory://b/c/3.jpg"]
    assert names("memory:///b/?.*g") == ["memory:///b/1.jpg", "memory:///b/2.png"]
    assert names(["memory://b", "x.jpg"], shard=(1, 2)) == ["memory://b/2.png", "x.jpg"]


def test_what_is_not_there(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/folder/notes.md", b"")
    given = ["memory://a.jpg", "memory://a", "memory://a.tar", "memory://a.csv", "memory://*.jpg", "memory://folder"]
    found = answers([*given, "odd://x.jpg", "odd://x"])
    assert list(found) == [*given, "odd://x.jpg", "odd://x"]
    assert [found[name] for name in given[:4]] == ["no such file or folder"] * 4
    assert found["memory://*.jpg"] == "expected a pattern that matches files, found none"
    assert found["memory://folder"].startswith("expected a folder with images")
    assert "odd" in found["odd://x.jpg"]
    assert "odd" in found["odd://x"]


def test_tables_and_archives(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    (local,) = put(tmp_path, "local.jpg")
    memory.pipe("/d/1.jpg", b"1")
    memory.pipe("/d/s.tar", tar_of({"2.jpg": b"2", "2.json": b"{}", "3.jpg": b"3"}))
    memory.pipe("/d/t.csv", f"path,label\n1.jpg,a\ns.tar,b\n{local},c\n".encode())
    expected = {
        "memory://d/1.jpg": b"1",
        "memory://d/s.tar/2.jpg": b"2",
        "memory://d/s.tar/3.jpg": b"3",
        local: b"local.jpg",
    }
    assert answers("memory://d/t.csv") == expected
    assert answers("memory://d/s.tar") == dict(list(expected.items())[1:3])
    (tmp_path / "t.txt").write_text("memory://d/1.jpg\nlocal.jpg\nmemory://d/s.tar\n")
    assert answers(tmp_path / "t.txt") == expected
    memory.pipe("/d/s.tar", memory.cat("/d/s.tar")[:512])
    assert list(answers("memory://d/s.tar")) == ["memory://d/s.tar"]


def test_parquet(memory: fsspec.AbstractFileSystem) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    pq.write_table(pa.table({"path": ["1.jpg", "memory://e/2.jpg"]}), file)
    memory.pipe({"/d/t.parquet": file.getvalue(), "/d/1.jpg": b"1", "/e/2.jpg": b"2"})
    assert answers("memory://d/t.parquet") == {"memory://d/1.jpg": b"1", "memory://e/2.jpg": b"2"}


def test_files_of_this_machine(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "d/b.jpg")
    assert answers(f"file://{tmp_path}") == {
        f"file://{tmp_path}/a.jpg": b"a.jpg",
        f"file://{tmp_path}/d/b.jpg": b"d/b.jpg",
    }
    assert names(f"file://{tmp_path}/*/*.jpg") == [f"file://{tmp_path}/d/b.jpg"]


def test_chains(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("d/1.jpg", "d/e/2.jpg", "3.jpg"):
            archive.writestr(name, name)
    chain = f"::file://{path}"
    assert answers(f"zip://d{chain}") == {f"zip://d/1.jpg{chain}": b"d/1.jpg", f"zip://d/e/2.jpg{chain}": b"d/e/2.jpg"}
    assert names(f"zip://**/*.jpg{chain}") == [f"zip://{name}{chain}" for name in ("3.jpg", "d/1.jpg", "d/e/2.jpg")]


class Broken(fsspec.AbstractFileSystem):
    """A store whose library has errors of its own kind."""

    protocol = "broken"

    def _fail(self, *_: object, **__: object) -> None:
        class ClientError(Exception):
            pass

        raise ClientError("AccessDenied:\n you may not")

    info = ls = cat_file = _open = _fail  # type: ignore[assignment]


def test_errors_of_any_kind_are_those_of_one_source(tmp_path: Path) -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    (path,) = put(tmp_path, "a.jpg")
    given = ["broken://b/x.jpg", "broken://b/x", "broken://b/x.tar", "broken://b/x.txt"]
    assert answers([*given, path]) == dict.fromkeys(given, "AccessDenied: you may not") | {path: b"a.jpg"}


def test_a_file_system_whose_package_is_missing() -> None:
    with pytest.raises(ImportError, match=r"(?i)s3fs"):
        names("s3://bucket/folder")


def test_files_that_are_too_large_are_not_fetched(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 1000)
    memory.pipe({"/large.jpg": bytes(5_000_000), "/right.jpg": bytes(1000), "/empty.jpg": b""})
    fetched = []
    fetch = type(memory).cat_file

    def counted(self: fsspec.AbstractFileSystem, *arguments: object, **options: object) -> bytes:
        content = fetch(self, *arguments, **options)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(type(memory), "cat_file", counted)
    found = answers(["memory://large.jpg", "memory://right.jpg", "memory://empty.jpg"])
    assert found["memory://large.jpg"].startswith("expected an image of at most 1,000 ")
    assert found["memory://large.jpg"].endswith(", got 5,000,000")
    assert (found["memory://right.jpg"], found["memory://empty.jpg"]) == (bytes(1000), b"")
    assert fetched == [1001, 1000, 0]

"""Lists of paths: text, CSV, Parquet and the standard input."""

import io
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobilevit_fast.engine.sources import count, iterate
from mobilevit_fast.engine.sources.tables import rows_of_lines
from tests.engine.helpers import answers, names, put, tar_of

UTF8_MARK = b"\xef\xbb\xbf"


class Pipe(io.RawIOBase):
    """Blocks as they come through a pipe."""

    def __init__(self, blocks: list[bytes]) -> None:
        self.blocks = list(blocks)

    def read1(self, _: int) -> bytes:
        return self.blocks.pop(0) if self.blocks else b""


def write_parquet(path: Path, columns: dict[str, list], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    "content", [b"a.jpg\nb.jpg\n", b"a.jpg\r\n\n \nb.jpg", b"a.jpg\0b.jpg\0", UTF8_MARK + b"a.jpg\nb.jpg"]
)
def test_text(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.txt").write_bytes(content)
    expected = {f"{tmp_path}/a.jpg": b"a.jpg", f"{tmp_path}/b.jpg": b"b.jpg"}
    assert answers(tmp_path / "list.txt") == expected


@pytest.mark.parametrize(
    "content",
    [
        "label,PATH\n1,a.jpg\n2,b.jpg\n",
        "path;x\na.jpg\n\nb.jpg\n",  # the only column
        "image,name\r\na.jpg,1\r\nb.jpg,2",
        'file,note\n"a.jpg","two\nlines"\nb.jpg,',
        "name,url,source\nq,a.jpg,1\nq,b.jpg,2\n",
        "a.jpg\nb.jpg\n",  # without a header
        "\ufeffsource,x\na.jpg,\nb.jpg,\n",
    ],
)
def test_csv(tmp_path: Path, content: str) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text(content, newline="")
    assert answers(f"{tmp_path}/list.csv") == {f"{tmp_path}/{name}": name.encode() for name in ("a.jpg", "b.jpg")}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    values = ["a.jpg", "b.jpg", None]
    array = pa.array([v and v.encode() for v in values], kind) if kind == pa.binary() else pa.array(values, kind)
    pq.write_table(pa.table({"label": [1, 2, 3], "Path": array}), tmp_path / "list.parquet")
    assert answers(tmp_path / "list.parquet") == {
        f"{tmp_path}/a.jpg": b"a.jpg",
        f"{tmp_path}/b.jpg": b"b.jpg",
        f"{tmp_path}/list.parquet/row 2": "expected the path of an image in row 2 of the table",
    }


def test_images_inside_of_parquet(tmp_path: Path) -> None:
    """As data sets of Hugging Face have them."""
    put(tmp_path, "c.jpg")
    values = [
        {"bytes": b"1", "path": "same.jpg"},
        {"bytes": b"2", "path": "same.jpg"},
        {"bytes": None, "path": "c.jpg"},
    ]
    table = write_parquet(tmp_path / "t.parquet", {"image": [*values, None], "label": [1, 2, 3, 4]})
    assert answers(table) == {
        f"{table}/0": b"1",
        f"{table}/1": b"2",
        f"{tmp_path}/c.jpg": b"c.jpg",
        f"{table}/row 3": "expected the path of an image in row 3 of the table",
    }


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.parquet"])
def test_tables_without_what_is_needed(tmp_path: Path, name: str) -> None:
    """Are rows with an error, and what else was named is answered."""
    put(tmp_path, "z.jpg")
    table = tmp_path / name
    empty = {"t.txt": b"", "t.csv": b"path,label\n", "t.parquet": None}[name]
    write_parquet(table, {"path": pa.array([], pa.string())}) if empty is None else table.write_bytes(empty)
    good = f"{tmp_path}/z.jpg"
    suffix = table.suffix
    assert answers([table, good]) == {
        str(table): f"expected a {suffix} file with the paths of images, found none",
        good: b"z.jpg",
    }
    if name == "t.txt":
        table.write_bytes(b"z.jpg\n" + b"x" * (1 << 18))
        expected = "expected one path a line, got a line of more than 65,536 bytes"
    else:
        if name == "t.csv":
            table.write_text("id,label\n1,2\n")
        else:
            write_parquet(table, {"id": [1], "label": [2]})
        expected = "expected a column path, image, file, url or source, got 'id', 'label'"
    assert answers([table, good])[str(table)] == expected
    table.write_bytes(b'\xff\x00garbage,\n"' * 3)
    assert answers([table, good])[good] == b"z.jpg"


def test_a_table_that_is_damaged_further_down(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number}.jpg" for number in range(4)))
    (tmp_path / "t.csv").write_text('path\n0.jpg\n1.jpg\n"2.jpg')
    found = answers(tmp_path / "t.csv")
    assert list(found)[:2] == [f"{tmp_path}/0.jpg", f"{tmp_path}/1.jpg"]
    assert "unexpected end of data" in found[f"{tmp_path}/t.csv"]
    (tmp_path / "t.csv").write_text("path,x\n0.jpg,1\n,2\n3.jpg,4\n")
    assert list(answers(tmp_path / "t.csv")) == [*(f"{tmp_path}/{name}" for name in ("0.jpg", "t.csv/line 3", "3.jpg"))]


def test_relative_paths_are_those_of_the_folder_or_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "lists/gone.txt", "lists/a.jpg", "b.jpg", "lists/b.jpg", "c.jpg")
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "lists/t.txt"
    absolute = f"{tmp_path}/c.jpg"
    # The first that exists decides for those after it, so that nobody waits for the disk at every row.
    table.write_text(f"{absolute}\ngone.jpg\na.jpg\nb.jpg\nc.jpg\n")
    assert answers("lists/t.txt") == {
        absolute: b"c.jpg",
        "lists/gone.jpg": "no such file or folder",
        "lists/a.jpg": b"lists/a.jpg",
        "lists/b.jpg": b"lists/b.jpg",
        "lists/c.jpg": "no such file or folder",
    }
    table.write_text("c.jpg\nb.jpg\n./lists//a.jpg\n")
    assert answers("lists/t.txt") == {"c.jpg": b"c.jpg", "b.jpg": b"b.jpg", "lists/a.jpg": b"lists/a.jpg"}


def test_archives_in_tables_and_what_is_in_no_table(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar_of({"x.jpg": b"x"}))
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.txt").write_text("s.tar\nfolder\nmemory://nothing.jpg\nodd://x.jpg\nt.txt\n")
    found = answers(tmp_path / "t.txt")
    assert found[f"{tmp_path}/s.tar/x.jpg"] == b"x"
    assert found[f"{tmp_path}/folder"] == "expected an image file, got a folder"
    assert found["memory://nothing.jpg"] == "no such file or folder"
    assert "odd" in found["odd://x.jpg"]
    assert len(found) == 5


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    put(tmp_path, name)
    for table, content in (("t.txt", b"caf\xe9.jpg\n"), ("t.csv", b"path,x\ncaf\xe9.jpg,1\n")):
        (tmp_path / table).write_bytes(content)
        assert answers(tmp_path / table) == {f"{tmp_path}/{name}": b"caf\xe9.jpg"}
    table = write_parquet(tmp_path / "t.parquet", {"path": [b"caf\xe9.jpg"]})
    assert answers(table) == {f"{tmp_path}/{name}": b"caf\xe9.jpg"}


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([b"a", b".jpg\nb.j", b"pg\n"], ["a.jpg", "b.jpg"]),
        ([b"a.jpg\0b\n.jpg\0"], ["a.jpg", "b\n.jpg"]),
        ([b"a.jpg\0", b"b\n.jpg\0", b" \0\0"], ["a.jpg", "b\n.jpg", " "]),
        ([b"a.jpg", b"\0b\r\n\0"], ["a.jpg", "b\r\n"]),
    ],
)
def test_the_standard_input(blocks: list[bytes], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(rows_of_lines(Pipe(blocks))) == expected  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(blocks))))
    assert names(["-", "z.jpg"]) == [*expected, "z.jpg"]


def test_the_standard_input_is_answered_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        found: Iterator = iterate("-")
        for name in ("a.jpg", "b.jpg"):
            pipe.write(f"{name}\n".encode())
            assert next(found).name == name  # and the pipe is still open
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert answers("-") == {"-": "expected paths of images on the standard input, found none"}
    monkeypatch.setattr(sys, "stdin", None)
    assert answers("-") == {"-": "expected a standard input to read from, found it closed"}


@pytest.mark.parametrize("kind", [".txt", ".csv", ".parquet"])
def test_tables_are_not_held_whole(tmp_path: Path, kind: str) -> None:
    rows = [f"/photos/{'x' * 200}/{number}.jpg" for number in range(40_000)]  # 9 MB
    table = tmp_path / f"t{kind}"
    if kind == ".parquet":
        write_parquet(table, {"path": rows, "other": rows}, row_group_size=5000)
    else:
        table.write_text("\n".join(["path", *rows]))
    del rows
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        count, most = 0, 0
        for _ in iterate(table):
            count += 1
            if count % 1000 == 0:
                most = max(most, pa.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 40_000 + (kind == ".txt")
    assert peak < 8e6  # half of it digests
    assert most < 4e6


def test_what_can_be_counted(tmp_path: Path) -> None:
    paths = put(tmp_path, "a.jpg", "b.jpg", "more/c.png", "more/d.png")
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\nnone.jpg\na.jpg\n")
    given = [str(tmp_path), str(tmp_path / "list.txt"), *paths]
    assert count(given) == 5
    assert [count(given, shard=(index, 3)) for index in range(3)] == [2, 2, 1]
    assert count(given, limit=3) == 3
    images = pa.array([{"bytes": b"1", "path": None}] * 3)
    for column, expected in ((["a.jpg", "b.jpg"], 2), (images, None)):
        write_parquet(tmp_path / "t.parquet", {"image": column})
        assert count([str(tmp_path / "t.parquet")]) == expected
    os.mkfifo(tmp_path / "pipe.txt")
    for once in ("-", str(tmp_path / "pipe.txt"), "memory://folder"):
        assert count([*paths, once]) is None

"""A folder of results: what it holds in every format, what goes on with it, and what it refuses."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.engine.results import ResultsFolder, read_results
from tests.engine.rows import FORMATS, assert_same_row, files_of, opened, prediction, row, rows_of, run

NAMES = [f"{number}.jpg" for number in range(8)]
ODD_NAMES = [
    os.fsdecode(b"caf\xe9/\xff.jpg"),
    "ü 日本.jpg",
    'a "quoted", one',
    "two\nlines\r.jpg",
    " space ",
    "bytes:%41",
    "a\x00b",
    "\u2028",
    "'=1+1",
    "null",
    "x" * 4096,
]


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_come_back_in_their_order(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "new" / "results"
    assert run(folder, NAMES, failing=NAMES[2:4], format=kind) == NAMES
    assert list(read_results(folder)) == [row(name, failed=name in NAMES[2:4]) for name in NAMES]
    assert sorted(files_of(folder)) == ["_manifest.json", "_stats.json", *(f"part-00000{i}.{kind}" for i in range(3))]
    assert json.loads((folder / "_stats.json").read_bytes()) == {"images": 8}


@pytest.mark.parametrize("kind", FORMATS)
def test_names_of_every_kind(tmp_path: Path, kind: str) -> None:
    labels = ('ü, \n"x"', "\udcff")
    with opened(tmp_path, format=kind) as results:
        for name in ODD_NAMES:
            results.add(Prediction(name, labels, (0, 1), (0.5, 0.25)))
        results.add(Prediction("failed", error=f"not \udcff {ODD_NAMES[1]}"))
    found = rows_of(tmp_path)
    assert list(found) == [*ODD_NAMES, "failed"]
    assert found["null"]["label"] == ['ü, \n"x"', "\\udcff"]
    assert found["failed"]["error"] == f"not \\udcff {ODD_NAMES[1]}"
    with opened(tmp_path, format=kind) as results:
        assert len(results) == len(found)
        assert all(results.is_done(name) for name in ODD_NAMES)
        assert not results.is_done("bytes:A")
    for path in tmp_path.glob("part-*"):
        if kind != "parquet":
            path.read_bytes().decode("utf-8")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_output(tmp_path: Path, kind: str) -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    vectors = (
        {}
        if kind == "csv"
        else {"embedding": np.array([0.1, -1e-30, 3e38], np.float32), "logits": np.zeros(2, np.float32)}
    )
    outputs = ["mask", "score", "index", "label", *vectors]
    one = Prediction("a", ("x", "y"), (3, 1), (0.75, 0.25), mask=mask, **vectors)
    with opened(tmp_path, format=kind, outputs=outputs) as results:
        results.add(one)
        results.add(Prediction("b", error="no"))
        results.add(Prediction("c", ("x",), (3,), (1.0,), mask=mask.astype(np.int32) * 1000))
    first, second, third = read_results(tmp_path)
    masks = [found.pop("mask") for found in (first, second, third)]
    assert_same_row(
        first, {"source": "a", "error": None, "label": ["x", "y"], "index": [3, 1], "score": [0.75, 0.25], **vectors}
    )
    assert second == {"source": "b", "error": "no"} | dict.fromkeys(["label", "index", "score", *vectors])
    assert third["label"] == ["x"]
    for content, expected in ((masks[0], mask), (masks[2], mask.astype(np.int32) * 1000)):
        with Image.open(io.BytesIO(content) if kind == "parquet" else tmp_path / content) as picture:
            np.testing.assert_array_equal(np.array(picture), expected)
    assert masks[1] is None
    assert (tmp_path / "masks").exists() == (kind != "parquet")
    run(tmp_path, [], format=kind, overwrite=True)
    assert not (tmp_path / "masks").exists()


def test_what_other_programs_see(tmp_path: Path) -> None:
    for kind in FORMATS:
        run(tmp_path / kind, ["a.jpg", "b.jpg"], failing=["b.jpg"], format=kind, part_rows=9)
    table = pq.read_table(tmp_path / "parquet")
    assert table.column_names == ["source", "error", "label", "score"]
    assert [str(one) for one in table.schema.types[2:]] == ["list<element: string>", "list<element: float>"]
    lines = (tmp_path / "jsonl/part-000000.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["a.jpg", "b.jpg"]
    with open(tmp_path / "csv/part-000000.csv", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["source", "error", "label_1", "score_1", "label_2", "score_2"]
    assert first == [
        "a.jpg",
        "",
        *map(str, (prediction("a.jpg").labels[0], prediction("a.jpg").scores[0])),
        "other",
        "0.0",
    ]
    assert second == ["b.jpg", "no image in b.jpg", "", "", "", ""]


@pytest.mark.parametrize("kind", FORMATS)
def test_numbers_that_json_does_not_have(tmp_path: Path, kind: str) -> None:
    outputs = ["score"] if kind == "csv" else ["score", "embedding"]
    vector = np.array([np.nan, 1, np.inf], np.float32)
    with opened(tmp_path, format=kind, outputs=outputs) as results:
        results.add(Prediction("a", scores=(float("nan"), 0.5), embedding=vector))
        results.finish({"rate": float("inf"), "all": [1.0, float("nan")]})
    (found,) = read_results(tmp_path)
    assert found["score"] == [None, 0.5]
    if kind == "jsonl":
        assert json.loads((tmp_path / "part-000000.jsonl").read_text(), parse_constant=pytest.fail)["embedding"] == [
            None,
            1,
            None,
        ]
    elif kind == "parquet":
        np.testing.assert_array_equal(found["embedding"], vector)
    stats = json.loads((tmp_path / "_stats.json").read_text(), parse_constant=pytest.fail)
    assert stats == {"rate": None, "all": [1.0, None]}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_goes_on_where_another_one_ended(tmp_path: Path, kind: str) -> None:
    assert run(tmp_path, NAMES[:4], format=kind) == NAMES[:4]
    before = files_of(tmp_path)
    assert run(tmp_path, NAMES, salt=1, format=kind) == NAMES[4:]
    after = files_of(tmp_path)
    assert {name: after[name] for name in before if name != "_stats.json"} == {
        name: content for name, content in before.items() if name != "_stats.json"
    }
    assert list(rows_of(tmp_path).values()) == [row(name, int(name in NAMES[4:])) for name in NAMES]
    assert run(tmp_path, NAMES, format=kind) == []
    with pytest.raises(ValueError, match="expected no results there, found some; resume, overwrite or move them"):
        run(tmp_path, NAMES, format=kind, resume=False)


def test_parts_are_small_where_rows_are_large(tmp_path: Path) -> None:
    with opened(tmp_path, outputs=["embedding"], part_rows=10**6) as results:
        for number in range(5):
            results.add(Prediction(str(number), embedding=np.zeros(1 << 22, np.float32)))  # 16 MB
        assert len(list(read_results(tmp_path))) == 4


def test_a_source_has_one_row(tmp_path: Path) -> None:
    run(tmp_path, ["a"])
    with opened(tmp_path) as results:
        results.add(prediction("b"))
        for name in ("a", "b"):
            with pytest.raises(ValueError, match=f"expected each source once, got {name} again"):
                results.add(prediction(name))
    assert list(rows_of(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_results_of_another_run_are_refused(tmp_path: Path, overwrite: bool) -> None:
    run(tmp_path, NAMES, fingerprint={"weights": "a", "dtype": "float32", "size": (1, 2)})
    before = files_of(tmp_path)
    other: dict[str, Any] = {"fingerprint": {"weights": "b", "size": [1, 2], "device": "cpu"}, "format": "jsonl"}
    if not overwrite:
        expected = "expected results of the same run, found those with other weights, dtype, format, device; overwrite"
        with pytest.raises(ValueError, match=expected):
            run(tmp_path, NAMES, **other)
        assert files_of(tmp_path) == before
    else:
        assert run(tmp_path, NAMES[:2], salt=1, overwrite=True, **other) == NAMES[:2]
        assert list(read_results(tmp_path)) == [row(name, 1) for name in NAMES[:2]]
        assert sorted(files_of(tmp_path)) == ["_manifest.json", "_stats.json", "part-000000.jsonl"]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    mine = {"notes.txt": b"mine", "part-0.parquet": b"mine", "part-000000.csv": b"mine", ".a.txt.12.tmp": b"mine"}
    (tmp_path / "part-000000.csv").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=r"expected results with a _manifest\.json, found part-000000\.csv without"
        ):
            run(tmp_path, NAMES, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["part-000000.csv"]
    (tmp_path / "part-000000.csv").unlink()
    run(tmp_path, NAMES)
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/photo.png").write_bytes(b"mine")
    run(tmp_path, NAMES[:1], overwrite=True, part_rows=1)
    found = files_of(tmp_path)
    assert found.items() >= (mine | {"masks/photo.png": b"mine"}).items()
    assert len(found) == len(mine) + 1 + 3


def test_leftovers_of_killed_writers_are_removed_by_a_run_that_has_nothing_to_write(tmp_path: Path) -> None:
    run(tmp_path, NAMES)
    before = files_of(tmp_path)
    for name in ("part-000007.parquet", "part-00001-of-00002-000000.jsonl", "_manifest.json", "_stats.json"):
        (tmp_path / f".{name}.00aa11.tmp").write_bytes(b"half")
    with opened(tmp_path):
        assert files_of(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"kind": "results of mobilevit_fast"}', '{"kind": 1}'])
def test_a_manifest_of_something_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "_manifest.json").write_text(content)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"_manifest\.json: expected"):
            run(tmp_path, NAMES, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["_manifest.json"]
    with pytest.raises(ValueError, match="expected"):
        next(read_results(tmp_path))


def test_a_damaged_part(tmp_path: Path) -> None:
    for kind in FORMATS:
        run(tmp_path / kind, NAMES, format=kind)
        (tmp_path / kind / f"part-000001.{kind}").write_bytes(b'"x\xff\x00')
        with pytest.raises(ValueError, match=rf"part-000001\.{kind}: expected a part of results, got a damaged file"):
            run(tmp_path / kind, NAMES, format=kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_that_was_cut_off(tmp_path: Path, kind: str) -> None:
    run(tmp_path, NAMES, format=kind)
    part = tmp_path / f"part-000001.{kind}"
    part.write_bytes(part.read_bytes()[:-7])
    message = rf"part-000001\.{kind}: expected a part of results, got a damaged file"
    with pytest.raises(ValueError, match=message):
        list(read_results(tmp_path))
    if kind != "csv":  # whose sources and errors are whole
        with pytest.raises(ValueError, match=message):
            run(tmp_path, NAMES, format=kind)


@pytest.mark.parametrize("path", ["", "s3://bucket/results", "memory://results", Path("s3://bucket/results")])
def test_results_are_on_this_machine(path: Any) -> None:
    with pytest.raises(ValueError, match="expected a folder of this machine for results, got"):
        ResultsFolder(path, fingerprint={})


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder of results"):
        next(read_results(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="expected a folder for results, got a file"):
        run(tmp_path / "file", NAMES)
    assert run(tmp_path / "empty", []) == []
    assert list(read_results(tmp_path / "empty")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "expected the format parquet, jsonl or csv, got 'xml'"),
        ({"format": "csv", "outputs": ["label", "embedding", "logits"]}, "jsonl for embedding and logits, got csv"),
        ({"outputs": ["labels"]}, "expected outputs, some of label, index"),
        ({"outputs": []}, "expected outputs"),
        ({"part_rows": 0}, "expected part_rows"),
        ({"shard": (2, 2)}, "expected a shard"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_mask_that_no_png_holds(tmp_path: Path) -> None:
    with (
        opened(tmp_path, outputs=["mask"]) as results,
        pytest.raises(ValueError, match=r"within \[0, 65535\], got -1…0"),
    ):
        results.add(Prediction("a", mask=np.array([[-1, 0]])))


@pytest.mark.parametrize("kind", FORMATS)
def test_failed_sources_are_done_again(tmp_path: Path, kind: str) -> None:
    failing = [*NAMES[:3], NAMES[4], NAMES[7]]  # all of the first part, one of the second, one of the third
    run(tmp_path, NAMES, failing=failing, format=kind)
    assert run(tmp_path, NAMES, format=kind) == []
    assert run(tmp_path, NAMES, salt=1, failing=NAMES[:1], format=kind, retry_failed=True) == failing
    expected = {name: row(name, int(name in failing), failed=name == NAMES[0]) for name in NAMES}
    assert rows_of(tmp_path) == expected
    assert run(tmp_path, NAMES, format=kind) == []
    assert run(tmp_path, NAMES[1:], format=kind, retry_failed=True) == []
    assert rows_of(tmp_path) == expected  # what is not named again keeps its row


@pytest.mark.parametrize("kind", FORMATS)
def test_failed_rows_go_with_the_part_that_answers_their_sources(tmp_path: Path, kind: str) -> None:
    run(tmp_path, NAMES, failing=NAMES, format=kind)
    with opened(tmp_path, format=kind, retry_failed=True, part_rows=2) as results:
        assert len(results) == len(NAMES)
        for number, name in enumerate(NAMES[1:6]):
            results.add(prediction(name))
            answered = NAMES[1 : 1 + (number + 1) // 2 * 2]
            assert rows_of(tmp_path) == {name: row(name, failed=name not in answered) for name in NAMES}
            with pytest.raises(ValueError, match="expected each source once"):
                results.add(prediction(name))
    assert rows_of(tmp_path) == {name: row(name, failed=name not in NAMES[1:6]) for name in NAMES}


def test_shards_that_retry_at_once_share_the_parts_of_a_run_without_shards(tmp_path: Path) -> None:
    run(tmp_path, NAMES, failing=NAMES)
    with (
        opened(tmp_path, shard=(0, 2), retry_failed=True) as first,
        opened(tmp_path, shard=(1, 2), retry_failed=True) as second,
    ):
        for name in NAMES[:6]:
            (second if NAMES.index(name) % 2 else first).add(prediction(name))
    assert rows_of(tmp_path) == {name: row(name, failed=name in NAMES[6:]) for name in NAMES}


def test_shards_write_into_one_folder_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path, shard=(0, 2)) as first, opened(tmp_path, shard=(1, 2)) as second:
        for results, names in ((first, NAMES[::2]), (second, NAMES[1::2])):
            for name in names:
                results.add(prediction(name))
        for shard, expected in (((1, 2), "another process"), ((0, 3), "another process"), (None, "another process")):
            with pytest.raises(RuntimeError, match=expected), opened(tmp_path, shard=shard):
                pass
        with pytest.raises(RuntimeError, match="another process"):
            run(tmp_path, [], shard=(0, 2), overwrite=True)
        first.finish({})
        second.finish({"images": 1})
    assert {name for name in files_of(tmp_path) if name < "part"} == {
        *("_manifest.json", "_stats-00000-of-00002.json", "_stats-00001-of-00002.json")
    }
    assert (tmp_path / "part-00001-of-00002-000001.parquet").exists()
    assert list(rows_of(tmp_path)) == NAMES[::2] + NAMES[1::2]
    assert run(tmp_path, NAMES) == []  # also for a run that is not one of them
    with opened(tmp_path), pytest.raises(RuntimeError, match="another process"):
        run(tmp_path, [], shard=(0, 2))


def test_shards_that_overwrite(tmp_path: Path) -> None:
    run(tmp_path, NAMES)
    new = {"fingerprint": {"weights": "b"}, "overwrite": True}
    assert run(tmp_path, NAMES[::2], shard=(0, 2), **new) == NAMES[::2]
    with pytest.raises(ValueError, match="other weights"):
        run(tmp_path, NAMES[1::2], shard=(1, 2))
    assert run(tmp_path, NAMES[1::2], shard=(1, 2), **new) == NAMES[1::2]
    assert list(rows_of(tmp_path)) == NAMES[::2] + NAMES[1::2]
    assert run(tmp_path, NAMES[::2], 1, shard=(0, 2), **new) == NAMES[::2]
    assert list(rows_of(tmp_path).values()) == [
        *(row(name, 1) for name in NAMES[::2]),
        *(row(name) for name in NAMES[1::2]),
    ]
    with pytest.raises(
        ValueError, match="expected parts of 3 shards to overwrite one of them, found part-00000-of-00002"
    ):
        run(tmp_path, NAMES, shard=(0, 3), **new)


def test_shards_that_retry_leave_the_rows_of_their_siblings(tmp_path: Path) -> None:
    run(tmp_path, NAMES[::2], failing=NAMES, shard=(0, 2))
    run(tmp_path, NAMES[1::2], failing=NAMES, shard=(1, 2))
    assert run(tmp_path, NAMES[::2], shard=(0, 2), retry_failed=True) == NAMES[::2]
    found = rows_of(tmp_path)
    assert [found[name]["error"] is None for name in NAMES] == [True, False] * 4
    assert run(tmp_path, NAMES, retry_failed=True) == NAMES[1::2]  # of another number of shards: nobody else's

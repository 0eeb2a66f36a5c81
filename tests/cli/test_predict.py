"""`mobilevit-fast predict`: what is written, said and refused."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mobilevit_fast.cli import app
from mobilevit_fast.engine import Engine, read_results
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from tests.engine.pictures import encoded, picture, written

FORMATS = ["parquet", "jsonl", "csv"]


def run(*arguments: object, input: str | None = None) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], input=input)


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = [*read_results(folder)]
    assert len({row["source"] for row in found}) == len(found)
    return {row["source"]: row for row in found}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_is_answered_as_by_the_engine(classifier: Path, photos: Path, out: Path, format: str) -> None:
    result = run(photos, "--model", classifier, "--out", out, "--format", format, "--top-k", 3, "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("6 images in ")
    assert "images/s, bound by " in result.stdout
    engine = Engine(
        MobileViTForImageClassification.from_pretrained(classifier).eval(),
        MobileViTImageProcessor.from_pretrained(classifier),
        top_k=3,
    )
    found = rows(out)
    expected = [*engine.stream(photos)]
    assert list(found) == [one.source for one in expected]
    for one in expected:
        assert found[one.source]["label"] == list(one.labels)
        assert found[one.source]["score"] == pytest.approx(one.scores, rel=1e-5)
        assert found[one.source]["error"] is None
    stats = json.loads((out / "_stats.json").read_text())
    assert stats["images"] == 6


def test_the_second_call_goes_on(classifier: Path, photos: Path, out: Path) -> None:
    arguments = [photos, "--model", classifier, "--out", out, "--format", "jsonl"]
    assert run(*arguments, "--limit", 2).exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 0
    assert "4 images (2 were there already)" in result.stdout
    assert len(rows(out)) == 6
    assert "0 images (6 were there already)" in run(*arguments).stdout


def test_broken_images_are_rows_and_status_1(classifier: Path, photos: Path, out: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xffno")
    arguments = [photos, photos / "gone.png", "--model", classifier, "--out", out, "--format", "jsonl"]
    result = run(*arguments)
    assert result.exit_code == 1
    assert "8 images, 2 failed" in result.stdout
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 2
    failed = {source for source, row in rows(out).items() if row["error"] is not None}
    assert failed == {str(photos / "broken.jpg"), str(photos / "gone.png")}
    (photos / "broken.jpg").write_bytes(encoded(picture(70, 70)))
    before = run(*arguments)
    assert before.exit_code == 1
    assert "0 images (8 were there already, 2 of them failed: --retry-failed)" in before.stdout
    again = run(*arguments, "--retry-failed")
    assert "2 images (6 were there already), 1 failed" in again.stdout
    assert rows(out)[str(photos / "broken.jpg")]["error"] is None


def test_results_of_another_model_are_refused(classifier: Path, photos: Path, out: Path) -> None:
    assert run(photos, "--model", classifier, "--out", out, "--format", "jsonl").exit_code == 0
    result = run(photos, "--out", out, "--format", "jsonl", "--model", "digits")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "weights" in result.stderr
    assert len(rows(out)) == 6
    assert run(photos, "--out", out, "--format", "jsonl", "--model", "digits", "--overwrite").exit_code == 0


def test_paths_come_from_standard_input(classifier: Path, photos: Path, out: Path) -> None:
    lines = f"{photos / 'a.jpg'}\n{photos / 'b.png'}\n"
    result = run("-", "--model", classifier, "--out", out, "--format", "csv", input=lines)
    assert result.exit_code == 0, result.output
    assert list(rows(out)) == lines.split()


def test_shards_together_are_one_run(classifier: Path, photos: Path, out: Path, tmp_path: Path) -> None:
    arguments = [photos, "--model", classifier, "--format", "jsonl"]
    assert run(*arguments, "--out", tmp_path / "one").exit_code == 0
    alone = rows(tmp_path / "one")
    assert run(*arguments, "--out", out, "--shard", "1/2").exit_code == 0
    assert [*rows(out)] == [*alone][1::2]
    second = run(*arguments, "--out", out, "--shard", "0/2")
    assert second.stdout.startswith("3 images in ")
    assert rows(out) == alone


def test_outputs_are_chosen(classifier: Path, segmenter: Path, photos: Path, out: Path, tmp_path: Path) -> None:
    result = run(photos, "--model", classifier, "--out", out, "--output", "label,embedding,logits")
    assert result.exit_code == 0, result.output
    row = next(iter(rows(out).values()))
    assert len(row["logits"]) == 4
    assert len(row["embedding"]) == 16
    masks = tmp_path / "masks"
    assert run(photos, "--model", segmenter, "--out", masks).exit_code == 0
    assert next(iter(rows(masks).values()))["mask"] is not None


def test_json_is_the_report(classifier: Path, photos: Path, out: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    result = run(photos, "--model", classifier, "--out", out, "--json", "--stats", stats)
    values = json.loads(result.stdout)
    assert (values["images"], values["failed"], values["out"]) == (6, 0, str(out))
    assert json.loads(stats.read_text())["stages"] == values["stages"]


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Have packages that are not installed."""
    for module in [*sys.modules]:
        if module.partition(".")[0] in packages:
            monkeypatch.delitem(sys.modules, module)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_without_pyarrow_it_says_how_to_go_on(
    classifier: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "pyarrow")
    result = run(photos, "--model", classifier, "--out", out)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: --format: Parquet: expected the package pyarrow, which is not installed (pip install pyarrow), "
        "or go without it: --format jsonl"
    ]
    assert not out.exists()
    assert run(photos, "--model", classifier, "--out", out, "--format", "jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("package", "url", "kind"),
    [("fsspec", "memory://a.jpg", ""), ("s3fs", "s3://b/a.jpg", "s3:// "), ("gcsfs", "gs://b/", "gs:// ")],
)
def test_a_package_that_urls_need_ends_it_with_what_it_has(
    classifier: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, package: str, url: str, kind: str
) -> None:
    hide(monkeypatch, package)
    first = photos / "a.jpg"
    result = run(first, url, "--model", classifier, "--out", out, "--format", "jsonl", "--batch-size", 1)
    assert result.exit_code == 1
    remedy = f"expected the package {package}, which is not installed (pip install {package})"
    assert result.stderr.splitlines() == [f"error: {kind}URLs: {remedy}"]
    assert [*rows(out)] == [str(first)]


def test_devices_are_written_to_and_stay_what_they_are(classifier: Path, photos: Path, out: Path) -> None:
    arguments = [photos, "--model", classifier, "--out", out, "--format", "jsonl", "--stats"]
    result = run(*arguments, "/dev/full")
    assert result.exit_code == 1
    assert f"--stats: No space left on device; the results are in {out} all the same" in result.stderr
    assert Path("/dev/full").is_char_device()
    pipe = out.parent / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert run(*arguments, pipe).exit_code == 0
        assert json.loads(reader.communicate()[0])["skipped"] == 6
    assert pipe.is_fifo()


def test_a_table_in_a_pipe_is_read_once(classifier: Path, photos: Path, out: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "list.txt"
    os.mkfifo(pipe)
    lines = f"{photos / 'a.jpg'}\n{photos / 'b.png'}\n"
    with subprocess.Popen(["tee", str(pipe)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as writer:
        assert writer.stdin is not None
        writer.stdin.write(lines)
        writer.stdin.close()
        assert run(pipe, "--model", classifier, "--out", out, "--format", "jsonl").exit_code == 0
    assert [*rows(out)] == lines.split()


def test_masks_of_results_are_no_images(segmenter: Path, photos: Path) -> None:
    arguments = [photos, "--model", segmenter, "--out", photos / "results", "--format", "jsonl"]
    assert run(*arguments, "--output", "mask,logits").exit_code == 0
    assert len([*(photos / "results" / "masks").iterdir()]) == 6
    assert all(len(row["logits"]) and row["mask"] for row in rows(photos / "results").values())
    assert "0 images (6 were there already)" in run(*arguments, "--output", "mask,logits").stdout


def test_a_full_disk_is_said_in_one_line(
    classifier: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [photos, "--model", classifier, "--out", out, "--format", "jsonl"]
    assert run(*arguments, "--limit", 3).exit_code == 0
    with monkeypatch.context() as only:
        only.setattr("mobilevit_fast.files.writing.os.fsync", full_disk)
        result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"error: --out {out}: No space left on device"]
    assert len(rows(out)) == 3
    assert "3 images (3 were there already)" in run(*arguments).stdout


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_below_a_file_is_said_in_one_line(photos: Path, out: Path) -> None:
    result = run(photos, "--model", "digits", "--out", photos / "a.jpg" / "out", "--format", "jsonl")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"error: --out {photos / 'a.jpg' / 'out'}: Not a directory"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--format", "csv", "--output", "logits"],
            "--format: expected the format parquet or jsonl for logits, got csv",
        ),
        ([""], "expected paths, got an empty one"),
        (["--out", __file__], "--out: expected a folder, got a file"),
        (["--out", "s3://bucket/results"], "--out: expected a folder of this machine for results"),
        (["--output", "mask"], "outputs: expected label, score, embedding, logits of a classification model, got mask"),
        (["--decode-threads", "100000"], "decode_threads: expected at most 1024, got 100000"),
        (["--batch-size", "0"], "--batch-size: expected a positive number, got 0"),
        (["--shard", "4/3"], "--shard: expected"),
        (["--stats", "/"], "--stats: expected a file in a folder that exists"),
        (["--format", "xml"], "--format: expected parquet, jsonl, csv, got 'xml'"),
        (["--output", "label,colour"], "--output: expected some of"),
        (["--shard", "3/3"], "--shard: expected"),
        (["--shard", "one"], "--shard: expected"),
        (["--top-k", "0"], "--top-k: expected a positive number"),
        (["--limit", "-1"], "--limit: expected a number of at least 0"),
        (["--preprocessing", "quick"], "--preprocessing: expected exact, fast, got 'quick'"),
        (["--stats", "/no/such/folder/stats.json"], "--stats: expected a file in a folder that exists"),
    ],
    ids=str,
)
def test_wrong_use_is_status_2(photos: Path, out: Path, arguments: list[str], words: str) -> None:
    result = run(photos, "--out", out, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not out.exists()


def test_names_of_nothing_are_status_2(photos: Path, out: Path) -> None:
    for names in (["photo"], ["photo", "phot*"], [photos / "gone.jpg"]):
        result = run(*names, "--out", out)
        assert result.exit_code == 2
        expected = f"error: expected images, found no file, folder or match of {', '.join(map(str, names))}"
        assert result.stderr.splitlines() == [expected]
        assert not out.exists()


def test_the_default_model_is_said(photos: Path, out: Path) -> None:
    said = "without --model the answers are those of the package's own small model of handwritten digits"
    arguments = [photos, "--out", out, "--format", "jsonl"]
    assert run(*arguments).stderr.splitlines() == [said]
    assert said not in run(*arguments, "--model", "digits").stderr


def test_statistics_stay_where_there_is_nothing_to_do(photos: Path, out: Path) -> None:
    arguments = [photos, "--out", out, "--format", "jsonl"]
    run(*arguments)
    before = json.loads((out / "_stats.json").read_text())
    assert before["images"] == 6
    run(*arguments)
    assert json.loads((out / "_stats.json").read_text()) == before


def test_too_many_failures_end_it(classifier: Path, photos: Path, out: Path) -> None:
    written(photos, {"0.jpg": b"no", "1.jpg": b"no"})
    result = run(photos, "--model", classifier, "--out", out, "--format", "jsonl", "--max-errors", 1)
    assert result.exit_code == 1
    assert "expected at most 1 images to fail" in result.stderr


PHOTOS = 200  # seconds of decoding, of which the signal comes in the first


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_it_has(classifier: Path, tmp_path: Path, out: Path, sent: int) -> None:
    photos = tmp_path / "many"
    photos.mkdir()
    content = encoded(picture(600, 800), "PNG")
    written(photos, {"000.png": b"broken"} | {f"{i:03}.png": content for i in range(1, PHOTOS)})
    command = [sys.executable, "-m", "mobilevit_fast", "predict", str(photos), "--model", str(classifier)]
    command += ["--out", str(out), "--format", "jsonl", "--batch-size", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # the broken image was answered
        process.send_signal(sent)
        stderr = process.stderr.read()
        process.wait(timeout=60)
    assert "000.png" in first
    assert process.returncode == 130, stderr
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr
    done = len(rows(out))
    assert 0 < done < PHOTOS
    result = run(*command[4:])
    assert result.exit_code == 1  # for the broken image, though it failed in the run before
    assert f"({done} were there already, 1 of them failed: --retry-failed)" in result.stdout
    assert len(rows(out)) == PHOTOS


@pytest.mark.slow
def test_a_signal_ends_it_though_the_standard_input_is_open(classifier: Path, out: Path) -> None:
    command = [sys.executable, "-m", "mobilevit_fast", "predict", "-", "--model", str(classifier)]
    command += ["--out", str(out), "--format", "jsonl", "--batch-size", "1"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("none.jpg\nnone either.jpg\n" * 20)
        process.stdin.flush()
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        stderr = process.stderr.read()
    assert "none.jpg" in first
    assert process.returncode == 130, stderr
    assert "Fatal" not in stderr

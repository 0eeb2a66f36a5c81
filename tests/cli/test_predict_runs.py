"""`mobilevit-fast predict` while it runs: what signals leave behind, and what is said of the progress."""

import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mobilevit_fast.cli import predict
from tests.cli.test_predict import full_disk, hide, rows, run
from tests.engine.pictures import written

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def at_the_first_failure(monkeypatch: pytest.MonkeyPatch, photos: Path, act: Callable[[], None]) -> None:
    """Act when an image has failed; it is the first one, and the only one that has been answered."""
    written(photos, {"0.jpg": b"no image"})
    say = predict.note

    def note(message: str) -> None:
        say(message)
        if message.startswith("error: " + str(photos)):
            act()

    monkeypatch.setattr(predict, "note", note)


@pytest.fixture
def arguments(classifier: Path, photos: Path, out: Path) -> list[Any]:
    return [photos, "--model", classifier, "--out", out, "--format", "jsonl", "--batch-size", 1]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.parametrize(("first", "second"), product(SIGNALS, SIGNALS))
def test_a_second_signal_does_not_lose_the_part_in_hand(
    arguments: list[Any], photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    handlers = [signal.getsignal(one) for one in SIGNALS]
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        os.kill(os.getpid(), second)
        sync(descriptor)

    with monkeypatch.context() as only:

        def act() -> None:
            only.setattr("mobilevit_fast.files.writing.os.fsync", fsync)
            os.kill(os.getpid(), first)

        at_the_first_failure(only, photos, act)
        result = run(*arguments)
    assert result.exit_code == 130, result.output
    assert "interrupted after 1 images; the same command goes on from there" in result.stderr
    assert [*rows(out)] == [str(photos / "0.jpg")]
    assert [signal.getsignal(one) for one in SIGNALS] == handlers
    assert "6 images (1 were there already" in run(*arguments).stdout


def test_an_interruption_says_that_what_is_in_hand_cannot_be_written(
    arguments: list[Any], photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as only:

        def act() -> None:
            only.setattr("mobilevit_fast.files.writing.os.fsync", full_disk)
            os.kill(os.getpid(), signal.SIGINT)

        at_the_first_failure(only, photos, act)
        result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"error: --out {out}: {os.strerror(errno.ENOSPC)}"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is said of every answer, and all sources are counted before the first."""
    monkeypatch.setattr(predict, "_SECONDS_BETWEEN_LINES", 0.0)
    enter = predict._Progress.__enter__

    def counted(self: predict._Progress) -> predict._Progress:
        self._counting.join()
        return enter(self)

    monkeypatch.setattr(predict._Progress, "__enter__", counted)


LINE = re.compile(r"(\d+)( of \d+)? images, \d+\.\d images/s, 0 failed(?:, (\d+) s left)?")


def lines_of(stderr: str) -> list[tuple[str, ...]]:
    """Images, of how many, and the seconds that are left, of each line of progress."""
    return [match.groups("") for match in map(LINE.fullmatch, stderr.splitlines()) if match]


@pytest.mark.usefixtures("told")
def test_progress_is_lines_where_it_is_no_terminal(arguments: list[Any]) -> None:
    lines = lines_of(run(*arguments).stderr)
    assert [line[:2] for line in lines] == [(str(number), " of 6") for number in range(1, 7)]
    assert lines[-1] == ("6", " of 6", "0")


@pytest.mark.usefixtures("told")
def test_progress_of_a_run_that_goes_on_is_that_of_the_rest(arguments: list[Any]) -> None:
    run(*arguments, "--limit", 4)
    assert lines_of(run(*arguments).stderr)[-1] == ("2", " of 2", "0")


def test_a_table_that_needs_another_package_is_told_once(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.parquet").write_bytes(b"")
    hide(monkeypatch, "pyarrow")
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    progress = predict._Progress([str(tmp_path / "list.parquet")], None, None)
    progress._counting.join()
    assert failed == []
    result = run(tmp_path / "list.parquet", "--out", out, "--format", "jsonl", "--model", "digits")
    assert len(result.stderr.splitlines()) == 1
    assert "pip install pyarrow" in result.stderr


def test_whoever_does_not_read_what_is_said_gets_the_results(
    arguments: list[Any], photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(photos, {"0.jpg": b"no image"})

    def closed(message: str) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(predict, "note", closed)
    monkeypatch.setattr(predict, "_SECONDS_BETWEEN_LINES", 0.0)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "7 images, 1 failed" in result.stdout
    assert len(rows(out)) == 7

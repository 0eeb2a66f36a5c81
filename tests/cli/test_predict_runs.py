"""`mobilevit-fast predict` while it runs: what signals leave behind, and what is said of the progress."""

import errno
import os
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mobilevit_fast.cli import predict
from tests.cli.test_predict import full_disk, rows, run
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

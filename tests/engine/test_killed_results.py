"""Writers of results that are killed with SIGKILL: every source has one row in the end, and never two."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevit_fast.engine.results.manifest import read_manifest
from testing.tiers import thorough_where
from tests.checkpoints.killing import forked, killed_at_every_step, wait
from tests.engine.rows import FORMATS, files_of, row, rows_of, run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

KILLS = 30
NAMES = [f"photos/{number}.jpg" for number in range(60)]
FAILING = NAMES[::7]
NEW = {"weights": "b"}


@pytest.fixture(autouse=True)
def _a_disk_that_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL leaves what the kernel has of a file, on the disk or not; the call remains a moment to be killed at."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.thorough  # every step has tests below
@pytest.mark.parametrize("kind", FORMATS)
def test_killed_at_random_moments(tmp_path: Path, kind: str) -> None:
    """Of the opening, of a row and of a part; inside of calls, too."""
    run(tmp_path / "whole", NAMES, failing=FAILING, format=kind)
    moments, kills, folders = random.Random(0), 0, 0
    seen = set()
    while kills < KILLS:
        folder = tmp_path / str(folders)
        folders += 1
        before: dict = {}
        is_over = False
        while not is_over:
            reading, writing = os.pipe()

            def answer(folder: Path = folder, pipe: int = writing) -> None:
                os.write(pipe, b".")
                run(folder, told(NAMES, pipe), failing=FAILING, format=kind)

            child = forked(answer)
            os.close(writing)
            began = time.monotonic()
            names_taken = moments.randrange(len(before) + 12)  # those that are done are taken as well, and passed over
            while names_taken and os.read(reading, 1):
                names_taken -= 1
            time.sleep(moments.random() * (time.monotonic() - began) / 10)
            os.kill(child, signal.SIGKILL)
            is_over = wait(child) == 0
            os.close(reading)
            kills += not is_over
            if folder.is_dir() and read_manifest(folder) is not None:
                rows = rows_of(folder)
                assert rows.items() >= before.items()  # what was finished stays
                assert rows == {name: row(name, failed=name in FAILING) for name in NAMES[: len(rows)]}
                seen.add(len(rows))
                before = rows
            is_over |= len(before) == len(NAMES)
        run(folder, NAMES, failing=FAILING, format=kind)
        assert files_of(folder).keys() == files_of(tmp_path / "whole").keys()  # leftovers are gone
        assert rows_of(folder) == rows_of(tmp_path / "whole")
    assert len(seen) > 5


def told(names: list[str], pipe: int) -> Iterator[str]:
    """Names, and a byte through the pipe at each."""
    for name in names:
        os.write(pipe, b".")
        yield name


@pytest.mark.parametrize("kind", thorough_where(FORMATS, lambda kind: kind == "csv"))  # lines, as JSON lines are
def test_killed_at_every_step_of_a_run(tmp_path: Path, kind: str) -> None:
    names = NAMES[:5]
    run(tmp_path, names[:1], format=kind)
    counts = []
    for _ in killed_at_every_step(tmp_path, lambda: run(tmp_path, names, format=kind)):
        counts.append(len(rows_of(tmp_path)))
        run(tmp_path, names, format=kind)
        assert list(rows_of(tmp_path).values()) == [row(name) for name in names]
    assert counts == sorted(counts)
    assert set(counts) == {1, 4, 5}


@pytest.mark.thorough  # the steps of a run that begins, goes on or tries again are in make test
def test_killed_at_every_step_of_an_overwriting(tmp_path: Path) -> None:
    """The old results are whole, or those of the new run are there as far as it came."""
    names = NAMES[:5]
    run(tmp_path, names, format="jsonl")
    old = rows_of(tmp_path)
    seen = []
    for _ in killed_at_every_step(
        tmp_path, lambda: run(tmp_path, names, 1, format="csv", fingerprint=NEW, overwrite=True)
    ):
        manifest = read_manifest(tmp_path)
        assert manifest is not None
        rows = rows_of(tmp_path)
        is_new = manifest.fingerprint["weights"] == "b"
        seen.append((is_new, len(rows)))
        if not is_new:
            assert rows == old
            assert run(tmp_path, names, format="jsonl") == []
            assert rows_of(tmp_path) == old
        else:
            assert rows == {name: row(name, 1) for name in rows}
            run(tmp_path, names, 1, format="csv", fingerprint=NEW)
            assert rows_of(tmp_path) == {name: row(name, 1) for name in names}
            assert not list(tmp_path.glob("*.jsonl"))
    assert seen == sorted(seen, key=lambda one: (one[0], one[1]))
    assert set(seen) == {(False, 5), (True, 0), (True, 3), (True, 5)}


def test_killed_at_every_step_of_another_try(tmp_path: Path) -> None:
    names = NAMES[:7]
    failing = [*names[:3], names[4]]
    run(tmp_path, names, failing=failing, format="jsonl")
    good = {name: row(name) for name in names if name not in failing}
    for _ in killed_at_every_step(tmp_path, lambda: run(tmp_path, names, 1, format="jsonl", retry_failed=True)):
        rows = rows_of(tmp_path)
        assert rows.items() >= good.items()
        run(tmp_path, names, 1, format="jsonl")  # failed rows that are still there count as done
        assert rows_of(tmp_path).keys() == set(names)
        run(tmp_path, names, 1, format="jsonl", retry_failed=True)
        assert rows_of(tmp_path) == good | {name: row(name, 1) for name in failing}


def test_shards_that_begin_anew_at_the_same_time_and_are_killed(tmp_path: Path) -> None:
    run(tmp_path, NAMES)
    moments = random.Random(1)

    def shard(index: int, overwrite: bool) -> None:
        for _ in range(200):
            try:
                run(tmp_path, NAMES[index::3], 1, fingerprint=NEW, shard=(index, 3), overwrite=overwrite)
                return
            except (RuntimeError, ValueError):  # a sibling that holds the old results, or has not replaced them yet
                time.sleep(0.01)
        raise AssertionError("the folder was never free")

    assert wait(forked(lambda: shard(0, True))) == 0
    for _ in range(4):
        children = [forked(lambda index=index: shard(index, False)) for index in range(3)]  # type: ignore[misc]
        time.sleep(moments.random() * 0.05)
        for child in children:
            os.kill(child, signal.SIGKILL)
            wait(child)
    children = [forked(lambda index=index: shard(index, False)) for index in range(3)]  # type: ignore[misc]
    assert [wait(child) for child in children] == [0, 0, 0]
    assert rows_of(tmp_path) == {name: row(name, 1) for index in range(3) for name in NAMES[index::3]}

"""A folder of results after kills, interrupts and full disks."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.engine.results import ResultsFolder
from tests.checkpoints.killing import forked, wait
from tests.engine.rows import FORMATS, files_of, opened, prediction, rows_of, run
from tests.engine.test_results import NAMES


def test_the_lock_of_a_killed_writer_is_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    def hold() -> None:
        with opened(tmp_path):
            os.write(writing, b".")
            signal.pause()

    child = forked(hold)
    os.read(reading, 1)
    with pytest.raises(RuntimeError, match="another process at work"), opened(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL
    assert run(tmp_path, NAMES) == NAMES
    for end in (reading, writing):
        os.close(end)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_part_in_hand_is_written_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), opened(tmp_path) as results:  # noqa: PT012
        for name in NAMES[:4]:
            results.add(prediction(name))
        raise error
    assert list(rows_of(tmp_path)) == NAMES[:4]
    assert run(tmp_path, NAMES) == NAMES[4:]


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupt_while_a_part_takes_its_place(
    tmp_path: Path, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if not before:
            replace(source, target)
        monkeypatch.setattr(os, "replace", replace)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as results:  # noqa: PT012
        monkeypatch.setattr(os, "replace", interrupted)
        for name in NAMES:
            results.add(prediction(name))
    assert list(rows_of(tmp_path)) == NAMES[:3]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_a_folder_that_a_run_goes_on_with(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = ["label", "score", "mask"]
    mask = np.zeros((2, 2), np.uint8)

    def write(folder: Path) -> None:
        with opened(folder, format=kind, outputs=outputs) as results:
            for name in NAMES:
                if not results.is_done(name):
                    results.add(Prediction(name, ("x",), (0,), (1.0,), mask=mask))
            results.finish({})

    write(tmp_path / "whole")
    written = 0
    for function in ("fsync", "write_bytes"):
        for last in range(100):
            folder = tmp_path / f"{function} {last}"
            calls = 0
            owner: Any = os if function == "fsync" else Path
            original = getattr(owner, function)

            def full(*arguments: Any, original: Any = original, last: int = last) -> Any:
                nonlocal calls
                calls += 1
                if calls > last:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return original(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(owner, function, full)
                try:
                    write(folder)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            if (folder / "_manifest.json").exists():
                assert set(rows_of(folder)) <= set(NAMES)
                written += len(rows_of(folder))
            write(folder)
            assert rows_of(folder) == rows_of(tmp_path / "whole")
            assert files_of(folder).keys() == files_of(tmp_path / "whole").keys()
        else:
            pytest.fail("the disk was full at the end")
    assert written > 0


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    folder.chmod(0o555)

    def write() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for path in (folder, folder / "new"):
            with pytest.raises(PermissionError), ResultsFolder(path, fingerprint={}):
                pass

    assert wait(forked(write)) == 0
    assert os.listdir(folder) == []

"""Files that belong together, after saves that came to no end, one or two of them: killed, failed or interrupted."""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilevit_fast.files import find, write_atomically, write_together
from testing.tiers import thorough_where
from tests.checkpoints.killing import contents, dying_at, forked, in_place, killed_at_every_step, put, wait

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")


def write_three(folder: Path, state: int) -> None:
    write_together(folder, dict.fromkeys("abc", b"%d" % state))


def state_of_three(folder: Path) -> int:
    (state,) = {(find(folder / name) or folder / name).read_bytes() for name in "abc"}
    return int(state)


@pytest.mark.thorough  # every step of two writers one after the other; of one, and of one beside another, below
def test_the_next_writer_is_killed_too(folder: Path) -> None:
    write_three(folder, 0)
    torn = {}
    for _ in killed_at_every_step(folder, lambda: write_three(folder, 1)):
        files = contents(folder)
        if any(name.endswith(".journal") for name in files):
            torn[tuple(sorted(in_place(folder).items()))] = files
    assert len(torn) == 5  # "a" is removed, and one file after the other comes
    for files in torn.values():
        put(folder, files)
        seen = [state_of_three(folder)]
        for _ in killed_at_every_step(folder, lambda: write_three(folder, 2)):
            seen.append(state_of_three(folder))
        assert seen == sorted(seen)
        assert seen[-1] == 2
        assert sorted(contents(folder)) == ["a", "b", "c"]


def test_another_writer_is_killed_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After leftovers were removed, and before the file that is written takes its place."""
    write_three(folder, 0)
    fsync, files, seen = os.fsync, contents(folder), []
    for step in itertools.count(1):
        put(folder, files)
        ends = []

        def meanwhile(descriptor: int, step: int = step, ends: list[int] = ends) -> None:
            fsync(descriptor)
            monkeypatch.setattr(os, "fsync", fsync)
            ends.append(wait(forked(lambda: dying_at(step, lambda: write_three(folder, 1)))))

        monkeypatch.setattr(os, "fsync", meanwhile)
        write_atomically(folder / "a", b"2")
        (state,) = {(folder / name).read_bytes() for name in "bc"}
        assert (folder / "a").read_bytes() == b"2"
        seen.append(int(state))
        if ends == [0]:
            break
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("error", [OSError("failed"), KeyboardInterrupt()], ids=["failure", "interrupt"])
def test_an_error_at_every_step(error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails does nothing; an interrupt comes after it has done what it does."""
    write_three(folder, 0)
    seen = set()
    for step in itertools.count(1):
        calls = itertools.count(1)

        def failing(function: Callable[..., Any], calls: Iterator[int] = calls, step: int = step) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                number = next(calls)
                if number == step and isinstance(error, OSError):
                    raise error
                result = function(*arguments, **options)
                if number == step:
                    raise error
                return result

            return call

        raised = None
        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "unlink"):
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                write_three(folder, 1)
            except (OSError, KeyboardInterrupt) as caught:
                raised = caught
        state = state_of_three(folder)
        assert state == 1 or raised is error
        if state == 0 and isinstance(error, OSError):
            assert sorted(contents(folder)) == ["a", "b", "c"]
        seen.add((state, raised))
        if next(calls) <= step:
            break
        write_three(folder, 0)
        assert sorted(contents(folder)) == ["a", "b", "c"]
    assert seen == {(0, error), (1, error), (1, None)}


def torn_three(folder: Path) -> dict[str, bytes]:
    """A folder whose save of state 1 was killed just after it was committed."""
    write_three(folder, 0)
    for _ in killed_at_every_step(folder, lambda: write_three(folder, 1)):
        if sorted(in_place(folder)) == ["b", "c"]:
            return contents(folder)
    raise AssertionError("no save was killed there")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO], ids=errno.errorcode.get)
def test_a_journal_that_cannot_be_opened_is_there(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever time it is opened; else a save that was committed would be taken for none, and removed."""
    torn, opened = torn_three(folder), Path.open
    for name in "abc":
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", failing_for_the_journal(opened, number, 1))
            with pytest.raises(OSError, match=os.strerror(number)):
                find(folder / name)
    for write in (write_three, lambda folder, state: write_atomically(folder / "d", b"%d" % state)):
        for failure in itertools.count(1):
            put(folder, torn)
            raised = None
            with monkeypatch.context() as patch:
                patch.setattr(Path, "open", failing_for_the_journal(opened, number, failure))
                try:
                    write(folder, 2)
                except OSError as error:
                    raised = error.errno
            if raised is None:
                break
            assert raised == number
            if failure == 1:
                assert contents(folder) == torn
            assert state_of_three(folder) in (1, 2)
        assert failure > 2


def write_in_place(path: Path) -> None:
    path.write_bytes(b"mine")


def write_beside_and_rename(path: Path) -> None:
    path.with_name("new").write_bytes(b"mine")
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    ("there_before", "name", "write"),
    thorough_where(
        itertools.product([True, False], ["b", "c"], [write_in_place, write_beside_and_rename]),
        lambda case: (case[0] == (case[1] == "b")) != (case[2] is write_in_place),
    ),
)
def test_what_others_write_over_one_file_counts(
    there_before: bool, name: str, write: Callable[[Path], object], folder: Path
) -> None:
    """Whichever step the save was killed at, and the others stay together."""
    write_three(folder, 0)
    if not there_before:
        (folder / name).unlink()
    others, seen = [one for one in "abc" if one != name], []
    for _ in killed_at_every_step(folder, lambda: write_three(folder, 1)):
        write(folder / name)
        states = []
        for _ in range(2):
            found = {one: (find(folder / one) or folder / one).read_bytes() for one in "abc"}
            assert found[name] == b"mine"
            states += {found[other] for other in others}
            write_atomically(folder / "d", b"")
        assert len(states) == 2
        assert states[0] == states[1]
        seen.append(int(states[0]))
        write_three(folder, 2)
        assert sorted(contents(folder)) == ["a", "b", "c", "d"]
        (folder / "d").unlink()
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


def test_a_torn_save_that_was_copied_elsewhere(folder: Path) -> None:
    """Where files have other inodes and times: the content of what is in its place tells that it is the old one."""
    torn = torn_three(folder)
    put(folder, torn)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert state_of_three(folder) == 1
    write_atomically(folder / "d", b"")
    assert in_place(folder) == {"a": b"1", "b": b"1", "c": b"1", "d": b""}


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_others_write_under_another_name_counts(before: bytes | None, folder: Path) -> None:
    """One that readers would take for the same, where it is new or has changed: such a save is no longer carried on."""

    def write(state: int) -> None:
        write_together(folder, dict.fromkeys("abc", b"%d" % state), rivals=["r"])

    write(0)
    if before is not None:
        (folder / "r").write_bytes(before)
    seen = []
    for _ in killed_at_every_step(folder, lambda: write(1)):
        seen.append(state_of_three(folder))
        torn = contents(folder)
        for path in folder.iterdir():
            if not path.name.startswith("."):
                path.unlink()
        (folder / "r").write_bytes(b"mine")
        assert [find(folder / name) for name in "abcr"] == [None, None, None, folder / "r"]
        write_atomically(folder / "d", b"")
        assert in_place(folder) == {"d": b"", "r": b"mine"}
        put(folder, torn)
        (folder / "r").unlink(missing_ok=True)  # what is gone is nothing newer
        assert state_of_three(folder) == seen[-1]
        (folder / "r").write_bytes(b"mine")
        write(2)
        assert contents(folder) == {"a": b"2", "b": b"2", "c": b"2", "r": b"mine"}
        put(folder, torn)
    assert set(seen) == {0, 1}


def test_a_rival_of_a_file_that_a_save_leaves_as_it_is(folder: Path) -> None:
    def write(state: int) -> None:
        write_together(folder, {"a": b"same", "b": b"%d" % state, "c": b"%d" % state}, rivals=["r"])

    write(0)
    seen = []
    for _ in killed_at_every_step(folder, lambda: write(1)):
        (folder / "r").write_bytes(b"mine")
        (state,) = {(find(folder / name) or folder / name).read_bytes() for name in "bc"}
        seen.append(state)
    assert set(seen) == {b"0", b"1"}


LONG = ["x" * 244, "x" * 255, "\u00e9" * 122 + "x", "\U0001f4f7" * 63, "\udcff" * 240]


@pytest.mark.parametrize("long", thorough_where(LONG, lambda long: len(long) not in (255, 240)), ids=len)
def test_names_as_long_as_they_can_be(long: str, folder: Path) -> None:
    names = [long, long[:-1] + "y", "a\nb"]
    for name in names:
        (folder / name).write_bytes(b"0")

    def write(state: int) -> None:
        write_together(folder, dict.fromkeys(names, b"%d" % state))

    seen = []
    for _ in killed_at_every_step(folder, lambda: write(1)):
        (state,) = {(find(folder / name) or folder / name).read_bytes() for name in names}
        seen.append(int(state))
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}
    write_atomically(folder / long, b"2")
    write(3)
    assert contents(folder) == dict.fromkeys(names, b"3")
    with pytest.raises(OSError, match="too long"):
        write_together(folder, {long: b"4", "x" * 256: b"4"})
    assert contents(folder) == dict.fromkeys(names, b"3")


def failing_for_the_journal(opened: Callable[..., Any], number: int, failure: int) -> Callable[..., Any]:
    calls = itertools.count(1)

    def call(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".journal") and next(calls) == failure:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **options)

    return call

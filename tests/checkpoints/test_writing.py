"""Writers of checkpoints, configurations and settings: whole or not at all, several at once, and where."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image

from mobilevit_fast.checkpoints import CheckpointError, load_model, read_checkpoint, write_checkpoint
from mobilevit_fast.checkpoints.safetensors_file import read_safetensors
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.files import write_atomically, write_together
from mobilevit_fast.files import writing as files
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from tests.checkpoints.helpers import assert_same_tensors, randomised
from tests.checkpoints.killing import contents

SMALL = {"hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "image_size": 64}
ALL_FILES = ["config.json", "model.safetensors", "preprocessor_config.json"]


def small_model(labels: int = 3, heads: int = 4, seed: int = 0) -> MobileViTForImageClassification:
    config = MobileViTConfig(**SMALL, num_labels=labels, num_attention_heads=heads)  # type: ignore[arg-type]
    return randomised(MobileViTForImageClassification(config), seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    write_checkpoint(small_model(), path, processor=MobileViTImageProcessor())
    return path


def save_model(folder: Path) -> None:
    small_model(labels=5, heads=2, seed=1).save_pretrained(folder)


def save_config(folder: Path) -> None:
    MobileViTConfig(**SMALL, num_labels=5).save_pretrained(folder)  # type: ignore[arg-type]


def save_processor(folder: Path) -> None:
    MobileViTImageProcessor(size=33).save_pretrained(folder)


SAVES: list[Callable[[Path], None]] = [save_model, save_config, save_processor]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("function", ["write_bytes", "fsync", "replace"])
def test_a_failure_leaves_every_file_as_it_was(
    folder: Path, save: Callable[[Path], None], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)

    def fail(first: Path, *rest: object) -> None:
        if function == "write_bytes":
            with first.open("wb") as file:
                file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path if function == "write_bytes" else os, function, fail)
        with pytest.raises(OSError, match="disk full"):
            save(folder)
    assert contents(folder) == before


def test_what_cannot_be_serialised_replaces_nothing(folder: Path) -> None:
    before = contents(folder)
    model = small_model(seed=1)
    model.config.note = object()
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save_pretrained(folder)
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.config.save_pretrained(folder)
    assert contents(folder) == before


def test_a_tensor_that_cannot_be_written_replaces_nothing(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(CheckpointError, match=r"expected a dense tensor .* without values \(on the device meta"):
        write_checkpoint(small_model().to("meta"), folder)
    freed = small_model()
    freed.classifier.weight.untyped_storage().resize_(0)
    with pytest.raises(CheckpointError, match=r"classifier\.weight: .* got one whose memory was freed"):
        write_checkpoint(freed, folder)
    assert contents(folder) == before


def test_threads_that_write_into_one_folder(tmp_path: Path) -> None:
    models = [small_model(labels=2 + index, seed=index) for index in range(3)]
    expected = {model.config.num_labels: model.state_dict() for model in models}
    failures: list[BaseException] = []

    def save(model: MobileViTForImageClassification) -> None:
        try:
            model.save_pretrained(tmp_path / "saved")
        except BaseException as error:
            failures.append(error)

    for _ in range(10):
        threads = [threading.Thread(target=save, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(contents(tmp_path / "saved")) == ["config.json", "model.safetensors"]
        loaded = load_model(tmp_path / "saved")
        assert_same_tensors(loaded.state_dict(), expected[loaded.config.num_labels])


def test_a_reader_never_sees_files_of_two_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilevit_fast.checkpoints.io._READINGS", 1 << 30)  # the writer makes no pauses
    models = [small_model(labels=2 + index, seed=index) for index in range(2)]
    expected = {model.config.num_labels: model.state_dict() for model in models}
    processors = [MobileViTImageProcessor(size=30 + index) for index in range(2)]
    write_checkpoint(models[0], tmp_path, processor=processors[0])
    done = threading.Event()

    def save() -> None:
        try:
            for index in range(40):
                write_checkpoint(models[index % 2], tmp_path, processor=processors[index % 2])
        finally:
            done.set()

    writer = threading.Thread(target=save)
    writer.start()
    while not done.is_set():
        loaded = load_model(tmp_path)
        assert_same_tensors(loaded.state_dict(), expected[loaded.config.num_labels])
        assert MobileViTConfig.from_pretrained(tmp_path).num_labels in expected
        assert MobileViTImageProcessor.from_pretrained(tmp_path).size["shortest_edge"] in (30, 31)
    writer.join()


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"\0\xff\n" * 99,
        b".model.safetensors.12.tmp/absent/model.safetensors\0.config.json.34.tmp/absent/config.json",
        b"./../outside.12.tmp/absent/new",
        b".a/../../outside.12.tmp/absent/new",
        b".a.12.tmp/absent/..",
        b"." + b"a" * 5000 + b".12.tmp/absent/new",
        b"." + b"a" * 250 + b".12.tmp/absent/new",
        b".a.12.tmp/absent/" + b"a" * 5000,
        b".config.json.12.tmp/absent/config.json\0" * 29999,
        b"".join(b".%d.12.tmp/absent/%d\0" % (number, number) for number in range(29999)),
    ],
    ids=range(11),
)
def test_a_journal_that_lists_what_is_not_there(folder: Path, journal: bytes) -> None:
    outside = folder.parent / "outside.12.tmp"
    outside.write_bytes(b"mine")
    before = read_checkpoint(folder)
    (folder / ".mobilevit_fast.journal").write_bytes(journal)
    found = read_checkpoint(folder)
    assert found.config == before.config
    assert_same_tensors(found.state_dict, before.state_dict)
    save_model(folder)
    assert sorted(contents(folder)) == ALL_FILES
    assert outside.read_bytes() == b"mine"


def test_what_does_not_change_is_not_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a single file changes, and other programs see no gap either."""
    before = {path.name: path.stat() for path in folder.iterdir()}
    unlink, removed = os.unlink, []

    def noted(path: Path) -> None:
        if Path(path).name in ALL_FILES:
            removed.append(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", noted)
    write_checkpoint(small_model(seed=1), folder, processor=MobileViTImageProcessor())
    assert removed == []
    after = {path.name: path.stat() for path in folder.iterdir()}
    assert [name for name in ALL_FILES if before[name].st_ino != after[name].st_ino] == ["model.safetensors"]


def test_leftovers_of_killed_writers_are_removed(folder: Path) -> None:
    for name in (".model.safetensors.123.tmp", ".config.json.00aa11bb22cc33dd.tmp", ".notes.txt.00aa11bb22cc33dd.tmp"):
        (folder / name).write_bytes(b"half")
    save_model(folder)
    assert sorted(contents(folder)) == [".notes.txt.00aa11bb22cc33dd.tmp", *ALL_FILES]
    write_atomically(folder / "notes.txt", b"mine")
    assert sorted(contents(folder)) == sorted([*ALL_FILES, "notes.txt"])


def test_a_writer_at_work_is_not_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def meanwhile(source: Path, target: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            patch.setattr(files, "_alone_in", lambda folder: nullcontext())  # this thread holds the folder already
            write_atomically(target, b"the other")
        assert source.exists()
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_atomically(tmp_path / "file", b"mine")
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_temporary_file_that_was_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, calls = files.lock, []

    def taken(descriptor: int, *, wait: bool) -> bool | None:
        if not wait:
            calls.append(descriptor)
            if len(calls) == 1:  # between its creation and its lock
                next(tmp_path.glob(".file.*.tmp")).unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(files, "lock", taken)
    write_atomically(tmp_path / "file", b"mine")
    assert contents(tmp_path) == {"file": b"mine"}
    assert len(calls) == 2


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file to write to, got a folder"):
        write_together(tmp_path, {"a": b"", "b": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_weights_file_holds_its_configuration(folder: Path, tmp_path: Path) -> None:
    """For whoever takes the file alone: what the shapes do not show must not be guessed."""
    model = small_model(labels=5, heads=2)
    model.config.id2label = {index: f"class {index}" for index in range(5)}
    write_checkpoint(model, folder)
    (folder / "config.json").rename(tmp_path / "config.json")
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config.to_dict() == MobileViTConfig.from_json_file(tmp_path / "config.json").to_dict()
    assert checkpoint.config.num_attention_heads == 2
    edited = json.loads((tmp_path / "config.json").read_text()) | {"hidden_act": "relu"}
    (folder / "config.json").write_text(json.dumps(edited))
    assert read_checkpoint(folder).config.hidden_act == "relu"


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    processor = MobileViTImageProcessor(size=33)
    small_model().save_pretrained("~/x")
    assert processor.save_pretrained("~/x") == tmp_path / "x" / "preprocessor_config.json"
    assert sorted(contents(tmp_path / "x")) == ALL_FILES
    small_model().config.save_pretrained(Path("~/y"))
    assert sorted(contents(tmp_path / "y")) == ["config.json"]
    assert list((tmp_path / "work").iterdir()) == []
    assert MobileViTForImageClassification.from_pretrained("~/x").config.num_labels == 3
    assert MobileViTConfig.from_pretrained("~/y").num_labels == 3
    assert MobileViTConfig.from_json_file("~/y/config.json").num_labels == 3
    assert MobileViTImageProcessor.from_pretrained("~/x").size == {"shortest_edge": 33}
    Image.new("RGB", (40, 40)).save(tmp_path / "x" / "a.png")
    assert processor("~/x/a.png")["pixel_values"].shape == (1, 3, 256, 256)
    with pytest.raises(CheckpointError, match="~nobody-of-that-name/x: expected a folder"):
        load_model("~nobody-of-that-name/x")


def test_tensors_are_not_tied_to_the_file(tmp_path: Path) -> None:
    model = small_model()
    write_checkpoint(model, tmp_path)
    loaded, mapped = load_model(tmp_path), load_model(tmp_path, mmap=True)
    assert_same_tensors(load_model(tmp_path, mmap=True).state_dict(), model.state_dict())
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))  # in place, as a program that knows no better does
    assert_same_tensors(loaded.state_dict(), model.state_dict())
    # The test tells the two apart: of mapped tensors the file's new content shows.
    assert not torch.equal(mapped.classifier.weight, model.classifier.weight)


def test_a_file_that_changes_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.safetensors"
    whole, empty = path.read_bytes(), torch.empty

    def truncated(*sizes: object, **options: object) -> torch.Tensor:
        path.write_bytes(whole[: len(whole) // 2])
        return empty(*sizes, **options)  # type: ignore[call-overload]

    def touched(*sizes: object, **options: object) -> torch.Tensor:
        os.utime(path, (1, 1))
        return empty(*sizes, **options)  # type: ignore[call-overload]

    for function, message in ((touched, "it was written to while"), (truncated, "it became shorter while")):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", function)
            with pytest.raises(ValueError, match=message):
                read_safetensors(path)
        path.write_bytes(whole)
    read_safetensors(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX alone")
def test_a_process_forked_during_a_save_keeps_nobody_waiting(tmp_path: Path) -> None:
    """As workers of a data loader are: it has the lock's descriptor until it ends."""
    with files._alone_in(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        began = time.monotonic()
        write_atomically(tmp_path / "a.txt", b"a")
        assert time.monotonic() - began < 30
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_temporary_file_that_another_writer_took_for_a_leftover_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its creation and its lock."""
    lock, made = files.lock, set()

    def locked(descriptor: int, **options: bool) -> bool | None:
        for path in tmp_path.glob(".a.*.tmp"):
            if not made:
                path.unlink()
            made.add(path.name)
        return lock(descriptor, **options)

    monkeypatch.setattr(files, "lock", locked)
    write_atomically(tmp_path / "a", b"1")
    assert len(made) == 2
    assert contents(tmp_path) == {"a": b"1"}

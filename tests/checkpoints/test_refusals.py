"""What is no checkpoint, or a damaged one: each refused in one line that says what was expected and what came."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilevit_fast.checkpoints import CheckpointError, io, load_model, read_checkpoint, write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation
from tests.checkpoints.helpers import assert_one_line


@pytest.mark.parametrize("source", ["nowhere/at/all", "/nowhere", "missing.pth", "~/no such folder"])
def test_nothing_there(source: str) -> None:
    with pytest.raises(CheckpointError, match="found nothing there"):
        read_checkpoint(source)


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(CheckpointError, match=r"expected a folder, a weights file .* got: File name too long") as error:
        read_checkpoint("x" * 300)
    assert_one_line(error)
    with pytest.raises(CheckpointError, match="found nothing there"):
        read_checkpoint("a\0b.pth")


def test_folders_and_files_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors, .* found an empty folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"found photo\.jpg"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected a weights file .* got photo\.jpg"):
        read_checkpoint(tmp_path / "photo.jpg")


@pytest.mark.parametrize("size", [0, 4, 100, 4096, 200_000, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "file.pth", "legacy.pt"])
def test_truncated_files(classifier: MobileViTForImageClassification, tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(classifier.state_dict(), path)
    else:
        torch.save(classifier.state_dict(), path, _use_new_zipfile_serialization=name != "legacy.pt")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=f"{name}: expected a ") as error:
        read_checkpoint(path)
    assert_one_line(error)


@pytest.mark.parametrize("name", ["model.safetensors", "file.bin"])
@pytest.mark.parametrize(
    "content", [b"\x80\x02J\x01\x02.", b"<html>Not found</html>", b"\x80\x04garbage", bytes(range(256)) * 40]
)
def test_foreign_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: expected a ") as error:
        read_checkpoint(tmp_path / name)
    assert_one_line(error)


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match="got a Git LFS pointer"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"args": argparse.ArgumentParser},
            r"tensors only \(weights_only=True\), got one that needs argparse\.ArgumentParser",
        ),
        ([1, 2], "expected a dictionary of tensors, got list"),
        ({"epoch": 3, "net": {}}, "got other values under epoch, net"),
        ({"fc.weight": torch.zeros(2)}, "not a MobileViT"),
        ({}, "not a MobileViT: .* got no tensors"),
    ],
)
def test_files_of_other_things(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(tmp_path / "file.pt")
    assert_one_line(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a JSON object, got list"),
        ('{"model_type": "vit"}', "expected model_type 'mobilevit' .* got model_type 'vit'"),
        ('{"architecture": "resnet50"}', "and architecture 'resnet50'"),
        ('{"model_type": "mobilevit", "output_stride": 7}', "output_stride"),
    ],
)
def test_other_configurations(saved: Path, text: str, message: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(saved)
    assert "config.json" in str(error.value)
    assert_one_line(error)


def test_a_configuration_for_other_weights(saved: Path) -> None:
    MobileViTConfig.preset("small", architectures=["MobileViTForImageClassification"]).save_pretrained(saved)
    with pytest.raises(CheckpointError, match=r"does not fit MobileViTForImageClassification: .* has shape") as error:
        load_model(saved)
    assert_one_line(error)


def test_weights_that_are_no_numbers(saved: Path) -> None:
    tensors = {name: tensor.to(torch.int8) for name, tensor in read_checkpoint(saved).state_dict.items()}
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"got torch\.int8"):
        load_model(saved)


def test_what_cannot_be_written(
    classifier: MobileViTForImageClassification, segmenter: MobileViTForSemanticSegmentation, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="with a config to write, got Linear"):
        write_checkpoint(torch.nn.Linear(1, 1), tmp_path / "out")
    with pytest.raises(CheckpointError, match="timm has no names for a segmentation model"):
        write_checkpoint(segmenter, tmp_path / "out", naming="timm")
    with pytest.raises(CheckpointError, match="got 'keras'"):
        write_checkpoint(classifier, tmp_path / "out", naming="keras")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="expected a folder to write to, got a file"):
        write_checkpoint(classifier, tmp_path / "file")


def test_a_configuration_that_no_model_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(config: MobileViTConfig) -> None:
        raise ValueError("expected another width, got 7")

    model = MobileViTForImageClassification(MobileViTConfig(num_labels=2))
    write_checkpoint(model, tmp_path)
    monkeypatch.setitem(io._MODELS, "MobileViTForImageClassification", refuses)
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*: expected another width, got 7") as error:
        load_model(tmp_path)
    assert_one_line(error)

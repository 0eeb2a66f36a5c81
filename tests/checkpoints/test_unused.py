"""Tensors that no model has a place for are named, and are an error unless that is allowed."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from mobilevit_fast.checkpoints import (
    CheckpointError,
    from_huggingface,
    load_model,
    load_weights,
    read_checkpoint,
    to_huggingface,
)
from mobilevit_fast.cli import app
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from testing.pairs import CLASSIFICATION, theirs_for
from testing.peers import import_timm
from tests.checkpoints.helpers import assert_one_line, assert_same_tensors, randomised

CONFIG = MobileViTConfig.preset("xx_small", num_labels=3)


def own_head(features: int = 320) -> nn.Module:
    return nn.Sequential(nn.Dropout(), nn.Linear(features, 21))


def transformers_with_own_head() -> tuple[dict[str, Tensor], list[str]]:
    model: Any = theirs_for(CLASSIFICATION, CONFIG)
    model.classifier = own_head()
    return model.state_dict(), ["classifier.1.weight", "classifier.1.bias"]


def ours_with_own_head() -> tuple[dict[str, Tensor], list[str]]:
    model = MobileViTForImageClassification(CONFIG)
    model.classifier = own_head()  # type: ignore[assignment]
    return model.state_dict(), ["classifier.1.weight", "classifier.1.bias"]


def timm_with_own_head() -> tuple[dict[str, Tensor], list[str]]:
    model: Any = import_timm().create_model("mobilevit_xxs", num_classes=3)
    model.head.fc = own_head()
    return model.state_dict(), ["head.fc.1.weight", "head.fc.1.bias"]


def timm_beside_its_head() -> tuple[dict[str, Tensor], list[str]]:
    """A name that is one of transformers' head."""
    model: Any = import_timm().create_model("mobilevit_xxs", num_classes=0)
    model.classifier = nn.Linear(320, 21)
    return model.state_dict(), ["classifier.weight", "classifier.bias"]


def cvnets_with_own_head() -> tuple[dict[str, Tensor], list[str]]:
    backbone = MobileViTForImageClassification(MobileViTConfig.preset("xx_small", num_labels=0))
    state_dict = from_huggingface(backbone.state_dict(), "cvnets")
    weight, bias = own_head()[1].parameters()  # type: ignore[index]
    return {**state_dict, "classifier.1.weight": weight, "classifier.1.bias": bias}, [
        "classifier.1.weight",
        "classifier.1.bias",
    ]


def segmentation_with_own_head() -> tuple[dict[str, Tensor], list[str]]:
    model = MobileViTModel(CONFIG, expand_output=False)
    head = {f"segmentation_head.{name}": value for name, value in own_head(80).state_dict().items()}
    return {**model.state_dict(), **head}, ["segmentation_head.1.weight", "segmentation_head.1.bias"]


FILES: list[Callable[[], tuple[dict[str, Tensor], list[str]]]] = [
    transformers_with_own_head,
    ours_with_own_head,
    timm_with_own_head,
    timm_beside_its_head,
    cvnets_with_own_head,
    segmentation_with_own_head,
]


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_the_head_of_somebodys_own(
    make: Callable[[], tuple[dict[str, Tensor], list[str]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_dict, unused = make()
    torch.save(state_dict, tmp_path / "a.pth")
    for load in (load_model, MobileViTModel.from_pretrained):
        arguments = {"expand_output": False} if load is not load_model and "segm" in make.__name__ else {}
        with pytest.raises(CheckpointError, match="2 unknown") as error:
            load(tmp_path / "a.pth", **arguments)  # type: ignore[operator]
        assert all(name in str(error.value) for name in unused)
        assert "allow_unused=True" in str(error.value)
        assert_one_line(error)
        caplog.clear()
        model = load(tmp_path / "a.pth", allow_unused=True, **arguments)  # type: ignore[operator]
        assert isinstance(model, MobileViTModel)
        assert all(name in caplog.text for name in unused)
    with pytest.raises(
        CheckpointError, match="expected a model for classification, got one for base with unk"
    ) as error:
        load_model(tmp_path / "a.pth", "classification")
    assert all(name in str(error.value) for name in unused)


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_converting_it(make: Callable[[], tuple[dict[str, Tensor], list[str]]], tmp_path: Path) -> None:
    state_dict, unused = make()
    torch.save(state_dict, tmp_path / "a.pth")
    command = ["convert", str(tmp_path / "a.pth"), str(tmp_path / "out")]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert not (tmp_path / "out").exists()
    assert all(name in refused.stderr for name in [*unused, "--allow-unused"])
    allowed = CliRunner().invoke(app, [*command, "--allow-unused"])
    assert allowed.exit_code == 0, allowed.stderr
    assert all(name in allowed.stderr for name in unused)
    assert not read_checkpoint(tmp_path / "out").state_dict.keys() & set(unused)


def test_every_one_is_named(tmp_path: Path) -> None:
    state_dict = MobileViTForImageClassification(CONFIG).state_dict()
    extra = {f"extra.{number}.weight": torch.zeros(1) for number in range(30)}
    save_file({**state_dict, **extra}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "a.safetensors")
    assert all(f"{name}," in str(error.value) or f"{name})" in str(error.value) for name in extra)


def test_what_is_missing_or_of_another_shape_is_not_allowed_with_it() -> None:
    model = MobileViTForImageClassification(CONFIG)
    state_dict = model.state_dict() | {"extra": torch.zeros(1)}
    load_weights(model, state_dict, allow_unused=True)
    state_dict["classifier.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError, match=r"1 unknown .*classifier\.bias has shape \(9,\), expected"):
        load_weights(model, state_dict, allow_unused=True)
    del state_dict["classifier.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing \(classifier.bias\); 1 unknown \(extra\)"):
        load_weights(model, state_dict, allow_unused=True)


def test_half_a_head_is_not_left_out(tmp_path: Path) -> None:
    state_dict = MobileViTForImageClassification(CONFIG).state_dict()
    del state_dict["classifier.weight"]
    torch.save(state_dict, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"classifier\.weight is missing"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("make", [MobileViTForImageClassification, MobileViTForSemanticSegmentation])
def test_a_backbone_does_without_heads_that_are_known(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = randomised(make(CONFIG))
    whole.save_pretrained(tmp_path)
    expanded = make is MobileViTForImageClassification
    with caplog.at_level(logging.WARNING):
        for model in (
            MobileViTModel.from_pretrained(tmp_path, expand_output=expanded),
            load_model(tmp_path, "base"),
            MobileViTModel.from_pretrained(tmp_path, expand_output=False),
        ):
            own = model.state_dict()
            assert_same_tensors(own, {name: whole.mobilevit.state_dict()[name] for name in own})
    assert not caplog.records


def test_counters_of_batches_may_be_missing_and_are_no_weights(tmp_path: Path) -> None:
    whole = MobileViTForImageClassification(CONFIG)
    state_dict = {name: tensor for name, tensor in whole.state_dict().items() if "num_batches" not in name}
    assert len(state_dict) < len(whole.state_dict())
    for naming in ("huggingface", "cvnets", "timm"):
        torch.save(from_huggingface(state_dict, naming), tmp_path / "a.pth")
        load_model(tmp_path / "a.pth")


def test_the_second_head_of_ml_cvnets_is_known(segmenter: MobileViTForSemanticSegmentation) -> None:
    state_dict = from_huggingface(segmenter.state_dict(), "cvnets")
    unused: list[str] = []
    beside = state_dict | {"seg_head.aux_head.0.block.conv.weight": torch.zeros(1), "seg_head.other": torch.zeros(1)}
    assert_same_tensors(to_huggingface(beside, "cvnets", unused), segmenter.state_dict())
    assert unused == ["seg_head.other"]
    with pytest.raises(CheckpointError, match=r"1 unknown \(seg_head\.other\)"):
        to_huggingface(beside, "cvnets")


def test_one_tensor_in_two_shards(tmp_path: Path) -> None:
    state_dict = MobileViTForImageClassification(CONFIG).state_dict()
    for part in ("a", "b"):
        save_file(state_dict, tmp_path / f"{part}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    )
    with pytest.raises(CheckpointError, match=r"b\.safetensors: expected every tensor in one file of several, got"):
        read_checkpoint(tmp_path)

"""What this package writes, transformers and timm read, and the other way round."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilevit_fast.checkpoints import from_huggingface, load_model, to_huggingface, write_checkpoint
from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation
from testing.peers import import_timm, import_transformers
from tests.checkpoints.helpers import LABELS, assert_same_tensors, randomised, relative_error

TIMM_NAMES = {"small": "mobilevit_s", "x_small": "mobilevit_xs", "xx_small": "mobilevit_xxs"}
HEADED = (MobileViTForImageClassification, MobileViTForSemanticSegmentation)


def logits(model: Any) -> torch.Tensor:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model(images)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("size", PRESETS)
@pytest.mark.parametrize("model_class", HEADED)
def test_transformers_reads_what_is_written(size: str, model_class: type, tmp_path: Path) -> None:
    ours = randomised(model_class(MobileViTConfig.preset(size, **LABELS, output_stride=16)))
    write_checkpoint(ours, tmp_path)
    theirs, report = getattr(import_transformers(), model_class.__name__).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    assert theirs.config.id2label == LABELS["id2label"]
    assert theirs.config.output_stride == 16
    assert_same_tensors(theirs.state_dict(), ours.state_dict())
    if size == "xx_small":
        # transformers maps the file, and where a weight begins in memory decides how PyTorch rounds.
        theirs.load_state_dict({name: tensor.clone() for name, tensor in theirs.state_dict().items()}, assign=True)
        assert torch.equal(logits(theirs.eval()), logits(ours))


@pytest.mark.parametrize("size", PRESETS)
@pytest.mark.parametrize("model_class", HEADED)
def test_what_transformers_writes_is_read(size: str, model_class: type, tmp_path: Path) -> None:
    transformers = import_transformers()
    config = transformers.MobileViTConfig(**MobileViTConfig.preset(size, **LABELS, output_stride=8).to_dict())
    theirs = randomised(getattr(transformers, model_class.__name__)(config))
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert isinstance(ours, model_class)
    assert ours.config.id2label == LABELS["id2label"]
    assert ours.config.output_stride == 8
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    if size == "xx_small":
        assert torch.equal(logits(theirs), logits(ours))


def test_models_of_transformers_can_be_written(tmp_path: Path) -> None:
    transformers = import_transformers()
    config = transformers.MobileViTConfig(**MobileViTConfig.preset("xx_small", **LABELS).to_dict())
    theirs = transformers.MobileViTForImageClassification(config)
    write_checkpoint(theirs, tmp_path, naming="cvnets")
    ours = load_model(tmp_path)
    assert ours.config.label2id == LABELS["label2id"]
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize(("size", "timm_name"), TIMM_NAMES.items())
def test_timm_computes_the_same_with_our_weights(size: str, timm_name: str) -> None:
    ours = randomised(MobileViTForImageClassification(MobileViTConfig.preset(size, num_labels=5)))
    theirs = import_timm().create_model(timm_name, num_classes=5).eval()
    theirs.load_state_dict(from_huggingface(ours.state_dict(), "timm"))
    assert relative_error(logits(ours), logits(theirs)) < 1e-5


@pytest.mark.parametrize(("size", "timm_name"), TIMM_NAMES.items())
def test_a_timm_file_is_enough(size: str, timm_name: str, tmp_path: Path) -> None:
    theirs = randomised(import_timm().create_model(timm_name, num_classes=5))
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = load_model(tmp_path / "weights.safetensors")
    expected = MobileViTConfig.preset(size, num_labels=5, architectures=["MobileViTForImageClassification"])
    assert ours.config == expected
    assert_same_tensors(from_huggingface(ours.state_dict(), "timm"), theirs.state_dict())
    assert relative_error(logits(ours), logits(theirs)) < 1e-5


def test_timm_folder_of_the_hub(tmp_path: Path) -> None:
    timm = import_timm()
    theirs = randomised(timm.create_model("mobilevit_xxs", num_classes=5))
    timm.models.save_for_hf(theirs, tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.num_labels == 5
    assert_same_tensors(ours.state_dict(), to_huggingface(theirs.state_dict(), "timm"))


def test_timm_reads_what_is_written(tmp_path: Path) -> None:
    ours = randomised(MobileViTForImageClassification(MobileViTConfig.preset("xx_small", num_labels=5)))
    write_checkpoint(ours, tmp_path, naming="timm")
    theirs = import_timm().create_model(
        "mobilevit_xxs", num_classes=5, checkpoint_path=str(tmp_path / "model.safetensors")
    )
    assert_same_tensors(theirs.state_dict(), load_file(tmp_path / "model.safetensors"))
    assert relative_error(logits(ours), logits(theirs.eval())) < 1e-5

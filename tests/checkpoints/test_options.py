"""Options of transformers' from_pretrained, with its meaning or an error that names what to use."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevit_fast.checkpoints import CheckpointError
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTModel
from testing.pairs import CLASSIFICATION, make_pair, tiny_config
from testing.peers import import_transformers


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder that transformers wrote: five classes, float32."""
    make_pair(CLASSIFICATION, tiny_config())[1].save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def load(saved: Path, **options: Any) -> MobileViTForImageClassification:
    return MobileViTForImageClassification.from_pretrained(saved, **options)


def load_theirs(saved: Path, **options: Any) -> Any:
    return import_transformers().MobileViTForImageClassification.from_pretrained(saved, **options)


def test_mismatched_sizes_may_be_ignored(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match=r"1 more shapes differ \(ignore_mismatched_sizes=True loads the rest\)"):
        load(saved, num_labels=3)
    ours = load(saved, num_labels=3, ignore_mismatched_sizes=True)
    assert "classifier.weight has shape (5, 24), expected (3, 24)" in caplog.text
    theirs = load_theirs(saved, num_labels=3, ignore_mismatched_sizes=True)
    assert ours.classifier.weight.shape == theirs.classifier.weight.shape == (3, 24)
    assert ours.classifier.bias.eq(0).all()
    ours_backbone, their_backbone = ours.mobilevit.state_dict(), theirs.mobilevit.state_dict()
    assert all(torch.equal(ours_backbone[name], tensor) for name, tensor in their_backbone.items())


def test_ignoring_sizes_ignores_nothing_else(saved: Path) -> None:
    weights = torch.load(_as_pickle(saved, without="classifier.bias"))
    assert "classifier.bias" not in weights
    with pytest.raises(CheckpointError, match=r"1 missing \(classifier\.bias\).*strict=False"):
        load(saved.parent / "pytorch_model.bin", config=saved, num_labels=3, ignore_mismatched_sizes=True)


def _as_pickle(saved: Path, without: str) -> Path:
    weights = load(saved).state_dict()
    del weights[without]
    torch.save(weights, saved.parent / "pytorch_model.bin")
    return saved.parent / "pytorch_model.bin"


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["bfloat16", torch.bfloat16])
def test_types_come_by_either_name(saved: Path, name: str, value: Any) -> None:
    assert load(saved, **{name: value}).dtype == load_theirs(saved, **{name: value}).dtype == torch.bfloat16


def test_dtype_counts_more_than_its_older_name(saved: Path) -> None:
    assert load(saved, dtype="float64", torch_dtype="float16").dtype == torch.float64
    assert load(saved, dtype="torch.float16").dtype == torch.float16


@pytest.mark.parametrize("written", ["float32", "float16", None])
def test_auto_takes_the_type_of_the_configuration(saved: Path, written: str | None) -> None:
    file = saved / "config.json"
    values = json.loads(file.read_text())
    values.pop("dtype")
    file.write_text(json.dumps({**values, **({} if written is None else {"dtype": written})}))
    for name in ("dtype", "torch_dtype"):
        assert load(saved, **{name: "auto"}).dtype == load_theirs(saved, **{name: "auto"}).dtype
    assert load(saved).dtype == torch.float32


@pytest.mark.parametrize("value", ["float13", "int8", torch.int8, 16])
def test_other_types_are_refused(saved: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r'floating point torch\.dtype, its name or "auto", got'):
        load(saved / "not looked for", torch_dtype=value)


def test_configurations_come_as_paths_and_from_transformers(saved: Path) -> None:
    for config in (saved, str(saved / "config.json"), load_theirs(saved).config):
        assert load(saved, config=config, output_stride=16).config.output_stride == 16
    with pytest.raises(TypeError, match="from_pretrained: expected a MobileViTConfig, got dict"):
        load(saved, config={})


def test_arguments_of_the_class_are_taken(saved: Path) -> None:
    model = MobileViTModel.from_pretrained(saved, expand_output=False)
    assert not hasattr(model, "conv_1x1_exp")
    assert model.name_or_path == str(saved)


def test_what_asks_for_nothing_else_is_taken(saved: Path) -> None:
    options: dict[str, Any] = {"low_cpu_mem_usage": True, "use_safetensors": True, "trust_remote_code": False}
    options |= {"device_map": None, "subfolder": "", "weights_only": True, "output_loading_info": False}
    assert load(saved, **options, attn_implementation="eager").num_labels == 5


@pytest.mark.parametrize(
    ("options", "substitute"),
    [
        ({"device_map": "auto"}, r"\.to\(device\)"),
        ({"weights_only": False}, "pickles that need code are not read"),
        ({"subfolder": "b"}, "the path of that folder"),
        ({"variant": "fp16"}, "the path of that weights file"),
        ({"state_dict": {}}, "load_weights"),
        ({"output_loading_info": True}, "strict=False"),
        ({"force_download": True}, "snapshot_download"),
        ({"use_auth_token": True}, "token"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantisation"),
        ({"proxies": {"https": "x"}}, "HTTPS_PROXY"),
    ],
    ids=str,
)
def test_others_name_their_substitute(saved: Path, options: dict[str, Any], substitute: str) -> None:
    name = next(iter(options))
    with pytest.raises(TypeError, match=rf"^from_pretrained: {name}=.* is not done here; use .*{substitute}"):
        load(saved, **options)


def test_a_warning_says_nothing_where_all_fits(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(saved, ignore_mismatched_sizes=True)
    assert not caplog.records

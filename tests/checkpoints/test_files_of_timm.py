"""Files that timm's own programs write."""

import argparse
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast.checkpoints import CheckpointError, load_model, read_checkpoint, write_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTModel
from testing.peers import import_timm
from tests.checkpoints.helpers import assert_same_tensors, randomised


def timm_model(**arguments: Any) -> Any:
    return randomised(import_timm().create_model("mobilevit_xxs", **arguments))


def saved_by_timm(folder: Path, model: Any, **options: Any) -> Path:
    """model_best.pth.tar, by the class that timm's train.py saves with."""
    import_timm()
    from timm.utils import CheckpointSaver

    optimizer = torch.optim.AdamW(model.parameters())
    arguments = argparse.Namespace(model="mobilevit_xxs", lr=1e-3, mean=None, betas=[0.9, 0.999], amp=True)
    arguments.model_kwargs, arguments.big = {"drop": (0.1, 2)}, 2**70
    saver = CheckpointSaver(
        model, optimizer, args=arguments, checkpoint_dir=str(folder), recovery_dir=str(folder), **options
    )
    saver.save_checkpoint(epoch=3, metric=71.5)
    return folder / f"model_best{saver.extension}"


def logits(model: Any) -> Tensor:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.eval()(x)
    return found if isinstance(found, Tensor) else found.logits


def test_model_best_pth_tar(tmp_path: Path) -> None:
    model = timm_model(num_classes=5)
    path = saved_by_timm(tmp_path, model)
    assert path.name == "model_best.pth.tar"
    allowed = set(torch.serialization.get_safe_globals())
    checkpoint = read_checkpoint(path)
    assert (checkpoint.naming, checkpoint.key, checkpoint.unused) == ("timm", "state_dict", ())
    torch.testing.assert_close(logits(load_model(path)), logits(model), atol=1e-4, rtol=1e-4)
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_converting_it(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    model = timm_model(num_classes=5)
    path = saved_by_timm(tmp_path, model)
    result = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert "(timm, state_dict)" in result.stdout
    loaded = MobileViTForImageClassification.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-4, rtol=1e-4)


def test_averaged_weights_count_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_timm()
    from timm.models import load_checkpoint
    from timm.utils import ModelEmaV3

    model = timm_model(num_classes=5)
    averaged = ModelEmaV3(model)
    randomised(averaged.module, seed=5)
    path = saved_by_timm(tmp_path, model, model_ema=averaged)
    with caplog.at_level(logging.WARNING):
        checkpoint = read_checkpoint(path)
    assert checkpoint.key == "state_dict_ema"
    assert "the weights under state_dict_ema are read, other tensors are not (state_dict)" in caplog.text
    theirs = timm_model(num_classes=5)
    load_checkpoint(theirs, str(path), use_ema=True)
    torch.testing.assert_close(logits(load_model(path)), logits(theirs), atol=1e-4, rtol=1e-4)


def test_weights_beside_the_ones_that_are_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state_dict = timm_model(num_classes=0).state_dict()
    head = {"fc.weight": torch.zeros(2, 3)}
    beside = {"optimizer": {"state": {}, "param_groups": []}, "epoch": 3, "rng": torch.zeros(3, dtype=torch.uint8)}
    torch.save({"model": state_dict, "head": head, "scale": torch.ones(1), **beside}, tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        read_checkpoint(tmp_path / "a.pth")
    assert "other tensors are not (head, scale)" in caplog.text


@pytest.mark.parametrize("feature_cls", [None, "getter", "hook"])
def test_models_of_features(tmp_path: Path, feature_cls: str | None) -> None:
    arguments = {} if feature_cls is None else {"feature_cls": feature_cls}
    features = timm_model(features_only=True, **arguments)
    torch.save(features.state_dict(), tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth")
    assert isinstance(model, MobileViTModel)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs, ours = features(x), model(x, output_hidden_states=True)
    torch.testing.assert_close(ours.last_hidden_state, theirs[-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(ours.hidden_states[2], theirs[2], atol=1e-3, rtol=1e-3)
    same = MobileViTModel.from_pretrained(tmp_path / "a.pth").state_dict()
    assert_same_tensors(same, model.state_dict())
    with pytest.raises(CheckpointError, match=r"expected a model for classification, got one for base$"):
        load_model(tmp_path / "a.pth", "classification")


def test_models_of_some_features_say_what_is_missing(tmp_path: Path) -> None:
    torch.save(timm_model(features_only=True, out_indices=(0, 1, 2)).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"timm checkpoint does not fit .* missing \(stages\.3\."):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["x", "y", "z"], {0: "x", 1: "y", 2: "z"}),
        ({"0": "x", "2": "z"}, {0: "x", 1: "LABEL_1", 2: "z"}),
        (["x", "y"], None),
        ({"0": "x", "7": "z"}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["pretrained_cfg", "top"])
def test_names_of_classes_of_the_hub(
    classifier: MobileViTForImageClassification,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    labels: Any,
    expected: dict[int, str] | None,
    place: str,
) -> None:
    """timm writes them beside pretrained_cfg, older versions into it."""
    write_checkpoint(classifier, tmp_path, naming="timm")
    config: dict[str, Any] = {"architecture": "mobilevit_xxs", "num_classes": 3, "pretrained_cfg": {}}
    (config if place == "top" else config["pretrained_cfg"])["label_names"] = labels
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_checkpoint(tmp_path).config.id2label
    assert found == (expected or {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    assert bool(re.search("2 label_names left out, for 3 classes", caplog.text)) is (expected is None)

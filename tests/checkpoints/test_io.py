"""Reading and writing checkpoints: places, formats, wrappers, precision, and what is refused."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mobilevit_fast.acceleration import accelerate
from mobilevit_fast.checkpoints import (
    CheckpointError,
    from_huggingface,
    load_model,
    load_pretrained,
    read_checkpoint,
    write_checkpoint,
)
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.files import hub
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from tests.checkpoints.helpers import LABELS, assert_one_line, assert_same_tensors, randomised


@pytest.mark.parametrize("naming", ["huggingface", "cvnets", "timm"])
def test_saved_and_loaded_is_bitwise_the_same(
    classifier: MobileViTForImageClassification, tmp_path: Path, naming: str
) -> None:
    write_checkpoint(classifier, tmp_path, naming=naming)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.naming == naming
    assert checkpoint.path == tmp_path / "model.safetensors"
    assert checkpoint.config.id2label == LABELS["id2label"]
    assert checkpoint.config.architectures == ["MobileViTForImageClassification"]
    assert_same_tensors(checkpoint.state_dict, classifier.state_dict())

    loaded = load_model(tmp_path)
    images = torch.rand(1, 3, 64, 64)
    assert not loaded.training
    assert torch.equal(loaded(images).logits, classifier(images).logits)


@pytest.mark.parametrize("naming", ["huggingface", "cvnets"])
def test_segmentation_is_bitwise_the_same(
    segmenter: MobileViTForSemanticSegmentation, tmp_path: Path, naming: str
) -> None:
    write_checkpoint(segmenter, tmp_path, naming=naming)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, MobileViTForSemanticSegmentation)
    assert loaded.config.output_stride == 8
    assert_same_tensors(loaded.state_dict(), segmenter.state_dict())


def test_models_read_and_write_through_this_package(
    classifier: MobileViTForImageClassification, tmp_path: Path
) -> None:
    classifier.save_pretrained(tmp_path, naming="timm")
    loaded = MobileViTForImageClassification.from_pretrained(tmp_path, output_stride=16)
    assert loaded.config.output_stride == 16
    assert_same_tensors(loaded.state_dict(), classifier.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    model = randomised(MobileViTForImageClassification(MobileViTConfig.preset("xx_small"))).to(dtype)
    write_checkpoint(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    loaded = load_model(tmp_path)
    assert loaded.dtype == dtype
    assert_same_tensors(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize("few", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_has_one_dtype(
    classifier: MobileViTForImageClassification,
    saved: Path,
    few: torch.dtype,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = classifier.state_dict()
    changed = {"mobilevit.conv_stem.convolution.weight", "classifier.bias"}
    tensors = {key: tensor.to(few) if key in changed else tensor for key, tensor in given.items()}
    (saved / "model.safetensors").unlink()
    if name == "pytorch_model.bin":
        torch.save(tensors, saved / name)
    else:
        save_file(tensors, saved / name)

    loaded = load_model(saved)
    assert "2 tensors of another type than float32 were cast to it" in caplog.text
    expected = {key: tensor.to(few).to(torch.float32) if key in changed else tensor for key, tensor in given.items()}
    assert_same_tensors(loaded.state_dict(), expected)  # counters of batches are int64 as they were
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert loaded(images).logits.isfinite().all()
        assert accelerate(loaded)(images).logits.isfinite().all()
    # What is asked for comes from what the file has, not from a rounded copy.
    double = MobileViTForImageClassification.from_pretrained(saved, dtype=torch.float64)
    assert double.dtype == torch.float64
    assert torch.equal(double.classifier.bias, tensors["classifier.bias"].double())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_no_number_becomes_infinite_because_most_are_narrower(
    classifier: MobileViTForImageClassification, saved: Path, half: torch.dtype
) -> None:
    """As mixed precision is saved: weights, which are most numbers, in half precision, all else in float32."""
    given = dict(classifier.state_dict())
    variance = next(name for name in given if name.endswith("running_var"))
    given[variance] = torch.full_like(given[variance], 1e5)
    tensors = {key: tensor.to(half) if tensor.ndim > 1 else tensor for key, tensor in given.items()}
    save_file(tensors, saved / "model.safetensors")
    loaded = load_model(saved)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.state_dict()[variance], given[variance])
    assert load_model(saved, dtype=half).dtype == half


def test_a_model_of_float64_stays_one(classifier: MobileViTForImageClassification, saved: Path) -> None:
    tensors = {key: tensor.double() if tensor.ndim > 1 else tensor for key, tensor in classifier.state_dict().items()}
    save_file(tensors, saved / "model.safetensors")
    assert load_model(saved).dtype == torch.float64


def test_strided_and_shared_tensors_are_written_in_full(tmp_path: Path) -> None:
    model = randomised(MobileViTForImageClassification(MobileViTConfig.preset("xx_small")))
    model = model.to(memory_format=torch.channels_last)
    layers = model.mobilevit.encoder.layer[2].transformer.layer
    layers[1].layernorm_before.weight = layers[0].layernorm_before.weight
    query = layers[0].attention.attention.query
    query.weight = torch.nn.Parameter(query.weight.detach().T)
    assert not query.weight.is_contiguous()
    write_checkpoint(model, tmp_path)
    assert_same_tensors(read_checkpoint(tmp_path).state_dict, model.state_dict())


def test_an_accelerated_model_is_written_as_what_it_was(
    segmenter: MobileViTForSemanticSegmentation, tmp_path: Path
) -> None:
    model = accelerate(copy.deepcopy(segmenter), compute_dtype=torch.bfloat16)
    write_checkpoint(model, tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is MobileViTForSemanticSegmentation
    assert_same_tensors(loaded.state_dict(), segmenter.state_dict())


def test_a_backbone_alone(tmp_path: Path) -> None:
    for expand_output in (True, False):
        model = randomised(MobileViTModel(MobileViTConfig.preset("xx_small"), expand_output=expand_output))
        write_checkpoint(model, tmp_path)
        loaded = load_model(tmp_path)
        assert isinstance(loaded, MobileViTModel)
        assert_same_tensors(loaded.state_dict(), model.state_dict())


def test_a_backbone_from_a_classifier(classifier: MobileViTForImageClassification, saved: Path) -> None:
    loaded = load_pretrained(MobileViTModel, saved)
    assert_same_tensors(loaded.state_dict(), classifier.mobilevit.state_dict())


def test_a_classifier_without_classes(tmp_path: Path) -> None:
    model = MobileViTForImageClassification(MobileViTConfig.preset("xx_small", num_labels=0))
    write_checkpoint(model, tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, MobileViTForImageClassification)
    assert_same_tensors(loaded.state_dict(), model.state_dict())


def test_the_task_can_be_asked_for(classifier: MobileViTForImageClassification, saved: Path) -> None:
    assert isinstance(load_model(saved, "classification"), MobileViTForImageClassification)
    assert isinstance(load_model(saved, "base"), MobileViTModel)
    with pytest.raises(CheckpointError, match="expected a model for segmentation, got one for classification"):
        load_model(saved, "segmentation")
    with pytest.raises(ValueError, match="got 'detection'"):
        load_model(saved, "detection")


def test_a_new_head_for_other_classes(
    classifier: MobileViTForImageClassification, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match=r"classifier.weight has shape \(3, 320\), expected \(7, 320\)"):
        load_pretrained(MobileViTForImageClassification, saved, num_labels=7)
    loaded = load_pretrained(MobileViTForImageClassification, saved, num_labels=7, strict=False)
    assert loaded.config.num_labels == 7
    assert "classifier.weight" in caplog.text
    assert_same_tensors(loaded.mobilevit.state_dict(), classifier.mobilevit.state_dict())


def test_a_backbone_for_another_task(classifier: MobileViTForImageClassification, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing \(segmentation_head.*unknown \(mobilevit\.conv_1x1_exp"):
        load_pretrained(MobileViTForSemanticSegmentation, saved)
    loaded = load_pretrained(MobileViTForSemanticSegmentation, saved, strict=False, output_stride=16)
    kept = {k: v for k, v in classifier.mobilevit.state_dict().items() if not k.startswith("conv_1x1_exp")}
    assert_same_tensors(loaded.mobilevit.state_dict(), kept)


def wrappers(state_dict: dict[str, Tensor]) -> dict[str, Any]:
    module = {f"module.{name}": tensor for name, tensor in state_dict.items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in state_dict.items()}
    return {
        "bare": state_dict,
        "ml-cvnets": {"model_state_dict": state_dict, "epoch": 3, "optim_state_dict": {"state": {}}},
        "timm": {"state_dict": module, "arch": "mobilevit_xxs"},
        "ema first": {"model_state_dict": other, "ema_state_dict": module},
        "averaged": {"n_averaged": torch.tensor(9), **module},
        "compiled": {"model": {f"_orig_mod.module.{name}": tensor for name, tensor in state_dict.items()}},
    }


@pytest.mark.parametrize("kind", wrappers({}))
@pytest.mark.parametrize("naming", ["huggingface", "cvnets", "timm"])
def test_wrappers_of_training_scripts(
    classifier: MobileViTForImageClassification, tmp_path: Path, kind: str, naming: str
) -> None:
    path = tmp_path / "file.pth"
    torch.save(wrappers(from_huggingface(classifier.state_dict(), naming))[kind], path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.naming == naming
    assert checkpoint.config.num_labels == 3
    assert_same_tensors(checkpoint.state_dict, classifier.state_dict())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_file_of_standard_name_uses_the_configuration_beside_it(saved: Path, name: str) -> None:
    if name == "pytorch_model.bin":
        torch.save(read_checkpoint(saved).state_dict, saved / name)
    assert read_checkpoint(saved / name).config.id2label == LABELS["id2label"]
    (saved / "config.json").unlink()
    # A safetensors file of this package holds the configuration itself, a pickle does not.
    assert read_checkpoint(saved / name).config.id2label[0] == ("cat" if "safetensors" in name else "LABEL_0")


def test_safetensors_come_first(classifier: MobileViTForImageClassification, saved: Path) -> None:
    torch.save({"not": "read"}, saved / "pytorch_model.bin")
    assert_same_tensors(read_checkpoint(saved).state_dict, classifier.state_dict())


def shard(folder: Path) -> list[str]:
    tensors = read_checkpoint(folder).state_dict
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    parts = {"part-1.safetensors": names[:100], "part-2.safetensors": names[100:]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / part)
    weight_map = {name: part for part, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return list(parts)


def test_shards(classifier: MobileViTForImageClassification, saved: Path) -> None:
    parts = shard(saved)
    assert_same_tensors(read_checkpoint(saved).state_dict, classifier.state_dict())
    (saved / parts[1]).unlink()
    with pytest.raises(CheckpointError, match=r"expected all the files it lists, part-2\.safetensors missing"):
        read_checkpoint(saved)
    (saved / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.bin"}}')
    with pytest.raises(CheckpointError, match="names of weights files beside it"):
        read_checkpoint(saved)


def test_timm_config_of_the_hub(classifier: MobileViTForImageClassification, tmp_path: Path) -> None:
    write_checkpoint(classifier, tmp_path, naming="timm")
    described = {"input_size": [3, 288, 320], "label_names": ["x", "y", "z"]}
    config = {"architecture": "mobilevit_xxs", "num_classes": 3, "pretrained_cfg": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.image_size == [288, 320]
    assert checkpoint.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert_same_tensors(load_model(tmp_path).state_dict(), classifier.state_dict())


def hub_cache(folder: Path, cache: Path) -> None:
    """The layout huggingface_hub gives downloads."""
    repository = cache / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("0" * 40))


def test_a_model_of_the_hub_from_its_cache(
    classifier: MobileViTForImageClassification, saved: Path, tmp_path: Path
) -> None:
    hub_cache(saved, tmp_path / "cache")
    arguments: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    assert_same_tensors(load_model("someone/some-model", **arguments).state_dict(), classifier.state_dict())
    with pytest.raises(CheckpointError, match="someone/other: no such file or folder, and no such model in the local"):
        read_checkpoint("someone/other", **arguments)


@pytest.mark.parametrize(
    "load",
    [
        read_checkpoint,
        load_model,
        MobileViTModel.from_pretrained,
        MobileViTConfig.from_pretrained,
        MobileViTImageProcessor.from_pretrained,
    ],
    ids=lambda load: load.__qualname__,
)
def test_options_reach_the_hubs_client(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def refuse(name: str, filename: str, **options: Any) -> str:
        asked.append(options)
        raise OSError("no such model")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises((OSError, CheckpointError), match="no such model"):
        load("someone/other", revision="v1", token="secret", cache_dir="here", local_files_only=True)
    options = {"revision": "v1", "token": "secret", "cache_dir": Path("here"), "local_files_only": True}
    assert asked[0] == options
    assert "secret" not in repr(hub.HubOptions(**options))


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    online: list[bool] = []

    def unreachable(name: str, filename: str, *, local_files_only: bool, **_: Any) -> str:
        online.append(not local_files_only)
        raise LocalEntryNotFoundError("no connection\nand more lines")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(CheckpointError, match="local cache of the hub; the hub cannot be reached") as error:
        read_checkpoint("someone/other")
    assert_one_line(error)
    assert online[0]
    assert not any(online[1:])


def test_a_failed_write_leaves_what_was_there(
    classifier: MobileViTForImageClassification, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="disk full"):
            write_checkpoint(classifier, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_both_files_of_a_checkpoint_have_the_permissions_of_new_files(saved: Path, tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    for name in ("config.json", "model.safetensors"):
        assert (saved / name).stat().st_mode == ordinary.stat().st_mode


def test_the_dtype_of_a_loaded_model(saved: Path) -> None:
    load = MobileViTForImageClassification.from_pretrained
    assert load(saved, dtype=torch.float64).dtype == torch.float64
    assert load(saved).dtype == torch.float32
    assert load(saved, dtype="float16").dtype == torch.float16


def test_unknown_options_are_refused(saved: Path) -> None:
    with pytest.raises(TypeError, match="expected options or fields of MobileViTConfig, got local_file_only"):
        MobileViTForImageClassification.from_pretrained(saved, local_file_only=True)

"""Translation of parameter names between the three code bases."""

import re

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from mobilevit_fast.checkpoints import (
    NAMINGS,
    CheckpointError,
    detect_naming,
    from_huggingface,
    to_huggingface,
)
from mobilevit_fast.checkpoints.names import entries
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from testing.peers import import_timm, import_transformers
from tests.checkpoints.helpers import assert_same_tensors, configs

SIZES = {"small": "mobilevit_s", "x_small": "mobilevit_xs", "xx_small": "mobilevit_xxs"}
HEADED = (MobileViTForImageClassification, MobileViTForSemanticSegmentation)


def shapes(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


@pytest.fixture(scope="module")
def state_dict() -> dict[str, Tensor]:
    """Of a classifier, under Hugging Face's names."""
    return MobileViTForImageClassification(MobileViTConfig.preset("xx_small", num_labels=3)).state_dict()


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_table_names_every_tensor_once(naming: str) -> None:
    names = [name for entry in entries() for name in entry.names(naming)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model_class", HEADED)
def test_the_table_covers_the_models_of_transformers(size: str, model_class: type) -> None:
    transformers = import_transformers()
    values = MobileViTConfig.preset(size, num_labels=5).to_dict()
    with torch.device("meta"):
        theirs = getattr(transformers, model_class.__name__)(transformers.MobileViTConfig(**values)).state_dict()
    assert detect_naming(theirs) == "huggingface"
    assert shapes(to_huggingface(from_huggingface(theirs, "cvnets"), "cvnets")) == shapes(theirs)


@pytest.mark.parametrize(("size", "timm_name"), SIZES.items())
def test_the_table_covers_the_models_of_timm(size: str, timm_name: str) -> None:
    with torch.device("meta"):
        ours = MobileViTForImageClassification(MobileViTConfig.preset(size, num_labels=5)).state_dict()
        theirs = import_timm().create_model(timm_name, num_classes=5).state_dict()
    assert detect_naming(theirs) == "timm"
    assert shapes(to_huggingface(theirs, "timm")) == shapes(ours)
    assert shapes(from_huggingface(ours, "timm")) == shapes(theirs)


@settings(max_examples=15, deadline=None)
@given(config=configs())
def test_round_trips_keep_every_bit(config: MobileViTConfig) -> None:
    for model_class in HEADED:
        state_dict = model_class(config).state_dict()
        for naming in ("cvnets", "timm"):
            if naming == "timm" and model_class is MobileViTForSemanticSegmentation:
                continue
            renamed = from_huggingface(state_dict, naming)
            assert detect_naming(renamed) == naming
            assert len(renamed) < len(state_dict)  # joined projections
            back = to_huggingface(renamed, naming)
            assert_same_tensors(back, state_dict)
            assert_same_tensors(from_huggingface(back, naming), renamed)


def test_projections_are_joined_in_the_order_query_key_value(state_dict: dict[str, Tensor]) -> None:
    layer = "mobilevit.encoder.layer.3.transformer.layer.2.attention.attention"
    expected = torch.cat([state_dict[f"{layer}.{projection}.weight"] for projection in ("query", "key", "value")])
    cvnets = from_huggingface(state_dict, "cvnets")["layer_4.1.global_rep.2.pre_norm_mha.1.qkv_proj.weight"]
    timm = from_huggingface(state_dict, "timm")["stages.3.1.transformer.2.attn.qkv.weight"]
    assert torch.equal(cvnets, expected)
    assert torch.equal(timm, expected)


def test_split_projections_share_no_storage(state_dict: dict[str, Tensor]) -> None:
    result = to_huggingface(from_huggingface(state_dict, "timm"), "timm")
    pointers = [tensor.untyped_storage().data_ptr() for tensor in result.values()]
    assert len(pointers) == len(set(pointers))


def test_a_model_without_head_and_one_without_last_convolution() -> None:
    config = MobileViTConfig.preset("xx_small")
    for expand_output in (True, False):
        state_dict = MobileViTModel(config, expand_output=expand_output).state_dict()
        assert detect_naming(state_dict) == "huggingface"
        renamed = from_huggingface(state_dict, "cvnets")
        assert ("conv_1x1_exp.block.conv.weight" in renamed) is expand_output
        # The backbone comes back under the name it has inside models with a head.
        assert_same_tensors(to_huggingface(renamed, "cvnets"), {f"mobilevit.{k}": v for k, v in state_dict.items()})


def test_segmentation_names_of_ml_cvnets() -> None:
    model = MobileViTForSemanticSegmentation(MobileViTConfig.preset("xx_small"))
    names = from_huggingface(model.state_dict(), "cvnets")
    assert "encoder.conv_1.block.conv.weight" in names
    assert "encoder.layer_2.1.block.exp_1x1.block.norm.running_var" in names
    assert "seg_head.aspp.aspp_layer.convs.3.block.conv.weight" in names
    assert "seg_head.aspp.aspp_layer.convs.4.aspp_pool.conv_1x1.block.norm.weight" in names
    assert "seg_head.aspp.aspp_layer.project.block.conv.weight" in names
    assert "seg_head.classifier.block.conv.bias" in names


def test_older_segmentation_names_and_the_auxiliary_head_of_training() -> None:
    state_dict = MobileViTForSemanticSegmentation(MobileViTConfig.preset("xx_small")).state_dict()
    names = from_huggingface(state_dict, "cvnets")
    for parameter in ("weight", "bias"):
        name = f"seg_head.classifier.block.conv.{parameter}"
        names[name.replace("classifier", "classifier.classifier")] = names.pop(name)
    names["seg_head.aux_head.0.block.conv.weight"] = torch.zeros(1)
    assert detect_naming(names) == "cvnets"
    assert_same_tensors(to_huggingface(names, "cvnets"), state_dict)


def test_counters_of_batches_may_be_absent(state_dict: dict[str, Tensor]) -> None:
    without = {name: t for name, t in state_dict.items() if not name.endswith("num_batches_tracked")}
    assert len(without) < len(state_dict)
    for naming in ("cvnets", "timm"):
        assert_same_tensors(to_huggingface(from_huggingface(without, naming), naming), without)


@pytest.mark.parametrize("naming", ["cvnets", "timm"])
def test_missing_and_unknown_names_are_listed(state_dict: dict[str, Tensor], naming: str) -> None:
    names = from_huggingface(state_dict, naming)
    lost = [name for name in names if "layer_4.1" in name or "stages.3.1" in name][:5]
    for name in lost:
        del names[name]
    names["surprise.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"5 missing \(.* and 2 more\); 1 unknown \(surprise\.weight\)") as error:
        to_huggingface(names, naming)
    assert all(name in str(error.value) for name in lost[:3])


@pytest.mark.parametrize("name", ["classifier.bias", "mobilevit.conv_1x1_exp.normalization.running_var"])
def test_half_a_group_is_refused(state_dict: dict[str, Tensor], name: str) -> None:
    rest = {key: tensor for key, tensor in state_dict.items() if key != name}
    with pytest.raises(CheckpointError, match="1 missing"):
        from_huggingface(rest, "cvnets")


def test_one_projection_of_three_is_not_enough(state_dict: dict[str, Tensor]) -> None:
    name = "mobilevit.encoder.layer.2.transformer.layer.0.attention.attention.key.bias"
    rest = {key: tensor for key, tensor in state_dict.items() if key != name}
    with pytest.raises(CheckpointError, match=re.escape(f"1 missing ({name.removeprefix('mobilevit.')})")):
        from_huggingface(rest, "timm")


def test_a_joined_projection_of_wrong_height_is_refused(state_dict: dict[str, Tensor]) -> None:
    names = from_huggingface(state_dict, "timm")
    names["stages.2.1.transformer.0.attn.qkv.weight"] = torch.zeros(191, 64)
    with pytest.raises(CheckpointError, match=r"stages\.2\.1\.transformer\.0\.attn\.qkv\.weight.*\(191, 64\)"):
        to_huggingface(names, "timm")


def test_timm_has_no_segmentation() -> None:
    state_dict = MobileViTForSemanticSegmentation(MobileViTConfig.preset("xx_small")).state_dict()
    with pytest.raises(CheckpointError, match="timm has no names for a segmentation model"):
        from_huggingface(state_dict, "timm")


def test_unknown_naming_is_refused(state_dict: dict[str, Tensor]) -> None:
    for translate in (from_huggingface, to_huggingface):
        with pytest.raises(CheckpointError, match="expected one of huggingface, cvnets, timm, got 'keras'"):
            translate(state_dict, "keras")


@pytest.mark.parametrize("keys", [[], ["conv1.weight", "fc.bias"], ["vit.embeddings.cls_token"]])
def test_other_models_are_not_recognised(keys: list[str]) -> None:
    with pytest.raises(CheckpointError, match="not a MobileViT"):
        detect_naming(keys)


def test_its_successor_is_refused() -> None:
    with torch.device("meta"):
        names = import_timm().create_model("mobilevitv2_050").state_dict()
    with pytest.raises(CheckpointError):
        to_huggingface(names, detect_naming(names))

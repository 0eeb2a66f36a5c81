"""Configurations read from the shapes of tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevit_fast.checkpoints import CheckpointError, infer_config
from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from tests.checkpoints.helpers import configs

CLASSES = (MobileViTForImageClassification, MobileViTForSemanticSegmentation, MobileViTModel)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("size", PRESETS)
def test_presets_are_recognised_in_full(size: str) -> None:
    config = MobileViTConfig.preset(size, num_labels=21, architectures=["MobileViTForImageClassification"])
    with torch.device("meta"):
        model = MobileViTForImageClassification(config)
    assert infer_config(model.state_dict()) == config


@pytest.mark.parametrize("size", PRESETS)
def test_segmentation_gets_the_values_of_published_checkpoints(size: str) -> None:
    expected = MobileViTConfig.preset(
        size,
        num_labels=21,
        output_stride=16,
        image_size=512,
        aspp_out_channels=512,
        architectures=["MobileViTForSemanticSegmentation"],
    )
    with torch.device("meta"):
        model = MobileViTForSemanticSegmentation(expected)
    assert infer_config(model.state_dict()) == expected


@settings(max_examples=15, deadline=None)
@given(config=configs(), model_class=st.sampled_from(CLASSES))
def test_the_inferred_configuration_builds_the_same_shapes(config: MobileViTConfig, model_class: type) -> None:
    with torch.device("meta"):
        model = model_class(config)
        if any(size % 4 for size in config.hidden_sizes):  # 4 heads are assumed, no shape shows their number
            with pytest.raises(CheckpointError, match="hidden_sizes"):
                infer_config(model.state_dict())
            return
        inferred = infer_config(model.state_dict())
        assert shapes(model_class(inferred)) == shapes(model)
    assert inferred.qkv_bias is config.qkv_bias
    assert inferred.conv_kernel_size == config.conv_kernel_size


def test_simple_ratios_are_found_and_not_their_neighbours() -> None:
    for ratio in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        config = MobileViTConfig.preset("small", expand_ratio=ratio, mlp_ratio=ratio)
        with torch.device("meta"):
            inferred = infer_config(MobileViTForImageClassification(config).state_dict())
        assert (inferred.expand_ratio, inferred.mlp_ratio) == (ratio, ratio)


def test_a_missing_tensor_is_named() -> None:
    with torch.device("meta"):
        state_dict = MobileViTForImageClassification(MobileViTConfig.preset("xx_small")).state_dict()
    del state_dict["mobilevit.encoder.layer.3.conv_1x1.convolution.weight"]
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.3\.conv_1x1\.convolution\.weight is missing"):
        infer_config(state_dict)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mobilevit.conv_stem.convolution.weight", (16, 27), r"conv_stem.*4 dimensions.*\(16, 27\)"),
        (
            "mobilevit.encoder.layer.1.layer.2.expand_1x1.convolution.weight",
            (500, 24, 1, 1),
            "expand_ratio.*24 to 500",
        ),
        (
            "mobilevit.encoder.layer.4.transformer.layer.0.intermediate.dense.weight",
            (7, 96),
            "mlp_ratio.*96 to 7",
        ),
    ],
)
def test_shapes_that_no_configuration_gives(name: str, shape: tuple[int, ...], message: str) -> None:
    with torch.device("meta"):
        state_dict = MobileViTForImageClassification(MobileViTConfig.preset("xx_small")).state_dict()
        assert name in state_dict
        state_dict[name] = torch.empty(shape)
    with pytest.raises(CheckpointError, match=message):
        infer_config(state_dict)

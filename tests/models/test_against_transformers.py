"""Outputs of the models against transformers' with the same weights."""

from typing import Any

import pytest
import torch

from mobilevit_fast.config import PRESETS, MobileViTConfig
from testing.pairs import CLASSIFICATION, SEGMENTATION, assert_same, images, make_pair, tiny_config

SIZES = [(1, 256, 256), (1, 250, 197), (2, 96, 160)]
OPTIONS: list[dict[str, Any]] = [
    {"patch_size": 1},
    {"patch_size": 3},
    {"patch_size": 4},
    {"output_stride": 16},
    {"output_stride": 8},
    {"output_stride": 8, "patch_size": 4},
    {"qkv_bias": False},
    {"conv_kernel_size": 1},
    {"conv_kernel_size": 5},
    {"num_attention_heads": 1},
    {"mlp_ratio": 1.3},
    {"expand_ratio": 3.7},
    {"layer_norm_eps": 1e-2},
    {"aspp_out_channels": 12, "atrous_rates": [1, 2, 30]},
    {"hidden_act": "relu"},
    {"hidden_act": "gelu_new"},
    {"hidden_act": "prelu"},
]


@pytest.fixture(scope="module", params=[CLASSIFICATION, SEGMENTATION])
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, task: str) -> None:
    ours, theirs = make_pair(task, MobileViTConfig.preset(preset, num_labels=21))
    for batch, height, width in SIZES:
        pixel_values = images(batch, height, width)
        with torch.inference_mode():
            assert_same(ours(pixel_values).logits, theirs(pixel_values).logits)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options: dict[str, Any], task: str) -> None:
    ours, theirs = make_pair(task, tiny_config(**options))
    for height, width in [(64, 64), (50, 83), (1, 7)]:
        pixel_values = images(2, height, width)
        with torch.inference_mode():
            assert_same(ours(pixel_values).logits, theirs(pixel_values).logits)


@pytest.mark.parametrize("batch", [1, 3])
def test_memory_format_and_batch(batch: int, task: str) -> None:
    ours, theirs = make_pair(task, tiny_config())
    pixel_values = images(batch, 48, 64)
    with torch.inference_mode():
        expected = theirs(pixel_values).logits
        assert_same(ours(pixel_values).logits, expected)
        ours = ours.to(memory_format=torch.channels_last)
        assert_same(ours(pixel_values.to(memory_format=torch.channels_last)).logits, expected)


def test_double(task: str) -> None:
    ours, theirs = make_pair(task, tiny_config())
    pixel_values = images(2, 48, 64).double()
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.double()(pixel_values).logits, theirs.double()(pixel_values).logits, rtol=1e-12, atol=1e-12
        )


def test_classifier_without_labels() -> None:
    ours, theirs = make_pair(CLASSIFICATION, tiny_config(num_labels=0))
    pixel_values = images(2, 64, 64)
    with torch.inference_mode():
        logits = ours(pixel_values).logits
        assert logits.shape == (2, 24)
        assert_same(logits, theirs(pixel_values).logits)
    with pytest.raises(ValueError, match="expected no labels with num_labels=0"):
        ours(pixel_values, labels=torch.zeros(2, 24))


@pytest.mark.parametrize("expand_output", [True, False])
def test_backbone(expand_output: bool) -> None:
    ours, theirs = make_pair("MobileViTModel", tiny_config(), expand_output=expand_output)
    pixel_values = images(2, 50, 83)
    with torch.inference_mode():
        got = ours(pixel_values, output_hidden_states=True)
        expected = theirs(pixel_values, output_hidden_states=True)
    assert_same(got.last_hidden_state, expected.last_hidden_state)
    if expand_output:
        assert_same(got.pooler_output, expected.pooler_output)
    else:
        assert got.pooler_output is None
        assert expected.pooler_output is None
    assert list(got) == list(expected)
    assert len(got.hidden_states) == len(expected.hidden_states) == 5
    for state, their_state in zip(got.hidden_states, expected.hidden_states, strict=True):
        assert_same(state, their_state)


@pytest.mark.parametrize("name", ["MobileViTModel", CLASSIFICATION, SEGMENTATION])
@pytest.mark.parametrize("where", ["argument", "config"])
@pytest.mark.parametrize("hidden_states", [False, True])
@pytest.mark.parametrize("return_dict", [False, True])
def test_structure_of_outputs(name: str, where: str, hidden_states: bool, return_dict: bool) -> None:
    switches = {"output_hidden_states": hidden_states, "return_dict": return_dict}
    in_config = where == "config"
    ours, theirs = make_pair(name, tiny_config(**(switches if in_config else {})))
    arguments: dict[str, Any] = {} if in_config else dict(switches)
    pixel_values = images(2, 32, 32)
    if name == CLASSIFICATION:
        arguments["labels"] = torch.tensor([0, 3])
    elif name == SEGMENTATION:
        arguments["labels"] = torch.zeros(2, 32, 32, dtype=torch.long)
    with torch.inference_mode():
        got, expected = ours(pixel_values, **arguments), theirs(pixel_values, **arguments)
    if return_dict:
        assert list(got) == list(expected)
        got, expected = got.to_tuple(), expected.to_tuple()
    assert type(got) is type(expected) is tuple
    flat, their_flat = torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected)
    assert [type(part) for part in got] == [type(part) for part in expected]
    for tensor, their_tensor in zip(flat, their_flat, strict=True):
        assert_same(tensor, their_tensor)


def test_names_of_modules(task: str) -> None:
    """Tools that find modules by name, or by the name of their class, find the same ones."""
    ours, theirs = make_pair(task, tiny_config())

    def classes(model: torch.nn.Module) -> dict[str, str]:
        # Activations are torch's classes here and transformers' own there.
        return {name: type(module).__name__ for name, module in model.named_modules() if "act" not in name}

    assert classes(ours) == classes(theirs)


def test_training_mode_and_gradients(task: str) -> None:
    """The same dropout, batch statistics, loss and gradients from the same seed."""
    # Weights of the order of 1 and few samples in a batch norm would amplify rounding, so this runs in double.
    ours, theirs = (model.double().train() for model in make_pair(task, tiny_config(attention_probs_dropout_prob=0.1)))
    pixel_values = images(4, 64, 64).double()
    labels = torch.tensor([0, 1, 2, 3]) if task == CLASSIFICATION else torch.arange(4 * 9).view(4, 3, 3) % 5
    for model in (ours, theirs):
        torch.manual_seed(0)
        model(pixel_values, labels=labels).loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (None, "expected pixel_values, got None"),
        (
            torch.zeros(3, 32, 32),
            r"expected pixel_values of shape \(batch, 3, height, width\), got \(3, 32, 32\)",
        ),
        (torch.zeros(1, 4, 32, 32), r"of shape \(batch, 3, height, width\), got \(1, 4, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"of a floating point dtype, got torch\.uint8"),
    ],
)
def test_wrong_images(pixel_values: torch.Tensor | None, message: str, task: str) -> None:
    ours, _ = make_pair(task, tiny_config())
    with pytest.raises(ValueError, match=message):
        ours(pixel_values)


def test_no_images_at_all(task: str) -> None:
    ours, _ = make_pair(task, tiny_config())
    with torch.inference_mode():
        logits = ours(images(0, 32, 32)).logits
    assert logits.shape == ((0, 5) if task == CLASSIFICATION else (0, 5, 1, 1))

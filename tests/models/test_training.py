"""Fresh weights, gradient checkpointing, and what models are besides forward."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTLayer,
    MobileViTModel,
)
from testing.pairs import CLASSIFICATION, SEGMENTATION, give_real_signal, images, theirs_for, tiny_config


@pytest.mark.parametrize("name", [CLASSIFICATION, SEGMENTATION])
def test_fresh_weights_have_the_distribution_of_transformers(name: str) -> None:
    """Except for the weights of batch norms, which transformers draws around 0."""
    config = MobileViTConfig.preset("xx_small", initializer_range=0.05)
    cls = MobileViTForImageClassification if name == CLASSIFICATION else MobileViTForSemanticSegmentation
    torch.manual_seed(0)
    ours = cls(config)
    parts, their_parts = dict(ours.named_modules()), dict(theirs_for(name, config).named_modules())
    for path, part in parts.items():
        if isinstance(part, nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones_like(part.weight)), path
            continue
        for parameter_name, parameter in part.named_parameters(recurse=False):
            theirs = their_parts[path].get_parameter(parameter_name)
            if theirs.std() == 0:
                assert torch.equal(parameter, theirs), f"{path}.{parameter_name}"
                continue
            count = parameter.numel()
            assert abs(parameter.mean()) < 5 * 0.05 / count**0.5, f"{path}.{parameter_name}"
            assert abs(parameter.std() / 0.05 - 1) < 5 / (2 * count) ** 0.5, f"{path}.{parameter_name}"
    for (path, buffer), (their_path, their_buffer) in zip(
        ours.named_buffers(), theirs_for(name, config).named_buffers(), strict=True
    ):
        assert path == their_path
        assert torch.equal(buffer, their_buffer), path


def test_models_are_made_in_training_mode_with_gradients() -> None:
    model = MobileViTForImageClassification(tiny_config())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_few_steps_learn_a_batch() -> None:
    torch.manual_seed(0)
    model = MobileViTForImageClassification(tiny_config(num_labels=4, hidden_dropout_prob=0.0, initializer_range=0.2))
    pixel_values, labels = images(8, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(pixel_values, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("cls", [MobileViTForImageClassification, MobileViTForSemanticSegmentation])
def test_gradient_checkpointing_changes_nothing_but_memory(cls: Any) -> None:
    torch.manual_seed(0)
    plain = cls(tiny_config(attention_probs_dropout_prob=0.1))
    give_real_signal(plain)
    checkpointed = copy.deepcopy(plain)
    assert not checkpointed.is_gradient_checkpointing
    checkpointed.gradient_checkpointing_enable()
    assert checkpointed.is_gradient_checkpointing

    labels = torch.tensor([0, 1, 2]) if cls is MobileViTForImageClassification else torch.zeros(3, 9, 9).long()
    stored = []
    for model in (plain, checkpointed):
        sizes: list[int] = []

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(images(3, 48, 50), labels=labels).loss
        stored.append(sum(sizes))
        loss.backward()
    assert stored[1] < stored[0]

    for (name, parameter), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name
    for (name, buffer), (_, other) in zip(plain.named_buffers(), checkpointed.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name


@pytest.mark.parametrize(("training", "enabled", "runs"), [(True, True, 2), (True, False, 1), (False, True, 1)])
def test_blocks_run_twice_only_in_training_mode(training: bool, enabled: bool, runs: int) -> None:
    model = MobileViTForImageClassification(tiny_config()).train(training)
    model.gradient_checkpointing_enable()
    if not enabled:
        model.gradient_checkpointing_disable()
    calls = []
    for module in model.modules():
        if isinstance(module, MobileViTLayer):
            module.conv_kxk.register_forward_hook(lambda *_: calls.append(1))
    model(images(2, 32, 32), labels=torch.tensor([0, 1])).loss.backward()
    assert len(calls) == 3 * runs


def test_checkpointing_keeps_the_buffers_themselves() -> None:
    model = MobileViTModel(tiny_config())
    before = dict(model.named_buffers())
    model.gradient_checkpointing_enable()
    model(images(2, 32, 32)).pooler_output.sum().backward()
    after = dict(model.named_buffers())
    assert all(after[name] is before[name] for name in before)
    assert after["encoder.layer.2.conv_kxk.normalization.num_batches_tracked"] == 1


def test_properties() -> None:
    model = MobileViTForImageClassification(MobileViTConfig.preset("small", num_labels=1000))
    # The paper counts 5.6 M for MobileViT-S (arXiv 2110.02178, table 4).
    assert model.num_parameters() == 5_578_632
    model.mobilevit.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 641_000
    assert model.device == torch.device("cpu")
    assert model.dtype is torch.float32
    assert model.to(torch.bfloat16).dtype is torch.bfloat16
    assert model.config_class is MobileViTConfig
    assert model.get_submodule(model.base_model_prefix) is model.mobilevit

"""Models with weights under which every tensor of a checkpoint shows in the logits."""

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mobilevit_fast.checkpoints import CheckpointError
from mobilevit_fast.config import MobileViTConfig

LABELS = {"id2label": {0: "cat", 1: "dog", 2: "eel"}, "label2id": {"cat": 0, "dog": 1, "eel": 2}}


def randomised(model: Any, seed: int = 0) -> Any:
    """The model in evaluation mode, with normalisations that are near, and nowhere equal to, the identity.

    Freshly made models have identity normalisations and weights so small that logits vanish.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(noise(module.running_mean, 0.1))
                module.running_var.copy_(1 + noise(module.running_var, 0.2).abs())
                module.num_batches_tracked.fill_(7)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.copy_(1 + noise(module.weight, 0.1))
                module.bias.copy_(noise(module.bias, 0.1))
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.copy_(noise(module.weight, fan_in**-0.5))
                if module.bias is not None:
                    module.bias.copy_(noise(module.bias, 0.1))
    return model.eval()


def assert_same_tensors(result: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Same names, and under each the same dtype and bits."""
    assert set(result) == set(expected)
    for name, tensor in expected.items():
        assert result[name].dtype == tensor.dtype, name
        assert torch.equal(result[name].cpu(), tensor.cpu()), name


def assert_one_line(error: pytest.ExceptionInfo[CheckpointError]) -> None:
    """A message to be shown to people as it is."""
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((result - expected).abs().max() / expected.abs().max())


@st.composite
def configs(draw: st.DrawFn) -> MobileViTConfig:
    """Small configurations of every kind that a checkpoint can show."""
    heads = draw(st.sampled_from([1, 2, 4]))
    return MobileViTConfig(
        num_channels=draw(st.integers(1, 4)),
        hidden_sizes=[heads * draw(st.integers(1, 6)) for _ in range(3)],
        neck_hidden_sizes=[draw(st.integers(1, 24)) for _ in range(7)],
        num_attention_heads=heads,
        mlp_ratio=draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        expand_ratio=draw(st.floats(0.5, 6.0)),
        conv_kernel_size=draw(st.sampled_from([1, 3, 5])),
        qkv_bias=draw(st.booleans()),
        aspp_out_channels=draw(st.integers(1, 8)),
        num_labels=draw(st.integers(1, 5)),
    )

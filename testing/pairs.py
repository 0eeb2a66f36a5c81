"""The same MobileViT twice, ours and transformers', with weights that let a signal through."""

from typing import Any

import torch
from torch import nn

from mobilevit_fast import models
from mobilevit_fast.config import MobileViTConfig
from testing.peers import import_transformers

CLASSIFICATION = "MobileViTForImageClassification"
SEGMENTATION = "MobileViTForSemanticSegmentation"


def tiny_config(**overrides: Any) -> MobileViTConfig:
    """A configuration whose model runs in milliseconds."""
    fields = {
        "hidden_sizes": [8, 12, 16],
        "neck_hidden_sizes": [4, 6, 8, 10, 12, 14, 24],
        "expand_ratio": 2.0,
        "aspp_out_channels": 8,
        "num_labels": 5,
    }
    return MobileViTConfig(**{**fields, **overrides})


def give_real_signal(model: nn.Module, seed: int = 0) -> None:
    """Random weights, batch norms and biases that keep features near 1 from the first layer to the last."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        module: Any
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(std=(2 / fan_in) ** 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.8, 1.2, generator=generator)
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.normal_(std=0.1, generator=generator)


def shortened(model: Any) -> Any:
    """A model of any library with a single transformer layer in each block: exporters take long over deep ones."""
    for block in list(model.modules()):
        transformer = getattr(block, "transformer", None)
        if transformer is not None:
            del getattr(transformer, "layer", transformer)[1:]
    return model


def abridged(model: Any) -> Any:
    """A classifier or backbone of any library with a stem, three inverted residuals, one block and its end.

    `torch.compile` would see nothing else in a longer one, and takes a second for each region.
    """
    body = getattr(model, "mobilevit", model)
    layers = body.stages if hasattr(body, "stages") else body.encoder.layer
    del layers[3:]
    del getattr(layers[1], "layer", layers[1])[1:]
    width = [module for module in layers[2].modules() if isinstance(module, nn.Conv2d)][-1].out_channels
    last = body.final_conv if hasattr(body, "final_conv") else body.conv_1x1_exp
    name = "conv" if hasattr(last, "conv") else "convolution"
    narrower = nn.Conv2d(width, getattr(last, name).out_channels, 1, bias=False)
    setattr(last, name, narrower.train(model.training))
    give_real_signal(last)
    return shortened(model)


def theirs_for(name: str, config: MobileViTConfig, **arguments: Any) -> nn.Module:
    """transformers' model of that class and configuration, in evaluation mode."""
    transformers = import_transformers()
    values = config.to_dict()
    # Their fields of type float refuse integers.
    values["mlp_ratio"], values["expand_ratio"] = float(config.mlp_ratio), float(config.expand_ratio)
    return getattr(transformers, name)(transformers.MobileViTConfig(**values), **arguments).eval()


def make_pair(name: str, config: MobileViTConfig, seed: int = 0, **arguments: Any) -> tuple[nn.Module, nn.Module]:
    """Our model and transformers' with equal weights, in evaluation mode; loading is strict both ways."""
    ours = getattr(models, name)(config, **arguments).eval()
    theirs = theirs_for(name, config, **arguments)
    give_real_signal(theirs, seed)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal noise (batch, 3, height, width)."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value, and that value is a real signal."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    largest = theirs.abs().max().item()
    assert 1e-3 < largest < 1e6, f"no signal to compare: largest value {largest}"
    error = (ours - theirs).abs().max().item() / largest
    assert error <= 1e-5, f"relative error {error:.2e}"

"""The models that are measured: transformers' MobileViT of the three sizes, with random weights that are calibrated."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mobilevit_fast.config import MobileViTConfig
from tests.models.pairs import CLASSIFICATION, theirs_for

SIZES = {"S": "small", "XS": "x_small", "XXS": "xx_small"}
"""Short names of the presets."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUM_LABELS = 1000
_CALIBRATION_IMAGES = 4


@dataclass(frozen=True)
class Case:
    """What every provider computes: the logits of these images by this model.

    Attributes:
        size: S, XS or XXS.
        dtype: the type to compute in. Weights and images are representable in it, whatever type they are stored in, so
            that no provider has other weights than the next and an error is one of computation.
        threads: how many threads a provider may use.
        model: float32, contiguous, in evaluation mode; not to be changed.
        images: (N, 3, H, W), float32, contiguous.
        exact: the logits (N, K) of the model in float64.
        gmac: 10⁹ multiply-accumulates for one image, in convolutions and matrix products.
    """

    size: str
    dtype: torch.dtype
    threads: int
    model: nn.Module
    images: Tensor
    exact: Tensor
    gmac: float

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    @property
    def dtype_name(self) -> str:
        """The type's name without `torch.`."""
        return str(self.dtype).removeprefix("torch.")

    def copy_of_model(self, dtype: torch.dtype | None = None) -> Any:
        """A copy of the model, by default in the type to compute in."""
        return copy.deepcopy(self.model).to(dtype or self.dtype)


def build_model(size: str, image_size: int = 256, seed: int = 0) -> nn.Module:
    """transformers' classification model of a size, in float32 and evaluation mode, the same for the same seed."""
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
    config = MobileViTConfig.preset(SIZES[size], num_labels=NUM_LABELS, image_size=image_size, **dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = theirs_for(CLASSIFICATION, config)
        calibrate(model, torch.rand(_CALIBRATION_IMAGES, 3, image_size, image_size))
    return model


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Give a model random weights that keep a signal alive, and batch norms the statistics of that signal.

    With the weights that libraries start training from (transformers' batch norms scale by about 0.02), features shrink
    from layer to layer until they are denormal numbers, with which processors compute an order of magnitude more slowly
    than with those of a trained model.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    for norm in norms:
        norm.momentum = 1.0  # the statistics of one forward
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def make_case(model: nn.Module, size: str, batch: int, dtype: str, threads: int, image_size: int = 256) -> Case:
    """A case over random images, with weights and images rounded to the type."""
    target = DTYPES[dtype]
    images = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(batch))
    images = images.to(target).float()
    rounded = copy.deepcopy(model).to(target).float()
    double = copy.deepcopy(rounded).double()
    with torch.no_grad():
        exact, gmac = exact_and_gmac(lambda x: double(x).logits, (images,))
    return Case(size, target, threads, rounded, images, exact, gmac / batch)


def exact_and_gmac(region: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """What a float64 region gives for these inputs, and its 10⁹ multiply-accumulates in convolutions and products."""
    with FlopCounterMode(display=False) as counter:
        result = region(*(x.double() for x in inputs))
    return result, counter.get_total_flops() / 2e9


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference from the float64 result, over that of the result."""
    return ((value.double() - exact).square().mean() / exact.square().mean()).sqrt().item()

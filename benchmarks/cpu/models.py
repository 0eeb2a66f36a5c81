"""Cases for the providers of whole models on a CPU: images, and the exact logits."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import Networks, copied, logits_of
from benchmarks.registry import MODELS


@dataclass(frozen=True)
class Case:
    """Task of every provider: the logits of these images by a model.

    Attributes:
        networks: the model, by whoever has it.
        threads: how many threads a provider may use.
        images: (N, 3, H, W), float32, contiguous; representable in the type to compute in, like the weights, whatever
            type they are stored in.
        exact: the logits (N, K), or (N, K, h, w) of a segmentation, in float64.
        gmac: 10⁹ multiply-accumulates for one image, in convolutions and matrix products.
    """

    networks: Networks
    threads: int
    images: Tensor
    exact: Tensor
    gmac: float

    @property
    def size(self) -> str:
        """The model's name."""
        return self.networks.size

    @property
    def dtype(self) -> torch.dtype:
        """The type to compute in."""
        return self.networks.dtype

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    @property
    def dtype_name(self) -> str:
        """The type's name without `torch.`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def moved_mb(self) -> float:
        """10⁶ bytes that a call reads and writes at least: parameters, images, logits."""
        network = self.networks.get(MODELS[self.size].networks[0])
        numbers = sum(p.numel() for p in network.parameters()) + self.images.numel() + self.exact.numel()
        return numbers * self.dtype.itemsize / 1e6

    def copy_of(self, network: str, dtype: torch.dtype | None = None, channels_last: bool = False) -> nn.Module:
        """A copy of a network, by default in the type to compute in."""
        return copied(self.networks.get(network), dtype=dtype or self.dtype, channels_last=channels_last)

    def copy_of_model(self, dtype: torch.dtype | None = None) -> Any:
        """A copy of transformers' network."""
        return self.copy_of("transformers", dtype)


def make_case(networks: Networks, batch: int, threads: int) -> Case:
    """A case over random images, rounded to the type of the networks."""
    size = networks.image_size
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
    images = images.to(networks.dtype).float()
    double = copy.deepcopy(networks.get(MODELS[networks.size].networks[0])).double()
    with torch.no_grad():
        exact, gmac = exact_and_gmac(lambda x: logits_of(double(x)), (images,))
    return Case(networks, threads, images, exact, gmac / batch)


def exact_and_gmac(region: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Result of a float64 region for these inputs, and the 10⁹ MACs of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        result = region(*(x.double() for x in inputs))
    return result, counter.get_total_flops() / 2e9


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference from the float64 result, over that of the result."""
    return ((value.double() - exact).square().mean() / exact.square().mean()).sqrt().item()

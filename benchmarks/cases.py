"""Cases for the providers of whole models: images on a device, and the exact logits."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import Networks, copied, logits_of, top1_agreement
from benchmarks.registry import MODELS

CHECKED_IMAGES = 8
MAX_IMAGES_OF_A_POOL = 256

_CPU = torch.device("cpu")


def pool_size(batch_bytes: int, cache_bytes: int, batch: int) -> int:
    """How many batches are more than the second-level cache holds, so that none is still there when its turn comes."""
    return max(1, min(math.ceil(2 * cache_bytes / batch_bytes), MAX_IMAGES_OF_A_POOL // batch or 1))


class Case:
    """Batches of random images on a device, and what a model's networks make of the first images in float64.

    Args:
        networks: the model, by whoever has it.
        batch: images of a batch.
        device: that has the images.
        cache_bytes: of its second-level cache, if batches are to take turns; 0: there is one.
        threads: of the CPU that a provider may use.

    Attributes:
        pool: batches (N, 3, H, W), contiguous, in the type to compute in.
    """

    def __init__(
        self, networks: Networks, batch: int, device: torch.device = _CPU, *, cache_bytes: int = 0, threads: int = 1
    ) -> None:
        self.networks, self.batch, self.device, self.threads = networks, batch, device, threads
        size = networks.image_size
        count = pool_size(batch * 3 * size * size * networks.dtype.itemsize, cache_bytes, batch)
        generator = torch.Generator(device).manual_seed(batch)
        shape = (batch, 3, size, size)
        self.pool = [torch.rand(shape, generator=generator, device=device).to(networks.dtype) for _ in range(count)]
        self._exact: dict[str, tuple[Tensor, float]] = {}

    @property
    def size(self) -> str:
        """The model's name."""
        return self.networks.size

    @property
    def dtype(self) -> torch.dtype:
        """The type to compute in."""
        return self.networks.dtype

    @property
    def dtype_name(self) -> str:
        """The type's name without `torch.`."""
        return str(self.dtype).removeprefix("torch.")

    def images(self, channels_last: bool) -> list[Tensor]:
        """The pool in a memory order."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return [x.contiguous(memory_format=layout) for x in self.pool]

    def model(self, network: str, channels_last: bool = False, dtype: torch.dtype | None = None) -> Any:
        """A copy of a network on the device, by default in the type to compute in."""
        network_of: nn.Module = self.networks.get(network)
        return copied(network_of, device=self.device, dtype=dtype or self.dtype, channels_last=channels_last)

    def exact(self, network: str | None = None) -> Tensor:
        """The logits (N, K), or (N, K, h, w) of a segmentation, of the first images in float64.

        Args:
            network: by default the model's first; timm's is the same function as transformers'.
        """
        return self._exact_and_gmac(network)[0]

    def gmac(self, network: str | None = None) -> float:
        """10⁹ multiply-accumulates for an image, in convolutions and matrix products."""
        return self._exact_and_gmac(network)[1]

    def work(self, network: str | None = None) -> dict[str, float]:
        """For an image: 10⁹ multiply-accumulates, and 10⁶ bytes that move at least (parameters, image, logits)."""
        exact, gmac = self._exact_and_gmac(network)
        parameters = sum(p.numel() for p in self.networks.get(network or self._first).parameters())
        elements = parameters / self.batch + self.pool[0][0].numel() + exact[0].numel()
        return {"gmac": float(f"{gmac:.4g}"), "mb": float(f"{elements * self.dtype.itemsize / 1e6:.4g}")}

    @property
    def _first(self) -> str:
        return MODELS[self.size].networks[0]

    def _exact_and_gmac(self, network: str | None) -> tuple[Tensor, float]:
        name = self._first if network is None else "transformers" if network == "timm" else network
        if name not in self._exact:
            model = copy.deepcopy(self.networks.get(name)).to(self.device).double()
            images = torch.cat(self.pool[:CHECKED_IMAGES])[:CHECKED_IMAGES].double()
            with torch.no_grad():
                exact, gmac = exact_and_gmac(lambda x: logits_of(model(x)), [images])
            self._exact[name] = exact, gmac / len(images)
        return self._exact[name]


def exact_and_gmac(region: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Result of a float64 region for these inputs, and the 10⁹ MACs of its convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        result = region(*(x.double() for x in inputs))
    return result, counter.get_total_flops() / 2e9


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference from the float64 result, over that of the result."""
    return ((value.double() - exact).square().mean() / exact.square().mean()).sqrt().item()


def errors(logits: Tensor, exact: Tensor) -> dict[str, Any]:
    """Largest difference of logits from the float64 ones, largest of these, and share of images of the same top-1."""
    if logits.shape != exact.shape:
        raise RuntimeError(f"expected logits of shape {tuple(exact.shape)}, got {tuple(logits.shape)}")
    difference = (logits.double() - exact).abs().max().item()
    if not math.isfinite(difference):
        raise RuntimeError("expected finite logits, got others")
    return {
        "max_error": float(f"{difference:.3g}"),
        "max_logit": float(f"{exact.abs().max().item():.3g}"),
        "top1_agreement": top1_agreement(logits, exact),
        "checked_images": len(exact),
    }

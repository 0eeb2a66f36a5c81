"""Cases for the providers of whole models on a GPU: images, and the exact logits."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cpu.models import exact_and_gmac
from benchmarks.networks import Networks, copied, logits_of, top1_agreement

CHECKED_IMAGES = 8
MAX_IMAGES_OF_A_POOL = 256


def pool_size(batch_bytes: int, cache_bytes: int, batch: int) -> int:
    """How many batches are more than the second-level cache holds, so that none is still there when its turn comes."""
    return max(1, min(math.ceil(2 * cache_bytes / batch_bytes), MAX_IMAGES_OF_A_POOL // batch or 1))


class Case:
    """Batches of images on a device, and what networks make of the first images in float64."""

    def __init__(self, networks: Networks, batch: int, device: torch.device, cache_bytes: int) -> None:
        self.networks, self.batch, self.device = networks, batch, device
        size = networks.image_size
        count = pool_size(batch * 3 * size * size * networks.dtype.itemsize, cache_bytes, batch)
        generator = torch.Generator(device).manual_seed(batch)
        shape = (batch, 3, size, size)
        self.pool = [torch.rand(shape, generator=generator, device=device).to(networks.dtype) for _ in range(count)]
        self._exact: dict[str, Tensor] = {}
        self._gmac: dict[str, float] = {}

    def images(self, channels_last: bool) -> list[Tensor]:
        """The pool in a memory order."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return [x.contiguous(memory_format=layout) for x in self.pool]

    def model(self, network: str, channels_last: bool = False) -> nn.Module:
        """A copy of a network on the device, in the type to compute in."""
        dtype = self.networks.dtype
        return copied(self.networks.get(network), device=self.device, dtype=dtype, channels_last=channels_last)

    def exact(self, network: str) -> Tensor:
        """The logits (N, K) of the first images in float64; timm's network is the same function as transformers'."""
        name = "transformers" if network == "timm" else network
        if name not in self._exact:
            model = copy.deepcopy(self.networks.get(name)).to(self.device).double()
            images = torch.cat(self.pool[:CHECKED_IMAGES])[:CHECKED_IMAGES].double()
            with torch.no_grad():
                self._exact[name], gmac = exact_and_gmac(lambda x: logits_of(model(x)), [images])
            self._gmac[name] = gmac / len(images)
        return self._exact[name]

    def work(self, network: str) -> dict[str, float]:
        """For an image: 10⁹ multiply-accumulates, and 10⁶ bytes that move at least (parameters, image, logits)."""
        exact = self.exact(network)
        parameters = sum(p.numel() for p in self.networks.get(network).parameters())
        numbers = parameters / self.batch + self.pool[0][0].numel() + exact[0].numel()
        gmac = self._gmac["transformers" if network == "timm" else network]
        return {"gmac": float(f"{gmac:.4g}"), "mb": float(f"{numbers * self.networks.dtype.itemsize / 1e6:.4g}")}


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

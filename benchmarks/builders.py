"""How PyTorch runs a case's model: by this package, as it comes, with fused attention, compiled."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from benchmarks.cases import Case
from benchmarks.networks import Logits, logits_of, with_sdpa
from benchmarks.registry import Provider

Forward = Callable[[Tensor], Tensor]
"""From images (N, 3, H, W) to logits."""


def network_of(case: Case, provider: Provider) -> nn.Module:
    """A copy of the network that a provider runs."""
    network: nn.Module = case.model(provider.network(case.size), provider.channels_last)
    return network


def _ours(case: Case, provider: Provider) -> Forward:
    """Over transformers' model as it comes: the memory order of images is all that users choose."""
    model = mvf.accelerate(case.model("transformers"), backend=provider.backend, strict=True)
    return lambda x: logits_of(model(x))


def _eager(case: Case, provider: Provider) -> Forward:
    model = network_of(case, provider)
    return lambda x: logits_of(model(x))


def _sdpa(case: Case, provider: Provider) -> Forward:
    model = with_sdpa(network_of(case, provider))
    return lambda x: logits_of(model(x))


def _compiled(case: Case, provider: Provider) -> Forward:
    torch._dynamo.reset()  # else a second batch size would be compiled for any size
    model = Logits(network_of(case, provider)).eval()
    compiled: Forward = torch.compile(model, mode=provider.mode, dynamic=False)
    return compiled


BUILDERS: dict[str, Callable[[Case, Provider], Forward]] = {
    "ours": _ours,
    "eager": _eager,
    "sdpa": _sdpa,
    "compile": _compiled,
}
"""Functions that make a provider's forward, by its library."""

"""How the providers of the registry run a model on a GPU: of a case, each makes a function from images to logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from benchmarks.gpu.cases import Case
from benchmarks.gpu.device import Forward
from benchmarks.networks import Logits, logits_of, with_sdpa
from benchmarks.registry import Provider, providers_on


def _network(case: Case, provider: Provider) -> nn.Module:
    return case.model(provider.network(case.networks.size), provider.channels_last)


def _ours(case: Case, provider: Provider) -> Forward:
    model = mvf.accelerate(case.model("transformers"), backend=provider.backend, strict=True)
    return lambda x: logits_of(model(x))


def _eager(case: Case, provider: Provider) -> Forward:
    model = _network(case, provider)
    return lambda x: logits_of(model(x))


def _sdpa(case: Case, provider: Provider) -> Forward:
    model = with_sdpa(_network(case, provider))
    return lambda x: logits_of(model(x))


def _compiled(case: Case, provider: Provider) -> Forward:
    torch._dynamo.reset()  # else a second batch size would be compiled for any size
    model = Logits(_network(case, provider)).eval()
    compiled: Forward = torch.compile(model, mode=provider.mode, dynamic=False)
    return compiled


def _tensorrt(case: Case, provider: Provider) -> Forward:
    import torch_tensorrt

    model, images = Logits(_network(case, provider)).eval(), case.pool[0]
    engine = torch_tensorrt.compile(model, ir="dynamo", inputs=[images], enabled_precisions={case.networks.dtype})

    def forward(x: Tensor) -> Tensor:
        return engine(x)

    return forward


PROVIDERS = providers_on("cuda")
"""Every provider by name. All compiled models are in channels_last, which suits them."""
BUILDERS: dict[str, Callable[[Case, Provider], Forward]] = {
    "ours": _ours,
    "eager": _eager,
    "sdpa": _sdpa,
    "compile": _compiled,
    "tensorrt": _tensorrt,
}
"""Functions that make a provider's function, by its library."""
ANCHOR = "ours-cuda-graph"
"""Timed beside every provider that has a process of its own, so that their ratio is one of the same minute."""

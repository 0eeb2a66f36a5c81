"""The ways to run a model on a GPU that are compared. Each makes, of a case, a function from images to logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import mobilevit_fast as mvf
from benchmarks.gpu.cases import YARDSTICK, Case, logits_of
from benchmarks.gpu.device import Forward


@dataclass(frozen=True)
class Provider:
    """A way to run a model.

    Attributes:
        name: in results.
        label: in tables.
        build: takes a case, returns what makes logits of images.
        network: the one that it runs, by its name in ``Networks``.
        channels_last: memory order of its images.
        graph: replayed as a CUDA graph; otherwise called.
        slow: it compiles for minutes, and so gets a process and a time limit of its own.
    """

    name: str
    label: str
    build: Callable[[Case], Forward]
    network: str = "transformers"
    channels_last: bool = False
    graph: bool = False
    slow: bool = False


def _ours(backend: str) -> Callable[[Case], Forward]:
    def build(case: Case) -> Forward:
        model = mvf.accelerate(case.model("transformers"), backend=backend, strict=True)
        return lambda x: logits_of(model(x))

    return build


def _eager(network: str, channels_last: bool = False) -> Callable[[Case], Forward]:
    def build(case: Case) -> Forward:
        model = case.model(network, channels_last)
        return lambda x: logits_of(model(x))

    return build


class _Logits(nn.Module):
    """A model as one graph: one tensor in, one out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model(images))


def _compiled(network: str, mode: str) -> Callable[[Case], Forward]:
    def build(case: Case) -> Forward:
        torch._dynamo.reset()  # else a second batch size would be compiled for any size
        compiled: Forward = torch.compile(_Logits(case.model(network, True)).eval(), mode=mode, dynamic=False)
        return compiled

    return build


_TUNED = "max-autotune"
PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("ours-cuda-graph", "mobilevit_fast, cuda, graph", _ours("cuda"), graph=True),
        Provider("ours-cuda", "mobilevit_fast, cuda", _ours("cuda")),
        Provider("transformers", "transformers", _eager("transformers")),
        Provider(
            "transformers-channels-last",
            "transformers in channels_last",
            _eager("transformers", True),
            channels_last=True,
        ),
        Provider(
            "transformers-graph",
            "transformers in channels_last, graph",
            _eager("transformers", True),
            channels_last=True,
            graph=True,
        ),
        Provider("timm", "timm", _eager("timm"), "timm"),
        Provider("timm-channels-last", "timm in channels_last", _eager("timm", True), "timm", channels_last=True),
        Provider(
            "timm-graph", "timm in channels_last, graph", _eager("timm", True), "timm", channels_last=True, graph=True
        ),
        Provider(
            "ours-cuda-channels-last-graph",
            "mobilevit_fast, cuda, channels_last images, graph",
            _ours("cuda"),
            channels_last=True,
            graph=True,
        ),
        Provider("ours-triton-graph", "mobilevit_fast, triton, graph", _ours("triton"), graph=True),
        Provider("ours-triton", "mobilevit_fast, triton", _ours("triton")),
        Provider(
            "transformers-max-autotune",
            "transformers, torch.compile max-autotune",
            _compiled("transformers", _TUNED),
            channels_last=True,
            slow=True,
        ),
        Provider(
            "resnet50-max-autotune",
            f"{YARDSTICK}, torch.compile max-autotune",
            _compiled("resnet50", _TUNED),
            "resnet50",
            channels_last=True,
            slow=True,
        ),
        Provider(
            "timm-max-autotune",
            "timm, torch.compile max-autotune",
            _compiled("timm", _TUNED),
            "timm",
            channels_last=True,
            slow=True,
        ),
        Provider(
            "transformers-compile",
            "transformers, torch.compile",
            _compiled("transformers", "default"),
            channels_last=True,
            slow=True,
        ),
        Provider(
            "timm-compile", "timm, torch.compile", _compiled("timm", "default"), "timm", channels_last=True, slow=True
        ),
    )
}
"""Every provider by name. All compiled models are in channels_last, which suits them."""
ANCHOR = "ours-cuda-graph"
"""Timed beside every provider that has a process of its own, so that their ratio is one of the same minute."""

"""How the providers of the registry run a model on a GPU: of a case, each makes a function from images to logits."""

from collections.abc import Callable

from torch import Tensor

from benchmarks import builders
from benchmarks.builders import Forward, network_of
from benchmarks.cases import Case
from benchmarks.networks import Logits
from benchmarks.registry import Provider, providers_on


def _tensorrt(case: Case, provider: Provider) -> Forward:
    import torch_tensorrt

    model, images = Logits(network_of(case, provider)).eval(), case.pool[0]
    engine = torch_tensorrt.compile(model, ir="dynamo", inputs=[images], enabled_precisions={case.dtype})

    def forward(x: Tensor) -> Tensor:
        return engine(x)

    return forward


PROVIDERS = providers_on("cuda")
"""Every provider by name. All compiled models are in channels_last, which suits them."""
BUILDERS: dict[str, Callable[[Case, Provider], Forward]] = {**builders.BUILDERS, "tensorrt": _tensorrt}
"""Functions that make a provider's function, by its library."""
ANCHOR = "ours-cuda-graph"
"""Timed beside every provider that has a process of its own, so that their ratio is one of the same minute."""

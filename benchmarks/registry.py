"""Models that are measured, and the ways to run them. Every list of names that the benchmarks know is here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES_ON = {"cpu": ("float32", "bfloat16"), "cuda": ("float16", "bfloat16")}
"""Types to compute in, by device: processors have no instructions for float16, and GPUs are not bought for float32."""
BATCHES_ON = {"cpu": (1, 8), "cuda": (1, 256)}
OPERATOR_BACKENDS, COMPILED_OPERATORS = ("cuda", "triton", "plain"), ("compiled",)
"""Backends of an operator on a GPU; "plain" is the reference in PyTorch, which torch.compile makes "compiled" of."""


@dataclass(frozen=True)
class Model:
    """A network with random weights.

    Attributes:
        name: in results and on the command line.
        networks: who has it, the one that the float64 result comes from first; those of a model have equal weights.
        preset: of ``MobileViTConfig``; None where it is no MobileViT.
        segmentation: 21 classes at output stride 16 instead of 1000 classes of the whole image.
        image_size: pixels in height and width.
        batches: of these only; empty: those of the run.
    """

    name: str
    networks: tuple[str, ...] = ("transformers", "timm")
    preset: str | None = None
    segmentation: bool = False
    image_size: int = 256
    batches: tuple[int, ...] = ()


YARDSTICK = "ResNet-50"
MODELS = {
    model.name: model
    for model in (
        Model("S", preset="small"),
        Model("XS", preset="x_small"),
        Model("XXS", preset="xx_small"),
        Model("XXS-segmentation", ("transformers",), "xx_small", True, 512, (1,)),
        Model(YARDSTICK, ("resnet50",)),
    )
}
"""Every model by name. The yardstick is what users know; it says how fast a library is where everybody is fast."""
SIZES = {m.name: m.preset for m in MODELS.values() if m.preset is not None and not m.segmentation}
"""Presets of the classification models by name."""


@dataclass(frozen=True)
class Provider:
    """A way to run a model on a device.

    Attributes:
        name: in results and on the command line, once for a device.
        label: in tables.
        library: who makes the call: a builder of that name is in ``benchmarks.cpu.providers`` and its like for GPUs.
        networks: those that it runs; of these the first that a model has.
        devices, dtypes: where it is measured.
        channels_last: memory order of images, and of a model that is PyTorch's.
        backend: of this package's operators.
        mode: of torch.compile.
        graph: replayed as a CUDA graph; otherwise called.
        slow: it compiles for minutes: on a GPU it gets a process and a time limit of its own.
        models, batches, in_dtypes: the only cases of a run that does not ask for it by name; empty: all.
    """

    name: str
    label: str
    library: str
    networks: tuple[str, ...] = ("transformers",)
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = tuple(DTYPES)
    channels_last: bool = False
    backend: str = "auto"
    mode: str = "default"
    graph: bool = False
    slow: bool = False
    models: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    in_dtypes: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is this package."""
        return self.library == "ours"

    def network(self, model: str) -> str:
        """The one that it runs of a model; beside models that have none, its own."""
        return next((name for name in self.networks if name in MODELS[model].networks), self.networks[0])

    def has(self, model: str) -> bool:
        """Whether it runs the model."""
        return not set(self.networks).isdisjoint(MODELS[model].networks)

    def usual(self, model: str, batch: int, dtype: str) -> bool:
        """Whether a run that names nobody measures it in this case."""
        limits = ((self.models, model), (self.batches, batch), (self.in_dtypes, dtype))
        return all(not allowed or value in allowed for allowed, value in limits)


_CPU, _CUDA = ("cpu",), ("cuda",)
_TIMM, _ANY = ("timm", "resnet50"), ("transformers", "resnet50")
_TUNED, _GRAPHS = "max-autotune", "reduce-overhead"
_COMPILED = "transformers, torch.compile"
_LAST = "in channels_last"


def _compiled_on_gpu(name: str, label: str, network: str, mode: str = "default", graph: bool = False) -> Provider:
    """A model that torch.compile has made for a GPU."""
    options: dict[str, Any] = {"mode": mode, "graph": graph, "channels_last": True, "slow": True}
    return Provider(name, label, "compile", (network,), devices=_CUDA, **options)


PROVIDERS = (
    # This package.
    Provider("ours", "mobilevit_fast", "ours", devices=_CPU),
    Provider("ours-channels-last", "mobilevit_fast, channels_last images", "ours", devices=_CPU, channels_last=True),
    Provider("ours-reference", "mobilevit_fast, reference", "ours", devices=_CPU, backend="reference"),
    Provider("ours-cuda-graph", "mobilevit_fast, cuda, graph", "ours", devices=_CUDA, backend="cuda", graph=True),
    Provider("ours-cuda", "mobilevit_fast, cuda", "ours", devices=_CUDA, backend="cuda"),
    # PyTorch as it comes.
    Provider("transformers", "transformers", "eager"),
    Provider("transformers-channels-last", f"transformers {_LAST}", "eager", channels_last=True),
    Provider(
        "transformers-graph",
        f"transformers {_LAST}, graph",
        "eager",
        devices=_CUDA,
        channels_last=True,
        graph=True,
    ),
    Provider("transformers-sdpa", f"transformers {_LAST}, SDPA", "sdpa", channels_last=True),
    Provider("timm", "timm", "eager", _TIMM),
    Provider("timm-channels-last", f"timm {_LAST}", "eager", _TIMM, channels_last=True),
    Provider("timm-graph", f"timm {_LAST}, graph", "eager", _TIMM, devices=_CUDA, channels_last=True, graph=True),
    Provider(
        "ours-cuda-channels-last-graph",
        "mobilevit_fast, cuda, channels_last images, graph",
        "ours",
        devices=_CUDA,
        backend="cuda",
        channels_last=True,
        graph=True,
    ),
    Provider("ours-triton-graph", "mobilevit_fast, triton, graph", "ours", devices=_CUDA, backend="triton", graph=True),
    Provider("ours-triton", "mobilevit_fast, triton", "ours", devices=_CUDA, backend="triton"),
    # Compilers. On a CPU, transformers' model in its default memory order, which Inductor changes where it wants to.
    Provider("transformers-compile", _COMPILED, "compile", _ANY, devices=_CPU),
    Provider(  # without CUDA graphs it is the default mode: one case shows it
        "transformers-reduce-overhead",
        f"{_COMPILED} {_GRAPHS}",
        "compile",
        devices=_CPU,
        mode=_GRAPHS,
        models=("S",),
        batches=(1,),
    ),
    Provider(  # minutes of tuning in every case: one image of the largest and of the smallest model
        "transformers-max-autotune",
        f"{_COMPILED} {_TUNED}",
        "compile",
        devices=_CPU,
        mode=_TUNED,
        slow=True,
        models=("S", "XXS"),
        batches=(1,),
        in_dtypes=("float32",),
    ),
    _compiled_on_gpu("transformers-max-autotune", f"{_COMPILED} {_TUNED}", "transformers", _TUNED),
    _compiled_on_gpu("resnet50-max-autotune", f"{YARDSTICK}, torch.compile {_TUNED}", "resnet50", _TUNED),
    _compiled_on_gpu("timm-max-autotune", f"timm, torch.compile {_TUNED}", "timm", _TUNED),
    _compiled_on_gpu("transformers-compile", _COMPILED, "transformers"),
    _compiled_on_gpu("timm-compile", "timm, torch.compile", "timm"),
    _compiled_on_gpu("timm-compile-graph", "timm, torch.compile, graph", "timm", graph=True),
    _compiled_on_gpu("resnet50-compile-graph", f"{YARDSTICK}, torch.compile, graph", "resnet50", graph=True),
    _compiled_on_gpu("transformers-reduce-overhead", f"{_COMPILED} {_GRAPHS}", "transformers", _GRAPHS),
    # Other engines.
    Provider("onnxruntime", "ONNX Runtime", "onnxruntime", _ANY, devices=_CPU),
    Provider("openvino", "OpenVINO", "openvino", _ANY, devices=_CPU),
    Provider("openvino-float32", "OpenVINO in float32", "openvino_float32", _ANY, devices=_CPU, dtypes=("bfloat16",)),
    Provider("tensorrt", "TensorRT", "tensorrt", _ANY, devices=_CUDA, slow=True),
)


def providers_on(device: str) -> dict[str, Provider]:
    """Those of a device by name, in the order of tables."""
    return {provider.name: provider for provider in PROVIDERS if device in provider.devices}


def peers_on(device: str) -> tuple[str, ...]:
    """Names of those that are not this package."""
    return tuple(name for name, provider in providers_on(device).items() if not provider.ours)


def chosen(device: str, model: str, batch: int, dtype: str, peers: Sequence[str] | None = None) -> Iterator[Provider]:
    """Who is measured in a case: this package, and the peers that are named, or else the usual ones."""
    for provider in providers_on(device).values():
        named = peers is not None and provider.name in peers
        wanted = named if peers is not None and not provider.ours else provider.usual(model, batch, dtype)
        if wanted and dtype in provider.dtypes and provider.has(model):
            yield provider


def batches_of(model: str, batches: Sequence[int]) -> tuple[int, ...]:
    """Batches of a run that a model is measured with."""
    own = MODELS[model].batches
    return tuple(batch for batch in batches if not own or batch in own)

"""The operators that an accelerated MobileViT calls: with which tensors, of which shapes, by size of model.

Nothing is computed from the configuration a second time: a forward of the model is watched.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.fused import Fused
from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.ops import OPS

_RECORDED = "reference"
"""The backend that takes weights as they are."""


class OperatorCall(NamedTuple):
    """One call of an operator.

    Attributes:
        path: the fused module that makes it, as in ``named_modules``.
        part: its name within the module.
        op: name of the operator.
        arguments: those of the operator's schema.
    """

    path: str
    part: str
    op: str
    arguments: tuple[Any, ...]

    @property
    def named(self) -> dict[str, Any]:
        """The arguments by name."""
        return OPS[self.op].named(self.arguments)

    @property
    def shape(self) -> dict[str, int]:
        """The sizes that say how much work it is, but for the batch."""
        return operator_shape(self.op, self.named)


def operator_shape(op: str, named: dict[str, Any]) -> dict[str, int]:
    """Channels, image size, kernel, stride and depth of an operator, from its arguments by name."""
    x = named["x"]
    shape: dict[str, int] = {"inputs": x.shape[1], "height": x.shape[2], "width": x.shape[3]}
    if op == "inverted_residual":
        widths = {"expanded": named["expand_weight"].shape[0], "outputs": named["project_weight"].shape[0]}
        shape |= {**widths, "kernel": named["depthwise_weight"].shape[2]}
    elif op == "conv2d_bias_act":
        weight, x2 = named["weight"], named["x2"]
        second = {} if x2 is None else {"second_inputs": x2.shape[1]}
        shape |= {**second, "outputs": weight.shape[0], "kernel": weight.shape[2]}
    elif op == "mobilevit_transformer":
        layers, hidden = named["fc1_weight"].shape[:2]
        width = named["in_weight"].shape[0]
        shape |= {"layers": layers, "hidden_size": width, "mlp_size": hidden, "outputs": named["out_weight"].shape[0]}
    elif op == "classifier_head":
        shape |= {"expanded": named["expand_weight"].shape[0], "outputs": named["weight"].shape[0]}
    elif op == "aspp":
        widths = {"features": named["pool_weight"].shape[0], "outputs": named["project_weight"].shape[0]}
        shape |= {**widths, "rates": len(named["rates"])}
    elif op == "depthwise_separable_conv2d":
        shape |= {"outputs": named["pointwise_weight"].shape[0], "kernel": named["depthwise_weight"].shape[2]}
    elif op == "depthwise_conv2d":
        shape |= {"kernel": named["weight"].shape[2]}
    else:
        raise ValueError(f"expected one of {', '.join(OPS)}, got {op}")
    return {**shape, "stride": named["stride"][0]} if "stride" in named else shape


class _Recorder(TorchDispatchMode):
    """Keeps every call of an operator of the package, under the fused module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[OperatorCall] = []
        self.running: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "mobilevit_fast" and func._schema.overload_name == _RECORDED:
            path, parts = self.running[-1]
            name = func._schema.name.removeprefix("mobilevit_fast::")
            self.calls.append(OperatorCall(path, next(parts), name, args))
        return func(*args, **(kwargs or {}))


def operator_calls(model: nn.Module, images: Tensor) -> list[OperatorCall]:
    """The calls of operators in a forward of a model when it is accelerated, in their order, with their weights.

    The model is accelerated for that; the reference computes.
    """
    recorder = _Recorder()
    handles = []
    for path, module in mvf.accelerate(model, backend=_RECORDED, strict=True).named_modules():
        if not isinstance(module, Fused):
            continue

        def enter(module: Any, args: Any, path: str = path) -> None:
            recorder.running.append((path, iter(module.bounds_for(args[0]))))

        def leave(module: Any, args: Any, output: Any) -> None:
            recorder.running.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad(), recorder:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.calls


def preset_calls(
    preset: str,
    batch: int = 1,
    image_size: int = 256,
    dtype: torch.dtype = torch.float32,
    *,
    segmentation: bool = False,
) -> list[OperatorCall]:
    """The calls of a preset's model, on tensors without values: for their shapes.

    The model classifies 1000 classes or, at output stride 16, segments 21.
    """
    return list(_preset_calls(preset, batch, image_size, dtype, segmentation))


@functools.cache
def _preset_calls(
    preset: str, batch: int, image_size: int, dtype: torch.dtype, segmentation: bool
) -> tuple[OperatorCall, ...]:
    kind = mvf.MobileViTForSemanticSegmentation if segmentation else mvf.MobileViTForImageClassification
    settings = {"num_labels": 21, "output_stride": 16} if segmentation else {"num_labels": 1000}
    config = MobileViTConfig.preset(preset, **settings)
    with torch.device("meta"):
        model = kind(config).to(dtype).eval()
        images = torch.empty(batch, 3, image_size, image_size, dtype=dtype)
    return tuple(operator_calls(model, images))


def different(calls: Iterable[OperatorCall]) -> list[tuple[OperatorCall, int]]:
    """One call of each kind, in their order, and how many there are of it."""
    found: dict[str, tuple[OperatorCall, int]] = {}
    for call in calls:
        layout = [tuple(a.shape) if isinstance(a, Tensor) else a for a in call.arguments]
        known = found.get(key := f"{call.op}{layout}")
        found[key] = (call, 1) if known is None else (known[0], known[1] + 1)
    return list(found.values())


def within_inverted_residual(named: dict[str, Any], expanded: Tensor) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """The depthwise separable and the depthwise convolution inside of one: part, operator and its arguments.

    ``expanded`` (N, E, H, W) is what the 1x1 convolution before them gives.
    """
    depthwise = [named[f"depthwise_{name}"] for name in ("weight", "scale", "bias")]
    project = [named[f"project_{name}"] for name in ("weight", "scale", "bias")]
    padding = [(size - 1) // 2 * d for size, d in zip(depthwise[0].shape[2:], named["dilation"], strict=True)]
    geometry = [named["stride"], padding, named["dilation"]]
    activation, op = named["activation"], "depthwise_separable_conv2d"
    yield "depthwise_separable", op, (expanded, *depthwise, *project, *geometry, activation, "none")
    yield "depthwise", "depthwise_conv2d", (expanded, *depthwise, *geometry, activation)


def all_calls(batch: int = 1, image_size: int = 256, dtype: torch.dtype = torch.float32) -> list[OperatorCall]:
    """The different calls of every operator in the three sizes, without values.

    They are those of classification, of ASPP in segmentation and of the convolutions in inverted residuals.
    """
    calls = []
    for preset in PRESETS:
        calls += preset_calls(preset, batch, image_size, dtype)
        segmenting = preset_calls(preset, batch, image_size, dtype, segmentation=True)
        calls += [call for call in segmenting if call.op == "aspp"]
    for call in [call for call in calls if call.op == "inverted_residual"]:
        x = call.named["x"]
        expanded = x.new_empty(x.shape[0], call.named["expand_weight"].shape[0], *x.shape[2:])
        expanded = expanded.contiguous(memory_format=torch.channels_last)
        for part, op, arguments in within_inverted_residual(call.named, expanded):
            calls.append(OperatorCall(call.path, part, op, arguments))
    return [call for call, _ in different(calls)]


class InvertedResidualShape(NamedTuple):
    """An inverted residual over (batch, inputs, size, size)."""

    inputs: int
    expanded: int
    outputs: int
    size: int
    stride: int


def inverted_residuals(preset: str, image_size: int = 256) -> list[InvertedResidualShape]:
    """The different inverted residuals of a preset, in the order of the network (arXiv 2110.02178, table 4)."""
    shapes = [call.shape for call in preset_calls(preset, 1, image_size) if call.op == "inverted_residual"]
    names = ("inputs", "expanded", "outputs", "height", "stride")
    return list(dict.fromkeys(InvertedResidualShape(*(shape[name] for name in names)) for shape in shapes))

"""The picture of what is fused: the launches of a MobileViT block before and after, with the bytes that each moves.

Before: what PyTorch dispatches for transformers' block, each operation that is no view being one launch or more.
After: the operators of this package, and the kernels that a profiler saw for them on a GPU.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.floors import work_of
from benchmarks.plots import FAINT, INK, MODEL, OURS, PEERS, Picture, drawing
from benchmarks.registry import SIZES
from mobilevit_fast.config import MobileViTConfig
from testing.pairs import CLASSIFICATION, theirs_for
from testing.shapes import OperatorCall, preset_calls

IMAGE_SIZE, MANY = 256, 256
_PRODUCTS = ("convolution", "addmm", "mm", "bmm", "baddbmm")
_NO_LAUNCH = ("_unsafe_view", "detach", "empty", "lift_fresh")


class Launch(NamedTuple):
    """An operation that runs by itself.

    Attributes:
        name: of PyTorch's operation or of this package's operator.
        megabytes: of its input and output images in float16, for one image; weights aside.
        product: whether it is a convolution or a matrix product.
    """

    name: str
    megabytes: float
    product: bool


class _Recorder(TorchDispatchMode):
    """Keeps every operation that is more than another view of a tensor."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.launches: list[Launch] = []
        self._weights = weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        view = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        if not view and name not in _NO_LAUNCH:
            read = [value for value in _tensors(args) if not self._is_weight(value)]
            size = sum(value.numel() * value.element_size() for value in [*read, *_tensors((result,))[:1]])
            self.launches.append(Launch(name, size / 1e6, name in _PRODUCTS))
        return result

    def _is_weight(self, value: Tensor) -> bool:
        return value.untyped_storage()._cdata in self._weights


def _tensors(values: Any) -> list[Tensor]:
    """Tensors among arguments, also of lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def block_calls() -> list[OperatorCall]:
    """The operators of the model's first block, for one image."""
    calls = preset_calls(SIZES[MODEL], 1, IMAGE_SIZE, torch.float16)
    path = next(call.path for call in calls if call.op == "mobilevit_transformer")
    return [call for call in calls if call.path == path]


def before() -> list[Launch]:
    """Operations of transformers' block, without the inverted residual before it."""
    x = block_calls()[0].named["x"]
    with torch.device("meta"):
        model = theirs_for(CLASSIFICATION, MobileViTConfig.preset(SIZES[MODEL])).half().eval()
        image = torch.empty(x.shape, dtype=torch.float16)
    block: Any = next(module for module in model.modules() if hasattr(module, "conv_kxk"))
    block.downsampling_layer = None
    weights = {value.untyped_storage()._cdata for value in [*block.parameters(), *block.buffers()]}
    recorder = _Recorder(weights)
    with torch.no_grad(), recorder:
        block(image)
    return recorder.launches


def after(regions: dict[str, Any]) -> list[Launch]:
    """Operators of the fused block, each as often as kernels ran for it on the GPU that was profiled."""
    kernels = {
        (row["operator"], *sorted(row["shape"].items())): len(row["kernels"])
        for row in regions["rows"]
        if (row["model"], row["batch"]) == (MODEL, MANY)
    }
    launches = []
    for call in block_calls():
        count = kernels[call.op, *sorted(call.shape.items())]
        megabytes = work_of(call.op, call.named).fused_bytes / 1e6
        launches += count * [Launch(call.op, megabytes / count, True)]
    return launches


def fusion(regions: dict[str, Any]) -> Picture:
    """The picture; ``regions`` are results that name the kernels."""
    x = block_calls()[0].named["x"]
    title = (
        f"the first block of MobileViT-{MODEL}, one image, float16, {x.shape[1]} channels of {x.shape[2]}×{x.shape[3]}"
    )
    shown = [
        [(launch.name, round(launch.megabytes, 3), launch.product) for launch in side]
        for side in (before(), after(regions))
    ]
    return Picture("fusion", "What is fused", title, shown, _fusion)


@drawing
def _fusion(figure: Any, shown: list[list[tuple[str, float, bool]]]) -> None:
    """A bar for each launch, as wide as what it moves; before on the left, after on the right."""
    from matplotlib.patches import Patch

    figure.set_size_inches(8.4, 4.6)
    axes = figure.subplots(1, 2, sharex=True)
    widest = max(megabytes for side in shown for _, megabytes, _ in side)
    rows = max(len(side) for side in shown)
    for ax, side, ours in zip(axes, shown, (False, True), strict=True):
        moved = math.fsum(megabytes for _, megabytes, _ in side)
        who = "mobilevit_fast" if ours else "PyTorch, transformers' modules"
        ax.set_title(f"{who}\n{len(side)} launches, {moved:.1f} MB", color=OURS if ours else INK, fontweight="bold")
        height = 2.6 if ours else 0.8
        step = 7 if ours else 1
        colors = [OURS if ours else INK if product else PEERS for _, _, product in side]
        places = [step * (i + 0.5) - 0.5 for i in range(len(side))]
        ax.barh(places, [megabytes for _, megabytes, _ in side], height, color=colors)
        ax.set(ylim=(rows - 0.4, -0.6), xlim=(0, 1.05 * widest), xlabel="MB read and written by a launch")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=FAINT, lw=0.8)
        ax.set_axisbelow(True)
        if ours:
            for place, (name, megabytes, _) in zip(places, side, strict=True):
                ax.annotate(
                    f"{name}  {megabytes:.2f} MB", (megabytes, place), (5, 0), textcoords="offset points", va="center"
                )
    legend = [
        Patch(color=INK, label="convolution or matrix product"),
        Patch(color=PEERS, label="norm, activation, sum, copy …"),
    ]
    axes[0].legend(handles=legend, loc="lower right", frameon=False, fontsize=9)

"""Every operator of a model, with its true weights and inputs, against the same region in plain PyTorch.

The inputs are those that a forward of the accelerated model hands to its operators; plain PyTorch runs the modules that
the operators replace, in channels_last. Depthwise and depthwise separable convolutions are no regions of their own:
they are taken from within the inverted residuals.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, exact_and_gmac, relative_error
from benchmarks.cpu.floors import work_of
from benchmarks.timing import HostClock, interleaved, statistics
from mobilevit_fast.ops import OPS
from testing.shapes import OperatorCall, operator_calls, within_inverted_residual

Region = Callable[..., Tensor]


def _transformer(block: Any, x: Tensor) -> Tensor:
    """Within transformers' MobileViT block, from the 1×1 convolution in to the one out."""
    patches, info = block.unfolding(block.conv_1x1(x))
    features = block.folding(block.layernorm(block.transformer(patches)), info)
    return block.conv_projection(features)


def _head(model: Any, x: Tensor) -> Tensor:
    return model.classifier(model.mobilevit.conv_1x1_exp(x).mean((-2, -1)))


_PARTS: dict[str, Callable[[Any], Region]] = {
    "local": lambda block: block.conv_kxk,
    "transformer": lambda block: partial(_transformer, block),
    "fusion": lambda block: lambda x, x2: block.fusion(torch.cat((x, x2), 1)),
    "classifier_head": lambda model: partial(_head, model),
    "depthwise_separable": lambda residual: lambda x: residual.reduce_1x1(residual.conv_3x3(x)),
    "depthwise": lambda residual: residual.conv_3x3,
}
"""Parts of fused modules, by how transformers' modules compute them; other parts are the whole module."""


def plain_region(model: nn.Module, call: OperatorCall) -> Region:
    """Region of a model that is not accelerated: the modules that compute what the operator does."""
    module = model.get_submodule(call.path)
    return _PARTS[call.part](module) if call.part in _PARTS else module


def _within(call: OperatorCall, residual: Any) -> Iterator[OperatorCall]:
    """The depthwise separable and the depthwise convolution inside an inverted residual."""
    named = call.named
    x = residual.expand_1x1(named["x"])  # (N, E, H, W)
    for part, name, arguments in within_inverted_residual(named, x):
        yield OperatorCall(call.path, part, name, arguments)


class Work(NamedTuple):
    """An operator's call, how often the model makes one of its kind, and the same region in plain PyTorch.

    ``inputs`` are the activations, without the weights.
    """

    call: OperatorCall
    calls: int
    inputs: tuple[Tensor, ...]
    plain: Region
    exact: Region


@torch.no_grad()
def works(case: Case) -> list[Work]:
    """The different operator calls of a case, in the order of the network."""
    plain = case.model("transformers", channels_last=True)
    exact = case.model("transformers", dtype=torch.float64)
    calls = []
    for call in operator_calls(case.model("transformers"), case.pool[0]):
        calls.append(call)
        if call.op == "inverted_residual":
            calls += _within(call, plain.get_submodule(call.path))
    found: dict[Any, Work] = {}
    for call in calls:
        key = (call.op, tuple(call.shape.items()), str([a for a in call.arguments if not isinstance(a, Tensor)]))
        if key in found:
            found[key] = found[key]._replace(calls=found[key].calls + 1)
            continue
        x2 = call.named.get("x2")
        inputs = (call.arguments[0],) if x2 is None else (call.arguments[0], x2)
        found[key] = Work(call, 1, inputs, plain_region(plain, call), plain_region(exact, call))
    return list(found.values())


def measure_operators(case: Case, rounds: int, seconds: float = math.inf) -> Iterator[dict[str, Any]]:
    """A row for every different operator call of a case. Times are per call, for the whole batch."""
    found = works(case)
    for work in found:
        yield _row(case, work, rounds, seconds / len(found))


@torch.no_grad()
def _row(case: Case, work: Work, rounds: int, seconds: float) -> dict[str, Any]:
    call, plain = work.call, work.plain
    channels_last = tuple(x.contiguous(memory_format=torch.channels_last) for x in work.inputs)
    exact, gmac = exact_and_gmac(work.exact, work.inputs)
    op, x = OPS[call.op], call.arguments[0]
    choice = op.choose("auto", x.device, x.dtype, call.named)
    arguments = op.arguments_for(choice.backend, call.arguments)
    calls = {"ours": lambda: choice.overload(*arguments), "plain": lambda: plain(*channels_last)}
    with torch.inference_mode():
        errors = {name: relative_error(run(), exact) for name, run in calls.items()}
        timed = interleaved(calls, HostClock(rest=0), seconds, rounds, most_calls=1)
    if timed.reasons:
        raise RuntimeError(f"{call.op}: {timed.reasons}")
    times = {name: statistics(values) for name, values in timed.seconds.items()}
    rate = gmac / times["ours"]["median_ms"] * 1e3
    return {
        "kind": "operator",
        "rounds": len(timed.seconds["ours"]),
        "model": case.size,
        "batch": case.batch,
        "dtype": case.dtype_name,
        "operator": call.op,
        "backend": choice.backend,
        "path": call.path,
        "calls": work.calls,
        "shape": call.shape,
        "gmac": float(f"{gmac:.4g}"),
        **work_of(call),
        **times["ours"],
        **{f"plain_{name}": value for name, value in times["plain"].items()},
        "ratio": round(times["plain"]["median_ms"] / times["ours"]["median_ms"], 3),
        "gmac_s": float(f"{rate:.4g}"),
        "error": float(f"{errors['ours']:.3g}"),
        "plain_error": float(f"{errors['plain']:.3g}"),
        "reason": None,
    }

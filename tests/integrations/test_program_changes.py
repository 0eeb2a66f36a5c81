"""Whatever changes in a model whose calls are recorded, results are those of its modules."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.class_swap import original_class
from mobilevit_fast.acceleration.programs import Program, Recording
from testing.tolerance import close
from tests.integrations import zoo


def inner_mode(model: nn.Module) -> None:
    model.stem.train()


def inner_hook(model: nn.Module) -> None:
    model.stages[0].register_forward_hook(lambda module, args, output: 2 * output)


def inner_order(model: nn.Module) -> None:
    children = model.stages[1]._modules
    children["1"] = children.pop("1")
    assert list(children) != sorted(children)


def inner_children(model: nn.Module) -> None:
    model.stages[1]._modules = dict(list(model.stages[1]._modules.items())[:2])


def inner_hooks(model: nn.Module) -> None:
    model.stages[1]._forward_hooks = OrderedDict({0: lambda module, args, output: 2 * output})


def inner_forward(model: nn.Module) -> None:
    forward = model.stages[0].forward
    model.stages[0].forward = lambda x: 2 * forward(x)


def own_method(model: nn.Module) -> None:
    model.forward = lambda x: torch.zeros(1)


@pytest.mark.parametrize(
    "change", [inner_mode, inner_hook, inner_hooks, inner_children, inner_order, inner_forward, own_method]
)
def test_changes_around_the_kernels(change: Callable[[nn.Module], None], runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    before = zoo.run_often(model, x)
    assert len(runs) == 1
    change(model)
    twin = mvf.restore(copy.deepcopy(model)) if change is not inner_forward else None
    for _ in range(3):
        found = zoo.run(model, x)
        assert not torch.equal(found, before)
        if twin is not None:
            close(found, zoo.run(twin, x))


class Clipped(nn.Module):
    """Writes into the result of a kernel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).clamp_(-0.1, 0.1)


class Skipped(Clipped):
    """Reads what a kernel is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else self.inner(x)


class Counted(Clipped):
    """Keeps something of every call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.inner(x)
        return result


def rectified(inner: nn.Module) -> nn.Module:
    return nn.Sequential(inner, nn.ReLU(inplace=True))


@pytest.mark.parametrize("wrap", [Clipped, Skipped, Counted, rectified])
def test_code_between_the_kernels_runs_at_every_call(wrap: Callable[[nn.Module], nn.Module], runs: list[int]) -> None:
    plain = zoo.SMALL["timm"]()
    plain.stages[1][1] = wrap(plain.stages[1][1]).eval()
    model = mvf.accelerate(copy.deepcopy(plain))
    x = zoo.images(1)
    for images in (x, x, x, -x, x + 3, x - 3):
        close(zoo.run(model, images), zoo.run(plain, images))
    assert getattr(model.stages[1][1], "calls", 6) == 6
    assert not runs


def test_a_library_whose_code_was_replaced(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["transformers"]()), zoo.images(1)
    layer = original_class(model.mobilevit.encoder.layer[0])
    forward, calls = layer.forward, list[int]()

    def counting(self: nn.Module, features: Tensor) -> Any:
        calls.append(1)
        return forward(self, features)

    monkeypatch.setattr(layer, "forward", counting)
    zoo.run_often(model, x)
    assert not runs
    assert len(calls) > 2


def other_weights(model: nn.Module) -> None:
    with torch.no_grad():
        model.head.fc.bias += 1


def other_stage(model: nn.Module) -> None:
    stage = copy.deepcopy(model.stages[0])
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter *= 0.5
    model.stages[0] = stage


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("change", [other_weights, other_stage])
def test_what_changes_while_a_call_is_recorded(
    change: Callable[[nn.Module], None], loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread may do. Where weights were loaded since the first call, regions derive them in this one."""
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    zoo.run(model, x)
    if loaded:
        model.load_state_dict(copy.deepcopy(model.state_dict()))
    old, steps = model.stages[0], Recording.steps

    def late(self: Recording, result: Tensor) -> Any:
        change(model)
        return steps(self, result)

    monkeypatch.setattr(Recording, "steps", late)
    before = zoo.run(model, x)
    monkeypatch.setattr(Recording, "steps", steps)
    assert not model._mvf_layouts.programs._programs
    assert (model.stages[0] is old) == (change is other_weights)
    expected = zoo.run(mvf.restore(copy.deepcopy(model)), x)
    assert (expected - before).abs().max() > 0.1
    for _ in range(4):
        close(zoo.run(model, x), expected)
    assert len(model._mvf_layouts.programs._programs) == 1


def test_weights_that_were_loaded_between_the_first_calls(runs: list[int]) -> None:
    """A region that forgets them tells of it all the same."""
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    zoo.run(model, x)
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    zoo.run_often(model, x)
    before = zoo.run(model, x)
    assert len(runs) > 0
    with torch.no_grad():
        model.stem.conv.weight.data.flatten()[1] += 3  # between the numbers that are looked at
    model.stem.eval()
    assert not torch.equal(zoo.run(model, x), before)


def test_weights_of_before_are_freed() -> None:
    """Once another kind of call is recorded."""
    model = mvf.accelerate(zoo.SMALL["timm"]())
    zoo.run_often(model, zoo.images(1))
    (program,) = model._mvf_layouts.programs._programs.values()
    packed = [weakref.ref(a) for step in program.steps for a in step.arguments if isinstance(a, Tensor)]
    del program
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    zoo.run_often(model, zoo.images(2))
    assert len(packed) == 18
    assert not [reference for reference in packed if reference() is not None]


def test_on_a_cpu_nothing_runs_in_vain(runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    zoo.run_often(model, x)
    assert len(runs) == 1
    with torch.no_grad():
        model.head.fc.bias += 1
    zoo.run(model, x)
    assert len(runs) == 1


def test_errors_of_a_recorded_call_are_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    expected = zoo.run_often(model, x)

    def fail(self: Program, images: Tensor) -> Any:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(Program, "run", fail)
        with pytest.raises(torch.OutOfMemoryError, match="no memory"):
            zoo.run(model, x)
    assert torch.equal(zoo.run(model, x), expected)


def test_a_region_that_forgets_its_weights_is_asked_again(runs: list[int]) -> None:
    """Of a write that nothing notices, ``eval()`` on any module tells, as it does without a recording."""
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    before = zoo.run_often(model, x)
    weight = model.stem.conv.weight
    with torch.no_grad():
        samples = weight.detach().flatten().clone()
        weight.data.flatten()[1] += 3  # between the numbers that are looked at
    assert not torch.equal(samples, weight.flatten())
    model.stem.eval()
    assert not torch.equal(zoo.run(model, x), before)


def test_a_part_that_is_accelerated_anew(runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["native"]()), zoo.images(1)
    expected = zoo.run_often(model, x)
    mvf.accelerate(model.mobilevit, backend="reference")
    close(zoo.run(model, x), expected)
    backends = {bound.backend for m in model.mobilevit.modules() if "_mvf" in vars(m)
                for derived in m._mvf.derived.values() for bound in (derived.bounds or {}).values()}  # fmt: skip
    assert backends == {"reference"}


def test_weights_that_kernels_refuse_are_the_modules_to_refuse() -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    zoo.run_often(model, x)
    model.stem.conv.weight = nn.Parameter(torch.zeros(7, 3, 3, 3))
    with pytest.raises(RuntimeError):
        zoo.run(model, x)
    model.double()
    with pytest.raises(RuntimeError, match="type"):
        zoo.run(model, x)

"""Calls that are kernels and nothing else are made again without the modules; whatever changes, results are theirs."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import programs
from mobilevit_fast.acceleration.class_swap import original_class
from mobilevit_fast.acceleration.programs import Program, Recording
from testing.tolerance import close
from tests.integrations import zoo

CLASSIFIERS = ["native", "transformers", "timm"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kernels of each recorded call that is made again."""
    counted: list[int] = []
    run = Program.run

    def counting(self: Program, images: Tensor) -> Any:
        counted.append(len(self.steps))
        return run(self, images)

    monkeypatch.setattr(Program, "run", counting)
    return counted


def leaves(model: nn.Module, *args: Any, **kwargs: Any) -> list[Any]:
    with torch.no_grad():
        return pytree.tree_leaves(model(*args, **kwargs))


@pytest.mark.parametrize("name", zoo.SMALL)
def test_results_are_those_of_the_modules(name: str, runs: list[int]) -> None:
    model = mvf.accelerate(zoo.SMALL[name]())
    with torch.no_grad():
        expected = model(zoo.images())
        for _ in range(3):
            found = model(zoo.images())
            assert type(found) is type(expected)
            for ours, theirs in zip(*map(pytree.tree_leaves, (found, expected)), strict=True):
                assert torch.equal(ours, theirs)
                assert ours.stride() == theirs.stride()
        others = model(zoo.images(seed=1))
    assert not torch.equal(zoo.first_output(others), zoo.first_output(expected))
    assert runs == (
        [18, 18, 18] if name in CLASSIFIERS else []
    )  # what makes images, or has more than kernels, does not


def test_every_kind_of_call_is_one_of_its_own(runs: list[int]) -> None:
    model = mvf.accelerate(zoo.SMALL["transformers"]())
    x = zoo.images(1)
    calls: list[dict[str, Any]] = [
        {"pixel_values": x},
        {"pixel_values": zoo.images(3)},
        {"pixel_values": zoo.images(1, 96, 64)},
        {"pixel_values": x.contiguous(memory_format=torch.channels_last)},
        {"pixel_values": x, "return_dict": False},
        {"pixel_values": x, "output_hidden_states": True},  # more results than one
        {"pixel_values": x, "labels": torch.zeros(1, dtype=torch.long)},  # more than kernels
    ]
    first = [leaves(model, **call) for call in calls]
    for _ in range(3):
        for call, expected in zip(calls, first, strict=True):
            for ours, theirs in zip(leaves(model, **call), expected, strict=True):
                assert torch.equal(ours, theirs)
    assert len(runs) == 2 * 5
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(x).logits.dtype == torch.bfloat16
    assert len(runs) == 2 * 5


@pytest.mark.parametrize("name", ["native", "transformers"])
def test_what_a_configuration_asks_for(name: str, runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL[name]()), zoo.images(1)
    zoo.run_often(model, x)
    assert len(runs) == 1
    model.config.output_hidden_states = True
    assert len(leaves(model, x)) > 1
    model.config.output_hidden_states = False
    assert len(leaves(model, x)) == 1
    model.mobilevit.config = copy.deepcopy(model.config)
    model.mobilevit.config.output_hidden_states = True  # which is the one that counts
    assert len(leaves(model, x)) == len(leaves(mvf.restore(copy.deepcopy(model)), x)) > 1
    model.mobilevit.config.output_hidden_states = False
    model.config.return_dict = False
    with torch.no_grad():
        assert isinstance(model(x), tuple)


def test_other_methods_are_other_calls(runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    logits = zoo.run_often(model, x)
    with torch.no_grad():
        features = [model.forward_features(x) for _ in range(3)]
    assert features[2].dim() == 4
    assert torch.equal(features[0], features[2])
    assert torch.equal(zoo.run(model, x), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_type_to_compute_in(dtype: torch.dtype, runs: list[int]) -> None:
    """The images' conversion is recorded as well."""
    model, x = mvf.accelerate(zoo.SMALL["native"](), compute_dtype=dtype), zoo.images(1)
    expected = zoo.run(model, x)
    assert expected.dtype == dtype
    assert torch.equal(zoo.run_often(model, x), expected)
    assert len(runs) > 0


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
    expected = zoo.run(mvf.restore(copy.deepcopy(model)), x)
    assert (expected - before).abs().max() > 0.1
    for _ in range(4):
        close(zoo.run(model, x), expected)
    assert len(model._mvf_layouts.programs._programs) == 1
    assert old is not None


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


def test_who_watches_sees_every_call(runs: list[int]) -> None:
    class Seen(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Seen.count += 1
            return func(*args, **(kwargs or {}))

    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    expected = zoo.run_often(model, x)
    assert len(runs) == 1
    called: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: called.append(module))
    close(zoo.run(model, x), expected)
    handle.remove()
    assert len(called) > 100
    with Seen():
        close(zoo.run(model, x), expected)
    assert Seen.count > 0
    model.train()
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    assert len(runs) == 1


def test_copies_and_pickles_record_their_own(runs: list[int]) -> None:
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    expected = zoo.run_often(model, x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = len(runs)
        assert torch.equal(zoo.run(copied, x), expected)
        assert len(runs) == before
        assert torch.equal(zoo.run_often(copied, x), expected)
        assert len(runs) > before


def test_a_module_that_has_another_ones_attributes(runs: list[int]) -> None:
    """And children of its own: replicas are made so."""
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    zoo.run_often(model, x)
    twin = type(model).__new__(type(model))
    twin.__dict__.update(model.__dict__)
    twin.__dict__["_modules"] = copy.deepcopy(model._modules)
    with torch.no_grad():
        twin.head.fc.bias += 1
    assert not torch.equal(zoo.run(twin, x), zoo.run(model, x))


def test_results_live_no_longer_than_they_are_read() -> None:
    images = torch.zeros(1)
    recording, tensors = Recording(images), [images]
    for i in range(5):  # each from the last one, the last from the first one, too
        made = torch.zeros(1)
        recording.add(torch.add, [tensors[-1], tensors[1]] if i == 4 else [tensors[-1]], (), made)
        tensors.append(made)
    steps = recording.steps(tensors[-1])
    assert steps is not None
    assert [step.sources for step in steps] == [(0,), (1,), (0,), (2,), (0, 1)]
    assert [step.target for step in steps] == [1, 0, 2, 0, 2]


def test_other_inputs_are_not_recorded() -> None:
    images, other, result = (torch.zeros(1) for _ in range(3))
    recording = Recording(images)
    assert recording.steps(images) is None
    recording.add(torch.add, [images, other], (), result)
    assert recording.steps(result) is None
    recording = Recording(images)
    recording.add(torch.neg, [images], (), result)
    assert recording.steps(other) is None
    assert recording.steps(result) is not None
    del images
    again = torch.zeros(1)
    recording.add(torch.neg, [again], (), other)  # whatever its identity
    assert recording.steps(other) is None


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 2)
    model = mvf.accelerate(zoo.SMALL["timm"]())
    for _ in range(2):
        for batch in (1, 2, 3):
            zoo.run_often(model, zoo.images(batch))
    assert len(model._mvf_layouts.programs._programs) <= 2
    assert len(runs) == 6


@pytest.mark.parametrize(
    "value",
    [
        lambda: torch.eye(5).to_sparse(),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        nn.UninitializedBuffer,
    ],
    ids=["sparse", "nested", "uninitialized"],
)
def test_tensors_without_an_address(value: Callable[[], Tensor], runs: list[int]) -> None:
    """Whose changes nobody sees: such a model's calls are not recorded."""
    model, x = mvf.accelerate(zoo.SMALL["timm"]()), zoo.images(1)
    model.register_buffer("other", value())
    expected = zoo.run(model, x)
    assert torch.equal(zoo.run_often(model, x), expected)
    assert not runs


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_models_are_freed(name: str) -> None:
    model = mvf.accelerate(zoo.SMALL[name]())
    zoo.run_often(model, zoo.images(1))
    references = [weakref.ref(held) for held in (model, next(model.children()), next(model.parameters()))]
    gc.collect()
    gc.disable()
    try:
        del model
        assert all(reference() is None for reference in references)
    finally:
        gc.enable()


def test_threads() -> None:
    model = mvf.accelerate(zoo.SMALL["timm"]())
    batches = [zoo.images(seed=seed) for seed in range(4)]
    expected = [zoo.run(model, x) for x in batches]

    def is_right(i: int) -> bool:
        return all(torch.equal(zoo.run(model, batches[i]), expected[i]) for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, range(4)))


def test_another_thread_may_add_a_program_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mvf.accelerate(zoo.SMALL["timm"]())
    zoo.run_often(model, zoo.images(1))
    found = model._mvf_layouts.programs
    is_current = Program.is_current

    def slow(self: Program, of: nn.Module) -> bool:
        found._programs[len(found._programs)] = self
        return is_current(self, of)

    monkeypatch.setattr(Program, "is_current", slow)
    zoo.run_often(model, zoo.images(2))

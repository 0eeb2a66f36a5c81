"""Calls that are kernels and nothing else are made again without the modules; whatever changes, results are theirs."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
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
from mobilevit_fast.acceleration.programs import Program, Recording
from testing.tolerance import close
from tests.integrations import zoo

CLASSIFIERS = ["native", "transformers", "timm"]


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

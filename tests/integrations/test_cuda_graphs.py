"""Models whose calls are replayed graphs: when they are, what they notice. A stand-in for CUDA replays on the CPU."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import graphs
from testing.pairs import abridged
from tests.integrations import zoo


class Recorded:
    """A device whose graphs are calls made again; it counts what a capture and a replay are."""

    device_type = "cpu"

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.fails = False
        self.capturing = False

    def of(self, x: Tensor) -> AbstractContextManager[Any]:
        return nullcontext()

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captures += 1
        result = call()

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                for old, new in zip(*map(pytree.tree_leaves, (result, call())), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)

        return replay, result

    def begin(self) -> None:
        pass

    end = begin

    def is_capturing(self) -> bool:
        return self.capturing


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr(graphs, "Cuda", lambda: recorded)
    return recorded


def accelerated(name: str = "timm", **settings: Any) -> nn.Module:
    return mvf.accelerate(zoo.SMALL[name](), cuda_graphs=True, **settings)


@pytest.mark.parametrize("name", zoo.SMALL)
def test_results_are_those_of_the_model(name: str, device: Recorded) -> None:
    model, plain = accelerated(name), mvf.accelerate(zoo.SMALL[name]())
    plain.load_state_dict(model.state_dict())
    for seed in range(3):
        x = zoo.images(seed=seed)
        with torch.no_grad():
            found, expected = model(x), plain(x)
        assert type(found) is type(expected)
        leaves = zip(*map(pytree.tree_leaves, (found, expected)), strict=True)
        for ours, theirs in leaves:
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()
            assert not ours.requires_grad
    assert (device.captures, device.replays) == (1, 3)


def test_results_are_the_callers_own(device: Recorded) -> None:
    model = accelerated()
    first = zoo.run(model, zoo.images(seed=1))
    before = first.clone()
    second = zoo.run(model, zoo.images(seed=2))
    assert torch.equal(first, before)
    assert not torch.equal(first, second)
    first.zero_()
    assert torch.equal(zoo.run(model, zoo.images(seed=1)), before)


def test_images_are_not_written_to_and_not_kept(device: Recorded) -> None:
    model, x = accelerated(), zoo.images()
    before = x.clone()
    expected = zoo.run(model, x)
    assert torch.equal(x, before)
    x.zero_()  # the graph has its own
    assert torch.equal(zoo.run(model, before), expected)


def scaled(model: nn.Module) -> None:
    with torch.no_grad():
        model.stem.conv.weight.mul_(2)


def other_tensor(model: nn.Module) -> None:
    model.stem.conv.weight = nn.Parameter(model.stem.conv.weight.detach() * 2)


def other_memory(model: nn.Module) -> None:
    model.stem.conv.weight.data = model.stem.conv.weight.data * 2


def other_state(model: nn.Module) -> None:
    state = model.state_dict()
    model.load_state_dict({**state, "stem.conv.weight": state["stem.conv.weight"] * 2})


def other_module(model: nn.Module) -> None:
    model.head.fc = nn.Linear(model.head.fc.in_features, model.head.fc.out_features).eval()


def plain_tensor(model: nn.Module) -> None:
    weight = model.stem.conv.weight.detach() * 2
    del model.stem.conv.weight
    model.stem.conv.weight = weight


def other_class(model: nn.Module) -> None:
    model.stem.bn.act.__class__ = nn.ReLU


def other_setting(model: nn.Module) -> None:
    model.stem.bn.eps += 0.5


@pytest.mark.parametrize(
    "change",
    [scaled, other_tensor, other_memory, other_state, other_module, plain_tensor, other_class, other_setting],
)
def test_other_weights_are_noticed(change: Callable[[nn.Module], None], device: Recorded) -> None:
    model, x = accelerated(), zoo.images()
    before = zoo.run(model, x)
    change(model)
    plain = mvf.restore(copy.deepcopy(model))
    found = zoo.run(model, x)
    torch.testing.assert_close(found, zoo.run(plain, x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, before)
    assert device.captures == 2


def test_weights_of_the_model_itself_are_noticed(device: Recorded) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = zoo.SMALL["timm"]()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) * self.scale

    model, x = mvf.accelerate(Scaled().eval(), cuda_graphs=True), zoo.images()
    before = zoo.run(model, x)
    with torch.no_grad():
        model.scale.fill_(3)
    torch.testing.assert_close(zoo.run(model, x), 3 * before)
    model.scale = nn.Parameter(torch.full((1,), 2.0))
    torch.testing.assert_close(zoo.run(model, x), 2 * before)


def test_every_kind_of_call_has_a_graph_of_its_own(device: Recorded) -> None:
    model = accelerated("transformers")
    calls: list[dict[str, Any]] = [
        {"pixel_values": zoo.images(1)},
        {"pixel_values": zoo.images(3)},
        {"pixel_values": zoo.images(1, 96, 64)},
        {"pixel_values": zoo.images(1).contiguous(memory_format=torch.channels_last)},
        {"pixel_values": zoo.images(1), "output_hidden_states": True},
        {"pixel_values": zoo.images(1), "return_dict": False},
    ]
    with torch.no_grad():
        for call in calls * 2:
            model(**call)
        assert device.captures == len(calls)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(**calls[0]).logits.dtype == torch.bfloat16
    assert device.captures == len(calls) + 1


def test_what_a_configuration_asks_for_has_a_graph_of_its_own(device: Recorded) -> None:
    model, x = accelerated("transformers"), zoo.images(1)
    zoo.run_often(model, x)
    with torch.no_grad():
        assert model(x).hidden_states is None
        model.config.output_hidden_states = True
        assert model(x).hidden_states is not None
        model.config.output_hidden_states, model.config.return_dict = False, False
        assert isinstance(model(x), tuple)
    assert device.captures == 3


def test_the_one_not_used_for_longest_makes_room(device: Recorded) -> None:
    model = accelerated()
    for batch in range(1, graphs.MAX_GRAPHS + 2):
        zoo.run(model, zoo.images(batch))
    assert device.captures == graphs.MAX_GRAPHS + 1
    zoo.run(model, zoo.images(2))
    assert device.captures == graphs.MAX_GRAPHS + 1  # still there
    zoo.run(model, zoo.images(1))
    assert device.captures == graphs.MAX_GRAPHS + 2
    assert f"{graphs.MAX_GRAPHS} shapes captured" in str(mvf.report(model))


def test_calls_that_are_no_graphs_say_why(device: Recorded) -> None:
    model, x = accelerated("transformers"), zoo.images()
    reasons = []

    def reason() -> str:
        return mvf.report(model).cuda_graphs

    assert reason() == "0 shapes captured; not a graph: no call yet"
    model.requires_grad_(False)
    model(x)
    reasons.append((reason(), "gradients are enabled"))
    model.requires_grad_(True)
    with torch.no_grad():
        model(x, labels=torch.zeros(2, dtype=torch.long))
        reasons.append((reason(), "one tensor"))
        model.train()
        model(x)
        model.eval()
        reasons.append((reason(), "training"))
        handle = model.mobilevit.register_forward_hook(lambda module, args, output: None)
        model(x)
        reasons.append((reason(), "hook"))
        handle.remove()
        device.capturing = True
        model(x)
        device.capturing = False
        reasons.append((reason(), "another capture"))
        device.device_type = "cuda"
        model(x)
        device.device_type = "cpu"
        reasons.append(
            (reason(), "expected images on a device of type cuda, got a Tensor of shape (2, 3, 64, 64) on cpu")
        )
        device.fails = True
        model(x)
        reasons.append((reason(), "cannot be captured: operation not permitted"))
    for found, expected in reasons:
        assert expected in found
    assert device.captures == 0


def test_hooks_run_at_every_call(device: Recorded) -> None:
    model, x, seen = accelerated(), zoo.images(), []
    zoo.run(model, x)
    model.stages[0].register_forward_hook(lambda module, args, output: seen.append(1))
    zoo.run(model, x)
    seen.clear()  # the stand-in's replay, which came before the hook was noticed, is a call too
    for _ in range(3):
        zoo.run(model, x)
    assert len(seen) == 3
    assert device.captures == 1


def test_gradients_reach_the_weights(device: Recorded) -> None:
    model, x = accelerated(), zoo.images()
    zoo.run(model, x)
    model.train()
    model(x).sum().backward()
    assert model.stem.conv.weight.grad is not None
    model.eval()
    model.zero_grad(set_to_none=True)
    zoo.run(model, x)
    assert device.captures == 2


def test_copies_and_pickles_capture_their_own(device: Recorded) -> None:
    model, x = accelerated(), zoo.images()
    expected = zoo.run(model, x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        captures = device.captures
        assert torch.equal(zoo.run(copied, x), expected)
        assert device.captures == captures + 1


def test_restored_models_and_contexts_leave_nothing(device: Recorded) -> None:
    model, x = zoo.SMALL["timm"](), zoo.images()
    kind = type(model)
    with mvf.accelerated(model, cuda_graphs=True):
        zoo.run(model, x)
        assert device.captures == 1
    assert type(model) is kind
    assert not [name for name in model.__dict__ if name.startswith("_mvf")]
    mvf.restore(mvf.accelerate(model, cuda_graphs=True))
    assert type(model) is kind
    zoo.run(model, x)
    assert device.captures == 1


def test_a_module_made_by_its_constructor(device: Recorded) -> None:
    module, x = mvf.nn.InvertedResidual(8, 8).eval(), torch.randn(1, 8, 9, 9)
    kind, expected = type(module), zoo.run(module, x)
    mvf.accelerate(module, cuda_graphs=True)
    for _ in range(2):
        assert torch.equal(zoo.run(module, x), expected)
    assert (device.captures, device.replays) == (1, 2)
    assert type(mvf.restore(module)) is kind
    assert torch.equal(zoo.run(module, x), expected)
    assert device.replays == 2


def test_compiled_models_have_no_graphs_inside(device: Recorded) -> None:
    model, x = abridged(zoo.SMALL["native"]()), zoo.images()
    mvf.accelerate(model, include=["mobilevit.conv_stem"], cuda_graphs=True)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(
            zoo.run(compiled, x), zoo.run(mvf.restore(copy.deepcopy(model)), x), rtol=1e-4, atol=1e-4
        )
    assert device.captures == 0


def test_inference_mode_and_no_grad_share_a_graph(device: Recorded) -> None:
    model = accelerated()
    with torch.inference_mode():
        first = model(zoo.images())
        assert first.is_inference()
    assert not zoo.run(model, zoo.images()).is_inference()
    with torch.inference_mode():
        model(zoo.images())
    assert device.captures == 1


def test_threads_take_turns(device: Recorded) -> None:
    model = accelerated()
    inputs = [zoo.images(seed=seed) for seed in range(4)]
    expected = [zoo.run(model, x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            if not torch.equal(zoo.run(model, inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert device.captures == 1


def test_a_model_that_nobody_has_is_gone(device: Recorded) -> None:
    model = accelerated()
    zoo.run(model, zoo.images())
    gc.collect()
    gc.disable()
    try:
        reference = weakref.ref(model.stages[0])
        held = model._mvf_graphs._captured
        held.clear()  # the stand-in's replay holds the model, as no graph of CUDA does
        del model, held
        assert reference() is None
    finally:
        gc.enable()

"""Libraries that keep a model's ``forward``, copy its attributes into an empty module or give it another class."""

from __future__ import annotations

import copy
import importlib
import io
import threading
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.hooks import ModelHook, SequentialHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.nn.utils import parametrize

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.class_swap import Swapped
from mobilevit_fast.acceleration.fused import Fused
from testing.pairs import abridged
from testing.tiers import thorough_where
from testing.tolerance import close
from tests.integrations import zoo
from tests.integrations.test_compile import operators

CLASSIFIERS = ["native", "transformers", "timm"]
SETTINGS = [{}, {"compute_dtype": torch.bfloat16}, {"cuda_graphs": True}]

for_each_library = pytest.mark.parametrize("name", CLASSIFIERS)
for_some_libraries = pytest.mark.parametrize("name", thorough_where(CLASSIFIERS, lambda name: name != "timm"))
"""Where nothing depends on the code of a library's modules."""


def regions(model: nn.Module) -> int:
    report = mvf.report(model)
    assert len(report) == 12
    return len(report.fused)


def bfloat16(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return zoo.run(model, x).float()


@for_each_library
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings), "plain"))
def test_a_model_that_was_prepared_for_mixed_precision(name: str, settings: dict[str, Any]) -> None:
    """Accelerator puts its own forward on the model, around the one that the model had."""
    model, x = zoo.SMALL[name](), zoo.images(1)
    plain, expected = zoo.run(model, x), bfloat16(model, x)
    mvf.accelerate(model, **settings)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    prepared = accelerator.prepare(model)
    assert regions(prepared) == 12
    inside = zoo.run(prepared, x)
    assert inside.dtype == torch.float32
    assert (inside - plain).abs().max() > 1e-4  # bfloat16
    mvf.restore(prepared)
    assert torch.equal(zoo.run(prepared, x), expected)
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    assert torch.equal(zoo.run(unwrapped, x), plain)
    mvf.accelerate(unwrapped)
    assert regions(unwrapped) == 12
    assert zoo.run(unwrapped, x).dtype == torch.float32
    close(zoo.run(unwrapped, x), plain)


@for_each_library
def test_a_model_that_is_unwrapped_while_it_is_accelerated(name: str) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1)
    mvf.accelerate(model, compute_dtype=torch.bfloat16)
    expected = zoo.run(model, x)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    unwrapped = accelerator.unwrap_model(accelerator.prepare(model), keep_fp32_wrapper=False)
    assert torch.equal(zoo.run(unwrapped, x), expected)
    assert regions(unwrapped) == 12


@for_each_library
def test_another_forward_of_the_model_knows_no_compute_dtype(name: str) -> None:
    """It calls the one of the class that the model had."""
    prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare(zoo.SMALL[name]())
    with pytest.raises(ValueError, match="expected a model that runs the forward of its class for compute_dtype"):
        mvf.accelerate(prepared, compute_dtype=torch.bfloat16)
    assert not mvf.report(prepared).fused


@for_each_library
def test_a_model_that_was_prepared_within_a_block(name: str) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1)
    expected = bfloat16(model, x)
    with mvf.accelerated(model):
        Accelerator(mixed_precision="bf16", cpu=True).prepare(model)
        zoo.run(model, x)
    assert torch.equal(zoo.run(model, x), expected)


@for_each_library
def test_a_forward_that_was_kept(name: str) -> None:
    """Called after the model was restored, accelerated otherwise, copied and read from a file."""
    model, x = zoo.SMALL[name](), zoo.images(1)
    plain = zoo.run(model, x)
    modules = [m for m in mvf.accelerate(model, compute_dtype=torch.bfloat16).modules() if isinstance(m, Fused)]
    kept = [(module, module.forward) for module in modules]
    assert len(kept) == 12
    mvf.restore(model)
    for module, forward in kept:
        module.forward = forward
    assert torch.equal(zoo.run(model, x), plain)
    for other in (copy.deepcopy(model), torch.load(saved(model), weights_only=False)):
        assert torch.equal(zoo.run(other, x), plain)
        assert regions(mvf.accelerate(other)) == 12
        close(zoo.run(other, x), plain)
    mvf.accelerate(model)
    assert regions(model) == 12
    close(zoo.run(model, x), plain)
    assert not any("forward" in m.__dict__ for m in model.modules())


def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


class Halving(ModelHook):
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        return output / 2


@for_each_library
@pytest.mark.parametrize("kinds", [(nn.Linear, nn.Conv2d), (nn.Module,)], ids=["leaves", "all"])
def test_hooks_of_accelerate_that_were_removed(name: str, kinds: tuple[type[nn.Module], ...]) -> None:
    """They act, and leave a bound forward behind, which replaces nothing."""
    model, x = zoo.SMALL[name](), zoo.images(1)
    plain = zoo.run(model, x)
    mvf.accelerate(model)
    close(zoo.run(model, x), plain)
    hooked = [m for m in model.modules() if isinstance(m, kinds)]
    for module in hooked:
        add_hook_to_module(module, Halving() if type(module) is nn.Linear else ModelHook())
    twin = copy.deepcopy(model)
    assert any(region.reason for region in mvf.report(model).skipped)
    close(zoo.run(model, x), zoo.run(mvf.restore(twin), x))
    assert (zoo.run(model, x) - plain).abs().max() > 1e-3
    for module in hooked:
        remove_hook_from_module(module)
    assert regions(model) == 12
    assert torch.equal(zoo.run(model, x), zoo.run(mvf.accelerate(copy.deepcopy(model)), x))
    close(zoo.run(model, x), plain)


@for_each_library
def test_hooks_of_accelerate_from_before(name: str) -> None:
    """What they leave behind is the forward of the class that a module had then."""
    model, x = zoo.SMALL[name](), zoo.images(1)
    plain = zoo.run(model, x)
    for module in model.modules():
        add_hook_to_module(module, SequentialHook(ModelHook()))
    assert "replaced on the instance" in mvf.plan(model)[0].reason
    for module in model.modules():
        remove_hook_from_module(module)
    assert not mvf.plan(model).skipped
    mvf.accelerate(model)
    assert regions(model) == 12
    close(zoo.run(model, x), plain)


def test_what_was_left_behind_in_a_compiled_graph() -> None:
    torch._dynamo.reset()
    model, x = abridged(zoo.SMALL["native"]()), zoo.images(1)
    mvf.accelerate(model, include=["inverted_residual", "mobilevit.conv_stem"])
    for module in model.modules():
        module.forward = module.forward
    found: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Any]) -> torch.fx.GraphModule:
        found.extend(name for part in graph.modules() if hasattr(part, "graph") for name in operators(part.graph))
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert torch.equal(zoo.run(compiled, x), zoo.run(model, x))
    assert len(found) == 4
    torch._dynamo.reset()


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], list[nn.Module]]:
    """``nn.parallel.replicate`` on the CPU: only what it asks of CUDA, two devices and copies on them, is replaced."""

    def copies(tensors: list[Tensor], devices: list[int], detach: bool = False) -> list[list[Tensor]]:
        return [[tensor.clone() for tensor in tensors] for _ in devices]

    replication = importlib.import_module("torch.nn.parallel.replicate")  # the package has a function of that name
    monkeypatch.setattr(replication, "_broadcast_coalesced_reshape", copies)
    monkeypatch.setattr(replication, "_get_device_index", lambda device, optional: device)
    return lambda model: replication.replicate(model, [0, 1])


@for_each_library
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings), "plain"))
def test_replicas(name: str, settings: dict[str, Any], replicas: Callable[[nn.Module], list[nn.Module]]) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1)
    dtype = settings.get("compute_dtype")
    expected = zoo.run(model, x) if dtype is None else bfloat16(model, x)
    mvf.accelerate(model, **settings)
    zoo.run(model, x)
    for replica in replicas(model):
        assert type(replica) is type(model)
        found = zoo.run(replica, x)
        assert found.dtype == (dtype or torch.float32)
        close(found.float(), expected)
        for tensor in replica._former_parameters.values():
            assert tensor is not None
        for module in replica.modules():
            for weight in module._former_parameters.values():
                weight.data.mul_(1.5)  # on another device they are others, too
        assert not torch.equal(zoo.run(replica, x).float(), found.float())
    assert regions(model) == 12


def test_replicas_of_half_a_model_take_bytes(replicas: Callable[[nn.Module], list[nn.Module]]) -> None:
    model = mvf.accelerate(zoo.SMALL["native"]().double(), uint8_images=mvf.PixelNormalization())
    x = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    expected = zoo.run(model, x)
    for replica in replicas(model):
        found = zoo.run(replica, x)
        assert found.dtype == torch.float64
        close(found, expected)


def test_replicas_of_modules_made_fused(replicas: Callable[[nn.Module], list[nn.Module]]) -> None:
    module, x = mvf.nn.InvertedResidual(8, 8).eval(), torch.randn(1, 8, 6, 6)
    expected = zoo.run(module, x)
    for replica in replicas(module):
        close(zoo.run(replica, x), expected)
        for weight in replica.expand_1x1.convolution._former_parameters.values():
            weight.data.zero_()
        assert not torch.equal(zoo.run(replica, x), expected)
    assert torch.equal(zoo.run(module, x), expected)


@for_each_library
def test_an_empty_module_with_the_attributes_of_another(name: str) -> None:
    """As accelerate's ``compile_regions`` makes them, with children of their own."""
    model, x = mvf.accelerate(zoo.SMALL[name]()), zoo.images(1)
    expected = zoo.run(model, x)
    other = type(model).__new__(type(model))
    other.__dict__.update(model.__dict__)
    other._modules = {key: copy.deepcopy(child) for key, child in model.named_children()}
    assert type(other) is type(model)
    assert torch.equal(zoo.run(other, x), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    found = zoo.run(other, x)
    assert not torch.equal(found, expected)
    assert torch.equal(zoo.run(model, x), expected)
    close(found, zoo.run(mvf.restore(other), x))


def in_front(module: nn.Module) -> None:
    """As torch.distributed.fsdp.fully_shard does."""
    module.__class__ = type(f"FSDP{type(module).__name__}", (type(module),), {})


class Same(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight


def parametrised(module: nn.Module) -> None:
    module.scale = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(module, "scale", Same())


@for_each_library
@pytest.mark.parametrize("change", [in_front, parametrised])
def test_a_subclass_of_the_class_that_a_module_got(name: str, change: Callable[[nn.Module], None]) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1)
    plain = zoo.run(model, x)
    mvf.accelerate(model)
    for module in [m for m in model.modules() if isinstance(m, Swapped)]:
        change(module)
    kinds = [type(module) for module in model.modules()]
    close(zoo.run(model, x), plain)
    mvf.restore(model)
    assert torch.equal(zoo.run(model, x), plain)
    assert {region.reason for region in mvf.report(model)} == {"not accelerated"}
    with mvf.accelerated(model, compute_dtype=torch.bfloat16):
        assert zoo.run(model, x).dtype == torch.bfloat16
    mvf.accelerate(model)
    assert regions(model) == 12
    close(zoo.run(model, x), plain)
    mvf.restore(model)
    assert kinds == [type(module) for module in model.modules()]
    assert torch.equal(zoo.run(model, x), plain)


def test_a_class_that_was_kept() -> None:
    """Given to the module again after it was restored, it has nothing to be fused with."""
    model, x = zoo.SMALL["native"](), zoo.images(1)
    plain = zoo.run(model, x)
    kinds = {module: type(module) for module in mvf.accelerate(model).modules()}
    mvf.restore(model)
    for module, kind in kinds.items():
        module.__class__ = kind
    assert torch.equal(zoo.run(model, x), plain)
    assert {region.reason for region in mvf.report(model)} == {"not accelerated"}
    assert regions(mvf.accelerate(model)) == 12


def test_a_class_that_a_child_gets_within_a_block_stays() -> None:
    model = zoo.SMALL["native"]()
    linear = model.classifier
    with mvf.accelerated(model):
        parametrize.register_parametrization(linear, "weight", Same())
    assert parametrize.is_parametrized(linear, "weight")
    zoo.run(model, zoo.images(1))


@pytest.fixture
def calling() -> Iterator[Callable[[Callable[[], Any]], list[BaseException]]]:
    """Two threads that call until the test ends, and what they raised."""
    stop, threads, errors = threading.Event(), [], []

    def start(call: Callable[[], Any]) -> list[BaseException]:
        def repeat() -> None:
            while not stop.is_set():
                try:
                    call()
                except BaseException as error:
                    errors.append(error)
                    return

        threads.extend(threading.Thread(target=repeat) for _ in range(2))
        for thread in threads:
            thread.start()
        return errors

    yield start
    stop.set()
    for thread in threads:
        thread.join()


@for_some_libraries
def test_calls_while_it_is_accelerated_anew(name: str, calling: Callable[..., list[BaseException]]) -> None:
    """At no moment is it a model that takes no bytes, or computes in another type."""
    settings = {"uint8_images": mvf.PixelNormalization(), "compute_dtype": torch.bfloat16}
    model = mvf.accelerate(zoo.SMALL[name](), **settings)
    x = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    expected = zoo.run(model, x)

    def call() -> None:
        found = zoo.run(model, x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)

    errors = calling(call)
    for _ in range(15):
        mvf.accelerate(model, **settings)
        with mvf.accelerated(model, **settings):
            pass
    assert not errors, errors[0]


@for_some_libraries
def test_kept_forwards_while_it_is_restored(name: str, calling: Callable[..., list[BaseException]]) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1, 32, 32)
    expected = zoo.run(model, x)
    forward = mvf.accelerate(model).forward
    assert isinstance(forward, MethodType)

    def call() -> None:
        with torch.no_grad():
            close(zoo.first_output(forward(x)), expected)

    errors = calling(call)
    for _ in range(10):
        mvf.restore(model)
        with mvf.accelerated(model):
            mvf.report(model)
        mvf.accelerate(model)
    assert not errors, errors[0]

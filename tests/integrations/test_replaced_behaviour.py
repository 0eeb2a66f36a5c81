"""Code that others replace, on classes, on instances and in modules of functions: it acts, and the report says why."""

from __future__ import annotations

import contextlib
import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import behaviour, changes, graphs
from mobilevit_fast.acceleration.fused import Fused
from testing.pairs import abridged
from testing.tiers import thorough, thorough_where
from testing.tolerance import close
from tests.integrations import zoo
from tests.integrations.test_cuda_graphs import Recorded

CLASSIFIERS = ["native", "transformers", "timm"]
OUTSIDE = ["MobileViTEncoder", "MobileViTMobileNetLayer"]
"""Classes that a classifier calls as they are."""
BEFORE = [("timm", "ByobNet"), ("timm", "MobileVitBlock"), ("timm", "BatchNormAct2d"), ("timm", "Linear")]
"""Model, region, a part of one and torch's own, replaced before acceleration too."""

before_and_after = pytest.mark.parametrize("when", ["before", "after"])
after = pytest.mark.parametrize("when", [thorough("before"), "after"])
"""Of replacements whose kind another test has before acceleration too."""
Replace = Callable[[nn.Module], AbstractContextManager[None]]


def bent(result: Any) -> Any:
    """Another result, which no normalisation makes the same again."""
    return pytree.tree_map(lambda leaf: leaf - 0.5 * leaf.abs() if isinstance(leaf, Tensor) else leaf, result)


def bending(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: bent(function(*args, **kwargs))


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value, raising=False)
        yield


def class_in(name: str, model: nn.Module) -> Any:
    """The one of that name in a model, as its library has it."""
    kinds = [cls for m in model.modules() for cls in type(m).__mro__ if cls.__qualname__ == name]
    return next(cls for cls in kinds if not issubclass(cls, Fused))


def check(name: str, when: str, replace: Replace, reason: str) -> None:
    """A replacement acts while it lasts, the report names it, and after it the model is fused again."""
    model, twin, x = zoo.SMALL[name](), zoo.SMALL[name](), zoo.images(1)
    plain = zoo.run(model, x)
    with replace(twin):
        expected = zoo.run(twin, x)
    assert not torch.allclose(expected, plain, rtol=1e-2, atol=1e-3)
    if when == "after":
        mvf.accelerate(model)
        close(zoo.run_often(model, x), plain)
    with replace(model):
        skipped = mvf.plan(model).skipped
        if when == "before":
            with contextlib.suppress(ValueError):  # every region is skipped
                mvf.accelerate(model)
        for _ in range(2):
            close(zoo.run(model, x), expected)
        for regions in (skipped, mvf.report(model).skipped):
            assert any(reason in region.reason for region in regions) or reason in OUTSIDE, regions
    close(zoo.run(model, x), plain)
    if when == "before":
        mvf.accelerate(model)
        close(zoo.run(model, x), plain)
    assert not mvf.report(model).skipped


def classes_of(name: str) -> list[str]:
    kinds = {type(m) for m in zoo.SMALL[name]().modules() if type(m).forward is not nn.Module.forward}
    return sorted(kind.__qualname__ for kind in kinds)


@pytest.mark.parametrize(
    ("name", "kind", "when"),
    thorough_where(
        [(name, kind, when) for name in CLASSIFIERS for kind in classes_of(name) for when in ("before", "after")],
        # The native classes are built like those of transformers. Before, nothing was looked at that could be kept.
        lambda case: case[0] == "native" or (case[2] == "before" and case[:2] not in BEFORE),
    ),
)
def test_the_forward_of_a_class(name: str, kind: str, when: str) -> None:
    """Of every class in a model: regions, parts of them, torch's own."""

    def replace(model: nn.Module) -> AbstractContextManager[None]:
        cls = class_in(kind, model)
        return replaced(cls, "forward", bending(cls.forward))

    check(name, when, replace, kind if kind in OUTSIDE else f"{kind}.forward is tests.integrations.")


METHODS = [
    ("native", "MobileViTLayer", "unfolding"),
    ("native", "MobileViTSelfAttention", "split_heads"),
    ("transformers", "MobileViTLayer", "folding"),
    ("timm", "ByobNet", "forward_features"),
    ("timm", "ByobNet", "forward_head"),
    ("timm", "Conv2d", "_conv_forward"),
]


@after
@pytest.mark.parametrize(("name", "kind", "method"), METHODS)
def test_another_method_of_a_class(name: str, kind: str, method: str, when: str) -> None:
    def replace(model: nn.Module) -> AbstractContextManager[None]:
        cls = class_in(kind, model)
        return replaced(cls, method, functools.wraps(getattr(cls, method))(bending(getattr(cls, method))))

    check(name, when, replace, f"{kind}.{method} is tests.integrations.")


@before_and_after
@pytest.mark.parametrize(("name", "kind", "method"), METHODS)
def test_a_method_of_an_instance(name: str, kind: str, method: str, when: str) -> None:
    def replace(model: nn.Module) -> AbstractContextManager[None]:
        module = next(m for m in model.modules() if any(cls.__qualname__ == kind for cls in type(m).__mro__))
        return replaced(module, method, bending(getattr(module, method)))

    check(name, when, replace, f"its {method} method was replaced on the instance")


@after
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_method_that_a_class_had_from_its_base(name: str, when: str) -> None:
    norm = "BatchNormAct2d" if name == "timm" else "BatchNorm2d"

    def replace(model: nn.Module) -> AbstractContextManager[None]:
        cls = class_in(norm, model)
        return replaced(cls, "__call__", bending(nn.Module.__call__))

    check(name, when, replace, f"{norm}.__call__ is tests.integrations.")


def doubled(model: nn.Module) -> AbstractContextManager[None]:
    """A property in front of a parameter."""
    return replaced(nn.Linear, "weight", property(lambda self: 2 * self._parameters["weight"]))


def other_calls(model: nn.Module) -> AbstractContextManager[None]:
    call = nn.Module.__call__

    def called(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = call(self, *args, **kwargs)
        return bent(result) if type(self) is nn.Linear else result

    return replaced(nn.Module, "__call__", called)


def other_attributes(model: nn.Module) -> AbstractContextManager[None]:
    get = nn.Module.__getattr__

    def found(self: nn.Module, name: str) -> Any:
        return 2 * get(self, name) if name == "bias" and type(self) is nn.Linear else get(self, name)

    return replaced(nn.Module, "__getattr__", found)


def other_base(model: nn.Module) -> AbstractContextManager[None]:
    """The function of another class of the same library."""
    activation = next(m for m in model.modules() if "SiLU" in type(m).__qualname__)
    return replaced(type(activation), "forward", nn.Sigmoid.forward)


@before_and_after
@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        (doubled, "Linear.weight is tests.integrations."),
        (other_calls, "Module.__call__ is tests.integrations."),
        (other_attributes, "Module.__getattr__ is tests.integrations."),
        (other_base, "forward is torch.nn.modules.activation.Sigmoid.forward"),
    ],
)
def test_ways_past_the_forward(replace: Replace, reason: str, when: str) -> None:
    check("transformers", when, replace, reason)


@before_and_after
@pytest.mark.parametrize(
    ("name", "owner", "function"),
    [
        ("transformers", F, "softmax"),
        ("timm", F, "scaled_dot_product_attention"),
        ("native", torch, "matmul"),
        ("native", F, "layer_norm"),
        ("transformers", F, "silu"),
        ("timm", F, "conv2d"),
    ],
)
def test_functions_that_the_code_calls_by_name(name: str, owner: Any, function: str, when: str) -> None:
    def replace(model: nn.Module) -> AbstractContextManager[None]:
        return replaced(owner, function, bending(getattr(owner, function)))

    check(name, when, replace, f"{owner.__name__}.{function} is tests.integrations.")


@pytest.mark.parametrize(
    ("name", "attribute"), [("native", "patch_height"), ("transformers", "patch_width"), ("timm", "patch_size")]
)
def test_attributes_of_a_fused_module_itself(name: str, attribute: str) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1)
    block = next(m for m in model.modules() if hasattr(m, attribute))
    plain = zoo.run_often(mvf.accelerate(model), x)
    setattr(block, attribute, (1, 2) if attribute == "patch_size" else 1)
    if name == "timm":
        block.patch_area = 2
    found = zoo.run(model, x)
    assert not mvf.report(model).skipped
    assert not torch.allclose(found, plain, atol=1e-3)
    close(found, zoo.run(mvf.restore(model), x))


class Remade:
    """A class that somebody puts in front of a fused one."""

    def unfolding(self, features: Tensor) -> Any:
        patches, shape = super().unfolding(features)  # type: ignore[misc]
        return bent(patches), shape


@pytest.mark.parametrize("name", ["native", "transformers"])
def test_a_subclass_of_a_fused_class(name: str) -> None:
    model, twin, x = zoo.SMALL[name](), zoo.SMALL[name](), zoo.images(1)
    zoo.run_often(mvf.accelerate(model), x)
    for one in (model, twin):
        block = one.mobilevit.encoder.layer[3]
        block.__class__ = type("Block", (Remade, type(block)), {})
    expected = zoo.run(twin, x)
    close(zoo.run(model, x), expected)
    skipped = {region.path: region.reason for region in mvf.report(model).skipped}
    assert "Remade.unfolding is tests." in skipped["mobilevit.encoder.layer.3"]
    close(zoo.run(mvf.restore(model), x), expected)


@pytest.mark.filterwarnings("ignore:.*gradients enabled")
def test_a_subclass_of_a_module_made_fused() -> None:
    class Mine(Remade, mvf.nn.MobileViTBlock):
        pass

    mine, x = Mine(8, 16, 1).eval(), torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        found = mine(x)
    close(found, mine(x.requires_grad_()).detach())  # which the plain modules compute


def derived(model: nn.Module) -> list[Any]:
    return [d.bounds for m in model.modules() if isinstance(m, Fused) for d in m._mvf.derived.values()]


def test_what_no_call_looks_up_changes_nothing() -> None:
    """Others set attributes on torch's classes all the time; nothing is derived anew for them."""
    model, x = mvf.accelerate(zoo.SMALL["transformers"]()), zoo.images(1)
    expected = zoo.run(model, x)
    kept = derived(model)
    register = nn.Module.register_parameter
    with (
        replaced(nn.Module, "number_of_parameters", property(lambda self: 7)),
        replaced(nn.Module, "register_parameter", lambda self, *args: register(self, *args)),
        replaced(nn.Linear, "__init__", lambda self, *args: None),
        replaced(F, "unheard_of", None),
    ):
        model.note = 1
        assert torch.equal(zoo.run(model, x), expected)
        assert not mvf.report(model).skipped
    assert all(now is then for now, then in zip(derived(model), kept, strict=True))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_replayed_graphs_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the classes around the regions, too, which a replay passes by."""
    device = Recorded()
    monkeypatch.setattr(graphs, "Cuda", lambda: device)
    model, x = mvf.accelerate(zoo.SMALL[name](), cuda_graphs=True), zoo.images(1)
    expected = zoo.run(model, x)
    outer = "Sequential" if name == "timm" else "MobileViTEncoder"
    for kind in (outer, "LayerNorm"):
        captures = device.captures
        cls = class_in(kind, model)
        with replaced(cls, "forward", bending(cls.forward)):
            assert not torch.allclose(zoo.run(model, x), expected, atol=1e-3)
            assert device.captures == captures + 1
    assert torch.equal(zoo.run(model, x), expected)
    if name == "timm":
        with replaced(model, "forward_features", bending(model.forward_features)):
            assert not torch.allclose(zoo.run(model, x), expected, atol=1e-3)


def test_a_graph_that_is_compiled_has_the_replacement() -> None:
    torch._dynamo.reset()
    model, x = mvf.accelerate(abridged(zoo.SMALL["native"]()), include=["mobilevit_block"]), zoo.images(1)
    norm = type(model.mobilevit.encoder.layer[2].layernorm)
    with replaced(norm, "forward", bending(norm.forward)):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        close(zoo.run(compiled, x), zoo.run(mvf.restore(model), x))
    torch._dynamo.reset()


@pytest.mark.parametrize("trouble", ["flags are never set", "a metaclass", "orders of bases"])
def test_where_classes_do_not_tell_of_changes(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at one by one."""
    counted = changes.Changes()
    monkeypatch.setattr(behaviour, "_changes", counted)
    monkeypatch.setattr(behaviour, "_known", {})
    if trouble == "flags are never set":  # as in CPython 3.14
        monkeypatch.setattr(changes, "_HAS_CACHED", 0)
    elif trouble == "a metaclass":
        counted.follow(ABCMeta("Abstract", (nn.Module,), {}))
    else:
        one, other = (type(name, (nn.Module,), {}) for name in ("One", "Other"))
        for bases in ((one, other), (other, one)):
            counted.follow(type("Both", bases, {}))
    test_the_forward_of_a_class("timm", "Attention", "after")
    test_a_method_of_an_instance("timm", "ByobNet", "forward_features", "after")
    assert counted.counts == (trouble == "orders of bases")


def test_classes_that_tell_of_changes_are_like_others() -> None:
    """To those who walk over the subclasses of a class, who do not hide a change either."""

    class Layer(nn.Module):
        pass

    counted = changes.Changes()
    counted.follow(Layer)
    before = counted.number()
    (telling,) = Layer.__subclasses__()
    assert issubclass(telling, nn.Module)
    Layer.forward = lambda self, x: x  # type: ignore[method-assign, assignment]
    for name in (*dir(telling), "no_such_name"):
        getattr(telling, name, None)
    repr(telling), inspect.getmro(telling), telling.__module__, telling.__name__, telling.__subclasses__()
    assert telling.forward is Layer.forward
    assert counted.number() != before
    assert counted.number() == counted.number()


def test_classes_whose_bases_have_other_orders_share_what_tells_of_them_where_they_can() -> None:
    one, other = (type(name, (nn.Module,), {}) for name in ("One", "Other"))
    kinds = [one, other, type("Both", (one, other), {}), type("Turned", (other, one), {}), type("Third", (one,), {})]
    counted = changes.Changes()
    for kind in kinds:
        counted.follow(kind)
    assert len(counted._telling) == 2
    for kind in kinds:
        before = counted.number()
        kind.forward = lambda self, x: x  # type: ignore[attr-defined]
        assert counted.number() != before
        assert counted.number() == counted.number()

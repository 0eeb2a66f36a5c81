"""Weights that change behind a model's back: whatever wrote them, the next call computes with them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import watch
from mobilevit_fast.acceleration.fused import Fused
from testing.tolerance import close
from tests.integrations import zoo


def _first_linear(model: nn.Module) -> nn.Linear:
    return next(m for m in model.modules() if type(m) is nn.Linear)


def _norm(model: nn.Module) -> nn.BatchNorm2d:
    return next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def _data_twice(model: nn.Module) -> None:
    """The allocator gives the memory of before back at the second time."""
    weight = _first_linear(model).weight
    weight.data = weight.data * 1.5
    weight.data = weight.data * 1.5


def _data_until_the_address_returns(model: nn.Module) -> None:
    weight = _first_linear(model).weight
    addresses = [weight.data_ptr()]
    for _ in range(20):
        weight.data = weight.data * 1.1
        addresses.append(weight.data_ptr())
    assert addresses[0] not in addresses[1:]


def _batch_norm_alone(model: nn.Module) -> None:
    norm = _norm(model)
    norm.train()
    norm(torch.randn(4, norm.num_features, 5, 5) * 3 + 1)
    norm.eval()


def _batch_norm_function(model: nn.Module) -> None:
    norm = _norm(model)
    F.batch_norm(torch.randn(4, norm.num_features, 5, 5) * 3 + 1, norm.running_mean, norm.running_var, training=True)


def _gradients_from_outside(model: nn.Module) -> None:
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.dim() > 1], lr=1.0, fused=True)
    for parameter in model.parameters():
        parameter.grad = 0.1 * torch.ones_like(parameter)
    optimiser.step()
    optimiser.zero_grad()


def _gradient_of_few_numbers(model: nn.Module) -> None:
    """A step that no sample of the weight's numbers shows."""
    weight = _first_linear(model).weight
    weight.grad = torch.zeros_like(weight)
    weight.grad[1, 1] = -100
    optimiser = torch.optim.SGD([weight], lr=1.0, fused=True)
    optimiser.step()
    optimiser.zero_grad()


def _in_place_past_the_counter(model: nn.Module) -> None:
    _first_linear(model).weight.data.mul_(1.5)


def _through_numpy(model: nn.Module) -> None:
    _first_linear(model).weight.detach().numpy()[:] *= 1.5


def _transposed_in_place(model: nn.Module) -> None:
    """At the same address: the first linear layer is square."""
    weight = _first_linear(model).weight
    address = weight.data_ptr()
    weight.data = weight.data.t()
    assert weight.data_ptr() == address


def _one_number_for_all(model: nn.Module) -> None:
    """And back: only strides change."""
    bias = _first_linear(model).bias
    bias.data = bias.data.as_strided(bias.shape, (1 - bias.stride(0),))


def _turned_windows(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.transpose(2, 3)


def _plain_tensor(model: nn.Module) -> None:
    """In place of the parameter, and later of the tensor before."""
    linear = _first_linear(model)
    weight = linear.weight.detach() * 1.5
    del linear.weight
    linear.weight = weight


def _plain_tensor_in_place(model: nn.Module) -> None:
    linear = _first_linear(model)
    if "weight" in linear._parameters:
        weight = linear.weight.detach().clone()
        del linear.weight
        linear.weight = weight
    linear.weight.data.mul_(1.5)


def _in_front_of_the_parameter(model: nn.Module) -> None:
    """Which stays where it is: an attribute is found first."""
    linear = _first_linear(model)
    linear.__dict__["weight"] = linear.weight.detach() * 1.5


def _in_front_of_the_statistics(model: nn.Module) -> None:
    norm = _norm(model)
    norm.__dict__["running_mean"] = norm.running_mean + 0.5


class _Larger(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * super().forward(x)


class _MuchLarger(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def _class(model: nn.Module) -> None:
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear))
    linear.__class__ = _MuchLarger if type(linear) is _Larger else _Larger


def _class_of_an_activation(model: nn.Module) -> None:
    activation = next(m for m in model.modules() if isinstance(m, nn.SiLU | nn.ReLU))
    activation.__class__ = nn.ReLU if type(activation) is nn.SiLU else nn.SiLU


def _epsilon(model: nn.Module) -> None:
    _norm(model).eps += 0.5


def _storage(model: nn.Module) -> None:
    """As FSDP frees memory and fills it again."""
    weight = _first_linear(model).weight
    old = weight.detach().clone()
    storage = weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    with torch.no_grad():
        weight.data.copy_(old * 1.5)


CHANGES = [
    _data_twice,
    _data_until_the_address_returns,
    _batch_norm_alone,
    _batch_norm_function,
    _gradients_from_outside,
    _gradient_of_few_numbers,
    _in_place_past_the_counter,
    _through_numpy,
    _transposed_in_place,
    _one_number_for_all,
    _turned_windows,
    _plain_tensor,
    _plain_tensor_in_place,
    _in_front_of_the_parameter,
    _in_front_of_the_statistics,
    _class,
    _class_of_an_activation,
    _epsilon,
    _storage,
]
TOLD_BY_NUMBERS = [_batch_norm_function, _in_place_past_the_counter, _through_numpy, _storage]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_the_next_call_computes_with_them(change: Callable[[nn.Module], None]) -> None:
    model = mvf.accelerate(zoo.SMALL["native"]())
    x = zoo.images(1)
    before = zoo.run_often(model, x)
    for _ in range(2):
        change(model)
        after = zoo.run(model, x)
        assert not torch.equal(after, before)
        before = after
    close(after, zoo.run(mvf.restore(model), x))


@pytest.mark.parametrize(
    "change",
    [change for change in CHANGES if change not in TOLD_BY_NUMBERS],
    ids=lambda change: change.__name__.strip("_"),
)
def test_so_it_does_without_the_native_library(
    change: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose part of the watching has a counterpart in Python, except that nothing reads a tensor's numbers."""
    monkeypatch.setattr(watch, "native", SimpleNamespace(extension=lambda: None))
    test_the_next_call_computes_with_them(change)


def test_a_module_whose_twin_trains() -> None:
    """``from_module`` shares parameters and children, but nobody calls the twin's ``train``."""
    model = zoo.SMALL["native"]()
    original = model.mobilevit.encoder.layer[0].layer[0]
    twin = Fused.from_module(original)
    x = torch.randn(2, original.expand_1x1.convolution.in_channels, 8, 8)
    before = zoo.run(twin, x)
    optimiser = torch.optim.AdamW(original.parameters(), lr=0.05, fused=True)
    for _ in range(2):
        original.train()
        original(x).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        original.eval()
        after = zoo.run(twin, x)
        assert not torch.equal(after, before)
        close(after, zoo.run(original, x))
        before = after


def test_a_freed_parameter_is_refused() -> None:
    model = mvf.accelerate(zoo.SMALL["native"]())
    x = zoo.images(1)
    zoo.run(model, x)
    for freed in (_first_linear(model).weight, _norm(model).running_var):
        kept, size = freed.detach().clone(), freed.untyped_storage().nbytes()
        freed.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="with memory for its shape"):
            zoo.run(model, x)
        freed.untyped_storage().resize_(size)
        freed.data.copy_(kept)
    assert zoo.run(model, x).isfinite().all()


def test_gradients_of_a_plain_tensor() -> None:
    """One that is computed from others: a fused block would give them none."""
    block = mvf.accelerate(zoo.SMALL["native"]().requires_grad_(False)).mobilevit.encoder.layer[2]
    x = torch.randn(1, block.downsampling_layer.expand_1x1.convolution.in_channels, 8, 8)
    before = block(x)
    linear = _first_linear(block)
    factor = torch.ones((), requires_grad=True)
    weight = linear.weight.detach() * factor
    del linear.weight
    linear.weight = weight
    after = block(x)
    close(after, before)
    after.square().sum().backward()
    assert factor.grad is not None
    assert factor.grad != 0


@pytest.mark.parametrize("name", zoo.SMALL)
def test_nothing_is_derived_again_without_a_change(name: str) -> None:
    model = mvf.accelerate(zoo.SMALL[name]())
    x = zoo.images(1)

    def derived() -> list[Tensor]:
        zoo.run(model, x)
        return [d.watch for m in model.modules() if isinstance(m, Fused) for d in m._mvf.derived.values()]  # type: ignore[misc]

    first = derived()
    other = nn.Linear(3, 3)
    other(torch.randn(2, 3)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert all(a is b for a, b in zip(first, derived(), strict=True))


def test_steps_of_others_are_others() -> None:
    """Optimisers elsewhere in the process: no version of theirs moves, and nothing of ours is derived again."""
    model = mvf.accelerate(zoo.SMALL["timm"]())
    zoo.run_often(model, zoo.images())
    derived = [dict(m._mvf.derived) for m in model.modules() if isinstance(m, Fused)]
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    loss.backward(retain_graph=True)
    versions = weight._version
    optimiser = torch.optim.SGD([weight], lr=0.0, fused=True)
    optimiser.step()
    assert weight._version == versions
    loss.backward()  # the graph still stands
    zoo.run(model, zoo.images())
    again = [dict(m._mvf.derived) for m in model.modules() if isinstance(m, Fused)]
    assert all(a[key] is b[key] for a, b in zip(derived, again, strict=True) for key in a)

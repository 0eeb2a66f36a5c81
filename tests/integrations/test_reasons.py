"""Reasons in plans and reports are true, and the same before acceleration and after it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import mobilevit_fast as mvf
from testing.pairs import tiny_config
from testing.tiers import thorough
from testing.tolerance import close
from tests.integrations import zoo

LIBRARIES = ["native", "transformers", "timm"]


class Adapted(nn.Module):
    """A linear layer with a low-rank update beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def _first(model: nn.Module, kind: type[nn.Module]) -> Any:
    return next(module for module in model.modules() if isinstance(module, kind))


def _replace(model: nn.Module, module: nn.Module, other: nn.Module) -> None:
    """Put another module in the place of one that is somewhere inside."""
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    parent, name = next((parent, name) for parent, name, child in children if child is module)
    setattr(parent, name, other.eval())


def _replace_first(model: nn.Module, kind: type[nn.Module], change: Callable[[Any], nn.Module]) -> None:
    module = _first(model, kind)
    _replace(model, module, change(module))


def _replace_classifier(model: nn.Module, change: Callable[[Any], nn.Module]) -> None:
    (classifier,) = (m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 5)
    _replace(model, classifier, change(classifier))


def _with(change: Callable[[nn.Module], object]) -> Callable[[nn.Module], nn.Module]:
    def changed(model: nn.Module) -> nn.Module:
        change(model)
        return model

    return changed


def _sparse(model: nn.Module) -> None:
    linear = _first(model, nn.Linear)
    linear.weight = nn.Parameter(linear.weight.detach().to_sparse())


def _float8(model: nn.Module) -> None:
    convolution = _first(model, nn.Conv2d)
    convolution.weight = nn.Parameter(convolution.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)


def _narrower(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    return type(norm)(norm.num_features - 1)


def _low_rank(linear: nn.Linear) -> nn.Module:
    return nn.Sequential(nn.Linear(linear.in_features, 2), nn.Linear(2, linear.out_features))


def _statistics_on_meta(model: nn.Module) -> None:
    """As accelerate's ``init_empty_weights`` the other way round: parameters without values, buffers with them."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.to("meta"))


# What is done to a model, the reason, and whether it still has results to compare.
CHANGES: dict[str, tuple[Callable[[nn.Module], nn.Module], str, bool]] = {
    "adapter": (
        _with(lambda m: _replace_first(m, nn.Linear, Adapted)),
        r"its child \S+ is a \S+Adapted, which may",
        True,
    ),
    "low rank": (
        _with(lambda m: _replace_first(m, nn.Linear, _low_rank)),
        r"its \S+ is a Sequential, not a Linear",
        True,
    ),
    "quantised": (
        torch.ao.quantization.quantize_dynamic,
        r"its child \S+ is a \S+quantized\S+Linear, which may",
        False,
    ),
    "parametrised": (
        _with(lambda m: parametrizations.weight_norm(_first(m, nn.Linear))),
        r"its child \S+ is a \S+ParametrizedLinear, which may",
        True,
    ),
    "pruned": (
        _with(lambda m: prune.l1_unstructured(_first(m, nn.Conv2d), "weight", 0.5)),
        r"its child \S+ has a hook or a forward of its own",
        True,
    ),
    "one layer on meta": (
        _with(lambda m: _first(m, nn.Conv2d).to("meta")),
        r"its \S*conv\S*\.weight is on meta, without values, and its \S+ on cpu",
        False,
    ),
    "a normalisation on meta": (
        _with(lambda m: _first(m, nn.BatchNorm2d).to("meta")),
        r"its \S+\.weight is on cpu, and its \S+ on meta, without values",
        False,
    ),
    "a layer of another type": (
        _with(lambda m: _first(m, nn.Linear).to(torch.bfloat16)),
        r"its \S+ is of type torch.float32, and its \S+ of torch.bfloat16",
        False,
    ),
    "sparse": (_with(_sparse), r"its \S+ is of layout torch.sparse_coo, not dense", False),
    "float8": (_with(_float8), r"its \S+ is of type torch.float8_e4m3fn", False),
    "fewer channels": (
        _with(lambda m: _replace_first(m, nn.BatchNorm2d, _narrower)),
        r"its convolution has \d+ outputs, and its batch normalisation is for \d+",
        False,
    ),
    "no convolution": (
        _with(lambda m: _replace_first(m, nn.Conv2d, nn.Sequential)),
        r"expected a Conv2d, found a Sequential",
        True,
    ),
    "no classifier": (
        _with(lambda m: _replace_classifier(m, lambda _: nn.Identity())),
        r"it has no linear classifier \(num_(labels|classes)=0\)",
        True,
    ),
    "a longer classifier": (
        _with(lambda m: _replace_classifier(m, lambda linear: nn.Sequential(nn.Dropout(0.1), linear))),
        r"its classifier is a Sequential, not a Linear",
        True,
    ),
    "a narrower normalisation": (
        _with(lambda m: _replace_first(m, nn.LayerNorm, lambda norm: nn.LayerNorm(norm.normalized_shape[0] - 1))),
        r"its transformer has parameters of different shapes side by side: \(\d+,\), \(\d+,\)",
        False,
    ),
}


def _seeded(change: Callable[[nn.Module], nn.Module], model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return change(model)


def _outcome(model: nn.Module) -> tuple[Any, ...]:
    """The kind of a model's result, or the words in which it is refused."""
    try:
        logits = zoo.run(model, zoo.images())
    except (RuntimeError, NotImplementedError) as refusal:
        return type(refusal), str(refusal)
    return logits.shape, logits.dtype, logits.device


def _check_same(model: nn.Module) -> list[str]:
    """The reasons of a plan, after checking that a report has them too."""
    plan = mvf.plan(model)
    assert mvf.report(mvf.accelerate(model)).to_list() == plan.to_list()
    assert all(region.reason for region in plan.skipped)
    return [region.reason for region in plan.skipped]


@pytest.mark.filterwarnings("ignore:torch:UserWarning", "ignore::DeprecationWarning")  # torch.ao's quantisation
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("library", [thorough("native"), "transformers", "timm"])  # the first two are built alike
def test_of_a_changed_model(library: str, change: str) -> None:
    changed, reason, runs = CHANGES[change]
    plain, model = (_seeded(changed, zoo.SMALL[library]()) for _ in range(2))
    found = _check_same(model)
    assert found
    assert all(re.search(reason, text) for text in found)
    if runs:
        close(zoo.run(model, zoo.images()), zoo.run(plain, zoo.images()))
    else:
        assert _outcome(model) == _outcome(plain)


BUILT: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "native": (lambda: zoo.native(tiny_config(num_labels=0)), ["it has no linear classifier (num_labels=0)"]),
    "transformers": (
        lambda: zoo.transformers(tiny_config(num_labels=0)),
        ["it has no linear classifier (num_labels=0)"],
    ),
    "timm": (lambda: zoo.timm(num_classes=0), ["it has no linear classifier (num_classes=0)"]),
    "no pooling": (
        lambda: zoo.timm(num_classes=0, global_pool=""),
        ["it has no linear classifier (num_classes=0)"],
    ),
    "another pooling": (lambda: zoo.timm(global_pool="max"), ["its global pooling is 'max', not the mean"]),
    "two poolings": (lambda: zoo.timm(global_pool="catavgmax"), ["its global pooling is 'catavgmax', not the mean"]),
    "features": (lambda: zoo.timm(features_only=True), []),
    "drop rates": (lambda: zoo.timm(drop_rate=0.1, drop_path_rate=0.1, drop_block_rate=0.1), []),
    "segmentation": (zoo.SMALL["native-segmentation"], []),
}


@pytest.mark.parametrize("name", BUILT)
def test_of_a_model_that_was_built_so(name: str) -> None:
    build, reasons = BUILT[name]
    assert _check_same(build()) == reasons


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameters_without_values_are_one_clear_line(library: str) -> None:
    model = zoo.SMALL[library]()
    _statistics_on_meta(model)
    assert not mvf.plan(model).fused
    with pytest.raises(ValueError, match=r"on meta, without values, and its \S+running_mean on cpu") as refusal:
        mvf.accelerate(model)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_region_without_values_is_named_beside_those_with_them(library: str) -> None:
    model = zoo.SMALL[library]()
    path = next(region.path for region in mvf.plan(model) if region.kind == "inverted_residual")
    model.get_submodule(path).to("meta")
    reasons = {region.path: region.reason for region in mvf.plan(model).skipped}
    assert reasons == {
        path: "its weights are on the device meta, without values, and other tensors of the model are not"
    }
    assert _check_same(model) == [*reasons.values()]


@pytest.mark.parametrize("library", LIBRARIES)
def test_training_mode_is_remarked_upon(library: str) -> None:
    model = zoo.SMALL[library]().train()
    for outcome in (mvf.plan(model), mvf.report(mvf.accelerate(model))):
        assert {region.remark for region in outcome} == {"in training mode, so the original modules run"}
    _first(model.eval(), nn.BatchNorm2d).train()
    for outcome in (mvf.report(model), mvf.plan(mvf.restore(model))):
        assert len(outcome.fused) == len(outcome)
        (remark,) = [region.remark for region in outcome if region.remark]
        assert re.fullmatch(r"its child \S+ is in training mode, so the original modules run", remark)


HEAD_SIZES = {"native": "attention_head_size", "transformers": "attention_head_size", "timm": "head_dim"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_heads_of_another_size(library: str, when: str) -> None:
    """Which transformers takes for another number of heads, and the others for a mistake."""
    x, plain, model = zoo.images(1), zoo.SMALL[library](), zoo.SMALL[library]()

    def change(one: nn.Module) -> None:
        for module in one.modules():
            if hasattr(module, HEAD_SIZES[library]):
                setattr(module, HEAD_SIZES[library], 2 * getattr(module, HEAD_SIZES[library]))

    change(plain)
    if when == "before":
        change(model)
    mvf.accelerate(model)
    if when == "after":
        zoo.run(model, x)
        change(model)
    reasons = [region.reason for region in mvf.report(model).regions if region.kind == "mobilevit_block"]
    assert len(reasons) == 3
    assert all(re.search(rf"{HEAD_SIZES[library]} is \d+, not \d+", reason) for reason in reasons), reasons
    if library == "transformers":
        close(zoo.run(model, x), zoo.run(plain, x))
        return
    for one in (plain, model):
        with pytest.raises(RuntimeError):
            zoo.run(one, x)


@pytest.mark.parametrize("library", LIBRARIES)
def test_normalisations_of_a_type_that_pytorch_refuses(library: str) -> None:
    model = zoo.SMALL[library]()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.half()
    reasons = [region.reason for region in mvf.plan(model).regions if region.kind == "mobilevit_block"]
    assert len(reasons) == 3
    assert all("torch.float16" in reason and "torch.float32" in reason for reason in reasons), reasons
    half = zoo.SMALL[library]().bfloat16()
    for module in half.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
    assert len(mvf.plan(half).fused) == 12

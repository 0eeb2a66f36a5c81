"""Putting fused modules into a model and taking them out again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from mobilevit_fast.integrations import Integration, integrations, supported_libraries
from mobilevit_fast.nn.exchange import compute_in, give_back, original_class
from mobilevit_fast.nn.fused import Fused, Rule, fuse, parameter_dtype, read_parts
from mobilevit_fast.nn.parts import Unsupported
from mobilevit_fast.ops.registry import BackendError, check_backend
from mobilevit_fast.regions import Region, Report

Model = TypeVar("Model", bound=nn.Module)

_MODES = ("inference",)


class _Found(NamedTuple):
    module: nn.Module
    rule: Rule | None
    region: Region


def accelerate(
    model: Model,
    *,
    mode: str = "inference",
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    strict: bool = False,
    include: Iterable[str] | None = None,
) -> Model:
    """Make the regions of a MobileViT run as fused operators, in place.

    Modules keep their identity, children, parameters and hooks; the state dict does not change. In training mode, and
    wherever gradients are needed, the original modules run. Accelerating again replaces the earlier settings.

    Args:
        model: a model from transformers, timm or this package, or a module that holds one. It may be on any device, of
            any floating point type, and change both later.
        mode: "inference", the only one there is.
        backend: "auto" takes the best kernel for each region; a name takes that backend's, and leaves the regions that
            it has no kernel for as they are.
        compute_dtype: floating point type to compute in, by autocast over the whole model; None: the parameters' own.
        strict: raise an error where a region would be skipped.
        include: kinds of regions or patterns of module paths (as in ``fnmatch``) to accelerate; None: all.

    Returns:
        ``model``.

    Raises:
        TypeError: not a module that can be changed in place.
        ValueError: no MobileViT in it, an unknown backend, mode or name in ``include``; with ``strict``, a skipped
            region; or every region would be skipped.
    """
    if mode not in _MODES:
        raise ValueError(f"accelerate: expected mode among {', '.join(_MODES)}, got {mode!r}")
    if compute_dtype is not None and not compute_dtype.is_floating_point:
        raise ValueError(f"accelerate: expected a floating point compute_dtype, got {compute_dtype}")
    found = _survey(model, backend, compute_dtype, include)
    skipped = [f.region for f in found if not f.region.backends]
    if len(skipped) == len(found) or (strict and skipped):
        reasons = "; ".join(f"{region.path or 'the model itself'}: {region.reason}" for region in skipped)
        which = "at least one region that can be fused" if len(skipped) == len(found) else "every region to be fused"
        raise ValueError(f"accelerate: expected {which}, but skipped {reasons}")
    restore(model)
    for module, rule, region in found:
        if rule is not None and region.backends:
            fuse(module, rule, backend)
    if compute_dtype is not None:
        compute_in(model, compute_dtype)
    return model


def restore(model: Model) -> Model:
    """Take every fused module out: the same objects run their own code again. Returns ``model``."""
    for module in model.modules():
        give_back(module)
    return model


@contextmanager
def accelerated(
    model: Model,
    *,
    mode: str = "inference",
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    strict: bool = False,
    include: Iterable[str] | None = None,
) -> Iterator[Model]:
    """Accelerate a model within a ``with`` block; after it the model is as it was before. See :func:`accelerate`."""
    before = [(m, type(m), {k: v for k, v in m.__dict__.items() if k.startswith("_mvf")}) for m in model.modules()]
    accelerate(model, mode=mode, backend=backend, compute_dtype=compute_dtype, strict=strict, include=include)
    try:
        yield model
    finally:
        for module, kind, state in before:
            give_back(module)
            module.__class__ = kind
            module.__dict__.update(state)


def plan(
    model: nn.Module,
    *,
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    include: Iterable[str] | None = None,
) -> Report:
    """What :func:`accelerate` would do with these arguments; changes nothing."""
    return Report([found.region for found in _survey(model, backend, compute_dtype, include)])


def report(model: nn.Module) -> Report:
    """Which modules are fused, by which backends, and which are not and why."""
    dtype = model.__dict__.get("_mvf_compute_dtype")
    rows = []
    for module, _, region in _survey(model, "auto", dtype, None):
        if not isinstance(module, Fused):
            region = region._replace(backends={}, reason=region.reason or "not accelerated")
        rows.append(region)
    return Report(rows)


def _survey(model: nn.Module, backend: str, dtype: torch.dtype | None, include: Iterable[str] | None) -> list[_Found]:
    """Every region of the model, fused or not, with the kernels it would get or the reason why it gets none."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch._dynamo.OptimizedModule):
        raise TypeError("accelerate: expected a model before torch.compile, got a compiled one")
    check_backend(backend)
    active = _active_integrations(model)
    rules = {original: rule for integration in active for original, rule in integration.rules.items()}
    wanted = _Wanted(include, {rule.fused.kind for rule in rules.values()})
    found: list[_Found] = []
    seen: set[int] = set()

    def visit(module: nn.Module, path: str, absorbed: frozenset[str]) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        rule = rules.get(original_class(module))
        if rule is not None:
            region = _examine(module, path, rule, backend, dtype, wanted)
            found.append(_Found(module, rule, region))
            if region.backends:
                absorbed |= {f"{path}.{name}" if path else name for name in rule.absorbs}
        else:
            parent = next((r for r in rules.values() if isinstance(module, r.original)), None)
            if parent is not None:
                name = original_class(module).__name__
                reason = f"{name} is a subclass of {parent.original.__name__} and may compute something else"
                found.append(_Found(module, None, Region(path, parent.fused.kind, name, {}, reason)))
        for name, child in module.named_children():
            child_path = f"{path}.{name}" if path else name
            if child_path not in absorbed:
                visit(child, child_path, absorbed)

    visit(model, "", frozenset())
    wanted.check()
    return found


def _examine(
    module: nn.Module, path: str, rule: Rule, backend: str, dtype: torch.dtype | None, wanted: _Wanted
) -> Region:
    region = Region(path, rule.fused.kind, rule.original.__name__, {}, "")
    if not wanted(rule.fused.kind, path):
        return region._replace(reason="left out by include")
    if isinstance(module, Fused):
        backend = module._mvf.backend if backend == "auto" else backend
    try:
        with torch.no_grad():
            parts = read_parts(module, rule)
            bounds = rule.fused.bind(parts, backend, dtype or parameter_dtype(module))
    except (Unsupported, BackendError) as reason:
        return region._replace(reason=str(reason))
    passed_over = {text for bound in bounds.values() for text in bound.passed_over}
    backends = {name: bound.backend for name, bound in bounds.items()}
    return region._replace(backends=backends, passed_over=tuple(sorted(passed_over)))


class _Wanted:
    """The filter behind ``include``; remembers which of its names matched nothing."""

    def __init__(self, include: Iterable[str] | None, kinds: set[str]) -> None:
        if isinstance(include, str):
            raise TypeError(f"accelerate: expected include to be several names, got the string {include!r}")
        self.names = None if include is None else list(include)
        self.kinds = kinds
        self.unmatched = set(self.names or ())

    def __call__(self, kind: str, path: str) -> bool:
        if self.names is None:
            return True
        matching = [name for name in self.names if name == kind or fnmatchcase(path, name)]
        self.unmatched -= set(matching)
        return bool(matching)

    def check(self) -> None:
        if self.unmatched:
            expected = f"kinds ({', '.join(sorted(self.kinds))}) or paths of regions"
            raise ValueError(f"accelerate: expected include to name {expected}, got {sorted(self.unmatched)}")


def _active_integrations(model: nn.Module) -> list[Integration]:
    active = [i for i in integrations() if any(isinstance(m, i.markers) for m in model.modules())]
    if not active:
        name = f"{original_class(model).__module__}.{original_class(model).__qualname__}"
        raise ValueError(
            f"accelerate: expected a MobileViT of {supported_libraries()}, got {name}, which holds no MobileViT block"
        )
    return active

"""Putting fused modules into a model and taking them out again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from mobilevit_fast.acceleration.behaviour import has_forward_of_its_own
from mobilevit_fast.acceleration.class_swap import (
    AutocastRoot,
    Swapped,
    give_back,
    is_constructed,
    original_class,
    own_class,
    put_class,
    state_of,
    swap_class,
)
from mobilevit_fast.acceleration.construction import Constructible
from mobilevit_fast.acceleration.fused import (
    fuse,
    is_fused,
    mode_remark,
    parameter_device,
    parameter_dtype,
    read_parts,
)
from mobilevit_fast.acceleration.graphs import GraphRoot, Graphs
from mobilevit_fast.acceleration.layouts import LayoutRoot, layout_roots
from mobilevit_fast.acceleration.parts import Unsupported
from mobilevit_fast.acceleration.pixels import PixelNormalization
from mobilevit_fast.acceleration.regions import ConvNormAct
from mobilevit_fast.acceleration.report import Region, Report
from mobilevit_fast.acceleration.rules import Integration, Rule, integrations, supported_libraries
from mobilevit_fast.ops.registry import BackendError, check_backend

Model = TypeVar("Model", bound=nn.Module)

_COMPUTE_DTYPES = (torch.bfloat16, torch.float16)


class _Found(NamedTuple):
    module: nn.Module
    rule: Rule | None
    region: Region
    wanted: bool = True


class _Front(NamedTuple):
    """The mixins that come in front of a module's class, the first one outermost, and what they need."""

    mixins: tuple[type[Swapped], ...] = ()
    state: Mapping[str, Any] = MappingProxyType({})

    def behind(self, mixin: type[Swapped], name: str, value: Any) -> _Front:
        """With another one in front of these."""
        return _Front((mixin, *self.mixins), {**self.state, name: value})


class _Request(NamedTuple):
    """The arguments a model was accelerated with, kept for the report."""

    backend: str
    compute_dtype: torch.dtype | None
    include: tuple[str, ...] | None


def accelerate(
    model: Model,
    *,
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    strict: bool = False,
    include: Iterable[str] | None = None,
    uint8_images: Any = None,
    cuda_graphs: bool = False,
) -> Model:
    """Make the regions of a MobileViT run as fused operators, in place.

    Modules keep their identity, children, parameters and hooks; the state dict does not change. In training mode, and
    wherever gradients are needed, the original modules run. Accelerating again replaces the earlier settings. Modules
    of :mod:`mobilevit_fast.nn` that were made by their constructors are fused before and stay as they are, with the
    backends that they were made with.

    Args:
        model: a model from transformers, timm or this package, or a module that holds one. It may be on any device, of
            any floating point type, and change both later.
        backend: "auto" takes the best kernel for each region; a name takes that backend's, and leaves the regions that
            it has no kernel for as they are.
        compute_dtype: ``torch.bfloat16`` or ``torch.float16`` to compute in it, by autocast over the whole model; None:
            the parameters' own type.
        strict: raise an error where a region would be skipped.
        include: kinds of regions or patterns of module paths (as in ``fnmatch``) to accelerate; None: all.
        uint8_images: an image processor or a :class:`PixelNormalization`: the model then also takes uint8 images
            (N, 3, H, W), RGB as files hold them, resized and cropped but nothing else. The CUDA kernels have the rest
            in the first convolution's weights; before other kernels, and in training, it is computed. None: it takes
            floating point images only.
        cuda_graphs: capture the model's forward as a CUDA graph for each shape of images, at its first call without
            gradients, and replay it at later ones, which spares the host the launches of few images. Results are the
            caller's own, other weights are noticed, and :func:`report` says why a call was not a graph's.

    Returns:
        ``model``.

    Raises:
        TypeError: not a module that can be changed in place; ``uint8_images`` that is no image processor.
        ValueError: no MobileViT in it, an unknown backend or name in ``include``; with ``strict``, a skipped
            region; or every region would be skipped; ``uint8_images``, and the first convolution is;
            ``compute_dtype``, and somebody put another forward on the model itself.
    """
    _check_model(model, "accelerate")
    include = None if include is None else _names(include)
    if compute_dtype is not None:
        _check_compute_dtype(model, compute_dtype)
    found = _survey(model, backend, compute_dtype, include)
    wanted = [f.region for f in found if f.wanted]
    skipped = [region for region in wanted if not region.fused]
    if len(skipped) == len(wanted) or (strict and skipped):
        which = "at least one region that can be fused" if len(skipped) == len(wanted) else "every region to be fused"
        raise ValueError(f"accelerate: expected {which}, but skipped {_grouped(skipped)}; plan() lists them all")
    pixels = _pixels(uint8_images)
    stem = None if pixels is None else _first_convolution(found, pixels)
    kinds = {kind for integration in _active_integrations(model) for kind in integration.models}
    roots = layout_roots(model, kinds)
    fronts = {id(module): _Front((LayoutRoot,), {"_mvf_layouts": state}) for module, state in roots}
    front = fronts.get(id(model), _Front())
    if compute_dtype is not None:
        front = front.behind(AutocastRoot, "_mvf_compute_dtype", compute_dtype)
    if cuda_graphs:
        front = front.behind(GraphRoot, "_mvf_graphs", Graphs())
    fronts[id(model)] = front
    rules = {id(f.module): f.rule for f in found if f.region.fused and not is_constructed(f.module)}
    # Other threads may call the model: each module goes from what it was to what it becomes, after what it calls.
    for module in reversed(list(model.modules())):
        rule, front = rules.get(id(module)), fronts.get(id(module), _Front())
        if rule is not None:
            sees_image = module is stem or rule.fused.calls_children
            fuse(module, rule, backend, pixels if sees_image else None, *front, keeps_layout=True)
        else:
            swap_class(module, *front)
    model.__dict__["_mvf_request"] = _Request(backend, compute_dtype, include)
    return model


def restore(model: Model) -> Model:
    """Take every fused module out: the same objects run their own code again. Returns ``model``.

    Modules that were made by the constructors of :mod:`mobilevit_fast.nn` have no other code and stay.
    """
    _check_model(model, "restore")
    for module in model.modules():
        give_back(module)
    return model


@contextmanager
def accelerated(
    model: Model,
    *,
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    strict: bool = False,
    include: Iterable[str] | None = None,
    uint8_images: Any = None,
    cuda_graphs: bool = False,
) -> Iterator[Model]:
    """Accelerate a model within a ``with`` block; after it the model is as it was before. See :func:`accelerate`."""
    before = {module: (type(module), state_of(module)) for module in model.modules()}
    accelerate(
        model,
        backend=backend,
        compute_dtype=compute_dtype,
        strict=strict,
        include=include,
        uint8_images=uint8_images,
        cuda_graphs=cuda_graphs,
    )
    given = {module: type(module) for module in model.modules()}
    try:
        yield model
    finally:
        for module, (kind, state) in before.items():
            is_ours = type(module) is given.get(module)  # else somebody gave it another class meanwhile
            put_class(module, kind if is_ours else own_class(module), state)


def plan(
    model: nn.Module,
    *,
    backend: str = "auto",
    compute_dtype: torch.dtype | None = None,
    include: Iterable[str] | None = None,
) -> Report:
    """Report of what :func:`accelerate` would do with these arguments; changes nothing."""
    _check_model(model, "plan")
    return Report([found.region for found in _survey(model, backend, compute_dtype, include)])


def report(model: nn.Module) -> Report:
    """Which modules are fused, by which backends, and which are not and why."""
    _check_model(model, "report")
    request: _Request | None = model.__dict__.get("_mvf_request")
    backend, dtype, include = request or _Request("auto", None, None)
    rows = []
    for module, _, region, _ in _survey(model, backend, dtype, include, as_fused=True):
        if not is_fused(module):
            reason = region.reason or ("not accelerated" if request is None else "changed since it was accelerated")
            region = region._replace(backends={}, reason=reason, passed_over=())
        elif region.fused and region.kind == ConvNormAct.kind:
            remark = module.remark(dtype or parameter_dtype(module, type(module).rule))
            region = region._replace(remark="; ".join(filter(None, (remark, region.remark))))
        rows.append(region)
    return Report(rows, str(model._mvf_graphs) if isinstance(model, GraphRoot) else "")


def pixels_of(model: nn.Module) -> PixelNormalization | None:
    """The normalisation of uint8 images that a model was accelerated with; None where it takes none."""
    states = (vars(module).get("_mvf") for module in model.modules())
    return next((state.pixels for state in states if state is not None and state.pixels is not None), None)


def _pixels(uint8_images: Any) -> PixelNormalization | None:
    if uint8_images is None or isinstance(uint8_images, PixelNormalization):
        return uint8_images
    return PixelNormalization.from_processor(uint8_images)


def _first_convolution(found: list[_Found], pixels: PixelNormalization) -> nn.Module:
    """The one over the image: few channels, by which no other convolution of these networks is told."""
    for module, _, region, _ in found:
        convolution = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
        if region.kind == ConvNormAct.kind and convolution is not None and convolution.in_channels % 8 != 0:
            if is_constructed(module):
                expected = "a first convolution of the model's own for uint8_images"
                raise ValueError(f"accelerate: expected {expected}, got one made by its constructor")
            if region.fused:
                pixels.check_channels(convolution.in_channels)
                return module
            raise ValueError(f"accelerate: expected a first convolution to fuse for uint8_images, got {region.reason}")
    raise ValueError("accelerate: expected a convolution over an image of few channels for uint8_images, found none")


def _grouped(skipped: list[Region]) -> str:
    """Reasons in one line: the first region that has each, and how many more have it."""
    paths: dict[str, list[str]] = {}
    for region in skipped:
        paths.setdefault(region.reason, []).append(region.path or "the model itself")
    parts = [f"{p[0]}{f' and {len(p) - 1} more' if len(p) > 1 else ''} ({reason})" for reason, p in paths.items()]
    return ", ".join(parts[:4]) + (f" and others for {len(parts) - 4} more reasons" if len(parts) > 4 else "")


def _check_model(model: nn.Module, caller: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller}: expected a torch.nn.Module, got {type(model).__name__}")
    # Nothing is compiled where nobody imported this, which takes a second and keeps the frames of who asked first.
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and isinstance(model, dynamo.OptimizedModule):
        raise TypeError(f"{caller}: expected a model before torch.compile, got a compiled one")


def _check_compute_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    if dtype not in _COMPUTE_DTYPES:
        raise ValueError(
            f"accelerate: expected compute_dtype among {', '.join(map(str, _COMPUTE_DTYPES))}, got {dtype!r}"
        )
    if type(model).forward is nn.Module.forward:
        raise ValueError(f"accelerate: expected a model with a forward for compute_dtype, got a {type(model).__name__}")
    if has_forward_of_its_own(model):
        expected = "a model that runs the forward of its class for compute_dtype"
        raise ValueError(f"accelerate: expected {expected}, got one whose forward was replaced on the instance")


def _survey(
    model: nn.Module,
    backend: str,
    dtype: torch.dtype | None,
    include: Iterable[str] | None,
    *,
    as_fused: bool = False,
) -> list[_Found]:
    """Every region of the model, with the kernels it would get or the reason why it gets none.

    With ``as_fused``, regions that are fused already are examined with the backend they were fused with.
    """
    check_backend(backend)
    active = _active_integrations(model)
    rules = {original: rule for integration in active for original, rule in integration.rules.items()}
    wanted = _Wanted(include, {rule.fused.kind for rule in rules.values()})
    found: list[_Found] = []
    seen: set[int] = set()
    stack: list[tuple[nn.Module, str, frozenset[str]]] = [(model, "", frozenset())]
    while stack:  # no function that calls itself, which would hold itself, and all modules, until a garbage collection
        module, path, absorbed = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        rule = rules.get(original_class(module))
        if rule is not None:
            is_kept = as_fused or is_constructed(module)
            chosen = module._mvf.backend if is_kept and is_fused(module) else backend
            is_wanted = wanted(rule.fused.kind, path)
            region = _examine(module, path, rule, chosen, dtype, is_wanted)
            found.append(_Found(module, rule, region, is_wanted))
            if region.backends:
                absorbed |= {f"{path}.{name}" if path else name for name in rule.absorbs}
        else:
            parent = next((r for r in rules.values() if isinstance(module, r.original)), None)
            if parent is not None:
                name = original_class(module).__name__
                reason = f"{name} is a subclass of {parent.original.__name__} and may compute something else"
                found.append(_Found(module, None, Region(path, parent.fused.kind, name, {}, reason)))
        children = [(child, f"{path}.{name}" if path else name) for name, child in module.named_children()]
        stack += [(child, at, absorbed) for child, at in reversed(children) if at not in absorbed]
    wanted.check()
    return _without_values(model, found)


def _without_values(model: nn.Module, found: list[_Found]) -> list[_Found]:
    """Weights without values are none to compute with, unless no tensor of the model has any: it stands for a GPU's."""
    fused = [f for f in found if f.rule is not None and f.region.fused]
    missing = {f.region.path for f in fused if f.rule and parameter_device(f.module, f.rule).type == "meta"}
    if not missing or all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        return found
    reason = "its weights are on the device meta, without values, and other tensors of the model are not"
    bare: dict[str, Any] = {"backends": {}, "passed_over": (), "remark": "", "reason": reason}
    return [f._replace(region=f.region._replace(**bare)) if f.region.path in missing else f for f in found]


def _examine(module: nn.Module, path: str, rule: Rule, backend: str, dtype: torch.dtype | None, wanted: bool) -> Region:
    region = Region(path, rule.fused.kind, rule.original.__name__, {}, "")
    if is_constructed(module):
        if own_class(module).forward is not Constructible.forward:
            return region._replace(reason=f"{own_class(module).__name__} has a forward of its own")
    elif not wanted:
        return region._replace(reason="left out by include")
    try:
        with torch.no_grad():
            parts = read_parts(module, rule)
            bounds = rule.fused.bind(parts, backend, dtype or parameter_dtype(module, rule))
    except (Unsupported, BackendError) as reason:
        return region._replace(reason=str(reason))
    passed_over = {text for bound in bounds.values() for text in bound.passed_over}
    backends = {name: bound.backend for name, bound in bounds.items()}
    remark = mode_remark(module, rule)
    return region._replace(backends=backends, passed_over=tuple(sorted(passed_over)), remark=remark)


def _names(include: Iterable[str]) -> tuple[str, ...]:
    if isinstance(include, str):
        raise TypeError(f"accelerate: expected include to be several names, got the string {include!r}")
    return tuple(include)


class _Wanted:
    """The filter behind ``include``; remembers which of its names matched nothing."""

    def __init__(self, include: Iterable[str] | None, kinds: set[str]) -> None:
        self.names = None if include is None else _names(include)
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

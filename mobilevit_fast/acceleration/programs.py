"""Calls of a model that are kernels and nothing else: recorded once, and made again without the modules' code.

A MobileViT's forward runs a few hundred lines of Python for two dozen kernels, which for few images take no longer than
these lines. A call is recorded where everything from its images to its result is a kernel of this package. A later one
like it runs the kernels in their order, and asks, while a GPU is at work, whether anything in the model changed since;
if so its result is thrown away and the modules are called.

What code between the kernels reads of a result, writes into it or keeps is not in a recording. So there is none where a
module runs such code: one that is neither fused nor a library's, which do nothing but call others, nor a list of these.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mobilevit_fast.acceleration.behaviour import replaced_code
from mobilevit_fast.acceleration.class_swap import Swapped, original_class
from mobilevit_fast.acceleration.rules import calls_others, settings_of
from mobilevit_fast.acceleration.watch import Watch, globally_hooked, hidden_in, is_hooked, whole
from mobilevit_fast.ops.program import Encoded, Step, encoded
from mobilevit_fast.ops.registry import is_autocasting, is_transformed

MAX_PROGRAMS = 16
"""Kinds of calls of a model that are kept; one more, and all are recorded anew."""

_HOLDERS = (nn.Identity, nn.ModuleDict, nn.ModuleList, nn.Sequential)
"""Modules that do nothing but call others."""

Key = tuple[Any, ...]


class Refused(Exception):
    """Why a call is made by the modules; the message is for the report."""


def key_of(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Key, Tensor]:
    """Key that tells calls apart whose kernels may differ, and the images.

    Raises:
        Refused: others than the caller may see, or have a hand in, what the call does.
    """
    if model.training:
        raise Refused("the model is in training mode")
    if torch.is_grad_enabled():
        raise Refused("gradients are enabled; call it under torch.no_grad() or torch.inference_mode()")
    values = (*args, *kwargs.values())
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) != 1 or any(not isinstance(v, Tensor | bool | int | float | str | None) for v in values):
        raise Refused("expected one tensor, and otherwise plain values, as arguments")
    x = tensors[0]
    if type(x) not in (Tensor, nn.Parameter) or x.numel() == 0:
        raise Refused(f"expected images, got a {type(x).__name__} of shape {tuple(x.shape)}")
    if globally_hooked() or is_transformed() or torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0:
        raise Refused("a hook on all modules, a transform, a trace or a dispatch mode is active")
    kind = x.device.type
    autocast = torch.get_autocast_dtype(kind) if is_autocasting(kind) else None
    others = tuple(None if value is x else (type(value), value) for value in values)
    settings = settings_of(original_class(model))(model)
    return (x.shape, x.stride(), x.dtype, x.device, others, tuple(kwargs), autocast, *settings), x


def _is_only_kernels(model: nn.Module) -> bool:
    """Whether nothing runs between its fused modules but code that calls them."""
    hidden = hidden_in(model)
    return not any(
        replaced_code(module, is_region=isinstance(module, Swapped))
        or not ("_mvf" in module.__dict__ or type(module) in _HOLDERS or calls_others(original_class(module)))
        for module in model.modules()
        if id(module) not in hidden
    )


class Used(NamedTuple):
    """A region's derived weights, and where they are as long as they are the region's."""

    module: weakref.ref[nn.Module]
    """No reference to it, which may be the model itself."""
    state: Any
    key: Any
    derived: Any

    def is_current(self) -> bool:
        module = self.module()
        is_same = module is not None and module.__dict__.get("_mvf") is self.state
        return is_same and self.state.derived.get(self.key) is self.derived


class Whole(NamedTuple):
    """A model as it is: its children, to tell it from one that got its attributes, and a watch over all of it."""

    children: dict[str, nn.Module | None]
    watch: Watch

    def is_unchanged(self, model: nn.Module) -> bool:
        return self.children is model._modules and self.watch.is_unchanged(model)


class Recording:
    """Kernels of a call of a model that is under way, by what they make of what."""

    def __init__(self, images: Tensor, model: Whole | None = None) -> None:
        self.model = model
        """The model as it was before the call."""
        self._results = [weakref.ref(images)]
        self._numbers = {id(images): 0}
        self._kernels: list[tuple[Callable[..., Tensor], tuple[int, ...], tuple[Any, ...]]] = []
        self.used: list[Used] = []
        self.derives = False
        """Whether weights are derived meanwhile, so that nobody knows of which the next call's would be."""
        self.is_whole = True
        """False where a kernel's input is no other's result."""

    def add(
        self, kernel: Callable[..., Tensor], inputs: Sequence[Any], arguments: tuple[Any, ...], result: Tensor
    ) -> None:
        """Note a call of a kernel."""
        sources = tuple(map(self._number, inputs))
        self.is_whole = self.is_whole and -1 not in sources
        self._kernels.append((kernel, sources, arguments))
        self._numbers[id(result)] = len(self._results)
        self._results.append(weakref.ref(result))

    def _number(self, tensor: Any) -> int:
        """Number of a result, 0 of the images, -1 of anything else."""
        number = self._numbers.get(id(tensor), -1)
        return number if number >= 0 and self._results[number]() is tensor else -1

    def steps(self, result: Tensor) -> list[Step] | None:
        """The kernels in their order, the last one's result last; None where there is more to the call than these.

        A place is used again once nobody reads it any more; until then it keeps its result.
        """
        if not self.is_whole or not self._kernels or self._number(result) != len(self._kernels):
            return None
        last = {source: i for i, (_, sources, _) in enumerate(self._kernels) for source in sources}
        places, free, found = {0: 0}, list[int](), list[Step]()
        for i, (kernel, sources, arguments) in enumerate(self._kernels):
            own = tuple(places[source] for source in sources)
            target = free.pop() if free else max(places.values()) + 1
            found.append(Step(kernel, own, arguments, target))
            free += [places[source] for source in set(sources) if last[source] == i]
            places[i + 1] = target
        return found


class Program(NamedTuple):
    """A recorded call.

    Attributes:
        steps: its kernels.
        encoded: these for a library that runs them in one call; None where there is none.
        leaves, structure: of what it returns, None where the one tensor is.
        used: regions whose weights the kernels have.
        model: as it was.
    """

    steps: tuple[Step, ...]
    encoded: Encoded | None
    leaves: tuple[Any, ...]
    structure: pytree.TreeSpec
    used: tuple[Used, ...]
    model: Whole

    def run(self, images: Tensor) -> Any:
        """What the model returns for these images."""
        result = self._by_steps(images) if self.encoded is None else self.encoded.run(images)
        return pytree.tree_unflatten([result if leaf is None else leaf for leaf in self.leaves], self.structure)

    def _by_steps(self, images: Tensor) -> Tensor:
        result, places = images, [images] * (1 + max(step.target for step in self.steps))
        for kernel, sources, arguments, target in self.steps:
            result = places[target] = kernel(*[places[source] for source in sources], *arguments)
        return result

    def is_current(self, model: nn.Module) -> bool:
        """Whether the model would still return that."""
        return all(used.is_current() for used in self.used) and self.model.is_unchanged(model)


class Programs:
    """The programs of one model. Any thread may add to them or use them."""

    def __init__(self) -> None:
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # copies and pickles record their own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all of them."""
        self._programs: dict[Key, Program] = {}
        self._called: set[Key] = set()
        self._refused: set[Key] = set()

    def run(self, key: Key, model: nn.Module, images: Tensor) -> tuple[Any, bool]:
        """The result of a call, and whether there is one."""
        program = self._programs.get(key)
        if program is None:
            return None, False
        # A GPU would stand still meanwhile; on a CPU a result that is thrown away costs as much as another one.
        asks_first = images.device.type == "cpu"
        if not asks_first or program.is_current(model):
            result = program.run(images)
            if asks_first or program.is_current(model):
                return result, True
        self.forget()
        return None, False

    def begin(self, key: Key, model: nn.Module, images: Tensor) -> Recording | None:
        """A recording of the call that is about to begin; None where it is not to be recorded.

        The second call of a kind is, when all weights are derived.
        """
        if key in self._refused:
            return None
        if key not in self._called:
            if len(self._called) >= MAX_PROGRAMS:
                self.forget()
            self._called.add(key)
            return None
        known = (program.model for program in list(self._programs.values()) if program.is_current(model))
        found = next(known, None) or _whole(model)
        if found is None:
            self._refused.add(key)
            return None
        return Recording(images, found)

    def keep(self, key: Key, model: nn.Module, recording: Recording, result: Any) -> None:
        """Keep what was recorded, and nothing that has become another model's; or never ask again."""
        leaves, structure = pytree.tree_flatten(result)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        steps = recording.steps(tensors[0]) if len(tensors) == 1 else None
        if steps is None or recording.model is None:
            self._refused.add(key)
            return
        rest = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        used = tuple(recording.used)
        found = {**self._programs, key: Program(tuple(steps), encoded(steps), rest, structure, used, recording.model)}
        if recording.derives:
            del found[key]
        self._programs = {kind: program for kind, program in found.items() if program.is_current(model)}


def _whole(model: nn.Module) -> Whole | None:
    """A model with a watch over it; None where calls of it are not to be recorded."""
    children = whole(model)
    if any(child.module.training or is_hooked(child.module) for child in children) or not _is_only_kernels(model):
        return None
    watch = Watch(children, model)
    return Whole(model._modules, watch) if watch.trustworthy else None

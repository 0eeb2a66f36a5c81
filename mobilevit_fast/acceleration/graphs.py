"""Whole models as CUDA graphs: captured for each shape of images, replayed at every later call.

A forward of an accelerated model is a few dozen launches, which cost the host more time than the device as long as
images are few. A graph is one. It reads its images from memory of its own and leaves its results there, so a call
copies images in and results out; it holds the addresses of weights, so a change of any of them is noticed and the graph
made again.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mobilevit_fast.acceleration.class_swap import Before, Swapped
from mobilevit_fast.acceleration.fused import is_fused
from mobilevit_fast.acceleration.programs import Key, Refused, key_of
from mobilevit_fast.acceleration.watch import Watch, is_hooked, whole

MAX_GRAPHS = 8
"""Shapes of images that a model keeps graphs of; the one that was not used for longest makes room for another."""

_WARM_UP_CALLS = 2


class Uncapturable(Refused):
    """Nor will the next one of its kind be."""


class Replayed(NamedTuple):
    """A captured call.

    Attributes:
        images: where it reads them.
        replay: does it again, into ``results``.
        results: the leaves of what it returns, tensors and others.
        structure: how these make the result.
        watch: over every module and tensor of the model.
        kept: what holds the memory of weights, packed and not, which a replay reads even where the model was given
            others since.
    """

    images: Tensor
    replay: Callable[[], None]
    results: list[Any]
    structure: pytree.TreeSpec
    watch: Watch
    kept: list[Any]


class Cuda:
    """CUDA as graphs need it: capture, and the order of streams that share a graph's memory."""

    device_type = "cuda"

    def __init__(self) -> None:
        self._pool: Any = None
        self._last_use: Any = None

    def of(self, x: Tensor) -> AbstractContextManager[Any]:
        """The device of a tensor as the current one."""
        return torch.cuda.device_of(x)

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """A graph of a call that has been made before: what replays it, and its result."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):  # weights are packed and kernels loaded, which no capture may do
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = call()
        return graph.replay, result

    def begin(self) -> None:
        """The current stream may use the graphs' memory once whoever had it before is done."""
        if self._last_use is None:
            self._last_use = torch.cuda.Event()
        else:
            torch.cuda.current_stream().wait_event(self._last_use)

    def end(self) -> None:
        """The current stream needs the graphs' memory no more, once it is here."""
        self._last_use.record(torch.cuda.current_stream())

    def is_capturing(self) -> bool:
        """Whether somebody else captures what the current stream does."""
        return torch.cuda.is_current_stream_capturing()


class Graphs:
    """The graphs of one model. Calls from several threads, and on several streams, come one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._device = Cuda()
        self._captured: OrderedDict[tuple[Any, ...], Replayed] = OrderedDict()
        self._refused: dict[tuple[Any, ...], str] = {}
        self.reason = "no call yet"
        """Why the last call that was not a graph's was none."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # copies and pickles capture their own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def __str__(self) -> str:
        count = len(self._captured)
        shapes = f"{count} shape{'s' if count != 1 else ''} captured"
        return f"{shapes}; not a graph: {self.reason}" if self.reason else shapes

    def forget(self) -> None:
        """Forget all graphs."""
        with self._lock:
            self._captured.clear()
            self._refused.clear()

    def __call__(
        self, model: nn.Module, forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """``forward(*args, **kwargs)``, by a graph where it can be one."""
        try:
            key, x = self._key(model, args, kwargs)
        except Refused as reason:
            self.reason = str(reason)
            return forward(*args, **kwargs)
        with self._lock, self._device.of(x):
            replayed = self._captured.get(key)
            if replayed is not None:
                result = self._replay(replayed, x)
                if replayed.watch.is_unchanged(model):  # asked while the device is at work
                    self._captured.move_to_end(key)
                    return result
                self._captured.clear()
                self._refused.clear()
            try:
                if key in self._refused:
                    raise Refused(self._refused[key])
                return self._replay(self._capture(key, model, forward, args, kwargs, x), x)
            except Refused as reason:
                self.reason = str(reason)
                if isinstance(reason, Uncapturable):
                    self._refused[key] = str(reason)
        return forward(*args, **kwargs)

    def _key(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Key, Tensor]:
        """Key that tells graphs apart, and the images.

        Raises:
            Refused: the call is none that a graph can stand for.
        """
        key, x = key_of(model, args, kwargs)
        if x.device.type != self._device.device_type:
            expected = f"images on a device of type {self._device.device_type}"
            raise Refused(f"expected {expected}, got a {type(x).__name__} of shape {tuple(x.shape)} on {x.device}")
        if self._device.is_capturing():
            raise Refused("another capture is active")
        return key, x

    def _replay(self, replayed: Replayed, x: Tensor) -> Any:
        self._device.begin()
        replayed.images.copy_(x)
        replayed.replay()
        leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in replayed.results]
        self._device.end()
        return pytree.tree_unflatten(leaves, replayed.structure)

    def _capture(
        self,
        key: tuple[Any, ...],
        model: nn.Module,
        forward: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        x: Tensor,
    ) -> Replayed:
        children = whole(model)
        watch = Watch(children, model)
        if not watch.trustworthy:
            raise Refused("a parameter holds a gradient or was made in inference mode, whose changes nobody sees")
        if any(child.module.training or is_hooked(child.module) for child in children):
            raise Refused("a module in it has a hook or a forward of its own, or is in training mode")
        # Tensors of inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad(), _uncached_autocast(x.device.type):
            images = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
            images.copy_(x)
            own_args = [images if value is x else value for value in args]
            own_kwargs = {name: images if value is x else value for name, value in kwargs.items()}
            try:
                replay, result = self._device.capture(lambda: forward(*own_args, **own_kwargs))
            except RuntimeError as error:  # of CUDA: something in the model is nothing that a graph can do
                raise Uncapturable(f"it cannot be captured: {error}") from error
            kept: list[Any] = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
            kept += [dict(module._mvf.derived) for module in model.modules() if is_fused(module)]
        leaves, structure = pytree.tree_flatten(result)
        while len(self._captured) >= MAX_GRAPHS:
            self._captured.popitem(last=False)
        replayed = self._captured[key] = Replayed(images, replay, leaves, structure, watch, kept)
        self.reason = ""
        return replayed


def _uncached_autocast(kind: str) -> AbstractContextManager[Any]:
    """Autocast as it is, without its cache, whose tensors are gone when it ends: a graph would go on reading them."""
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)


class GraphRoot(Swapped):
    """Mixin of a model whose calls are replayed graphs where they can be."""

    _mvf_graphs: Graphs

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The model's forward."""
        graphs = getattr(module, "_mvf_graphs", None)
        if graphs is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return before.forward(module, *args, **kwargs)
        return graphs(module, functools.partial(before.forward, module), args, kwargs)

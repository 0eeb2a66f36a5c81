"""How an operator of this package comes to exist: one schema, one shape rule, one overload for each backend.

``torch.ops.mobilevit_fast.<op>.<backend>`` is a kernel: ``reference`` in plain PyTorch on any device, ``cpu`` and
``cuda`` in C++, ``triton`` on GPUs. torch's dispatcher is the only registry. C++ libraries register their kernels for
overloads that are defined here, so that schema, shape rule and documentation of an operator stand in one file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.attention import SDPBackend, sdpa_kernel

from mobilevit_fast.kernels import Kernel, Packing, Support
from mobilevit_fast.kernels.order import order_on_gpu
from mobilevit_fast.kernels.packed import in_rows
from mobilevit_fast.ops.checks import check_parameter, check_stored
from mobilevit_fast.ops.declaration import Declaration

NAMESPACE = "mobilevit_fast"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")

BACKENDS = ("cuda", "triton", "cpu", "reference")
"""Every backend there can be."""

_ON_CPU = ("cpu", "reference")

OPS: dict[str, Op] = {}
"""Every operator by name."""


class BackendError(ValueError):
    """A backend asked for by name does not take the case; the message says why."""


class Choice(NamedTuple):
    """The overload that runs, its backend, and why each backend tried before it does not."""

    overload: Any
    backend: str
    passed_over: tuple[str, ...]


class Op:
    """An operator: its schema, its shape rule and its kernels.

    Args:
        name: name within the namespace.
        weights: their declaration, a NamedTuple of ``kernels/weights.py``.
        settings: the arguments behind the weights, as the schema has them.
        output_shape: takes the operator's images, its first weight (or all of them packed), the sizes of its weights by
            name, and its settings; raises ValueError for those that do not fit together, returns the shape of the
            result. A result of four dimensions is always in channels_last memory order.
        kernels: the backends, best first; the last one is ``reference``, which takes everything.
        images: the arguments before the weights.
    """

    def __init__(
        self,
        name: str,
        weights: type[Any],
        settings: str,
        output_shape: Callable[..., Sequence[int]],
        kernels: Sequence[Kernel],
        *,
        images: str = "Tensor x",
    ) -> None:
        self.name = name
        self.declaration = Declaration(weights)
        self.kernels = {kernel.backend: kernel for kernel in kernels}
        self._output_shape = output_shape
        self._images = images.count("Tensor")
        for kernel in kernels:
            overload = f"{name}.{kernel.backend}"
            # Named by backend: torch, as it ends, mistakes overloads of the very same arguments for each other.
            weights_schema = self.declaration.schema
            if kernel.packing:
                weights_schema = f"Tensor {kernel.backend}_packed, {self.declaration.sizes_schema}"
            LIBRARY.define(f"{overload}({images}, {weights_schema}, {settings}) -> Tensor")
            if kernel.packing and kernel.packing.shape:
                self._define_packing(kernel.backend, kernel.packing, kernel.packing.shape, settings)
            if kernel.implementation is not None:
                LIBRARY.impl(overload, self._checked(kernel.backend), "CompositeExplicitAutograd")
            fake = self._fake_of_packed if kernel.packing else self._fake
            torch.library.register_fake(f"{NAMESPACE}::{overload}", fake, lib=LIBRARY)
        self.argument_names = [argument.name for argument in self.overload("reference")._schema.arguments]
        OPS[name] = self

    def overload(self, backend: str) -> Any:
        """The dispatcher's handle of one backend's kernel."""
        return getattr(getattr(getattr(torch.ops, NAMESPACE), self.name), backend)

    def split(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], Any, Sequence[Any]]:
        """Arguments of the schema as images, weights as one tuple, and settings."""
        end = self._images + len(self.declaration.names)
        weights = self.declaration.kind(*arguments[self._images : end])
        return arguments[: self._images], weights, arguments[end:]

    def output_shape(self, *arguments: Any) -> tuple[int, ...]:
        """The shape of the result.

        Raises:
            ValueError: arguments that do not fit together.
        """
        images, weights, settings = self.split(arguments)
        x = images[0]
        sizes = self.declaration.sizes(self.name, x, weights)
        shape = self._output_shape(*images, weights[0], sizes, *settings)
        # Where the image is uint8, the other weights are like the first one.
        self.declaration.check(self.name, weights[0] if x.dtype == torch.uint8 else x, weights, sizes)
        return tuple(shape)

    def call_python(self, backend: str, arguments: Sequence[Any]) -> Tensor:
        """A backend's Python function on arguments of the schema, past the dispatcher and its checks."""
        images, weights, settings = self.split(arguments)
        implementation = self.kernels[backend].implementation
        assert implementation is not None
        return implementation(*images, weights, *settings)

    def reference(self, *arguments: Any) -> Tensor:
        """The result in plain PyTorch."""
        return self.call_python("reference", arguments)

    def _define_packing(
        self, backend: str, packing: Packing, shape: Callable[..., Sequence[int]], settings: str
    ) -> None:
        declared = {argument.split()[-1]: argument for argument in settings.split(", ")}
        parameters = ", ".join((self.declaration.schema, *(declared[name] for name in packing.settings)))
        LIBRARY.define(f"{self.name}.{backend}_pack({parameters}) -> Tensor")
        count = len(self.declaration.names)

        def fake(*parameters: Any) -> Tensor:
            weights = parameters[:count]
            sizes = self.declaration.sizes(self.name, None, weights).values()
            return weights[0].new_empty(tuple(shape(list(sizes), parameters[count:], weights[0].dtype)))

        torch.library.register_fake(f"{NAMESPACE}::{self.name}.{backend}_pack", fake, lib=LIBRARY)

    def arguments_for(self, backend: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Arguments of a backend's overload for the operator's arguments, of which the images may be None.

        Kernels with a packing take the weights packed, in a tensor of their type, and their sizes; the others take the
        weights as they are.
        """
        packing = self.kernels[backend].packing
        if packing is None:
            return tuple(arguments)
        images, weights, settings = self.split(arguments)
        sizes = self.declaration.sizes(self.name, images[0], weights)
        self.declaration.check(self.name, weights[0], weights, sizes)
        named = self.named(arguments)
        others = [named[name] for name in packing.settings]
        packed: Tensor
        if packing.implementation and packing.order:
            order = packing.order(weights[0].device)
            packed = in_rows(packing.implementation(weights, *others), weights[0], self.name, order)
        else:
            packed = self.overload(f"{backend}_pack")(*weights, *others)
        if packed.device.type == "cuda" and not torch.compiler.is_compiling():
            # Kernels that begin before the one before them has ended fetch weights at once. Behind a kernel of another
            # kind, which begins when packing has ended, they find them in place.
            packed.new_zeros(1)
        return (*images, packed, *sizes.values(), *settings)

    def run(self, backend: str, arguments: Sequence[Any]) -> Tensor:
        """A backend's kernel on the operator's arguments."""
        result: Tensor = self.overload(backend)(*self.arguments_for(backend, arguments))
        return result

    def named(self, arguments: Sequence[Any], first: int = 0) -> dict[str, Any]:
        """The operator's arguments from number ``first`` on, by name."""
        return dict(zip(self.argument_names[first:], arguments, strict=True))

    def choose(self, backend: str, device: torch.device, dtype: torch.dtype, arguments: dict[str, Any]) -> Choice:
        """The kernel that ``backend`` ("auto" or a name) means for this device, type and these arguments.

        Raises:
            ValueError: the backend is unknown.
            BackendError: a backend asked for by name does not take the case.
        """
        check_backend(backend)
        passed_over: list[str] = []
        for name in self._order(device, dtype, arguments) if backend == "auto" else (backend,):
            support = self.supports(name, device, dtype, arguments)
            if support.ok:
                return Choice(self.overload(name), name, tuple(passed_over))
            passed_over.append(f"{name}: {support.reason}")
        raise BackendError(f"{NAMESPACE}.{self.name}: {'; '.join(passed_over)}")

    def _order(self, device: torch.device, dtype: torch.dtype, arguments: dict[str, Any]) -> tuple[str, ...]:
        """The backends to be asked, best first."""
        if device.type == "cpu":
            return _ON_CPU

        def sizes() -> Iterable[int]:
            weights = [arguments[name] for name in self.declaration.names]
            return self.declaration.sizes(self.name, None, weights).values()

        return order_on_gpu(device, self.name, dtype, sizes)

    def supports(self, backend: str, device: torch.device, dtype: torch.dtype, arguments: dict[str, Any]) -> Support:
        """Whether one backend takes this device, type and these arguments."""
        kernel = self.kernels.get(backend)
        if kernel is None:
            return Support(False, f"there is no {backend} kernel for {self.name}")
        available = kernel.available(device)
        return kernel.takes(dtype, arguments) if available.ok else available

    def __call__(self, backend: str, *arguments: Any) -> Tensor:
        """Run the operator; differentiable, by the reference's gradient, where an input requires a gradient.

        Within forward-mode differentiation, the transforms of ``torch.func`` and traces, the reference itself runs.
        """
        x = arguments[0]
        if not isinstance(x, Tensor):
            raise TypeError(f"{NAMESPACE}.{self.name}: expected a torch.Tensor, got {type(x).__name__}")
        self.output_shape(*arguments)
        chosen = self.choose(backend, x.device, result_dtype(arguments), self.named(arguments)).backend
        if is_transformed():
            return self._transformed(arguments)
        if is_read_elsewhere():
            return self.reference(*arguments)
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            if torch.compiler.is_compiling():
                return self.reference(*arguments)  # the compiler differentiates it itself
            return _ReferenceGradient.apply(self, chosen, *arguments)
        return self.run(chosen, arguments)

    def _transformed(self, arguments: Sequence[Any]) -> Tensor:
        """The reference, by the only attention of PyTorch's that all transforms and second derivatives go through."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.reference(*arguments)

    def _fake(self, *arguments: Any) -> Tensor:
        return _empty(self.output_shape(*arguments), arguments)

    def _fake_of_packed(self, *arguments: Any) -> Tensor:
        end = self._images + 1 + len(self.declaration.size_names)
        images, packed, sizes = arguments[: self._images], arguments[self._images], arguments[self._images + 1 : end]
        named = dict(zip(self.declaration.size_names, sizes, strict=True))
        if images[0].dtype != torch.uint8:
            check_parameter(self.name, images[0], "packed weights", packed, packed.shape)
        return _empty(self._output_shape(*images, packed, named, *arguments[end:]), arguments)

    def _checked(self, backend: str) -> Callable[..., Tensor]:
        def kernel(*arguments: Any) -> Tensor:
            self.output_shape(*arguments)
            check_stored(self.name, self.argument_names, arguments)
            # Called by name, nobody has asked yet.
            support = self.supports(backend, arguments[0].device, result_dtype(arguments), self.named(arguments))
            if not support.ok:
                raise ValueError(f"{NAMESPACE}.{self.name}: {support.reason} (x.shape={tuple(arguments[0].shape)})")
            with _without_autocast(arguments[0]):
                return as_channels_last(self.call_python(backend, arguments), arguments)

        return kernel


def _empty(shape: Sequence[int], arguments: Sequence[Any]) -> Tensor:
    """The result of a kernel on these arguments, without values."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=result_dtype(arguments), device=arguments[0].device, memory_format=layout)


class _ReferenceGradient(torch.autograd.Function):
    """Forward by any kernel; backward through the reference, whose intermediate results are computed again.

    A backward that is to be differentiated in its turn (``create_graph``) leaves the reference's graph behind.
    """

    @staticmethod
    def forward(ctx: Any, op: Op, backend: str, *arguments: Any) -> Tensor:
        ctx.op = op
        ctx.others = [None if isinstance(a, Tensor) else a for a in arguments]
        ctx.positions = [i for i, a in enumerate(arguments) if isinstance(a, Tensor)]
        ctx.save_for_backward(*(arguments[i] for i in ctx.positions))
        return op.run(backend, arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        arguments = list(ctx.others)
        again = torch.is_grad_enabled()
        saved = ctx.saved_tensors  # once: checkpoints of activations give each only once
        wanted = [p for p in ctx.positions if ctx.needs_input_grad[p + 2]]
        with torch.enable_grad(), _without_autocast(saved[0]):
            for position, tensor in zip(ctx.positions, saved, strict=True):
                # A view of its own, since one tensor may be several arguments.
                own = tensor.view_as(tensor) if again else tensor.detach().requires_grad_(position in wanted)
                arguments[position] = own
            output = ctx.op._transformed(arguments) if again else ctx.op.reference(*arguments)
        computed = torch.autograd.grad(output, [arguments[p] for p in wanted], gradients, create_graph=again)
        result: list[Any] = [None] * (len(arguments) + 2)
        for position, gradient in zip(wanted, computed, strict=True):
            result[position + 2] = gradient
        return tuple(result)


def is_transformed() -> bool:
    """Whether forward-mode differentiation or a transform of ``torch.func`` (vmap, grad, jvp, ...) is under way.

    Kernels would be given the values alone, without tangents and without what is stacked.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def is_read_elsewhere() -> bool:
    """Whether a tool writes down what is called, for programs that know PyTorch's functions alone.

    These are torch.jit.trace and what is made from it, ONNX's exporters and make_fx; not torch.compile and torch.export
    by themselves, whose graphs hold operators.
    """
    if torch.compiler.is_compiling():
        onnx = sys.modules.get("torch.onnx")  # imported by its first use
        return onnx is not None and not torch.compiler.is_dynamo_compiling() and onnx.is_in_onnx_export()
    return torch._C._is_tracing() or (torch._C._len_torch_dispatch_stack() > 0 and get_proxy_mode() is not None)


def is_autocasting(kind: str) -> bool:
    """Whether autocast is on for a type of device."""
    if kind in ("cpu", "cuda"):  # which torch.compile traces everywhere; the general question not before torch 2.12
        return torch.is_autocast_enabled(kind)
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Kernels compute in the type of their input, whatever autocast would have PyTorch's functions do."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if is_autocasting(kind) else nullcontext()


def check_backend(backend: str) -> None:
    """Refuse a name that is neither "auto" nor a backend."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"{NAMESPACE}: expected a backend among {', '.join(('auto', *BACKENDS))}, got {backend!r}")


def as_channels_last(y: Tensor, inputs: Sequence[Any]) -> Tensor:
    """``y`` in channels_last strides to the letter (the fakes promise them), and never one of the inputs itself."""
    if y.dim() != 4:
        return y
    _, channels, height, width = y.shape
    exact = y.stride() == (channels * height * width, 1, width * channels, channels)
    if exact and not any(y is x for x in inputs):
        return y
    return torch.empty_like(y, memory_format=torch.channels_last).copy_(y)


def result_dtype(arguments: Sequence[Any]) -> torch.dtype:
    """The type that an operator computes in and returns: the input's or, where that is uint8, the first weight's."""
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    return next((t.dtype for t in tensors if t.dtype.is_floating_point), tensors[0].dtype)

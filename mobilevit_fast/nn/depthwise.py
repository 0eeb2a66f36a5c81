"""Depthwise and depthwise separable convolutions as modules of their own."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn

from mobilevit_fast.acceleration.arguments import GEOMETRY, check
from mobilevit_fast.acceleration.watch import is_hooked
from mobilevit_fast.ops.checks import check_activation
from mobilevit_fast.ops.depthwise_conv2d import depthwise_conv2d
from mobilevit_fast.ops.depthwise_separable_conv2d import depthwise_separable_conv2d
from mobilevit_fast.ops.registry import check_backend

_Pair = tuple[int, int]


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one filter per channel, and an activation, in one kernel; differentiable.

    Built by its constructor or, with the parameters of a ``nn.Conv2d``, by :meth:`from_module`.

    Args:
        channels: inputs and outputs.
        kernel_size, stride, padding, dilation, bias, device, dtype: as for ``nn.Conv2d``.
        activation: a name in ``mobilevit_fast.ops.ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Input (N, C, H, W), any memory layout; result (N, C, Ho, Wo) in channels_last. Parameters are those of
    ``nn.Conv2d(channels, channels, kernel_size, groups=channels)``.

    Raises:
        ValueError: an argument that does not fit; when called, an input that does not.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        activation: str = "none",
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_backend(backend)
        check_activation("depthwise_conv2d", "activation", activation)
        name = type(self).__name__
        check(name, channels=channels, bias=bias, dtype=dtype)
        check(name, GEOMETRY, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
        geometry = (kernel_size, stride, padding, dilation)
        super().__init__(channels, channels, *geometry, groups=channels, bias=bias, device=device, dtype=dtype)
        self.activation = activation
        self.backend = backend

    @classmethod
    def from_module(cls, module: nn.Conv2d, *, activation: str = "none", backend: str = "auto") -> DepthwiseConv2d:
        """A module that shares the parameters of a depthwise ``nn.Conv2d``.

        Raises:
            TypeError: not exactly a ``nn.Conv2d``.
            ValueError: not depthwise, or not padded with zeros by a number of pixels.
        """
        geometry = _depthwise_geometry("DepthwiseConv2d.from_module", module)
        bias = module.bias is not None
        settings: dict[str, Any] = {"activation": activation, "backend": backend, "device": "meta"}
        twin = cls(module.in_channels, *geometry, bias, **settings)
        twin.weight, twin.bias = module.weight, module.bias
        return twin.train(module.training)

    def forward(self, input: Tensor) -> Tensor:
        geometry = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        settings = {"activation": self.activation, "backend": self.backend}
        return depthwise_conv2d(input, self.weight, self.bias, **geometry, **settings)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}, backend={self.backend}"


def _check_conv(caller: str, module: nn.Conv2d) -> None:
    if type(module) is not nn.Conv2d:
        raise TypeError(f"{caller}: expected torch.nn.Conv2d, got {type(module).__qualname__}")
    if is_hooked(module):
        raise ValueError(f"{caller}: expected a convolution without hooks, got one with a hook or forward of its own")


def _depthwise_geometry(caller: str, module: nn.Conv2d) -> tuple[_Pair, _Pair, _Pair, _Pair]:
    """Kernel size, stride, padding and dilation of a depthwise convolution, after checking that it is one."""
    _check_conv(caller, module)
    if not module.groups == module.in_channels == module.out_channels:
        counts = f"{module.in_channels} inputs, {module.out_channels} outputs, {module.groups} groups"
        raise ValueError(f"{caller}: expected one filter for each channel, got {counts}")
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        got = f"padding {module.padding!r} in mode {module.padding_mode!r}"
        raise ValueError(f"{caller}: expected padding with zeros by a number, got {got}")
    size, stride, padding, dilation = (
        (value[0], value[1]) for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    return size, stride, padding, dilation


class DepthwiseSeparableConv2d(nn.Module):
    """A depthwise k×k convolution and a pointwise 1×1 one, each with bias and activation, as one operator.

    Args:
        in_channels, out_channels: of the whole.
        kernel_size, stride, padding, dilation: of the depthwise part, as for ``nn.Conv2d``.
        bias: whether both parts have one.
        depthwise_activation, pointwise_activation: names in ``mobilevit_fast.ops.ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Input (N, C, H, W), any memory layout; result (N, O, Ho, Wo) in channels_last. Differentiable.

    Raises:
        ValueError: an argument that does not fit; when called, an input that does not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        depthwise_activation: str = "none",
        pointwise_activation: str = "none",
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_backend(backend)
        check_activation("depthwise_separable_conv2d", "depthwise_activation", depthwise_activation)
        check_activation("depthwise_separable_conv2d", "pointwise_activation", pointwise_activation)
        name = type(self).__name__
        check(name, in_channels=in_channels, out_channels=out_channels, bias=bias, dtype=dtype)
        check(name, GEOMETRY, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
        geometry = (kernel_size, stride, padding, dilation)
        factory = {"device": device, "dtype": dtype}
        self.depthwise = nn.Conv2d(in_channels, in_channels, *geometry, groups=in_channels, bias=bias, **factory)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)
        self.depthwise_activation = depthwise_activation
        self.pointwise_activation = pointwise_activation
        self.backend = backend

    @classmethod
    def from_convolutions(
        cls,
        depthwise: nn.Conv2d,
        pointwise: nn.Conv2d,
        *,
        depthwise_activation: str = "none",
        pointwise_activation: str = "none",
        backend: str = "auto",
    ) -> Self:
        """A module that shares two convolutions, such as ``conv_dw`` and ``conv_pw`` of timm's ``SeparableConv2d``.

        Raises:
            TypeError: not exactly ``nn.Conv2d``.
            ValueError: the first is not depthwise, or not padded with zeros by a number of pixels; the second is not
                1×1 over as many channels.
        """
        caller = f"{cls.__name__}.from_convolutions"
        geometry = _depthwise_geometry(caller, depthwise)
        channels = depthwise.out_channels
        _check_conv(caller, pointwise)
        settings = (pointwise.in_channels, pointwise.kernel_size, pointwise.stride, pointwise.padding, pointwise.groups)
        if settings != (channels, (1, 1), (1, 1), (0, 0), 1):
            raise ValueError(f"{caller}: expected a dense 1x1 convolution of {channels} channels, got {pointwise}")
        module = cls(
            channels,
            pointwise.out_channels,
            *geometry,
            depthwise_activation=depthwise_activation,
            pointwise_activation=pointwise_activation,
            backend=backend,
            device="meta",
        )
        module.depthwise, module.pointwise = depthwise, pointwise
        return module.train(depthwise.training)

    def forward(self, input: Tensor) -> Tensor:
        depthwise, pointwise = self.depthwise, self.pointwise
        return depthwise_separable_conv2d(
            input,
            depthwise.weight,
            depthwise.bias,
            pointwise.weight,
            pointwise.bias,
            stride=depthwise.stride,
            padding=depthwise.padding,  # type: ignore[arg-type]
            dilation=depthwise.dilation,
            depthwise_activation=self.depthwise_activation,
            pointwise_activation=self.pointwise_activation,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        activations = f"activations={self.depthwise_activation}, {self.pointwise_activation}"
        return f"{activations}, backend={self.backend}"

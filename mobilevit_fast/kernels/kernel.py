"""One backend's implementation of an operator, as its backend describes it to the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.support import Support

ACTIVATIONS = ("none", "relu", "silu")
"""Those that kernels know; the reference knows more."""

_OLDEST = (8, 0)  # Ampere: asynchronous copies and bfloat16


@dataclass(frozen=True)
class Packing:
    """A C++ kernel's order of the weights: it takes them packed, and their sizes, in place of the weights themselves.

    Python packs by ``implementation``, or C++ by ``<op>.<backend>_pack``, of which ``shape`` then knows the result.

    Args:
        implementation: takes the operator's weights as one tuple and these settings, returns them in words of float32.
        order: takes a device, names the order in which weights on it are packed by ``implementation``.
        shape: takes the weights' sizes, these settings and the weights' type.
        settings: names of the operator's other arguments that packing depends on.
    """

    implementation: Callable[..., Tensor] | None = None
    order: Callable[[torch.device], str] | None = None
    shape: Callable[[Sequence[int], Sequence[Any], torch.dtype], Sequence[int]] | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """One backend's implementation of an operator.

    ``available(device)`` says whether it runs on a device of this machine, ``takes(dtype, arguments)`` whether it takes
    a floating point type and the operator's arguments by name, of which the images may be missing. Both serve the
    automatic choice, the report and the error message alike. ``implementation`` is a Python function of the operator's
    images, its weights as one tuple, and its settings, or None where a C++ library registers the kernel, which has a
    ``packing``.
    """

    backend: str
    available: Callable[[torch.device], Support]
    takes: Callable[[torch.dtype, dict[str, Any]], Support]
    implementation: Callable[..., Tensor] | None = None
    packing: Packing | None = None


def new_enough(device: torch.device) -> Support:
    """Whether a GPU, where it is NVIDIA's, is one that the kernels are written for."""
    if device.type == "cuda" and torch.version.cuda and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        if (properties.major, properties.minor) < _OLDEST:
            found = f"{properties.major}.{properties.minor}"
            return Support(False, f"expected an NVIDIA GPU of compute capability 8.0 or later, got {found}")
    return Support(True)


def image_of(arguments: dict[str, Any]) -> Tensor | None:
    """The image where it is given, but not in a graph, which may be meant for other sizes too."""
    return None if torch.compiler.is_compiling() else arguments.get("x")


def takes_types(
    dtypes: Sequence[torch.dtype],
    takes_arguments: Callable[[dict[str, Any]], Support] | None = None,
    *,
    bytes_too: bool = False,
) -> Callable[[torch.dtype, dict[str, Any]], Support]:
    """The predicate of a kernel that takes these types and, in every argument that names one, ``ACTIVATIONS``.

    ``takes_arguments`` answers for the operator's arguments by name, whatever their type.

    With ``bytes_too`` it takes uint8 images where the operator does.
    """

    def takes(dtype: torch.dtype, arguments: dict[str, Any]) -> Support:
        x = arguments.get("x")
        if x is not None and x.dtype == torch.uint8 and not bytes_too:
            return Support(False, "expected an image of a floating point type, got torch.uint8")
        if dtype not in dtypes:
            return Support(False, f"expected one of {', '.join(map(str, dtypes))}, got {dtype}")
        for name, value in arguments.items():
            if name.endswith("activation") and value not in ACTIVATIONS:
                return Support(False, f"expected {name} among {', '.join(ACTIVATIONS)}, got {value!r}")
        return Support(True) if takes_arguments is None else takes_arguments(arguments)

    return takes

"""One backend's implementation of an operator, as its backend describes it to the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.support import Support


@dataclass(frozen=True)
class Packing:
    """That a C++ kernel takes its parameters in an order of its own, made once: its schema has one more argument.

    Where C++ packs, by ``<backend>_pack``, that is ``Tensor? packed``, and the kernel packs by itself where it is None.
    Where Python does, it is ``Tensor packed``.

    Args:
        floats: takes the operator's weights and these settings, returns how many numbers come out of
            ``<backend>_pack``.
        implementation: takes the same, returns the weights packed.
        settings: names of the operator's other arguments that packing depends on.
    """

    floats: Callable[..., int] | None = None
    implementation: Callable[..., Tensor] | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """One backend's implementation of an operator.

    ``available(device)`` says whether it runs on a device of this machine, ``takes(dtype, arguments)`` whether it takes
    a floating point type and the operator's arguments by name, of which the images may be missing. Both serve the
    automatic choice, the report and the error message alike. ``implementation`` is a Python function with the
    operator's signature, or None where a C++ library registers the kernel.
    """

    backend: str
    available: Callable[[torch.device], Support]
    takes: Callable[[torch.dtype, dict[str, Any]], Support]
    implementation: Callable[..., Tensor] | None = None
    packing: Packing | None = None


def takes_types(
    dtypes: Sequence[torch.dtype], activations: Sequence[str], *, bytes_too: bool = False
) -> Callable[[torch.dtype, dict[str, Any]], Support]:
    """Of a kernel that takes these types and, in every argument that names one, these activations.

    With ``bytes_too`` it takes images of bytes where the operator does.
    """

    def takes(dtype: torch.dtype, arguments: dict[str, Any]) -> Support:
        x = arguments.get("x")
        if x is not None and x.dtype == torch.uint8 and not bytes_too:
            return Support(False, "expected an image of a floating point type, got torch.uint8")
        if dtype not in dtypes:
            return Support(False, f"expected one of {', '.join(map(str, dtypes))}, got {dtype}")
        for name, value in arguments.items():
            if name.endswith("activation") and value not in activations:
                return Support(False, f"expected {name} among {', '.join(activations)}, got {value!r}")
        return Support(True)

    return takes

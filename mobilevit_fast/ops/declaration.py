"""Schema and checks that follow from the declaration of an operator's weights (``kernels/weights.py``)."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from torch import Tensor

from mobilevit_fast.kernels.weights import Shape
from mobilevit_fast.ops.checks import check_parameter, refuse


class Size(NamedTuple):
    """A size of a weight: ``multiple`` times a named one, or a number where it has no name."""

    multiple: int
    name: str


def _size(size: int | str) -> Size:
    if isinstance(size, int):
        return Size(size, "")
    multiple, _, name = size.rpartition(" * ")
    return Size(int(multiple or 1), name)


class Field(NamedTuple):
    """A weight: its name in messages, its sizes and how they read, whether it may be missing and may be float32."""

    words: str
    sizes: tuple[Size, ...]
    text: str
    optional: bool
    float32: bool


class Declaration:
    """The weights of an operator.

    Args:
        kind: a NamedTuple of ``kernels/weights.py``.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.names: tuple[str, ...] = kind._fields
        self.fields: list[Field] = []
        for name, hint in get_type_hints(kind, include_extras=True).items():
            tensor, shape = get_args(hint)
            assert isinstance(shape, Shape), name
            text = f"({', '.join(map(str, shape.sizes))}{',' if len(shape.sizes) == 1 else ''})"
            optional = isinstance(tensor, types.UnionType)
            self.fields.append(
                Field(name.replace("_", " "), tuple(map(_size, shape.sizes)), text, optional, shape.float32)
            )
        named = (size.name for field in self.fields for size in field.sizes if size.name)
        self.size_names = tuple(dict.fromkeys(named))

    @property
    def schema(self) -> str:
        """The weights as arguments of an operator's schema."""
        kinds = ("Tensor?" if field.optional else "Tensor" for field in self.fields)
        return ", ".join(f"{kind} {name}" for kind, name in zip(kinds, self.names, strict=True))

    @property
    def sizes_schema(self) -> str:
        """Their sizes as arguments of an operator's schema, in the order of :meth:`sizes`."""
        return ", ".join(f"int {name.replace(' ', '_')}" for name in self.size_names)

    def sizes(self, op: str, x: Tensor | None, weights: Sequence[Tensor | None]) -> dict[str, int]:
        """Sizes by name, each as the first weight that has it says; none of them 0.

        Raises:
            TypeError: a weight is no tensor.
            ValueError: such a weight has another number of dimensions, or a size of 0.
        """
        found: dict[str, int] = {}
        for field, tensor in zip(self.fields, weights, strict=True):
            if not isinstance(tensor, Tensor) and not (tensor is None and field.optional):
                kind = type(tensor).__name__
                raise TypeError(f"mobilevit_fast.{op}: expected {field.words} to be a torch.Tensor, got {kind}")
            if tensor is None or all(size.name in found or not size.name for size in field.sizes):
                continue
            if tensor.dim() != len(field.sizes) or 0 in tensor.shape:
                refuse(op, f"{field.words} of shape {field.text}, none of them 0", tuple(tensor.shape), x)
            for size, value in zip(field.sizes, tensor.shape, strict=True):
                if size.name and size.name not in found:
                    found[size.name] = value
        return {name: found[name] for name in self.size_names}

    def check(self, op: str, like: Tensor, weights: Sequence[Tensor | None], sizes: dict[str, int]) -> None:
        """Shapes of these sizes, and the type and device of ``like``.

        Raises:
            ValueError: what was expected, and what came.
        """
        for field, tensor in zip(self.fields, weights, strict=True):
            if tensor is None:
                continue
            shape = [size.multiple * sizes[size.name] if size.name else size.multiple for size in field.sizes]
            check_parameter(op, like, field.words, tensor, shape, float32=field.float32)

"""Outputs of the models: dataclasses that can also be read as an ordered mapping or as a tuple."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch


class ModelOutput(Mapping[str, Any]):
    """Base of the outputs. Fields that are None are absent from the mapping and from the tuple.

    `output.logits`, `output["logits"]` and, by position among the fields that are present, `output[0]` or
    `output[:2]` read the same tensors. As with any mapping, iterating gives the names; `to_tuple()` gives the values.
    Every subclass is a pytree node, so outputs pass through `torch.export` and `torch.compile`.

    As with transformers' outputs, tools may assign entries, also of names that are no fields, and make an output of a
    mapping of its fields: `type(output)({name: value.float() for name, value in output.items()})`.
    """

    _first_field: ClassVar[str]

    def __post_init__(self) -> None:
        given = getattr(self, self._first_field)
        if isinstance(given, dict):
            setattr(self, self._first_field, None)
            for name, value in given.items():
                self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return dict(self._present())[key]
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._present()])

    def __len__(self) -> int:
        return len(self._present())

    # Mapping compares by value, and the truth value of a comparison of tensors is not defined.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def to_tuple(self) -> tuple[Any, ...]:
        """The values of the fields that are not None, in the order of the fields."""
        return tuple([value for _, value in self._present()])

    def _present(self) -> list[tuple[str, Any]]:
        # `fields` accepts instances of dataclasses only, which every subclass is.
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        named = {name: getattr(self, name) for name in names} | vars(self)  # entries that are no fields come last
        return [(name, value) for name, value in named.items() if value is not None]


@dataclass(eq=False)
class EncoderOutput(ModelOutput):
    """Output of `MobileViTEncoder`.

    Attributes:
        last_hidden_state: output of the last layer, (batch, neck_hidden_sizes[5], height, width).
        hidden_states: with `output_hidden_states`, the outputs of the five layers, (batch, channels, height, width).
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass(eq=False)
class MobileViTModelOutput(ModelOutput):
    """Output of `MobileViTModel`.

    Attributes:
        last_hidden_state: (batch, neck_hidden_sizes[6], height, width), or neck_hidden_sizes[5] channels without
            `expand_output`; height and width are the image's divided by `output_stride`, rounded up.
        pooler_output: its mean over height and width, (batch, neck_hidden_sizes[6]); None without `expand_output`.
        hidden_states: as in `EncoderOutput`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass(eq=False)
class ImageClassifierOutput(ModelOutput):
    """Output of `MobileViTForImageClassification`.

    Attributes:
        loss: with `labels`, a scalar.
        logits: (batch, num_labels), before softmax.
        hidden_states: as in `EncoderOutput`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass(eq=False)
class SemanticSegmenterOutput(ModelOutput):
    """Output of `MobileViTForSemanticSegmentation`.

    Attributes:
        loss: with `labels`, a scalar.
        logits: (batch, num_labels, height, width), before softmax; height and width are those of the features, the
            image's divided by `output_stride`, not the image's.
        hidden_states: as in `EncoderOutput`.
        attentions: always None; MobileViT does not return attention weights.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: None = None


for _output_class in (EncoderOutput, MobileViTModelOutput, ImageClassifierOutput, SemanticSegmenterOutput):
    _output_class._first_field = fields(_output_class)[0].name
    torch.export.register_dataclass(
        _output_class, serialized_type_name=f"{_output_class.__module__}.{_output_class.__qualname__}"
    )

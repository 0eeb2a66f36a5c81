"""The model of an engine: images in, what was asked for out, whichever library the model is from."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration import PixelNormalization, pixels_of
from mobilevit_fast.engine.arguments import positive
from mobilevit_fast.engine.embedding import embedding_of, has_embedding

OUTPUTS = ("label", "score", "embedding", "logits", "mask")
"""Outputs that an engine can be asked for: classes, their probabilities, the features before the classifier, its
results, and of a segmentation the class of every pixel."""


NOT_FINITE = "the model's answer is NaN or infinite"


class _Kind(NamedTuple):
    name: str
    outputs: tuple[str, ...]


_OF_CLASSIFICATION = _Kind("a classification model", OUTPUTS[:4])
_OF_SEGMENTATION = _Kind("a segmentation model", OUTPUTS[3:])


class Wanted(NamedTuple):
    """The outputs asked for, and of how many classes."""

    outputs: tuple[str, ...]
    top_k: int


class Answers(NamedTuple):
    """Answers of a model for N images; None for what was not asked for.

    Attributes:
        scores: (N, top_k), probabilities, largest first.
        indices: (N, top_k), classes of the same.
        embedding: (N, features), float32.
        logits: (N, classes), float32.
        mask: (N, height, width), class ids of the pixels of the prepared image.
        finite: (N,), whether the logits that a mask is made from are; the others show it themselves.
    """

    scores: Tensor | None = None
    indices: Tensor | None = None
    embedding: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    finite: Tensor | None = None


class Row(NamedTuple):
    """Answers of a model for one image; see `Answers`."""

    scores: tuple[float, ...] = ()
    indices: tuple[int, ...] = ()
    embedding: np.ndarray | None = None
    logits: np.ndarray | None = None
    mask: np.ndarray | None = None


def rows_of(answers: Answers) -> list[Row | str]:
    """Answers of the host, image by image; in place of one that is not finite, that."""
    columns: list[Iterable[Any]] = []
    count = next(len(tensor) for tensor in answers if tensor is not None)
    finite: list[bool] = [True] * count if answers.finite is None else answers.finite.tolist()
    for name in Row._fields:
        tensor = getattr(answers, name)
        if tensor is None:
            columns.append(itertools.repeat(Row._field_defaults[name], count))
            continue
        if tensor.is_floating_point():
            fine = tensor.isfinite().flatten(1).all(dim=1).tolist()
            finite = [a and b for a, b in zip(finite, fine, strict=True)]
        columns.append(map(tuple, tensor.tolist()) if name in ("scores", "indices") else tensor.numpy())
    rows = map(Row._make, zip(*columns, strict=True))
    return [row if fine else NOT_FINITE for row, fine in zip(rows, finite, strict=True)]


class EngineModel:
    """A classification or segmentation model behind one call.

    Args:
        model: of transformers, timm or this package; or any module that returns logits, or an object that has them.
        wanted: what to answer.
        id2label: names of the classes; by default those of the model's configuration.
        normalization: of uint8 images. A model that was accelerated with another one is given images as numbers.

    Raises:
        ValueError: outputs that are not known, or that this model has not.
    """

    def __init__(
        self,
        model: nn.Module,
        wanted: Wanted,
        id2label: Mapping[int, str] | None = None,
        normalization: PixelNormalization | None = None,
    ) -> None:
        unknown = [name for name in wanted.outputs if name not in OUTPUTS]
        if unknown or not wanted.outputs:
            raise ValueError(f"outputs: expected some of {', '.join(OUTPUTS)}, got {', '.join(unknown) or 'none'}")
        positive("top_k", wanted.top_k)
        if _is_segmentation(model):
            _refuse(wanted.outputs, _OF_SEGMENTATION)
        elif has_embedding(model):
            _refuse(wanted.outputs, _OF_CLASSIFICATION)
        elif "embedding" in wanted.outputs:
            raise ValueError(f"outputs: expected a model with features for an embedding, got {type(model).__name__}")
        self.module = model
        self._embedded = embedding_of(model) if "embedding" in wanted.outputs else None
        self.wanted = wanted
        config = getattr(model, "config", None)
        self.id2label = _names_of_classes(id2label or getattr(config, "id2label", None) or {})
        first = next(model.parameters(), None)
        self.dtype = torch.float32 if first is None else first.dtype
        self.device = torch.device("cpu") if first is None else first.device
        self._normalization = normalization
        self.takes_uint8 = normalization is not None and pixels_of(model) == normalization

    def wanting(self, wanted: Wanted) -> EngineModel:
        """The same model, asked for something else."""
        return EngineModel(self.module, wanted, self.id2label, self._normalization)

    def label(self, index: int) -> str:
        """The name of a class, and one like transformers' where there is none."""
        label = self.id2label.get(index)
        return f"LABEL_{index}" if label is None else label

    def __call__(self, pixel_values: Tensor) -> Answers:
        """Answers for images (N, 3, height, width), in the model's type or uint8 where it takes that.

        Raises:
            ValueError: a model without logits, or a mask of one that classifies, or the other way round.
        """
        outputs = self.wanted.outputs
        embedding = None
        if self._embedded is not None:
            embedding, logits = self._embedded(pixel_values)
        else:
            logits = _logits(self.module(pixel_values))
        if logits.ndim == 4:
            _refuse(outputs, _OF_SEGMENTATION)
            wanted = logits.float() if "logits" in outputs else None
            if "mask" not in outputs:
                return Answers(logits=wanted)
            size = pixel_values.shape[-2:]
            full = nn.functional.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
            mask = full.argmax(dim=1)  # (N, classes, height, width) -> (N, height, width)
            mask = mask.to(torch.uint8 if logits.shape[1] <= 256 else torch.int32)
            return Answers(logits=wanted, mask=mask, finite=logits.isfinite().flatten(1).all(dim=1))
        _refuse(outputs, _OF_CLASSIFICATION)
        scores = indices = None
        if "label" in outputs or "score" in outputs:
            probabilities = logits.float().softmax(dim=-1)
            scores, indices = probabilities.topk(min(self.wanted.top_k, probabilities.shape[-1]), dim=-1)
        return Answers(
            scores,
            indices,
            None if embedding is None else embedding.float(),
            logits.float() if "logits" in outputs else None,
        )

    def settings_fingerprint(self) -> str:
        """Digest of the plain values that modules hold (strides, heads, epsilons, activations), which also decide."""
        digest = hashlib.sha256()
        for name, module in self.module.named_modules():
            kind = getattr(type(module), "__name__", "")
            digest.update(f"{name} {kind} {sorted(_plain_values(vars(module)))}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Digest of the parameters and buffers."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
                continue
            saved = io.BytesIO()  # packed weights of quantised modules, and what modules add of their own
            torch.save(value, saved)
            digest.update(f"{name}\n".encode() + saved.getvalue())
        return digest.hexdigest()


def _names_of_classes(id2label: Any) -> dict[int, str]:
    """Names by number, which JSON writes as text."""
    if not isinstance(id2label, Mapping) or not all(isinstance(name, str) for name in id2label.values()):
        raise TypeError(f"id2label: expected names of classes by their numbers, got {id2label!r:.200}")
    try:
        return {int(number): name for number, name in id2label.items()}
    except (TypeError, ValueError):
        raise TypeError(f"id2label: expected whole numbers of classes, got {[*id2label]!r:.200}") from None


_NO_SETTINGS = ("training", "name_or_path")
"""Values of a module that its answers do not depend on."""


def _plain_values(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name.startswith("_") or name in _NO_SETTINGS:
            continue
        several = value if isinstance(value, tuple | list) else (value,)
        if all(isinstance(one, bool | int | float | str) for one in several):
            yield name, repr(tuple(several))
        elif callable(value) and not isinstance(value, nn.Module):
            yield name, getattr(value, "__qualname__", type(value).__name__)


def default_outputs(model: nn.Module) -> tuple[str, ...]:
    """The class of every pixel of a segmentation model, else the classes of the image and their probabilities."""
    return ("mask",) if _is_segmentation(model) else ("label", "score")


def _is_segmentation(model: nn.Module) -> bool:
    return isinstance(getattr(model, "segmentation_head", None), nn.Module)


def _refuse(outputs: Sequence[str], kind: _Kind) -> None:
    wrong = [name for name in outputs if name not in kind.outputs]
    if wrong:
        raise ValueError(f"outputs: expected {', '.join(kind.outputs)} of {kind.name}, got {', '.join(wrong)}")


def _logits(result: Any) -> Tensor:
    logits = result if isinstance(result, Tensor) else getattr(result, "logits", None)
    if not isinstance(logits, Tensor):
        raise ValueError(f"expected a model that returns logits, got a {type(result).__name__}")
    return logits

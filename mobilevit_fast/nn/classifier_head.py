"""The classifier of a MobileViT as one operator, inside the model that owns its parts."""

from __future__ import annotations

import torch

from mobilevit_fast.nn.conv2d_bias_act import require_pointwise
from mobilevit_fast.nn.fused import Bound, Fused, bind
from mobilevit_fast.nn.parameters import affine
from mobilevit_fast.nn.parts import ClassifierParts
from mobilevit_fast.nn.pixels import PixelNormalization
from mobilevit_fast.ops.classifier_head import OP


class ClassifierHead(Fused):
    """A classification model whose last 1×1 convolution, pooling and linear layer run as one kernel.

    The parts lie at two levels of the model, so it is the model that is fused; everything before the head is called as
    the modules it is. How a model calls them differs between libraries: the integrations define ``run`` or ``forward``.
    """

    kind = "classifier_head"
    calls_children = True

    @classmethod
    def bind(cls, parts: ClassifierParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        require_pointwise("last convolution", parts.expand)
        linear = parts.linear
        arguments = (*affine(parts.expand, dtype), linear.weight.to(dtype), linear.bias, parts.expand.activation)
        return {cls.kind: bind(OP, backend, dtype, 1, *arguments)}

    @classmethod
    def bind_bytes(
        cls, parts: ClassifierParts, backend: str, dtype: torch.dtype, pixels: PixelNormalization
    ) -> dict[str, Bound] | None:
        return cls.bind(parts, backend, dtype)  # of the model's image it never sees the numbers

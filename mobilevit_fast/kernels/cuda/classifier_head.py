"""Parameters of the classifier head in the order of its kernel (``csrc/cuda/classifier_head_kernel.h``)."""

from __future__ import annotations

from torch import Tensor

from mobilevit_fast.kernels.cuda.conv2d_bias_act import conv2d_bias_act


def classifier_head(
    expand_weight: Tensor, expand_scale: Tensor | None, expand_bias: Tensor | None, weight: Tensor, bias: Tensor | None
) -> dict[str, Tensor]:
    """The operator's parameters: those of the expansion for the kernel, the linear layer's as they are, for torch."""
    packed = {
        f"expand_{name}": value for name, value in conv2d_bias_act(expand_weight, expand_scale, expand_bias, 0).items()
    }
    return {**packed, "weight": weight, **({} if bias is None else {"bias": bias.to(weight.dtype)})}

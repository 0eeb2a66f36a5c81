"""The networks that are measured, with random weights that are calibrated, and how right a result is."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.registry import MODELS, SIZES
from mobilevit_fast.checkpoints.names import from_huggingface
from mobilevit_fast.config import MobileViTConfig
from testing.pairs import CLASSIFICATION, SEGMENTATION, theirs_for
from testing.peers import import_timm

TIMM_NAMES = {"S": "mobilevit_s", "XS": "mobilevit_xs", "XXS": "mobilevit_xxs"}
NUM_LABELS, NUM_CLASSES = 1000, 21
_CALIBRATION_IMAGES = 4


def build_model(name: str, image_size: int = 256, seed: int = 0) -> nn.Module:
    """transformers' model of a name in the registry, in float32 and evaluation mode, the same for the same seed."""
    model = MODELS[name]
    if model.preset is None:
        raise ValueError(f"expected a MobileViT, one of {', '.join(SIZES)}, got {name}")
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
    kind: dict[str, Any] = {"num_labels": NUM_LABELS}
    if model.segmentation:
        kind = {"num_labels": NUM_CLASSES, "output_stride": 16, "aspp_dropout_prob": 0.0}
    config = MobileViTConfig.preset(model.preset, image_size=image_size, **kind, **dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = theirs_for(SEGMENTATION if model.segmentation else CLASSIFICATION, config)
        calibrate(built, torch.rand(_CALIBRATION_IMAGES, 3, image_size, image_size))
    return built


def build_timm(size: str, theirs: nn.Module) -> nn.Module:
    """timm's model of a size with the weights of transformers' one, in float32 and evaluation mode."""
    model: nn.Module = import_timm().create_model(TIMM_NAMES[size], num_classes=NUM_LABELS).eval()
    weights = from_huggingface(theirs.state_dict(), "timm")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lost = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lost or unexpected:
        raise RuntimeError(f"expected timm's model to have the same parameters, got others: {lost + unexpected}")
    return model


def build_yardstick(image_size: int, seed: int = 0) -> nn.Module:
    """timm's ResNet-50 with random weights that are calibrated, in float32 and evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = import_timm().create_model("resnet50", num_classes=NUM_LABELS)
        calibrate(model, torch.rand(_CALIBRATION_IMAGES, 3, image_size, image_size))
    return model


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Give a model random weights that keep a signal alive, and batch norms the statistics of that signal.

    With the weights that libraries start training from (transformers' batch norms scale by about 0.02), features shrink
    from layer to layer until they are denormal numbers, with which processors compute an order of magnitude more slowly
    than with those of a trained model.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    for norm in norms:
        norm.momentum = 1.0  # the statistics of one forward
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass
class Networks:
    """The networks of a model, built when first asked for: "transformers" and "timm" with equal weights, "resnet50".

    They are float32 on the CPU and hold values of ``dtype``, so that no provider has other weights than the next, and
    an error is one of computation.
    """

    size: str
    dtype: torch.dtype
    image_size: int = 256
    _built: dict[str, nn.Module] = field(default_factory=dict)

    def get(self, name: str) -> nn.Module:
        """A network; not to be changed."""
        if name not in self._built:
            if name == "transformers":
                model = build_model(self.size, self.image_size)
            elif name == "timm":
                model = build_timm(self.size, self.get("transformers"))
            else:
                model = build_yardstick(self.image_size)
            self._built[name] = copy.deepcopy(model).to(self.dtype).float()
        return self._built[name]


def copied(
    network: nn.Module, *, dtype: torch.dtype, device: torch.device | str = "cpu", channels_last: bool = False
) -> nn.Module:
    """A copy of a network in a type, on a device, in a memory order."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    copy_of_it: Any = copy.deepcopy(network)  # mypy has no Module.to with a memory format
    result: nn.Module = copy_of_it.to(device, dtype).to(memory_format=layout)
    return result


def logits_of(output: Any) -> Tensor:
    """Logits of a model's output, whatever the library."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


class Logits(nn.Module):
    """A model as compilers and other libraries take it: one tensor in, one out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return logits_of(self.model(pixel_values))


def with_sdpa(model: nn.Module) -> nn.Module:
    """Have transformers' model compute attention by PyTorch's fused function, in place: what users patch by hand.

    Raises:
        RuntimeError: it has no attention of the kind that transformers 5 has.
    """
    found = [module for module in model.modules() if type(module).__name__ == "MobileViTSelfAttention"]
    if not found:
        raise RuntimeError("expected a model with transformers' MobileViTSelfAttention, found none in it")
    kind = type(found[0])
    patched = type(f"{kind.__name__}WithSdpa", (kind,), {"forward": _sdpa_forward})
    for module in found:
        module.__class__ = patched
    return model


def _sdpa_forward(self: Any, hidden_states: Tensor) -> Tensor:
    heads = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
    query, key, value = (  # (B * P, H, N, D)
        layer(hidden_states).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value)
    )
    context = nn.functional.scaled_dot_product_attention(query, key, value)
    return context.transpose(1, 2).reshape(hidden_states.shape)


def top1_agreement(logits: Tensor, exact: Tensor) -> float:
    """Share of images (N, K), or of pixels (N, K, H, W), with the same largest logit as the exact ones."""
    return (logits.argmax(1) == exact.argmax(1)).double().mean().item()

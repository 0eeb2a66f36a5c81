"""What the providers of whole models compute: networks with random weights, images, and the exact logits."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cpu.models import NUM_LABELS, build_model, calibrate
from mobilevit_fast.checkpoints.names import from_huggingface
from tests.peers import import_timm

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
TIMM_NAMES = {"S": "mobilevit_s", "XS": "mobilevit_xs", "XXS": "mobilevit_xxs"}
YARDSTICK = "ResNet-50"
CHECKED_IMAGES = 8
MOST_IMAGES_OF_A_POOL = 256
_CALIBRATION_IMAGES = 4


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


@dataclass
class Networks:
    """The networks of a size, built when first asked for: "transformers" and "timm" with equal weights, "resnet50".

    They are float32 on the CPU and hold numbers of ``dtype``, so that no provider has other weights than the next.
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


def logits_of(output: Any) -> Tensor:
    """Of a model's output, whatever the library."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def pool_size(batch_bytes: int, cache_bytes: int, batch: int) -> int:
    """How many batches are more than the second-level cache holds, so that none is still there when its turn comes."""
    return max(1, min(math.ceil(2 * cache_bytes / batch_bytes), MOST_IMAGES_OF_A_POOL // batch or 1))


class Case:
    """Batches of images on a device, and what networks make of the first images in float64."""

    def __init__(self, networks: Networks, batch: int, device: torch.device, cache_bytes: int) -> None:
        self.networks, self.batch, self.device = networks, batch, device
        size = networks.image_size
        count = pool_size(batch * 3 * size * size * networks.dtype.itemsize, cache_bytes, batch)
        generator = torch.Generator(device).manual_seed(batch)
        shape = (batch, 3, size, size)
        self.pool = [torch.rand(shape, generator=generator, device=device).to(networks.dtype) for _ in range(count)]
        self._exact: dict[str, Tensor] = {}

    def images(self, channels_last: bool) -> list[Tensor]:
        """The pool in a memory order."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return [x.contiguous(memory_format=layout) for x in self.pool]

    def model(self, network: str, channels_last: bool = False) -> nn.Module:
        """A copy of a network on the device, in the type to compute in."""
        layout = torch.channels_last if channels_last else torch.preserve_format
        return copy.deepcopy(self.networks.get(network)).to(self.device, self.networks.dtype).to(memory_format=layout)

    def exact(self, network: str) -> Tensor:
        """The logits (N, K) of the first images in float64; timm's network is the same function as transformers'."""
        name = "transformers" if network == "timm" else network
        if name not in self._exact:
            model = copy.deepcopy(self.networks.get(name)).to(self.device).double()
            images = torch.cat(self.pool[:CHECKED_IMAGES])[:CHECKED_IMAGES].double()
            with torch.inference_mode():
                self._exact[name] = logits_of(model(images))
        return self._exact[name]


def errors(logits: Tensor, exact: Tensor) -> dict[str, Any]:
    """Largest difference of logits from the float64 ones, largest of these, and share of images of the same top-1."""
    if logits.shape != exact.shape:
        raise RuntimeError(f"expected logits of shape {tuple(exact.shape)}, got {tuple(logits.shape)}")
    difference = (logits.double() - exact).abs().max().item()
    if not math.isfinite(difference):
        raise RuntimeError("expected finite logits, got others")
    return {
        "max_error": float(f"{difference:.3g}"),
        "max_logit": float(f"{exact.abs().max().item():.3g}"),
        "top1_agreement": (logits.argmax(1) == exact.argmax(1)).double().mean().item(),
        "checked_images": len(exact),
    }

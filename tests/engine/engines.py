"""Small engines, and what their answers should be."""

from typing import Any

import torch
from torch import Tensor

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine
from tests.integrations import zoo

CLASSIFIERS = ["native", "transformers", "timm"]
PROCESSOR = mvf.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64)
KEEPING = mvf.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size=64)
"""An image processor that leaves images of 64 x 64 pixels what they are."""


def expected_logits(engine: Engine, contents: list[bytes], processor: Any = PROCESSOR) -> Tensor:
    """One by one, by the same model."""
    values = [processor(content, do_convert_rgb=processor.do_convert_rgb)["pixel_values"] for content in contents]
    with torch.inference_mode():
        return torch.cat([zoo.first_output(engine.model.module(one.float())) for one in values])

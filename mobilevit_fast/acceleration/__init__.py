"""Running the regions of a model as fused operators, in place, and undoing it."""

from mobilevit_fast.acceleration import libraries  # noqa: F401  # their rules register themselves
from mobilevit_fast.acceleration.api import accelerate, accelerated, pixels_of, plan, report, restore
from mobilevit_fast.acceleration.pixels import PixelNormalization
from mobilevit_fast.acceleration.report import Region, Report

__all__ = [
    "PixelNormalization",
    "Region",
    "Report",
    "accelerate",
    "accelerated",
    "pixels_of",
    "plan",
    "report",
    "restore",
]

"""Files in, answers out: an engine from sources of images to results on the disk."""

from mobilevit_fast.engine.engine import Engine, EngineError
from mobilevit_fast.engine.model import OUTPUTS
from mobilevit_fast.engine.predictions import Prediction, RunReport
from mobilevit_fast.engine.preprocessing import MODES as PREPROCESSING_MODES
from mobilevit_fast.engine.results import read_results
from mobilevit_fast.engine.results.formats import FORMATS as _FORMATS

FORMATS = tuple(_FORMATS)
"""Formats of results."""

__all__ = [
    "FORMATS",
    "OUTPUTS",
    "PREPROCESSING_MODES",
    "Engine",
    "EngineError",
    "Prediction",
    "RunReport",
    "read_results",
]

"""Where tests find data that lies outside the repository."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _find_ucmerced() -> Path | None:
    named = os.environ.get("MVF_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "ucmerced_xxs"
    return folder if (folder / "labels.csv").is_file() else None


UCMERCED = _find_ucmerced()
"""Trained MobileViT-XXS weights with 210 aerial photos, or None where they are not installed."""

needs_ucmerced = pytest.mark.skipif(
    UCMERCED is None, reason="the UC Merced weights and photos are not here (set MVF_SHARED_DATA to their folder)"
)

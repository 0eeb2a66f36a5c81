"""Recorded calls of accelerated models, counted."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from mobilevit_fast.acceleration.programs import Program


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kernels of each recorded call that is made again."""
    counted: list[int] = []
    run = Program.run

    def counting(self: Program, images: Tensor) -> Any:
        counted.append(len(self.steps))
        return run(self, images)

    monkeypatch.setattr(Program, "run", counting)
    return counted

"""The host's part of a call, with launches that do nothing."""

from __future__ import annotations

import pytest
import torch

from emulator import host, run
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTModel
from testing.pairs import tiny_config


def test_a_recorded_call_spares_the_host_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ROUNDS", 5)
    model = MobileViTForImageClassification(MobileViTConfig()).eval().half()
    run.take_launches()
    times = host.measure(model, torch.zeros(1, 3, 256, 256, dtype=torch.float16))
    assert not run.take_launches()
    assert min(times) > 0
    assert times.launches + times.check < times.modules


def test_a_model_whose_calls_are_not_recorded_is_told() -> None:
    model = MobileViTModel(tiny_config()).eval().half()
    with pytest.raises(ValueError, match="expected a model whose calls are kernels and nothing else"):
        host.measure(model, torch.zeros(1, 3, 64, 64, dtype=torch.float16))

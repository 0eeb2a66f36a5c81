"""The CUDA library on the CPU, by the emulator, or on a GPU (`pytest -m gpu tests/cuda`).

A process does one of the two: the emulator where the sanitizers are loaded or there is no GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emulator.build import SANITIZED

HERE = Path(__file__).parent
EMULATED = SANITIZED or not torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests as a GPU's where they run on one."""
    for item in items:
        if HERE in item.path.parents and not EMULATED:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def emulator() -> None:
    """Compiled and loaded once a test is to run on it."""
    if EMULATED:
        from emulator import run

        run.enable()


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tensors of a test lie."""
    return torch.device("cpu" if EMULATED else "cuda")

"""The CUDA kernels on the CPU, by the emulator. A process that has a GPU leaves them alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from emulator.build import SANITIZED

if SANITIZED or not torch.cuda.is_available():
    from emulator import run

    run.enable()
else:
    collect_ignore_glob = ["test_*.py"]

HERE = Path(__file__).parent
MANY_CASES = {"test_strips.py", *(f"test_sm90_{name}.py" for name in ("aspp", "conv2d_bias_act", "rows"))}
"""Of kernels for the shapes of three models: each of them, in several orders of threads."""
KEPT = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as thorough what takes minutes and differs from its neighbours in a size: all but one in four."""
    seen: Counter[str] = Counter()
    for item in items:
        if item.path.parent != HERE:
            continue
        if item.path.name in MANY_CASES:
            if seen[item.path.name] % KEPT != 0:
                item.add_marker(pytest.mark.thorough)
            seen[item.path.name] += 1
        elif item.path.name == "test_nvcc.py" and "sm90_bfloat16" in item.name:  # the same source in another type
            item.add_marker(pytest.mark.thorough)

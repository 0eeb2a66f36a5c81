"""Settings of the whole suite."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from mobilevit_fast.kernels.triton.backend import INSTALLED

# Triton's wheels are for Linux alone; what needs it cannot even be imported without it.
if not INSTALLED:
    collect_ignore = [
        "triton",
        "benchmarks/test_compiled.py",
        "benchmarks/test_tune.py",
        "benchmarks/test_triton_traffic.py",
    ]

# No deadline: the time of one example depends on what else the machine does. Derandomised: a run can be repeated.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)

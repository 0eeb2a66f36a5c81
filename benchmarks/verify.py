"""The operators' tests, before anything is measured: on red there is no number."""

import sys

from benchmarks.gpu import process

SECONDS = 600.0
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:benchmark")
TESTS = {
    # What kernels compute; not how they are registered, differentiated and compiled, which takes minutes.
    "cpu": ("tests/ops/test_operators.py", "-k", "not registration and not gradient and not compiles"),
    "cuda": ("-m", "gpu", "tests/cuda/test_operators.py", "tests/triton/test_operators.py"),
}
"""Arguments of pytest by device; a quarter of a minute on two cores."""
TAIL_CHARACTERS = 4000
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait would take the cores from whatever else the machine does."""


def verify(device: str) -> str | None:
    """Run the tests of the operators on a device; returns why nothing may be measured, None if all passed.

    Without a single test that ran it is no verification either: pytest's exit status 5.
    """
    outcome = process.run((*_PYTEST, *TESTS[device]), SECONDS, _ENVIRONMENT)
    return None if outcome.reason is None else f"{outcome.tail(TAIL_CHARACTERS)}\n{outcome.reason}"

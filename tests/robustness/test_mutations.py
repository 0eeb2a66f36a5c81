"""Hundreds of damaged files of each kind: an answer or one clear line, within 10 s of the processor and 2 GB each."""

import json
import subprocess
import sys
from typing import Any

import pytest

from testing.paths import REPOSITORY
from testing.tiers import thorough
from tests.robustness.mutations import CASES, KINDS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as on Linux")]


@pytest.fixture(scope="module", params=[80, thorough(CASES)])
def cases(request: pytest.FixtureRequest) -> int:
    """Of each kind; those of a smaller number are the first of the larger one."""
    return request.param


@pytest.fixture(scope="module")
def outcomes(cases: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.robustness.mutations", str(cases)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(outcomes: dict[str, Any], kind: str, cases: int) -> None:
    found = outcomes[kind]
    assert found["problems"] == []
    assert found["answered"] + found["refused"] == cases
    # Both happen, or the cases would show little.
    assert found["answered"] > cases / 50
    assert found["refused"] > cases / 5

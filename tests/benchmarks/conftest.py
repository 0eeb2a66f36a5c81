"""A file of results of the GPU benchmark."""

from pathlib import Path

import pytest

from benchmarks.gpu.results import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path / "gpu-models.json")
    found.create({"stamp": {"device": "a GPU", "date": "today"}})
    return found

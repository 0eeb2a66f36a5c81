"""Settings of the whole suite."""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from mobilevit_fast.kernels.triton.backend import INSTALLED
from testing.compiled import FOLDER

# Triton's wheels are for Linux alone; what needs it cannot even be imported without it.
if not INSTALLED:
    collect_ignore = [
        "triton",
        "benchmarks/test_compiled.py",
        "benchmarks/test_tune.py",
        "benchmarks/test_triton_traffic.py",
    ]

# Objects of C++ that Inductor made are kept by a digest of their code and command, and graphs are not: how an operator
# of this package is registered, which decides on the code, is no part of a graph's digest.
os.environ |= {
    "TORCHINDUCTOR_CACHE_DIR": str(FOLDER / "inductor"),
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
}


FORKING = {"test_killed_results.py", "test_killed_writers.py", "test_torn_saves.py", "test_writing.py"}
"""Files whose tests fork hundreds of times, which takes as long as the process is large."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """--slice 1/6: the second of six pieces of what is chosen, file by file."""
    parser.addoption("--slice", metavar="I/N", help="only piece I, from 0, of N of the chosen tests")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fork before others have grown the process; keep a slice, once markers have chosen."""
    items.sort(key=lambda item: item.path.name not in FORKING)
    if (wanted := config.getoption("--slice")) is not None:
        number, of = map(int, wanted.split("/"))
        begin, end = (len(items) * i // of for i in (number, number + 1))
        config.hook.pytest_deselected(items=items[:begin] + items[end:])
        items[:] = items[begin:end]


# Garbage is collected after so many new objects, not 700: compilers and models make millions that stay.
gc.set_threshold(20_000)


def pytest_collection_finish() -> None:
    """Leave what was imported out of later collections, which take a twentieth of the time else."""
    gc.collect()
    gc.freeze()


# No deadline: the time of one example depends on what else the machine does. Derandomised: a run can be repeated.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)

"""The stages of the GPU benchmark, with programs of the tests' own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import plan, stages, steps
from benchmarks.gpu.results import Results
from benchmarks.gpu.worker import DEVICE_LOST


class Tasks:
    """What ``run_tasks`` asks of ``models`` and ``ops``: one task of three providers."""

    providers = ("a", "b", "c")

    @staticmethod
    def tasks() -> list[str]:
        return ["task"]

    @classmethod
    def missing(cls, task: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        have = {row["provider"] for row in rows}
        yield from ({"provider": name} for name in cls.providers if name not in have)


# The package without what its import brings: a file of results needs none of it, and there are many processes.
WORKER = """
import sys, time, types
from pathlib import Path
sys.modules["mobilevit_fast"] = package = types.ModuleType("mobilevit_fast")
package.__path__ = ["mobilevit_fast"]
from benchmarks.gpu.results import Results
results = Results(Path(sys.argv[1]))
have = {row["provider"] for row in results.rows}
for name in "abc":
    if name in have:
        continue
    results.update(running={"provider": name})
    if name == "b":
        {fate}
    results.append({"provider": name, "reason": None})
results.update(running=None)
"""


def run_workers(fate: str, results: Results, seconds: float) -> list[tuple[str, str | None]]:
    code = WORKER.replace("{fate}", fate)
    step = steps.Step("task", (sys.executable, "-c", code, str(results.path)), seconds)
    stages.run_tasks(Tasks, [step], results, plan.Queue("models", seconds))
    return [(row["provider"], row["reason"]) for row in results.rows]


def test_a_worker_that_dies_is_a_row_and_the_others_go_on(results: Results) -> None:
    rows = run_workers("import os; os.kill(os.getpid(), 9)", results, 60)
    assert rows == [("a", None), ("b", "ended by signal SIGKILL"), ("c", None)]


def test_a_lost_device_is_tried_again_without_the_culprit(results: Results) -> None:
    fate = f"results.append({{'provider': 'b', 'reason': 'illegal'}}); sys.exit({DEVICE_LOST})"
    assert run_workers(fate, results, 60) == [("a", None), ("b", "illegal"), ("c", None)]


def test_a_worker_that_takes_too_long_is_a_row(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MIN_SECONDS", 0.5)
    began = time.monotonic()
    in_time = Results(tmp_path / "in time.json")
    in_time.create({})
    assert run_workers("pass", in_time, 60) == [("a", None), ("b", None), ("c", None)]
    seconds = round(2 + 3 * (time.monotonic() - began))  # on a machine as busy as this one
    rows = run_workers("time.sleep(600)", results, seconds)
    assert rows == [("a", None), ("b", f"took longer than the {seconds} s it had"), ("c", stages.NO_TIME)]


def test_a_worker_that_cannot_start_leaves_its_reason_in_every_row(results: Results) -> None:
    step = steps.Step("task", (sys.executable, "-c", "raise SystemExit('no such module')"), 60)
    reason = stages.run_tasks(Tasks, [step], results, plan.Queue("models", 60))
    assert reason == "3 rows without a measurement, each with its reason"
    assert {row["reason"] for row in results.rows} == {"exit status 1: no such module"}


def test_tests_are_counted_and_all_run_after_a_first_failure(results: Results, tmp_path: Path) -> None:
    suite = '<testsuites><testsuite tests="5" failures="{failures}" errors="0" skipped="1"></testsuite></testsuites>'

    def writing(name: str, failures: int) -> steps.Step:
        file = tmp_path / f"{name}.xml"
        code = f"open({str(file)!r}, 'w').write({suite.format(failures=failures)!r}); raise SystemExit({failures})"
        condition = "if cuda failed" if name == "cuda-all" else None
        return steps.Step(name, (sys.executable, "-c", code), 20, condition=condition)

    reason = stages.run_stage("test", [writing("cuda", 1), writing("cuda-all", 2)], results, 60, tmp_path)
    assert reason == "cuda: exit status 1; cuda-all: exit status 2"
    assert [(row["step"], row["passed"], row["failures"]) for row in results.rows] == [
        ("cuda", 3, 1),
        ("cuda-all", 2, 2),
    ]
    results.create({})
    assert stages.run_stage("test", [writing("cuda", 0), writing("cuda-all", 0)], results, 60, tmp_path) is None
    assert [row["step"] for row in results.rows] == ["cuda"]


def test_without_time_nothing_is_begun(results: Results, tmp_path: Path) -> None:
    step = steps.Step("build", (sys.executable, "-c", f"open({str(tmp_path / 'written')!r}, 'w')"), 20)
    assert stages.run_stage("build", [step], results, 1.0, tmp_path) == f"build: {stages.NO_TIME}"
    assert not (tmp_path / "written").exists()


def test_a_build_that_fails_is_not_loaded(results: Results, tmp_path: Path) -> None:
    failing = steps.Step("build", (sys.executable, "-c", "raise SystemExit('no nvcc')"), 20)
    reason = stages.run_stage("build", [failing, failing._replace(name="load")], results, 60, tmp_path)
    assert reason == "build: exit status 1: no nvcc"
    assert [(row["step"], row["log"]) for row in results.rows] == [("build", "no nvcc\n")]


def test_the_sanitizers_summaries_are_read() -> None:
    assert stages.errors_found("========= ERROR SUMMARY: 3 errors\n") == 3
    assert stages.errors_found("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)") == 0
    assert stages.errors_found("Error: unrecognised option") is None


def sanitize(codes: dict[str, str], results: Results, tmp_path: Path) -> str | None:
    made = steps.steps("sanitize", "90", tmp_path, tmp_path)
    made = [s._replace(command=(sys.executable, "-c", codes[s.name])) for s in made if s.name in codes]
    return stages.run_stage("sanitize", made, results, 60, tmp_path)


def test_the_sanitizer_is_run_again_without_an_option_it_does_not_know(results: Results, tmp_path: Path) -> None:
    unknown, fine = "raise SystemExit('unknown option')", "print('========= ERROR SUMMARY: 0 errors')"
    assert sanitize({"memcheck": unknown, "memcheck-all-kernels": fine}, results, tmp_path) is not None
    assert [(row["step"], row["errors"], row["reason"]) for row in results.rows] == [
        ("memcheck", None, "exit status 1: unknown option"),
        ("memcheck-all-kernels", 0, None),
    ]
    results.create({})
    assert sanitize({"memcheck": fine, "memcheck-all-kernels": unknown}, results, tmp_path) is None
    assert len(results.rows) == 1


TABLE = """==PROF== Connected to process 1
"ID","Process Name","Kernel Name","Block Size","Grid Size","gpu__time_duration.sum","dram__bytes_read.sum"
"","","","","","ns","byte"
"0","python","void start<Conv2d>(T1)","(256, 1, 1)","(1,024, 1, 1)","12,345","n/a"
"1","python","void start<Head>(T1)","(128, 1, 1)","(16, 1, 1)","678.5","1024"
==PROF== Disconnected
"""


def test_counters_are_read_and_the_table_is_kept(results: Results, tmp_path: Path) -> None:
    printing = steps.Step("metrics", (sys.executable, "-c", f"print({TABLE!r})"), 30)
    spare = printing._replace(name="sections", condition="if metrics gave nothing")
    assert stages.run_stage("counters", [printing, spare], results, 60, tmp_path) is None
    step, first, second = results.rows
    assert (step["step"], step["kernels"], step["reason"]) == ("metrics", 2, None)
    assert first["counters"] == {"gpu__time_duration.sum": 12345.0}
    assert second["counters"] == {"gpu__time_duration.sum": 678.5, "dram__bytes_read.sum": 1024.0}
    assert (second["kernel"], second["blocks"]) == ("void start<Head>(T1)", "(16, 1, 1)")
    assert (tmp_path / "counters.csv").read_text(encoding="utf-8") == "".join(
        f"{line}\n" for line in TABLE.splitlines()[1:-1]
    )


def test_counters_that_are_not_permitted_have_their_reason(results: Results, tmp_path: Path) -> None:
    code = "print('==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'); raise SystemExit(1)"
    step = steps.Step("metrics", (sys.executable, "-c", code), 30)
    reason = stages.run_stage("counters", [step], results, 60, tmp_path)
    assert reason == "the driver does not permit this user to read counters (ERR_NVGPUCTRPERM)"
    missing = steps.Step("metrics", ("no-such-program",), 30)
    assert stages.run_stage("counters", [missing], results, 60, tmp_path) == "no-such-program was not found"

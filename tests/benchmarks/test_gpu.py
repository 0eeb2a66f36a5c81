"""The benchmark for GPUs, as far as it goes without one: a device of the host's stands in for the GPU."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.cpu.measure import using_threads
from benchmarks.gpu import cases, command, device, models, ops, plan, process, providers, report, stages, steps, timing
from benchmarks.gpu.process import Outcome
from benchmarks.gpu.results import Results
from benchmarks.gpu.worker import DEVICE_LOST
from mobilevit_fast.ops import OPS

SIZE = 64
"""Pixels: the machinery is under test, not the model."""


class Host:
    """The interface of ``device.Gpu`` on the CPU; a graph is the call itself."""

    device = torch.device("cpu")
    l2_bytes = 30_000
    ceiling_sizes = (1 << 16, 64)

    def __init__(self) -> None:
        self.lost = False
        self.known: dict[Any, float] = {}

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        if call not in self.known:  # one stands for all
            start = time.perf_counter()
            call()
            self.known[call] = time.perf_counter() - start
        return self.known[call] * count

    def synchronize(self) -> None:
        if self.lost:
            raise RuntimeError("an illegal memory access was encountered")

    def capture(self, call: Callable[[], Tensor], pool: Any = None) -> tuple[Callable[[], None], Tensor, Any]:
        result = call().clone()

        def replay() -> None:
            result.copy_(call())

        return replay, result, pool

    def reset_peak(self) -> int:
        return 1_000_000

    def peak(self) -> int:
        return 3_000_000

    def release(self) -> None:
        pass


class Ticking:
    """A clock that goes on by itself with every call of a device's."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        before = self.time
        for _ in range(count):
            self.time += call()
        return self.time - before


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with using_threads(1):  # work this small only waits for a second one
        yield


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path / "gpu-models.json")
    found.create({"stamp": {"device": "a GPU", "date": "today"}})
    return found


# --- plan ---


@pytest.mark.parametrize("minutes", [1.0, 12.0, 60.0])
def test_a_dry_run_lists_everything_within_the_minutes(minutes: float) -> None:
    outcome = CliRunner().invoke(command.app, ["--out", "somewhere", "--minutes", str(minutes), "--dry-run"])
    assert outcome.exit_code == 0, outcome.output
    assert not Path("somewhere").exists()
    begun: dict[str, list[float]] = {}
    for line in outcome.output.splitlines()[:-1]:
        name, budget = re.fullmatch(r"(\w+): (\d+) s; .*|  +(\d+) s  .*", line).group(1, 2)
        if name:
            begun[name] = [float(budget)]
        else:
            begun[list(begun)[-1]].append(float(line.split()[0]))
    assert list(begun) == list(plan.STAGES)
    assert sum(seconds for seconds, *_ in begun.values()) == pytest.approx(60 * minutes, abs=3)
    for stage, (budget, *of_steps) in begun.items():
        made = steps.steps(stage, "90a", Path("somewhere").resolve(), Path("scratch"))
        assert len(of_steps) == len(made)
        assert sum(of_steps) <= budget + len(of_steps) / 2 + 0.5
        assert all(step.text in outcome.output for step in made if step.name != "build")
    assert "MVF_CUDA=on MVF_CUDA_ARCHITECTURES=native python setup.py build_ext --inplace" in outcome.output


def test_chosen_stages_share_all_the_time_in_their_order() -> None:
    found = plan.budgets(["ops", "models"], 490)
    assert list(found) == ["models", "ops"]
    assert found == {"models": pytest.approx(380), "ops": pytest.approx(110)}


def test_time_that_is_left_goes_to_those_after() -> None:
    clock = Ticking()
    allowance = plan.Allowance({"a": 1, "b": 1, "c": 2}, 100, clock)
    assert allowance.take("a") == 25
    clock.time = 5
    assert allowance.take("b") == pytest.approx(95 / 3)
    clock.time = 90
    assert allowance.take("c") == 10
    clock.time = 130
    assert allowance.left == 0


def test_steps_take_what_they_need_in_order() -> None:
    usual = plan.budgets(plan.STAGES, plan.USUAL_SECONDS)["ops"]
    assert plan.planned("ops", usual, [50, 20, 60, 10]) == pytest.approx([50, 20, usual - 70, 0])
    assert plan.planned("ops", usual / 2, [30, 20]) == pytest.approx([30, usual / 2 - 30])
    assert plan.planned("ops", 3 * usual, [20, 30]) == pytest.approx([60, 90])
    clock = Ticking()
    queue = plan.Queue("ops", usual, clock)
    assert queue.limit(50) == 50
    clock.time = usual - 10
    assert queue.limit(50) == pytest.approx(10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(command.app, ["--out", str(tmp_path / "out")])
    assert outcome.exit_code == 1
    assert "expected a GPU that torch can use, found none" in outcome.output
    assert not (tmp_path / "out").exists()


def test_unknown_stages_are_refused() -> None:
    outcome = CliRunner().invoke(command.app, ["--out", "somewhere", "--stages", "build,nothing"])
    assert outcome.exit_code == 2
    assert "--stages: expected some of build, test, models, ops, sanitize, counters, got nothing" in outcome.output


# --- results and processes ---


def test_rows_are_in_the_file_at_once_and_carry_the_machine(results: Results) -> None:
    results.append({"kind": "a", "value": 1})
    Results(results.path).append({"kind": "b", "value": 2})  # as another process
    content = json.loads(results.path.read_text(encoding="utf-8"))
    stamp = {"device": "a GPU", "date": "today"}
    assert content["rows"] == [{"kind": "a", "value": 1, **stamp}, {"kind": "b", "value": 2, **stamp}]


def test_a_file_does_not_become_too_large(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.results.LARGEST", 2000)
    results.append({"kind": "a", "log": "x" * 3000})
    assert results.rows[0]["reason"].startswith("not whole")
    assert "log" not in results.rows[0]


def python(code: str, limit: float = 30.0) -> Outcome:
    return process.run((sys.executable, "-c", code), limit)


def test_how_a_program_ended_is_said_in_words() -> None:
    assert python("print('fine')")[:3] == (0, None, "fine\n")
    assert python("import sys; sys.exit('in /some/folder/file.bin')").reason == "exit status 1: in file.bin"
    killed = python("import os, signal; print('begun'); os.kill(os.getpid(), signal.SIGSEGV)")
    assert (killed.code, killed.reason) == (-signal.SIGSEGV, "ended by signal SIGSEGV: begun")
    assert process.run(("no-such-program",), 5) == (None, "no-such-program was not found", "", 0.0)


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    written = tmp_path / "written"
    child = f"import time; time.sleep(1.5); open({str(written)!r}, 'w')"
    outcome = python(
        f"import subprocess, sys, time; print('begun'); subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "time.sleep(60)",
        limit=1.0,
    )
    assert (outcome.code, outcome.reason) == (None, "took longer than the 1 s it had")
    assert outcome.output == "begun\n"
    time.sleep(1.6)
    assert not written.exists()


# --- timing ---


def test_rounds_are_interleaved_and_calls_counted_by_their_time() -> None:
    clock, made = Ticking(), []

    def call(name: str, seconds: float) -> Callable[[], float]:
        return lambda: (made.append(name), seconds)[1]

    timed = timing.interleaved({"a": call("a", 0.001), "b": call("b", 0.1)}, clock, 1e9, 5, clock)
    assert timed.reasons == {}
    assert timed.seconds == {"a": pytest.approx([0.001] * 5), "b": pytest.approx([0.1] * 5)}
    warm_up = timing.WARM_UP_CALLS + 1
    assert made[: 2 * warm_up] == ["a"] * warm_up + ["b"] * warm_up
    per_round = 20 + 1  # of a turn of 20 ms
    rounds = [made[i : i + per_round] for i in range(2 * warm_up, len(made), per_round)]
    assert [len(r) for r in rounds] == [per_round] * 5
    assert all(r in (["a"] * 20 + ["b"], ["b"] + ["a"] * 20) for r in rounds)


def test_rounds_end_when_the_time_is_up_but_for_the_first() -> None:
    clock = Ticking()
    timed = timing.interleaved({"a": lambda: 1.0}, clock, 8.5, 50, clock)
    assert len(timed.seconds["a"]) == 5  # four seconds of warm-up, five of rounds
    timed = timing.interleaved({"a": lambda: 1.0}, clock, 0.0, 50, clock)
    assert len(timed.seconds["a"]) == timing.LEAST_ROUNDS


def test_a_call_that_raises_is_out_and_the_others_go_on() -> None:
    clock, calls = Ticking(), iter(range(1000))

    def fails() -> float:
        if next(calls) > 30:
            raise ValueError("at /a/long/path/x.py")
        return 0.002

    timed = timing.interleaved({"fails": fails, "works": lambda: 0.002}, clock, 1e9, 4, clock)
    assert timed.reasons == {"fails": "ValueError: at x.py"}
    assert timed.seconds == {"works": pytest.approx([0.002] * 4)}


def test_times_of_a_call() -> None:
    times = timing.times_of([0.004, 0.002, 0.006], 8)
    assert (times["median_ms"], times["p20_ms"], times["p80_ms"], times["rounds"]) == (4.0, 2.8, 5.2, 3)
    assert times["images_s"] == 2000


# --- models ---


def test_a_pool_is_larger_than_the_cache() -> None:
    image, cache = 3 * 256 * 256 * 2, 50 << 20
    assert cases.pool_size(image, cache, 1) * image > cache
    assert cases.pool_size(256 * image, cache, 256) == 1
    assert cases.pool_size(1024 * image, cache, 1024) == 1


def test_every_provider_is_measured_once_in_a_case() -> None:
    rows: list[Any] = [
        (t.size, t.dtype, batch, name) for t in models.tasks() for batch in t.batches for name in t.providers
    ]
    assert len(rows) == len(set(rows))
    assert {row[3] for row in rows} == set(providers.PROVIDERS)
    names = [name for task in models.tasks() for name in task.providers]
    assert names[0] == providers.ANCHOR
    assert [t.size for t in models.tasks()[:3]] == ["S", "XS", "XXS"]
    assert all(len(t.providers) == 1 for t in models.tasks() if providers.PROVIDERS[t.providers[0]].slow)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> models.Task:
    names = ("ours-cuda-graph", "transformers-graph", "timm-channels-last", "broken", "wrong")

    def broken(case: cases.Case) -> device.Forward:
        raise RuntimeError("out of /some/folder/memory")

    def wrong(case: cases.Case) -> device.Forward:
        return lambda x: torch.full((len(x), 1000), torch.nan)

    for build in (broken, wrong):
        name = build.__name__
        monkeypatch.setitem(providers.PROVIDERS, name, providers.Provider(name, name, build))
    monkeypatch.setattr(models, "MOST_GRAPHS", 2)
    monkeypatch.setattr(models, "LATENCY_CALLS", 3)
    return models.Task("XXS", "bfloat16", (1, 2), names, 10)


def test_a_task_has_a_row_for_every_provider(task: models.Task, results: Results) -> None:
    models.measure(task, results, Host(), 60.0, image_size=SIZE)
    rows = {(row["batch"], row["provider"]): row for row in results.rows}
    assert rows.keys() == {(batch, name) for batch in (1, 2) for name in task.providers}
    assert list(models.missing(task, results.rows)) == []
    for batch in (1, 2):
        assert "cuda" in rows[batch, "ours-cuda-graph"]["reason"]
        assert rows[batch, "broken"]["reason"] == "RuntimeError: out of memory"
        assert rows[batch, "wrong"]["reason"] == "RuntimeError: expected finite logits, got others"
        for name in ("transformers-graph", "timm-channels-last"):
            row = rows[batch, name]
            assert row["reason"] is None
            assert 0 < row["max_error"] < 0.2 * row["max_logit"]
            assert 0 <= row["top1_agreement"] <= 1
            assert row["checked_images"] == {1: 3, 2: 4}[batch]  # of the pool
            assert 0 < row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
            assert row["images_s"] == pytest.approx(1e3 * batch / row["median_ms"], rel=1e-3)
            assert row["peak_mb"] == 2.0
            assert row["device"] == "a GPU"
            assert ("latency_ms" in row) == (batch == 1)
    assert rows[1, "transformers-graph"]["inputs"].endswith("copied to the graph's")
    assert rows[2, "transformers-graph"]["inputs"].endswith("a graph each")


def test_timm_and_transformers_are_the_same_function() -> None:
    networks = cases.Networks("XXS", torch.float32, SIZE)
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        theirs, timm = (cases.logits_of(networks.get(name)(x)) for name in ("transformers", "timm"))
    assert (theirs - timm).abs().max() < 1e-4 * theirs.abs().max()


def test_a_lost_device_ends_the_process_with_the_rows_so_far(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()

    def fatal(case: cases.Case) -> device.Forward:
        host.lost = True
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setitem(providers.PROVIDERS, "fatal", providers.Provider("fatal", "fatal", fatal))
    task = models.Task("XXS", "bfloat16", (2,), ("fatal", "transformers"), 10)
    with pytest.raises(models.DeviceLost, match="illegal memory access"):
        models.measure(task, results, host, 60.0, image_size=SIZE)
    assert [(row["provider"], row["reason"]) for row in results.rows] == [
        ("fatal", "RuntimeError: an illegal memory access was encountered")
    ]
    assert [key["provider"] for key in models.missing(task, results.rows)] == ["transformers"]


# --- operators ---


def test_operators_have_rows_with_their_floors(results: Results) -> None:
    task = ops.Task("XXS", 1, ("cuda", "plain"), 60)
    ops.measure(task, results, Host(), 60.0, image_size=SIZE)
    ceiling, *rows = results.rows
    assert ceiling["copy_gb_s"] > 0
    assert ceiling["matmul_tflop_s"] > 0
    assert {row["operator"] for row in rows} == set(OPS) - {
        "aspp",
        "depthwise_conv2d",
        "depthwise_separable_conv2d",
    }
    assert list(ops.missing(task, results.rows, SIZE)) == []
    plain = [row for row in rows if row["provider"] == "plain"]
    assert sum(row["calls"] for row in plain) == 18
    for row in plain:
        assert 0 < row["error"] < 1e-2
        floor = max(row["bytes_us"], row["products_us"])
        assert row["share_of_floor"] == pytest.approx(floor / row["median_ms"] / 1e3, rel=0.05, abs=2e-3)
    assert all("cuda" in row["reason"] for row in rows if row["provider"] == "cuda")


def test_every_operator_of_a_model_has_a_key_of_its_own() -> None:
    for task in ops.tasks("S"):
        keys = [json.dumps(ops.key_of(task, work, "cuda")) for work in ops.chosen(task)]
        assert len(keys) == len(set(keys)) >= ops.LARGEST


def test_the_largest_inverted_residuals_are_compiled() -> None:
    task = next(task for task in ops.tasks("XXS") if task.providers == ops.COMPILED)
    found = ops.chosen(task)
    assert len(found) == ops.LARGEST
    assert {work.call.op for work in found} == {"inverted_residual"}
    assert found[0].call.shape["height"] == 128


# --- stages ---


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


WORKER = """
import sys, time
from pathlib import Path
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


def test_a_worker_that_takes_too_long_is_a_row(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LEAST_SECONDS", 0.5)
    rows = run_workers("time.sleep(60)", results, 2)
    assert rows == [("a", None), ("b", "took longer than the 2 s it had"), ("c", stages.NO_TIME)]


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
    made = steps.steps("sanitize", "90a", tmp_path, tmp_path)
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


# --- the whole ---


def test_a_stage_that_fails_does_not_keep_the_next_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stage(stage: str, steps: Any, results: Results, seconds: float, scratch: Path) -> str | None:
        if stage == "build":
            raise OSError("no space is left")
        assert (tmp_path / "summary.json").exists()
        row = {"kind": "model", "model": "S", "dtype": "float16", "batch": 1, "provider": "timm", "reason": None}
        results.append({**row, "median_ms": 1.5, "images_s": 666.7, "max_error": 0.01, "top1_agreement": 1.0})
        return None

    machine = {"name": "H100", "driver": "580", "cuda": "13.0"}
    monkeypatch.setattr(command, "run_stage", run_stage)
    monkeypatch.setattr(device, "facts", lambda: machine)
    monkeypatch.setattr(device, "available", lambda: True)
    monkeypatch.setattr(device, "architecture", lambda: "90a")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    outcome = CliRunner().invoke(command.app, ["--out", str(tmp_path), "--minutes", "1", "--stages", "models,build"])
    assert outcome.exit_code == 1, outcome.output
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert {stage: found["reason"] for stage, found in summary["stages"].items()} == {
        "build": "OSError: no space is left",
        "models": None,
    }
    assert summary["models"][0]["images_s"] == 666.7
    row = json.loads((tmp_path / "gpu-models.json").read_text(encoding="utf-8"))["rows"][0]
    assert (row["device"], row["driver"], row["cuda"], row["torch"]) == ("H100", "580", "13.0", torch.__version__)
    assert {"commit", "date", "triton", "transformers", "timm"} <= row.keys()
    assert "build" in outcome.output
    assert "OSError: no space is left" in outcome.output
    assert "667" in outcome.output


def test_the_report_compares_within_a_case_and_names_every_reason_once() -> None:
    def row(provider: str, ms: float, **more: Any) -> dict[str, Any]:
        speed = {"median_ms": ms, "images_s": 256e3 / ms, "max_error": 0.01, "top1_agreement": 1.0, "reason": None}
        return {"model": "S", "dtype": "float16", "batch": 256, "provider": provider, **speed, **more}

    def operator(provider: str, ms: float) -> dict[str, Any]:
        found = {"operator": "inverted_residual", "shape": "64→256→64", "batch": 1, "provider": provider}
        return {**found, "median_ms": ms, "share_of_floor": 0.25, "reason": None}

    lost = {**row("timm", 1.0), "reason": "no time was left for it"}
    summary = {
        "environment": {"gpu": {"name": "H100"}},
        "stages": {"models": {"seconds": 10.0, "reason": None}},
        "models": [
            row(providers.ANCHOR, 5.0),
            row("timm-graph", 20.0),
            row("timm-max-autotune", 20.0, ours_beside_ms=8.0),
            row("transformers-graph", 20.0, dtype="bfloat16"),
            lost,
            {**lost, "batch": 1},
        ],
        "operators": [operator("cuda", 0.5), operator("plain", 3.0)],
    }
    ran, went, speeds = (
        [list(cells) for cells in zip(*(column.cells for column in table.columns), strict=True)]
        for table in report.tables(summary)
    )
    assert ran == [["inverted_residual", "64→256→64", "1", "0.5", "", "3", "", "25 %"]]
    assert went == [["models", "10", "done"], ["2 of models", "", "no time was left for it"]]
    assert [line[1:5] for line in speeds] == [
        [providers.ANCHOR, "5", "51200", "1.00×"],
        ["timm-graph", "20", "12800", "4.00×"],
        ["timm-max-autotune", "20", "12800", "2.50×"],
        ["transformers-graph", "20", "12800", ""],
    ]

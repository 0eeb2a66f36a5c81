"""The GPU benchmark's command: its plan, its files, its clock, the programs it runs; none of it needs a GPU."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import timing
from benchmarks.__main__ import app
from benchmarks.gpu import command, device, models, plan, process, providers, report, steps
from benchmarks.gpu.process import Outcome
from benchmarks.gpu.results import Results


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


@pytest.mark.parametrize("minutes", [1.0, 12.0, 60.0])
def test_a_dry_run_lists_everything_within_the_minutes(minutes: float) -> None:
    outcome = CliRunner().invoke(app, ["session", "--out", "somewhere", "--minutes", str(minutes), "--dry-run"])
    assert outcome.exit_code == 0, outcome.output
    assert not Path("somewhere").exists()
    begun: dict[str, list[float]] = {}
    beside = [line for line in outcome.output.splitlines() if line.startswith("beside")]
    assert len(beside) == len(models.compiled_ahead()) == 4  # S, XS, XXS and the yardstick
    for line in outcome.output.splitlines()[len(beside) : -1]:
        name, budget = re.fullmatch(r"([\w-]+): (\d+) s; .*|  +(\d+) s  .*", line).group(1, 2)
        if name:
            begun[name] = [float(budget)]
        else:
            begun[list(begun)[-1]].append(float(line.split()[0]))
    assert list(begun) == list(plan.STAGES)
    assert sum(seconds for seconds, *_ in begun.values()) == pytest.approx(60 * minutes, abs=3)
    for stage, (budget, *of_steps) in begun.items():
        made = steps.steps(stage, "90", Path("somewhere").resolve(), Path("scratch"))
        assert len(of_steps) == len(made)
        assert sum(of_steps) <= budget + len(of_steps) / 2 + 0.5
        assert all(step.text in outcome.output for step in made if step.name != "build")
    assert "MVF_CUDA=on MVF_CUDA_ARCHITECTURES=native python setup.py build_ext --inplace" in outcome.output


def test_chosen_stages_share_all_the_time_in_their_order() -> None:
    found = plan.budgets(["ops", "models"], 480)
    assert list(found) == ["models", "ops"]
    assert found == {"models": pytest.approx(400), "ops": pytest.approx(80)}


def test_prebuilt_libraries_are_loaded_and_not_built() -> None:
    arguments = ["session", "--out", "somewhere", "--dry-run", "--stages", "build", "--prebuilt"]
    outcome = CliRunner().invoke(app, arguments)
    assert "setup.py" not in outcome.output
    assert "load: python -c" in outcome.output


def test_programs_beside_others_end_with_them() -> None:
    sleeper = (sys.executable, "-c", "import time; time.sleep(60)")
    start = time.monotonic()
    with process.Background([(sys.executable, "-c", ""), (sys.executable, "-c", "raise SystemExit(1)"), sleeper]) as it:
        processes = list(it._running)
        for short in processes[:2]:
            short.wait(timeout=30)
        assert it.finish(0.1) == 1
    assert all(one.poll() is not None for one in processes)
    assert time.monotonic() - start < 30


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
    assert plan.planned("ops", usual, [30, 10, 60, 10]) == pytest.approx([30, 10, usual - 40, 0])
    assert plan.planned("ops", usual / 2, [20, 20]) == pytest.approx([20, usual / 2 - 20])
    assert plan.planned("ops", 3 * usual, [10, 15]) == pytest.approx([30, 45])
    clock = Ticking()
    queue = plan.Queue("ops", usual, clock)
    assert queue.limit(40) == 40
    clock.time = usual - 10
    assert queue.limit(50) == pytest.approx(10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["session", "--out", str(tmp_path / "out")])
    assert outcome.exit_code == 1
    assert "expected a GPU that torch can use, found none" in outcome.output
    assert not (tmp_path / "out").exists()


def test_unknown_stages_are_refused() -> None:
    outcome = CliRunner().invoke(app, ["session", "--out", "somewhere", "--stages", "build,nothing"])
    assert outcome.exit_code == 2
    assert f"--stages: expected some of {', '.join(plan.STAGES)}, got nothing" in outcome.output


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
    held = tmp_path / "held"  # by a lock, as long as the child lives
    child = (
        f"import fcntl, time; file = open({str(held)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write('locked'); file.flush(); time.sleep(600)"
    )
    code = (
        f"import subprocess, sys, time; print('begun'); subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "time.sleep(600)"
    )
    for limit in (1, 8, 60):  # until it is enough for the child to start in
        outcome = python(code, limit)
        assert (outcome.code, outcome.reason) == (None, f"took longer than the {limit} s it had")
        if held.exists() and held.read_text() == "locked":
            break
    assert held.read_text() == "locked"
    assert outcome.output == "begun\n"
    with held.open() as file:
        assert until(lambda: is_free(file), 30.0)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
    assert len(timed.seconds["a"]) == timing.MIN_ROUNDS


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
    monkeypatch.setattr(device, "architecture", lambda: "90")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    outcome = CliRunner().invoke(app, ["session", "--out", str(tmp_path), "--minutes", "1", "--stages", "models,build"])
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


def test_a_graph_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call's tensors, which were there before the capture; the graph's own memory has but the results."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    graph = SimpleNamespace(replay=lambda: None, pool=lambda: None)
    fake = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=nullcontext,
        CUDAGraph=lambda: graph,
        graph=lambda graph, pool: nullcontext(),
    )
    monkeypatch.setattr(device.torch, "cuda", fake)
    weights = torch.ones(3)
    seen = weakref.ref(weights)
    replay, result, _ = device.Gpu.capture(object.__new__(device.Gpu), lambda weights=weights: 2 * weights)
    del weights
    replay()
    assert seen() is not None
    assert result.tolist() == [2, 2, 2]
    del replay
    assert seen() is None

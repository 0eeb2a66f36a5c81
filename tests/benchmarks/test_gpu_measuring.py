"""What the GPU benchmark measures; a device of the host's stands in for the GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import operators, order
from benchmarks.builders import Forward
from benchmarks.cases import Case, pool_size
from benchmarks.gpu import device, measuring, models, ops, providers, regions
from benchmarks.gpu.results import Results
from benchmarks.networks import Networks, logits_of
from benchmarks.registry import Provider
from mobilevit_fast.kernels.cuda import rules
from mobilevit_fast.ops import OPS
from testing.threads import using_threads

SIZE = 64
"""Pixels: the machinery is under test, not the model."""


class Host:
    """The interface of ``device.Gpu`` on the CPU; a graph is the call itself."""

    device = torch.device("cpu")
    l2_bytes = 30_000
    capability = "9.0"
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

    def kernels(self, call: Callable[[], Any]) -> list[str]:
        call()
        return ["Kernel"]

    def reset_peak(self) -> int:
        return 1_000_000

    def peak(self) -> int:
        return 3_000_000

    def release(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with using_threads(1):  # work this small only waits for a second one
        yield


def test_a_pool_is_larger_than_the_cache() -> None:
    image, cache = 3 * 256 * 256 * 2, 50 << 20
    assert pool_size(image, cache, 1) * image > cache
    assert pool_size(256 * image, cache, 256) == 1
    assert pool_size(1024 * image, cache, 1024) == 1


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

    def broken(case: Case, provider: Provider) -> Forward:
        raise RuntimeError("out of /some/folder/memory")

    def wrong(case: Case, provider: Provider) -> Forward:
        return lambda x: torch.full((len(x), 1000), torch.nan)

    for build in (broken, wrong):
        name = build.__name__
        monkeypatch.setitem(providers.BUILDERS, name, build)
        monkeypatch.setitem(providers.PROVIDERS, name, Provider(name, name, name))
    monkeypatch.setattr(models, "MAX_GRAPHS", 2)
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


def test_a_run_in_this_process_compares_models_with_the_device(
    task: models.Task, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "facts", lambda: {"name": "a GPU", "driver": "580", "cuda": None})
    short = task._replace(batches=(2,), providers=("transformers-channels-last", "broken"), seconds=60.0)
    found = measuring.run("models", [short], SIZE, results.path, Host(), verified=False, resume=False)
    environment = found["environment"]
    assert (environment["what"], environment["verified"], environment["gpu"]["name"]) == ("models", False, "a GPU")
    ceiling, *rows = found["rows"]
    assert [row["provider"] for row in rows] == ["broken", "transformers-channels-last"]
    measured = rows[1]
    moving = measured["mb"] / ceiling["copy_gb_s"]
    computing = 2 * measured["gmac"] / ceiling["matmul_tflop_s"]
    assert 0.015 < measured["gmac"] < 0.025  # a sixteenth of those at 256 px, and less for attention
    assert measured["share_of_floor"] == pytest.approx(2 * max(moving, computing) / measured["median_ms"], rel=0.02)
    assert "share_of_floor" not in rows[0]
    again = measuring.run("models", [short], SIZE, results.path, Host(), verified=False, resume=True)
    assert again == found


def test_timm_and_transformers_are_the_same_function() -> None:
    networks = Networks("XXS", torch.float32, SIZE)
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        theirs, timm = (logits_of(networks.get(name)(x)) for name in ("transformers", "timm"))
    assert (theirs - timm).abs().max() < 1e-4 * theirs.abs().max()


def test_a_lost_device_ends_the_process_with_the_rows_so_far(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()

    def fatal(case: Case, provider: Provider) -> Forward:
        host.lost = True
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setitem(providers.BUILDERS, "fatal", fatal)
    monkeypatch.setitem(providers.PROVIDERS, "fatal", Provider("fatal", "fatal", "fatal"))
    task = models.Task("XXS", "bfloat16", (2,), ("fatal", "transformers"), 10)
    with pytest.raises(models.DeviceLost, match="illegal memory access"):
        models.measure(task, results, host, 60.0, image_size=SIZE)
    assert [(row["provider"], row["reason"]) for row in results.rows] == [
        ("fatal", "RuntimeError: an illegal memory access was encountered")
    ]
    assert [key["provider"] for key in models.missing(task, results.rows)] == ["transformers"]


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
        assert row["products_us"] > 0
        floor = max(row["bytes_us"], row["products_us"])
        assert row["share_of_floor"] == pytest.approx(floor / row["median_ms"] / 1e3, rel=0.05, abs=2e-3)
    assert all("cuda" in row["reason"] for row in rows if row["provider"] == "cuda")


def test_regions_have_rows_by_both_kinds_of_kernels(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bool] = []

    def builder(provider: str, call: Any, arguments: dict[str, Any]) -> Callable[..., Tensor]:
        assert provider == "cuda"
        built.append(rules.has_sm90(torch.device("cpu")))
        if call.op == "classifier_head":
            raise ValueError("expected another head")
        return operators.builder("plain", call, arguments)

    monkeypatch.setattr(rules, "SM90_DEVICE_TYPES", ["cpu"])
    monkeypatch.setattr(regions, "builder", builder)
    monkeypatch.setattr(regions, "CALLS", 2)
    task = regions.Task("XXS", 1, 60)
    regions.measure(task, results, Host(), 60.0, image_size=SIZE)
    assert list(regions.missing(task, results.rows, SIZE)) == []
    *rows, head = results.rows
    assert head["reason"] == "ValueError: expected another head"
    assert built == [True, False] * len(rows) + [True]
    for row in rows:
        assert row["reason"] is None
        assert min(row["us"], row["before_us"]) > 0
        assert row["error"] == pytest.approx(row["pytorch_error"], rel=0.5)
        assert row["kernels"] == ["Kernel"]
    assert sum(row["calls"] for row in rows) == 17


def test_regions_without_time_say_so(results: Results) -> None:
    regions.measure(regions.Task("XXS", 1, 60), results, Host(), 0.0, image_size=SIZE)
    assert {row["reason"] for row in results.rows} == {"no time was left for it"}
    assert list(regions.missing(regions.Task("XXS", 1, 60), results.rows, SIZE)) == []


def test_regions_of_another_chip_have_no_times(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "capability", "8.6")
    regions.measure(regions.Task("XXS", 1, 60), results, Host(), 60.0, image_size=SIZE)
    assert {row["reason"] for row in results.rows} == {"RuntimeError: expected compute capability 9.0, got 8.6"}
    assert order.few_rows(results.path) == []


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        (
            "void mobilevit_fast::cuda::start_sm90<mobilevit_fast::cuda::few::Head<mobilevit_fast::cuda::Half> >(X)",
            "few::Head<Half> >(X)",
        ),
        ("void mobilevit_fast::cuda::start<mobilevit_fast::cuda::Resize>(Y)", "Resize>(Y)"),
        ("void at::native::copy<float>", ""),
    ],
)
def test_names_of_kernels(name: str, kernel: str) -> None:
    assert device.kernel_name(name) == kernel


def test_every_operator_of_a_model_has_a_key_of_its_own() -> None:
    for task in ops.tasks("S"):
        keys = [json.dumps(ops.key_of(task, work, "cuda")) for work in ops.chosen(task)]
        assert len(keys) == len(set(keys)) >= ops.LARGEST


def test_an_operator_that_does_not_fit_is_a_row_and_the_others_go_on(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = ops.exact_and_gmac
    turn = iter(range(100))

    def second_fails(*arguments: Any) -> Any:
        if next(turn) == 1:
            raise MemoryError("not enough of it")
        return counted(*arguments)

    monkeypatch.setattr(ops, "exact_and_gmac", second_fails)
    task = ops.Task("XXS", 1, ("plain",), 60)
    ops.measure(task, results, Host(), 60.0, image_size=32)
    assert list(ops.missing(task, results.rows, 32)) == []
    reasons = [row["reason"] for row in results.rows if row["kind"] == "operator"]
    assert reasons[:3] == [None, "MemoryError: not enough of it", None]
    assert not any(reasons[2:])


def test_a_kernel_that_writes_no_numbers_has_no_time(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "builder", lambda *_: lambda *images: torch.full((1, 16, 16, 16), torch.nan))
    monkeypatch.setattr(ops, "relative_error", lambda value, exact: value.mean().item())
    ops.measure(ops.Task("XXS", 1, ("plain",), 60), results, Host(), 60.0, image_size=32)
    rows = results.rows[1:]
    assert {row["reason"] for row in rows} == {"RuntimeError: expected finite numbers, got others"}
    assert not any("median_ms" in row for row in rows)


def test_operators_run_on_kernels_with_packed_weights(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's, which stand in for those of a GPU."""
    monkeypatch.setattr(ops, "DTYPE", torch.bfloat16)
    ops.measure(ops.Task("XXS", 1, ("cpu",), 60), results, Host(), 60.0, image_size=SIZE)
    rows = results.rows[1:]
    assert len(rows) > 10
    for row in rows:
        assert row["reason"] is None
        assert 0 < row["error"] < 2e-2


def test_the_largest_inverted_residuals_are_compiled() -> None:
    task = next(task for task in ops.tasks("XXS") if task.providers == ops.COMPILED)
    found = ops.chosen(task)
    assert len(found) == ops.LARGEST
    assert {work.call.op for work in found} == {"inverted_residual"}
    assert found[0].call.shape["height"] == 128

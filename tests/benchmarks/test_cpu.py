"""The CPU benchmark: a small run from end to end, its table, and providers that are not there."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import registry, timing
from benchmarks.cases import Case
from benchmarks.cpu import floors, measure, measuring, ops, providers, table
from benchmarks.networks import Networks
from benchmarks.registry import Provider
from mobilevit_fast.ops import OPS
from testing import shapes
from testing.threads import using_threads

SIZE = 64
"""Pixels: the machinery is under test, not the model."""
TIMES = ("min_ms", "p20_ms", "median_ms", "p80_ms")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(Networks("XXS", torch.float32, SIZE), 2, threads=torch.get_num_threads())


MACHINE = {
    "peak_gmac_s": {"float32": {"1": 100.0}, "bfloat16": {"1": 100.0}},
    "copy_gb_s_by_mb": {"1.0": 50.0, "100.0": 10.0},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run writes for two eager providers and one that is not installed."""
    out = tmp_path_factory.mktemp("results") / "folder" / "cpu.json"
    settings = measuring.Settings(
        models=["XXS"],
        batches=[1, 2],
        dtypes=["float32"],
        threads=1,
        rounds=1,
        peers=["transformers", "openvino"],
        image_size=SIZE,
    )
    forward_peak = measuring.forward_peak

    def peak(kind: str, size: str, batch: int, *others: int) -> float:
        """Measured for one batch: it takes two processes for each."""
        return forward_peak(kind, size, batch, *others) if batch == 1 else {"eager": 2.0, "accelerated": 1.0}[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        patch.setattr(measuring, "forward_peak", peak)
        patch.setattr(measuring, "machine_peak", lambda threads, dtypes: MACHINE)
        with using_threads(2):
            assert measuring.run("models", settings, out) == json.loads(out.read_text(encoding="utf-8"))
            assert torch.get_num_threads() == 2
        before = out.read_bytes()
        measuring.run("models", settings, out, resume=True)
    assert out.read_bytes() == before  # nothing was left to measure
    return out


def load(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text(encoding="utf-8"))


def test_a_run_has_a_row_for_every_provider(results: Path) -> None:
    rows = [row for row in load(results)["rows"] if row["kind"] == "model"]
    named = ["ours", "ours-channels-last", "ours-reference", "transformers", "openvino"]
    assert [(row["batch"], row["provider"]) for row in rows] == [(batch, name) for batch in (1, 2) for name in named]
    for row in rows:
        if row["provider"] == "openvino":
            assert row["reason"].startswith("not installed: ")
            assert "median_ms" not in row
            continue
        times = [row[name] for name in TIMES]
        assert times == sorted(times)
        assert times[0] > 0
        assert row["reason"] is None
        assert 0 < row["error"] < 1e-5
        assert row["gmac_s"] == pytest.approx(row["gmac"] / row["median_ms"] * 1e3, rel=1e-3)
        assert row["share_of_peak"] == pytest.approx(row["gmac_s"] / 100, rel=1e-2)
        assert row["share_of_floor"] >= 0.99 * row["share_of_peak"]
        assert 0 <= row["top1_agreement"] <= 1
        assert {"device", "commit", "date", "torch", "transformers"} <= row.keys()


def test_a_run_has_the_peak_of_memory(results: Path) -> None:
    rows = [row for row in load(results)["rows"] if row["kind"] == "memory"]
    assert [row["batch"] for row in rows] == [1, 2]
    measurable = Path("/proc/self/clear_refs").exists()
    for row in rows:
        assert (row["reason"] is None) == measurable
        assert not measurable or row["eager_mb"] > row["accelerated_mb"]
    assert ("Peak of the memory that a forward needs" in table.markdown(load(results))) == measurable


def test_a_peak_that_was_not_measured_has_its_reason(results: Path) -> None:
    loaded = load(results)
    for row in loaded["rows"]:
        if row["kind"] == "memory":
            row["reason"] = "no such file"
    text = table.markdown(loaded)
    assert "Not measured: peak of memory: no such file." in text
    assert "Peak of the memory" not in text


def test_a_run_says_what_it_ran_on(results: Path) -> None:
    environment = load(results)["environment"]
    assert environment["cpu"]["name"]
    assert environment["versions"]["torch"] == torch.__version__
    assert {"openvino", "onnxruntime", "transformers"} <= environment["versions"].keys()
    assert (environment["threads"], environment["rounds"], environment["image_size"]) == (1, 1, SIZE)
    assert set(environment["git"]) == {"commit", "dirty"}
    assert environment["verified"] is False


def test_the_table_has_accuracy_and_reasons(results: Path) -> None:
    text = table.markdown(load(results))
    assert "| float32, ms per image | XXS, batch 1 | XXS, batch 2 | error | top-1 |" in text
    assert "Not measured: OpenVINO: not installed: " in text
    assert "The operators' tests were not run before." in text


def test_other_results_are_not_gone_on_with(results: Path, tmp_path: Path) -> None:
    other = load(results)
    other["stamp"]["torch"] = "1.0"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other), encoding="utf-8")
    settings = measuring.Settings(models=["XXS"], threads=1)
    with pytest.raises(ValueError, match=r"other\.json cannot be gone on with: measured with another torch"):
        measuring.run("models", settings, path, resume=True)


def test_what_a_provider_does_wrong_is_its_reason(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(case: Case, provider: Provider) -> providers.Call:
        raise RuntimeError("in /some/folder/file.bin\nand more")

    def reason(build: Any) -> str | None:
        monkeypatch.setitem(providers.BUILDERS, "peer", build)
        return providers.prepare(Provider("peer", "peer", "peer"), case).reason

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert (reason(providers.onnxruntime) or "").startswith("not installed: ")
    assert reason(fails) == "RuntimeError: in file.bin"
    assert (reason(lambda c, _: lambda: c.exact() * 2) or "").startswith("wrong: relative error 1.0e+00")
    assert (reason(lambda c, _: lambda: c.exact() * float("nan")) or "").startswith("wrong: relative error nan")
    assert (reason(lambda c, _: lambda: c.exact()[:1]) or "").startswith("expected logits of shape (2, 1000)")
    assert reason(lambda c, _: lambda: c.exact()) is None
    monkeypatch.setattr(providers, "LONGEST_CALL", 0.0)
    assert reason(lambda c, _: lambda: c.exact()) == "a call takes 0 s"


def test_onnxruntime_has_no_bfloat16(case: Case) -> None:
    half = Case(Networks("XXS", torch.bfloat16, SIZE), 1, threads=case.threads)
    prepared = providers.prepare(registry.providers_on("cpu")["onnxruntime"], half)
    assert prepared == (None, None, "no bfloat16 kernels for the CPU", None)


def test_patched_attention_is_the_same_function(case: Case) -> None:
    prepared = providers.prepare(registry.providers_on("cpu")["transformers-sdpa"], case)
    assert prepared.reason is None
    assert prepared.error is not None
    assert prepared.error < 1e-5
    kinds = {type(module).__name__ for module in case.networks.get("transformers").modules()}
    assert "MobileViTSelfAttentionWithSdpa" not in kinds  # the copy is patched, not the original


@pytest.mark.parametrize("name", ["timm-channels-last", "ours-reference"])
def test_every_library_has_the_weights(case: Case, name: str) -> None:
    prepared = providers.prepare(registry.providers_on("cpu")[name], case)
    assert (prepared.reason, prepared.top1_agreement) == (None, 1.0)
    assert prepared.error is not None
    assert prepared.error < 1e-5


@pytest.mark.parametrize("name", ["XXS-segmentation", registry.YARDSTICK])
def test_other_models_are_measured_too(name: str) -> None:
    case = Case(Networks(name, torch.float32, SIZE), 1, threads=torch.get_num_threads())
    settings = measuring.Settings(rounds=1, peers=["transformers", "timm"])
    rows = measuring.measure_models(case, settings, 60)
    ours = ["ours", "ours-channels-last", "ours-reference", "transformers"]
    assert [row["provider"] for row in rows] == (["timm"] if name == registry.YARDSTICK else ours)
    for row in rows:
        assert row["reason"] is None
        assert row["error"] < 1e-4
        assert row["top1_agreement"] > 0.95


@pytest.mark.parametrize("dtype", registry.DTYPES_ON["cpu"])
def test_operators_compute_what_the_modules_compute(case: Case, dtype: str) -> None:
    case = Case(Networks("XXS", registry.DTYPES[dtype], SIZE), 1, threads=case.threads)
    rows = list(ops.measure_operators(case, 1))
    assert {row["operator"] for row in rows} == set(OPS) - {"aspp"}  # of segmentation
    regions = [row for row in rows if row["operator"] not in ("depthwise_conv2d", "depthwise_separable_conv2d")]
    assert sum(row["calls"] for row in regions) == 18
    assert sum(row["calls"] * row["gmac"] for row in regions) == pytest.approx(case.gmac(), rel=1e-3)
    for row in rows:
        assert row["error"] <= 2 * row["plain_error"], (
            row["operator"],
            row["path"],
            row["shape"],
            row["error"],
            row["plain_error"],
        )
        assert row["plain_median_ms"] > 0
        assert row["mb"] > 0
        assert row["mexp"] > 0 or row["operator"] == "depthwise_conv2d"


def test_calibrated_features_are_no_denormals(case: Case) -> None:
    smallest = []
    for module in case.model("transformers").modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            smallest.append(module.running_var.min().item())
            assert module.momentum != 1.0
    assert min(smallest) > 1e-3
    assert 0.1 < case.exact().square().mean().sqrt() < 10


def test_every_call_is_measured_once_in_each_round() -> None:
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) for name in "abc"}
    timed = timing.interleaved(calls, timing.HostClock(), 60, 4, most_calls=1)
    assert {name: len(values) for name, values in timed.seconds.items()} == {"a": 4, "b": 4, "c": 4}
    rounds = made[3 * (1 + timing.WARM_UP_CALLS) :]
    assert rounds[::2] == rounds[1::2]  # the unmeasured call comes directly before the measured one
    assert all(set(rounds[start : start + 6]) == set("abc") for start in range(0, len(rounds), 6))


def test_statistics_are_per_image_in_milliseconds() -> None:
    values = timing.statistics([0.004, 0.002, 0.006], share=2)
    assert values == {"median_ms": 2.0, "p20_ms": 1.4, "p80_ms": 2.6, "min_ms": 1.0}


def test_rates_are_those_of_the_machine() -> None:
    assert measure.matmul_rate(torch.float32, 1, size=64, repeats=1) > 0
    assert measure.copy_rate(1, megabytes=1, repeats=1) > 0
    rates = {"peak_gmac_s": {"float32": {"2": 100.0}, "bfloat16": {"2": 40.0}}}
    assert measure.peak_for(rates, "bfloat16", 2) == 100.0
    again = {"peak_gmac_s": {"float32": {"2": 90.0}, "bfloat16": {"2": 60.0}}}
    assert measure.better(rates, again) == {"peak_gmac_s": {"float32": {"2": 100.0}, "bfloat16": {"2": 60.0}}}


def test_a_provider_that_fails_while_it_is_measured_has_a_reason(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(8))
    peer = measuring.Prepared(lambda: next(calls), 0.0, None, 1.0)
    ours = measuring.Prepared(lambda: None, 0.0, None, 1.0)
    monkeypatch.setattr(measuring, "prepare", lambda provider, case: ours if provider.ours else peer)
    rows = measuring.measure_models(case, measuring.Settings(rounds=4, peers=["timm"]), 1.0)
    assert [(row["provider"], row.get("rounds")) for row in rows if row["reason"] is None] == [
        ("ours", 4),
        ("ours-channels-last", 4),
        ("ours-reference", 4),
    ]
    assert rows[-1]["reason"].startswith("StopIteration")
    assert "median_ms" not in rows[-1]


def test_a_floor_is_the_slowest_of_what_has_to_be_done() -> None:
    shape = {"kernel": 3, "stride": 2}
    row = {"kind": "operator", "operator": "conv2d_bias_act", "shape": shape, "batch": 8, "dtype": "float32"}
    row |= {"mb": 1.0, "gmac": 0.0, "mexp": 0.0}
    assert floors.floor_ms(row, MACHINE, 1) == pytest.approx(1 / 50)  # a copy in the cache
    assert floors.floor_ms({**row, "mb": 50.0}, MACHINE, 1) == pytest.approx(5)
    assert floors.floor_ms({**row, "gmac": 1.0, "mexp": 100.0}, MACHINE, 1) == pytest.approx(10 + 6)
    assert floors.floor_ms({**row, "gmac": 1.0, "mexp": 100.0, "dtype": "bfloat16"}, MACHINE, 1) == pytest.approx(10)
    winograd = {**row, "gmac": 1.0, "shape": {"kernel": 3, "stride": 1}}
    assert floors.floor_ms(winograd, MACHINE, 1) == pytest.approx(10 / 2.25)
    image = {"kind": "model", "batch": 8, "dtype": "float32", "gmac": 0.0, "mb": 10.0}
    assert floors.floor_ms(image, MACHINE, 1) == pytest.approx(1)  # eight of them, which no cache holds


def test_work_of_a_call_in_millions() -> None:
    stem = shapes.preset_calls("xx_small", batch=2)[0]
    numbers = 2 * (3 * 256**2 + 16 * 128**2) + 16 * 27  # images in and out, weights
    work = floors.work_of(stem)
    assert work["mb"] == pytest.approx(4e-6 * (numbers + 2 * 16), rel=1e-3)  # scale and bias
    assert work["mexp"] == pytest.approx(1e-6 * 2 * 16 * 128**2, rel=1e-3)


def test_shapes_follow_the_network() -> None:
    calls = shapes.preset_calls("xx_small", batch=8)
    assert len(calls) == 18
    assert {call.op for call in calls} == set(OPS) - {"aspp", "depthwise_conv2d", "depthwise_separable_conv2d"}
    assert {call.arguments[0].shape[0] for call in calls} == {8}
    stem, fusion = calls[0].shape, next(call.shape for call in calls if call.part == "fusion")
    assert table.shape_text(stem) == "3→16, 256×256, kernel 3, stride 2"
    assert table.shape_text(fusion) == "48+48→48, 32×32, kernel 3, stride 1"


def test_the_yardstick_has_a_table_of_its_own_and_rounds_are_those_that_were_made() -> None:
    def row(model: str, provider: str, label: str, ms: float, rounds: int, error: float) -> dict[str, Any]:
        times = {"median_ms": ms, "p20_ms": 0.9 * ms, "p80_ms": 1.1 * ms, "rounds": rounds}
        case = {"kind": "model", "model": model, "batch": 1, "dtype": "float32"}
        return {**case, **times, "provider": provider, "label": label, "error": error, "reason": None}

    environment = {
        "cpu": {"name": "A CPU", "variant": "avx2"},
        "threads": 1,
        "rounds": 15,
        "date": "2026-01-02",
        "machine": {"peak_gmac_s": {"float32": {"1": 40.0}}},
        "versions": {},
        "image_size": 256,
        "git": {"commit": None, "dirty": False},
    }
    compiled = ("transformers-compile", "transformers, torch.compile")
    rows = [
        row("S", "ours", "mobilevit_fast", 10, 15, 1e-6),
        row("S", *compiled, 20, 15, 2e-6),
        row(registry.YARDSTICK, *compiled, 30, 4, 9e-5),
    ]
    text = table.markdown({"environment": environment, "rows": rows})
    assert text.startswith("A CPU, 1 thread, kernel variant avx2")
    assert "Median of 4 to 15 rounds" in text
    assert "| transformers, torch.compile | 20 | 2e-06 |" in text
    assert "| torch.compile | 30 | 9e-05 |" in text
    assert "| **fastest peer / mobilevit_fast** | 2.00× (1.64–2.44) |" in text
    assert text.count("In brackets") == 1
    for one in rows[:2]:
        del one["rounds"]
    assert "Median of 15 rounds" in table.markdown({"environment": environment, "rows": rows[:2]})

"""The CPU benchmark: a small run from end to end, its table, and providers that are not there."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import shapes
from benchmarks.cpu import command, measure, models, ops, providers, table
from mobilevit_fast.ops import OPS

SIZE = 64
"""Pixels: the machinery is under test, not the model."""
TIMES = ("min_ms", "p20_ms", "median_ms", "p80_ms")


@pytest.fixture(scope="module")
def case() -> models.Case:
    return models.make_case(models.build_model("XXS", SIZE), "XXS", 2, "float32", torch.get_num_threads(), SIZE)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for two eager providers and one that is not installed."""
    out = tmp_path_factory.mktemp("results") / "folder" / "cpu.json"
    words = (
        f"--models XXS --batches 1 2 --dtypes float32 --threads 1 --rounds 1 --no-ops --image-size {SIZE} --out {out}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        patch.setattr(command, "machine_peak", lambda threads, dtypes: {"peak_gmac_s": {"float32": {"1": 100.0}}})
        arguments = command.repeat_options([*words.split(), "--peers", "transformers", "openvino"])
        outcome = CliRunner().invoke(command.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "| float32, ms per image | XXS, batch 1 | XXS, batch 2 | error |" in outcome.output
    return out


def load(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text(encoding="utf-8"))


def test_a_run_has_a_row_for_every_provider(results: Path) -> None:
    threads = torch.get_num_threads()
    rows = [row for row in load(results)["rows"] if row["kind"] == "model"]
    named = ["ours", "ours-channels-last", "transformers", "openvino"]
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
    assert torch.get_num_threads() == threads


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


def test_table_round_trip(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")

    def run(*options: str) -> int:
        return CliRunner().invoke(table.app, [str(results), *options]).exit_code

    assert run("--check", str(readme)) == 1
    assert run("--update", str(readme)) == 0
    assert run("--check", str(readme)) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"\n{table.END}\nafter\n")
    assert table.markdown(load(results)) in text
    assert "Not measured: OpenVINO: not installed: " in text
    readme.write_text(text.replace("transformers |", "something |"), encoding="utf-8")
    assert run("--check", str(readme)) == 1
    readme.write_text("no markers", encoding="utf-8")
    assert run("--update", str(readme)) == 1
    assert readme.read_text(encoding="utf-8") == "no markers"


def test_what_a_provider_does_wrong_is_its_reason(case: models.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(case: models.Case) -> providers.Call:
        raise RuntimeError("in /some/folder/file.bin\nand more")

    def reason(build: Any) -> str | None:
        return providers.prepare(providers.Provider("peer", "peer", build), case).reason

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert (reason(providers.onnxruntime) or "").startswith("not installed: ")
    assert reason(fails) == "RuntimeError: in file.bin"
    assert (reason(lambda c: lambda: c.exact * 2) or "").startswith("wrong: relative error 1.0e+00")
    assert (reason(lambda c: lambda: c.exact * float("nan")) or "").startswith("wrong: relative error nan")
    assert (reason(lambda c: lambda: c.exact[:1]) or "").startswith("expected logits of shape (2, 1000)")
    assert reason(lambda c: lambda: c.exact) is None


def test_onnxruntime_has_no_bfloat16(case: models.Case) -> None:
    half = dataclasses.replace(case, dtype=torch.bfloat16)
    prepared = providers.prepare(providers.PROVIDERS["onnxruntime"], half)
    assert prepared == (None, None, "no bfloat16 kernels for the CPU")


@pytest.mark.parametrize("dtype", list(models.DTYPES))
def test_operators_compute_what_the_modules_compute(case: models.Case, dtype: str) -> None:
    case = models.make_case(case.model, "XXS", 1, dtype, case.threads, SIZE)
    rows = list(ops.measure_operators(case, 1))
    assert {row["operator"] for row in rows} == set(OPS) - {"aspp"}  # of segmentation
    regions = [row for row in rows if row["operator"] not in ("depthwise_conv2d", "depthwise_separable_conv2d")]
    assert sum(row["calls"] for row in regions) == 18
    assert sum(row["calls"] * row["gmac"] for row in regions) == pytest.approx(case.gmac, rel=1e-3)
    for row in rows:
        assert row["error"] <= 2 * row["plain_error"], (
            row["operator"],
            row["path"],
            row["shape"],
            row["error"],
            row["plain_error"],
        )
        assert row["plain_median_ms"] > 0


def test_calibrated_features_are_no_denormals(case: models.Case) -> None:
    smallest = []
    for module in case.copy_of_model().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            smallest.append(module.running_var.min().item())
            assert module.momentum != 1.0
    assert min(smallest) > 1e-3
    assert 0.1 < case.exact.square().mean().sqrt() < 10


def test_every_call_is_measured_once_in_each_round() -> None:
    made: list[str] = []
    seconds = measure.interleaved({name: lambda name=name: made.append(name) for name in "abc"}, 4)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    rounds = made[3 * measure.WARM_UP_CALLS :]
    assert rounds[::2] == rounds[1::2]  # the unmeasured call comes directly before the measured one
    assert all(set(rounds[start : start + 6]) == set("abc") for start in range(0, len(rounds), 6))


def test_statistics_are_per_image_in_milliseconds() -> None:
    values = measure.statistics([0.004, 0.002, 0.006], share=2)
    assert values == {"median_ms": 2.0, "p20_ms": 1.4, "p80_ms": 2.6, "min_ms": 1.0}


def test_rates_are_those_of_the_machine() -> None:
    assert measure.matmul_rate(torch.float32, 1, size=64, repeats=1) > 0
    assert measure.copy_rate(1, megabytes=1, repeats=1) > 0
    rates = {"peak_gmac_s": {"float32": {"2": 100.0}, "bfloat16": {"2": 40.0}}}
    assert measure.peak_for(rates, "bfloat16", 2) == 100.0
    again = {"peak_gmac_s": {"float32": {"2": 90.0}, "bfloat16": {"2": 60.0}}}
    assert measure.better(rates, again) == {"peak_gmac_s": {"float32": {"2": 100.0}, "bfloat16": {"2": 60.0}}}


def test_options_that_take_several_values() -> None:
    words = "--models S XS --rounds 3 --no-ops --batches 1 8 --out f.json --models XXS"
    expected = "--models S --models XS --rounds 3 --no-ops --batches 1 --batches 8 --out f.json --models XXS"
    assert command.repeat_options(words.split()) == expected.split()


@pytest.mark.parametrize("option", ["--models", "--dtypes", "--peers"])
def test_unknown_names_are_refused(option: str) -> None:
    outcome = CliRunner().invoke(command.app, [option, "nothing"])
    assert outcome.exit_code == 2
    assert f"{option}: expected some of" in outcome.output


def test_shapes_follow_the_network() -> None:
    calls = shapes.preset_calls("xx_small", batch=8)
    assert len(calls) == 18
    assert {call.op for call in calls} == set(OPS) - {"aspp", "depthwise_conv2d", "depthwise_separable_conv2d"}
    assert {call.arguments[0].shape[0] for call in calls} == {8}
    stem, fusion = calls[0].shape, next(call.shape for call in calls if call.part == "fusion")
    assert table.shape_text(stem) == "3→16, 256×256, kernel 3, stride 2"
    assert table.shape_text(fusion) == "48+48→48, 32×32, kernel 3, stride 1"


def test_the_readme_shows_the_committed_results() -> None:
    root = Path(__file__).resolve().parents[2]
    results = root / "benchmarks" / "results" / "cpu-models-torch2.13.0.json"
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert table.replaced(readme, table.markdown(json.loads(results.read_text(encoding="utf-8")))) == readme

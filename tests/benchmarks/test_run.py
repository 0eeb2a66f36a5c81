"""The command over both devices, the registry behind it, and what it verifies first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import registry, run, verify
from benchmarks.__main__ import app, repeat_options
from benchmarks.cpu import measuring
from benchmarks.cpu import providers as cpu_providers
from benchmarks.gpu import measuring as gpu_measuring
from benchmarks.gpu import process
from benchmarks.gpu import providers as gpu_providers
from benchmarks.gpu.process import Outcome


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["run", *words])


def test_the_registry_names_everybody_once() -> None:
    for device in registry.DTYPES_ON:
        names = [provider.name for provider in registry.PROVIDERS if device in provider.devices]
        assert len(names) == len(set(names))
        builders = cpu_providers.BUILDERS if device == "cpu" else gpu_providers.BUILDERS
        assert {provider.library for provider in registry.providers_on(device).values()} == set(builders)
    for provider in registry.PROVIDERS:
        assert set(provider.models) <= set(registry.MODELS)


def test_slow_providers_are_measured_in_few_cases_or_by_name() -> None:
    def names(*case: Any) -> list[str]:
        return [provider.name for provider in registry.chosen("cpu", *case)]

    tuned = "transformers-max-autotune"
    assert tuned in names("S", 1, "float32")
    assert tuned not in names("S", 8, "float32")
    assert tuned in names("S", 8, "float32", [tuned])
    assert names("S", 8, "float32", [tuned])[:3] == ["ours", "ours-channels-last", "ours-reference"]
    assert "openvino-float32" in names("XS", 8, "bfloat16")
    assert "openvino-float32" not in names("XS", 8, "float32")
    yardstick = names(registry.YARDSTICK, 1, "float32")
    assert yardstick == ["timm", "timm-channels-last", "transformers-compile", "onnxruntime", "openvino"]


def test_cases_are_those_of_the_models() -> None:
    settings = measuring.Settings(dtypes=["float32"])
    found = measuring.cases(settings, "models")
    assert [key.batch for key in found if key.model == "XXS-segmentation"] == [1]
    assert [key.batch for key in found if key.model == "S"] == [1, 8]
    assert {key.model for key in measuring.cases(settings, "ops")} == set(registry.MODELS) - {registry.YARDSTICK}


def test_tasks_of_a_gpu() -> None:
    sizes = [*registry.SIZES, registry.YARDSTICK]
    found = gpu_measuring.tasks("models", sizes, ["float16"], [1, 256], ["timm"], 60)
    assert [task.size for task in found] == sizes
    assert "timm" in found[0].providers
    assert found[-1].providers == ("timm",)
    assert all(provider.startswith("ours") or provider == "timm" for provider in found[0].providers)
    assert len(gpu_measuring.tasks("ops", sizes, ["float16"], [1, 256], None, 60)) == 2 * len(registry.SIZES)


def test_options_that_take_several_values() -> None:
    words = "ops --size S XS --rounds 3 --no-verify --batch 1 8 --out f.json --size XXS"
    expected = "ops --size S --size XS --rounds 3 --no-verify --batch 1 --batch 8 --out f.json --size XXS"
    assert repeat_options(words.split(), {"--size", "--batch"}) == expected.split()


@pytest.mark.parametrize("option", ["--size", "--dtype", "--peers", "--device"])
def test_unknown_names_are_refused(option: str) -> None:
    outcome = invoke("models", option, "nothing")
    assert outcome.exit_code == 2
    assert f"{option}: expected some of" in outcome.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    outcome = invoke("models", "--device", "cuda", "--out", str(tmp_path / "f.json"))
    assert outcome.exit_code == 1
    assert outcome.output.strip() == "error: --device cuda: expected a GPU that torch can use, found none"
    assert not (tmp_path / "f.json").exists()


def test_on_red_there_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = Outcome(1, "exit status 1: 1 failed", "FAILED test_error[x]\n1 failed\n", 1.0)
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(process, "run", lambda command, limit, env: commands.append(command) or outcomes)
    monkeypatch.setattr(measuring, "run", lambda *_, **__: pytest.fail("measured all the same"))
    outcome = invoke("ops", "--out", str(tmp_path / "f.json"))
    assert outcome.exit_code == 1
    assert "FAILED test_error[x]" in outcome.output
    assert "nothing was measured" in outcome.output
    assert not (tmp_path / "f.json").exists()
    assert commands[0][-len(verify.TESTS["cpu"]) :] == verify.TESTS["cpu"]


@pytest.mark.parametrize("words", [(), ("--no-verify",)])
def test_rows_say_whether_tests_were_run(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[Any] = []

    def measure(what: str, settings: Any, out: Path, **how: Any) -> dict[str, Any]:
        verified.append(how["verified"])
        return {}

    monkeypatch.setattr(run, "verify", lambda device: None)
    monkeypatch.setattr(measuring, "run", measure)
    monkeypatch.setattr(run, "markdown", lambda results, operators: "")
    assert invoke("models", "--out", str(tmp_path / "f.json"), *words).exit_code == 0
    assert verified == [not words]


def test_every_machine_and_choice_of_types_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.info, "collect", lambda: {"devices": [{"description": "Some(R) CPU X @ 2.5GHz"}]})
    version = torch.__version__.split("+")[0]
    two = run.default_out("models", ["float32", "bfloat16"], "cpu", 2)
    assert two.name == f"models-float32-bfloat16-cpu-some-x-2.5ghz-2-threads-torch{version}.json"
    one = run.default_out("ops", ["float32"], "cpu", 1)
    assert one.name == f"ops-float32-cpu-some-x-2.5ghz-1-thread-torch{version}.json"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    gpu = run.default_out("models", ["float16"], "cuda", 2)
    assert gpu.name == f"models-float16-cuda-nvidia-h100-torch{version}.json"


def test_operators_of_what_has_none_are_refused(tmp_path: Path) -> None:
    outcome = invoke("ops", "--size", "ResNet-50", "--no-verify", "--out", str(tmp_path / "f.json"))
    assert outcome.exit_code == 2
    assert "--size: expected some of S, XS, XXS, XXS-segmentation, got ResNet-50" in " ".join(outcome.output.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("models --device cuda --threads 2", "--threads: not used on cuda"),
        ("ops --device cuda --rounds 3", "--rounds: not used on cuda, where each provider has 15"),
        ("ops --peers timm", "--peers: not used by ops"),
        ("models --size XXS-segmentation --batch 8", "--batch: expected some of 1 for XXS-segmentation, got 8"),
        ("models --size S XXS-segmentation --peers resnet50-max-autotune --device cuda", "--peers: resnet50-max-auto"),
        ("models --peers openvino openvino-float32 --dtype float32", "--peers: openvino-float32 runs none of"),
    ],
)
def test_options_that_would_not_be_used_are_refused(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.gpu_device, "available", lambda: pytest.fail("went on all the same"))
    monkeypatch.setattr(run, "check", lambda device: pytest.fail("went on all the same"))
    outcome = invoke(*words.split(), "--out", str(tmp_path / "f.json"))
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"error: {expected}")
    assert outcome.stderr.count("\n") == 1

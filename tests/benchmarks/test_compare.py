"""What moved between two files of results."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from benchmarks import compare, ratios
from benchmarks.__main__ import app

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
Row = dict[str, Any]


def row(provider: str, median: float, spread: float = 0.01, **others: Any) -> Row:
    times = {"median_ms": median, "p20_ms": median * (1 - spread), "p80_ms": median * (1 + spread)}
    return {"kind": "model", "model": "S", "batch": 1, "dtype": "float32", "provider": provider, **times, **others}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Compares rows, or whole contents."""

    def invoke(old: Any, new: Any, *options: str) -> Result:
        paths = []
        for name, content in (("old", old), ("new", new)):
            paths.append(tmp_path / f"{name}.json")
            content = {"rows": content} if isinstance(content, list) else content
            text = content if isinstance(content, str) else json.dumps(content)
            paths[-1].write_text(text, encoding="utf-8")
        return CliRunner().invoke(app, ["compare", *map(str, paths), *options])

    return invoke


def test_slower_beyond_threshold_and_noise_is_a_regression(run: Any) -> None:
    result = run([row("ours", 10)], [row("ours", 12)])
    assert result.exit_code == 1
    assert "1.200" in result.output
    assert "slower" in result.output
    assert "1 rows of this package, median ratio 1.200: 1 slower, 0 faster" in result.output
    assert run([row("ours", 10)], [row("ours", 12)], "--threshold", "25").exit_code == 0
    assert run([row("ours", 12)], [row("ours", 10)]).exit_code == 0


def test_the_noise_is_no_regression(run: Any) -> None:
    result = run([row("ours", 10, 0.15)], [row("ours", 12, 0.15)])
    assert result.exit_code == 0
    assert "within the noise" in result.output


def test_ratios_are_to_be_found_again(run: Any) -> None:
    """However fast the machine is: 2.00 with a spread of 2 % each."""
    old = [row("ours", 10), row("openvino", 20), row("timm", 40)]
    again = run(old, [row("ours", 5), row("openvino", 10.3), row("timm", 20)])
    assert "2 of 2 ratios of others to this package agree within their spread" in again.output
    other = run(old, [row("ours", 5), row("openvino", 11), row("timm", 20)])
    assert "1 of 2 ratios" in other.output
    assert "not S batch 1 float32 openvino: 2.00× (1.96–2.04) before, 2.20× (2.16–2.24) now" in other.output
    assert "ratios" not in run([row("ours", 10)], [row("ours", 10)]).output


def test_a_ratio_without_quantiles_has_no_spread() -> None:
    theirs, ours = {"median_ms": 20.0, "p20_ms": None}, {"median_ms": 10.0, "p20_ms": 8.0, "p80_ms": 12.5}
    assert ratios.Ratio.of(theirs, ours) == (2.0, 1.6, 2.5)
    assert ratios.fastest([{"median_ms": 30.0}, theirs], ours) == (2.0, 1.6, 2.5)
    assert ratios.fastest([], ours) is None
    assert ratios.fastest([theirs], None) is None


@pytest.mark.parametrize("provider", ["ours", "ours-cuda-graph", "cuda", "triton", "cpu"])
def test_names_of_this_package(run: Any, provider: str) -> None:
    assert run([row(provider, 10)], [row(provider, 12)]).exit_code == 1


@pytest.mark.parametrize("provider", ["plain", "compiled", "timm", "openvino"])
def test_others_are_the_measure_of_the_machine(run: Any, provider: str) -> None:
    old = [row("ours", 10), row(provider, 20)]
    alone = run(old, [row("ours", 10), row(provider, 24)])
    assert alone.exit_code == 0
    assert "1 rows of other libraries: median ratio 1.200: the machine seems slower" in alone.output
    both = run(old, [row("ours", 12), row(provider, 24)])
    assert both.exit_code == 1  # what was measured decides
    assert "slower, as the others" in " ".join(both.output.split())
    assert "beside it 0 rows of this package are slower" in both.output
    faster = run(old, [row("ours", 10), row(provider, 10)])
    assert faster.exit_code == 0
    assert "the machine seems faster; beside it 1 rows of this package are slower" in faster.output
    assert "the machine is as fast as before" in run(old, old).output


@pytest.mark.parametrize("name", ["error", "max_error"])
def test_an_error_that_more_than_doubled_is_a_regression(run: Any, name: str) -> None:
    old = [row("ours", 10, **{name: 1e-6})]
    assert run(old, [row("ours", 10, **{name: 2e-6})]).exit_code == 0
    grown = run(old, [row("ours", 10, **{name: 2.1e-6})])
    assert grown.exit_code == 1
    assert "error grew" in grown.output
    assert run(old, [row("ours", 10, **{name: float("nan")})]).exit_code == 1
    assert run(old, [row("ours", 10)]).exit_code == 0
    other = [row("timm", 10, **{name: value}) for value in (1e-6, 1e-5)]
    assert run(other[:1], other[1:]).exit_code == 0


def test_rows_that_are_not_on_both_sides(run: Any) -> None:
    failed = {**row("ours", 1), "reason": "no time was left for it"}
    for name in ("median_ms", "p20_ms", "p80_ms"):
        del failed[name]
    result = run([row("ours", 10), row("timm", 1)], [failed, row("openvino", 1)])
    assert result.exit_code == 0
    assert "no longer measured: 1 of this package, such as S batch 1 float32 ours: no time was left" in result.output
    assert "measured only before 2, only now 1" in result.output


def test_new_fields_change_nothing(run: Any) -> None:
    result = run([row("ours", 10)], [row("ours", 12, device="a GPU", top1_agreement=1.0, residual=False)])
    assert "1 rows of this package" in result.output
    assert result.exit_code == 1


def test_devices_tell_rows_apart_only_within_a_file(run: Any) -> None:
    assert run([row("ours", 10, device="H100")], [row("ours", 12, device="H200")]).exit_code == 1
    both = [row("ours", 10, device="H100"), row("ours", 5, device="H200")]
    assert run(both, both[::-1]).exit_code == 0


def test_a_row_of_a_cpu_operator_is_two(run: Any) -> None:
    shape = {"inputs": 3, "height": 8, "width": 8, "outputs": 16, "kernel": 3, "stride": 2}
    found = {**row("", 1), "kind": "operator", "operator": "conv2d_bias_act", "backend": "cpu", "shape": shape}
    del found["provider"]
    old = {
        **found,
        "plain_median_ms": 2.0,
        "plain_p20_ms": 2.0,
        "plain_p80_ms": 2.0,
        "plain_error": 1e-3,
        "error": 1e-3,
    }
    result = run([old], [{**old, "median_ms": 3.0, "p20_ms": 3.0, "p80_ms": 3.0, "backend": "reference"}])
    assert result.exit_code == 1
    assert "1 rows of other libraries: median ratio 1.000" in result.output
    assert "conv2d_bias_act 3→16, 8×8," in " ".join(result.output.split())


def test_rows_that_nothing_tells_apart_are_compared_in_their_order(run: Any) -> None:
    assert run([row("ours", 10), row("ours", 20)], [row("ours", 10), row("ours", 20)]).exit_code == 0
    assert run([row("ours", 10), row("ours", 20)], [row("ours", 10), row("ours", 24)]).exit_code == 1


def test_slowest_first_and_all_on_request(run: Any) -> None:
    old = [row("ours", 10), row("timm", 10), row("cuda", 10)]
    new = [row("ours", 10.1), row("timm", 14), row("cuda", 12)]
    few, every = (run(old, new, *options).output for options in ((), ("--all",)))
    assert few.index("1.400") < few.index("1.200")
    assert "1.010" not in few
    assert every.index("1.200") < every.index("1.010")


def test_other_environments_are_warned_of(run: Any) -> None:
    environment = {"threads": 2, "versions": {"torch": "2.12"}, "date": "then", "cpu": {"features": ["avx2", "fma"]}}
    other = {"threads": 4, "versions": {"torch": "2.13"}, "date": "now", "cpu": {"features": ["avx2", "amx"]}}
    stamps = [{"device": name} for name in ("H100", "H200")]
    old, new = (
        {"environment": e, "stamp": s, "rows": [row("ours", 1)]}
        for e, s in zip((environment, other), stamps, strict=True)
    )
    warnings = run(old, new).stderr.splitlines()
    changes = ["threads: 2 → 4", "versions.torch: 2.12 → 2.13", "cpu.features: -fma +amx", "gpu.device: H100 → H200"]
    assert warnings == [f"warning: environments differ: {change}" for change in changes]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"rows": 1}', '{"rows": [1]}'])
def test_what_is_no_file_of_results(run: Any, content: str) -> None:
    result = run([], content)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_bad_usage(run: Any, tmp_path: Path) -> None:
    assert run([], [], "--threshold", "nan").exit_code == 2
    assert run([], [], "--threshold", "-1").exit_code == 2
    assert run([], [], "no", "such").exit_code == 2
    with pytest.raises(typer.Exit):
        compare.main(tmp_path / "nothing.json", tmp_path / "nothing.json")


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_every_committed_file_equals_itself(run: Any, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    result = run(text, text)
    assert result.exit_code == 0, result.output
    assert " 0 slower, 0 faster, 0 less exact; measured only before 0, only now 0" in " ".join(result.output.split())
    if path.name.startswith("models-") or path.name in ("gpu-models.json", "gpu-ops.json"):
        assert "rows of other libraries: median ratio 1.000" in result.output

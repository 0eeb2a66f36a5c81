"""Tables and pictures are those of the committed results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import engine, freshness, plots, report, speedups
from benchmarks.__main__ import app
from benchmarks.cpu import resize
from benchmarks.cpu import table as cpu_table
from benchmarks.gpu import table as gpu_table


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["report", *words])


def test_the_page_and_the_pictures_are_those_of_the_committed_results() -> None:
    outcome = invoke("--check")
    assert outcome.exit_code == 0, outcome.output


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A page without tables and no pictures."""
    page = tmp_path / "page.md"
    markers = [speedups.BEGIN, speedups.END, cpu_table.BEGIN, cpu_table.END, gpu_table.BEGIN, gpu_table.END]
    markers += [gpu_table.REGIONS_BEGIN, gpu_table.REGIONS_END]
    page.write_text("\n".join(["before", *markers, "after"]), encoding="utf-8")
    of_engine = tmp_path / "engine.md"
    markers = [engine.BEGIN, engine.END, gpu_table.ENGINE_BEGIN, gpu_table.ENGINE_END]
    markers += [resize.BEGIN, resize.END]
    of_engine.write_text("\n".join(["before", *markers, "after"]), encoding="utf-8")
    return ["--page", str(page), "--engine-page", str(of_engine), "--plots", str(tmp_path / "docs" / "plots")]


def test_what_is_written_passes_the_check_until_it_is_changed(places: list[str], tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "docs" / "plots"
    assert invoke("--check", *places).exit_code == 1
    assert not folder.exists()
    assert invoke("--update", *places).exit_code == 0
    assert invoke("--check", *places).exit_code == 0
    text = page.read_text(encoding="utf-8")
    pictures = sorted(folder.glob("*.svg"))
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert pictures
    of_the_readme = {"overview.svg", "fusion.svg"}
    assert of_the_readme < {path.name for path in pictures}
    assert all(f"(docs/plots/{path.name})" in text for path in pictures if path.name not in of_the_readme)

    page.write_text(text.replace("transformers |", "something |"), encoding="utf-8")
    svg = pictures[0].read_text(encoding="utf-8")
    pictures[0].write_text(svg.replace("<!-- data: ", "<!-- data: 0"), encoding="utf-8")
    shutil.copy(pictures[0], folder / "of-nothing.svg")
    outcome = invoke("--check", *places)
    assert outcome.exit_code == 1
    for name in ("page.md", pictures[0].name, "of-nothing.svg"):
        assert name in outcome.output
    invoke("--update", *places)
    assert sorted(folder.glob("*.svg")) == pictures
    assert page.read_text(encoding="utf-8") == text
    assert pictures[0].read_text(encoding="utf-8") == svg


def test_the_page_of_the_engine_has_its_tables(places: list[str], tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "engine.md"
    shutil.copytree(
        report.ROOT / "benchmarks" / "results", results, ignore=shutil.ignore_patterns("*engine*", "resize-*")
    )
    chosen = ["--results", str(results), *places]
    before = page.read_text(encoding="utf-8")
    assert invoke("--update", *chosen).exit_code == 0
    assert page.read_text(encoding="utf-8") == before
    stages = {"together_by_slowest": 0.931, "bound_by": "forward", "core_seconds_by_those_alone": 1.042}
    rates = {"engine, exact": 80.0, "engine, fast": 88.0}
    rows = [
        {"case": "arrays", "images_per_second": rates, "stages": stages, "fast_agrees_with_exact": 1.0},
        {
            "case": "photos",
            "images_per_second": {**rates, "pipeline": 20.0},
            "stages": stages,
            "fast_agrees_with_exact": 0.995,
        },
    ]
    source, *_ = report.sources(results, "cpu")
    head = {
        "environment": {**source.models["environment"], "photos": 210, "rounds": 5},
        "stamp": {"torch": "2.13.0", "transformers": "5.23", "date": "2026-11-28"},
    }
    (results / "engine-float32-cpu.json").write_text(json.dumps({**head, "rows": rows}), encoding="utf-8")
    outcome = invoke("--check", *chosen)
    assert outcome.exit_code == 1
    assert "engine.md" in outcome.output
    assert invoke("--update", *chosen).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "| uint8 arrays of 256 px | 80.0 | 88.0 | – | 93 % of forward | 1.04× | 100.0 % |" in text
    assert "| the photos as they are | 80.0 | 88.0 | 20.0 (4.0×) | 93 % of forward | 1.04× | 99.5 % |" in text
    assert "transformers' pipeline |" in text
    assert "5 interleaved rounds over 210 photos" in text
    assert text.startswith("before\n")
    assert invoke("--check", *chosen).exit_code == 0
    page.write_text("no markers", encoding="utf-8")
    assert invoke("--check", *chosen).exit_code == 1


def test_photos_are_resized_by_both_and_the_page_has_the_table(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page = tmp_path / "results", tmp_path / "engine.md"
    shutil.copytree(report.ROOT / "benchmarks" / "results", results, ignore=shutil.ignore_patterns("*engine*"))
    monkeypatch.setattr(resize, "PHOTOS", ((300, 260),))
    monkeypatch.setattr(resize, "SHORTEST", 40)
    monkeypatch.setattr(resize, "CROP", 32)
    out = results / "resize-cpu.json"
    outcome = CliRunner().invoke(app, ["resize", "--out", str(out), "--seconds", "0.1"])
    assert outcome.exit_code == 0, outcome.output
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [(row["width"], row["height"], row["resample"]) for row in rows] == [
        (300, 260, "bilinear"),
        (300, 260, "bicubic"),
    ]
    for row in rows:
        assert [*row["ms"]] == ["Pillow", "planes", "interleaved", "processor by Pillow", "processor"]
        assert min(row["ms"].values()) > 0
    for earlier in results.glob("resize-*.json"):
        if earlier != out:
            earlier.unlink()
    rows[0]["ms"] |= {"Pillow": 8.0, "planes": 2.0, "processor by Pillow": 9.0, "processor": 6.0}
    out.write_text(json.dumps(json.loads(out.read_text(encoding="utf-8")) | {"rows": rows}), encoding="utf-8")
    assert invoke("--update", "--results", str(results), *places).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "| 300×260, bilinear | 8.000 | 2.000 (4.0×) |" in text
    assert "| 9.000 | 6.000 (1.5×) |" in text


def test_without_results_or_markers_it_says_so(places: list[str], tmp_path: Path) -> None:
    outcome = invoke("--check", "--results", str(tmp_path), *places)
    assert outcome.exit_code == 2
    assert "expected results of models in" in outcome.output
    (tmp_path / "page.md").write_text("no markers", encoding="utf-8")
    assert invoke("--update", *places).exit_code == 1
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == "no markers"


def test_a_picture_is_the_same_every_time() -> None:
    found, *_ = report.sources(report.ROOT / "benchmarks" / "results", "cpu")
    (first, *_), (again, *_) = (found.pictures() for _ in range(2))
    assert first.svg() == again.svg()
    assert "date" not in first.svg()


def test_every_machine_has_its_own_tables_and_the_newest_results(places: list[str], tmp_path: Path) -> None:
    committed = report.ROOT / "benchmarks" / "results"
    content = json.loads(next(committed.glob("models-float32-bfloat16-cpu-*.json")).read_text(encoding="utf-8"))

    def write(file: str, name: str, date: str, threads: int = 2, rows: Any = content["rows"]) -> None:
        environment = {**content["environment"], "date": date, "threads": threads}
        environment["cpu"] = {**environment["cpu"], "name": name}
        (tmp_path / file).write_text(
            json.dumps({**content, "environment": environment, "rows": rows}), encoding="utf-8"
        )

    write("models-cpu-a.json", "An Old(R) CPU @ 2.5GHz", "2026-01-01")
    write("models-cpu-b.json", "A New One", "2026-01-03")
    write("models-cpu-c.json", "An Old(R) CPU @ 2.5GHz", "2026-01-02")
    found = report.sources(tmp_path, "cpu")
    assert [source.models["environment"]["date"] for source in found] == ["2026-01-03", "2026-01-02"]
    names = [source.pictures()[0].name for source in found]
    assert names == ["throughput-a-new-one-2-threads", "throughput-an-old-2.5ghz-2-threads"]
    bfloat16 = [row for row in content["rows"] if row["dtype"] == "bfloat16"]
    write("models-bfloat16-cpu-b.json", "A New One", "2026-01-05", rows=bfloat16)
    beside = {source.name: source for source in report.sources(tmp_path, "cpu")}
    assert {"a-new-one-2-threads-bfloat16", "a-new-one-2-threads-float32-bfloat16"} < beside.keys()
    (tmp_path / "models-bfloat16-cpu-b.json").unlink()
    write("models-cpu-d.json", "A New One", "2026-01-04", threads=1)  # other results, of which neither hides the other
    assert len(report.sources(tmp_path, "cpu")) == 3
    write("models-cpu-e.json", "A(R) New One CPU", "2026-01-04")
    outcome = invoke("--check", "--results", str(tmp_path), *places)
    assert outcome.exit_code == 2
    assert "expected machines whose pictures have names of their own" in " ".join(outcome.output.split())


def test_labels_keep_their_order_and_their_distance() -> None:
    wanted = [1.0, 5.0, 1.1, 1.2, 9.0]
    found = plots.spread(wanted, 1.0)
    assert found == pytest.approx([0.1, 5.0, 1.1, 2.1, 9.0])


def test_ratios_of_the_first_table() -> None:
    """transformers, then the fastest of all; a case without this package has none, one without peers neither."""

    def row(model: str, provider: str, ms: float | None, batch: int = 1) -> dict[str, Any]:
        return {
            "kind": "model",
            "model": model,
            "dtype": "float32",
            "batch": batch,
            "provider": provider,
            "median_ms": ms,
        }

    rows = [
        *(row("S", name, ms) for name, ms in (("ours", 2.0), ("ours-reference", 1.0), ("transformers", 6.0))),
        *(row("S", name, ms) for name, ms in (("openvino", 3.0), ("timm", None))),
        *(row("XS", name, ms) for name, ms in (("ours", 2.0), ("timm", 5.0))),
        row("XXS", "transformers", 5.0),
        row("S", "transformers", 5.0, batch=8),
    ]
    environment = {"cpu": {"name": "a CPU"}, "threads": 2, "date": "2026-01-02", "kernels": freshness.digests()}
    lines = speedups.markdown([("cpu", {"environment": environment, "rows": rows})]).splitlines()
    assert lines[2:] == ["| a CPU, 2 threads, float32, batch 1, 2026-01-02 | 3.0× / 1.5× | – / 2.5× | – |"]

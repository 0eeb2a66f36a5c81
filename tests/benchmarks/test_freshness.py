"""Numbers say that they are older once a kernel's code is another than the one that was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import freshness, report
from benchmarks.cpu import table as cpu_table
from benchmarks.environment import environment
from benchmarks.gpu import table as gpu_table
from testing.paths import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
BACKENDS = tuple(freshness.SOURCES)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the kernels without git."""
    for folder in dict.fromkeys(folder for folders in freshness.SOURCES.values() for folder in folders):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_digest_is_of_code_not_of_comments(backend: str, tree: Path) -> None:
    known = freshness.digests()[backend]
    assert freshness.digest_of(backend, tree) == known
    folder = tree / freshness.SOURCES[backend][-1]
    path = next(p for p in sorted(folder.rglob("*")) if p.suffix in (".h", ".py"))
    text = path.read_text(encoding="utf-8")
    comment = "#" if path.suffix == ".py" else "//"
    path.write_text(f"{text}\n\n   {comment} another comment\n", encoding="utf-8")
    assert freshness.digest_of(backend, tree) == known
    path.write_text(f"{text}\nint another;\n", encoding="utf-8")
    assert freshness.digest_of(backend, tree) != known
    path.write_text(text, encoding="utf-8")
    path.rename(path.with_stem("another"))
    assert freshness.digest_of(backend, tree) != known


def test_what_both_devices_share_is_of_both(tree: Path) -> None:
    header = next((tree / "csrc" / "common").glob("*.h"))
    header.write_text(f"{header.read_text(encoding='utf-8')}\nint another;\n", encoding="utf-8")
    changed = {backend for backend in BACKENDS if freshness.digest_of(backend, tree) != freshness.digests()[backend]}
    assert changed == {"cpu", "cuda"}


def test_a_measurement_records_the_digests() -> None:
    assert environment(1)["kernels"] == {backend: freshness.digest_of(backend) for backend in BACKENDS}


def measured(pattern: str) -> Any:
    return json.loads(next(RESULTS.glob(pattern)).read_text(encoding="utf-8"))


def with_digests(results: dict[str, Any], **others: str | None) -> dict[str, Any]:
    return {**results, "environment": {**results["environment"], "kernels": {**freshness.digests(), **others}}}


@pytest.mark.parametrize("of_the_cpu", [True, False])
def test_tables_and_titles_say_older_exactly_where_a_kernel_changed(of_the_cpu: bool) -> None:
    device, backend = ("cpu", "cpu") if of_the_cpu else ("cuda", "cuda")
    pattern = "models-float32-cpu-*.json" if of_the_cpu else "gpu-*/gpu-models.json"
    results = measured(pattern)
    for current, older in ((with_digests(results), 0), (with_digests(results, **{backend: "another"}), 1)):
        text = cpu_table.markdown(current) if of_the_cpu else gpu_table.markdown(current, {**current, "rows": []})
        assert text.count(f"{freshness.OLDER} than the kernels") == older
        title = report.Sources(device, "a-machine", current, current).title
        assert title.endswith(f", {freshness.OLDER} than the kernels") == bool(older)
    without = {**results, "environment": {k: v for k, v in results["environment"].items() if k != "kernels"}}
    assert freshness.changed(device, without) == (backend,)


def test_triton_counts_where_it_was_measured() -> None:
    results = with_digests(measured("gpu-*/gpu-ops.json"), triton="another")
    assert freshness.changed("cuda", results) == ("triton",)
    rows = [row for row in results["rows"] if row.get("provider") != "triton"]
    assert freshness.changed("cuda", {**results, "rows": rows}) == ()


def test_every_number_that_is_shown_names_its_day_and_its_commit() -> None:
    found = [source for device in report.FILES for source in report.sources(RESULTS, device)]
    assert len(found) >= 3
    for text, begin, _ in report.blocks(found, report.newest_of(RESULTS, report.REGIONS), "plots"):
        for source in found:
            if begin in (cpu_table.BEGIN, gpu_table.BEGIN) and source.machine in text:
                assert source.models["environment"]["date"] in text
                assert source.models["environment"]["git"]["commit"][:7] in text

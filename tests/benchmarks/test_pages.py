"""Commands of the benchmarks that the pages show have these options, and numbers in sentences are those of results."""

import re
import shlex

import pytest
import typer

from benchmarks import fusion, report
from benchmarks.__main__ import app
from benchmarks.floors import work_of
from benchmarks.ratios import Ratio
from testing.paths import REPOSITORY
from tests.docs.pages import PAGES, commands, name_of

SHOWN = [
    pytest.param(command, id=f"{name_of(page)}: {command}")
    for page in PAGES
    for _, command in commands(page)
    if re.match(r"(\S*/)?python -m benchmarks ", command)
]


@pytest.mark.parametrize("command", SHOWN)
def test_commands_parse(command: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(command)[3:]
    context = group.make_context("benchmarks", list(words))
    name, one, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    one.make_context(name, rest, parent=context)


def test_there_are_some() -> None:
    assert len(SHOWN) >= 6


def sentences(name: str) -> str:
    """A page's text on one line."""
    return " ".join((REPOSITORY / name).read_text(encoding="utf-8").split())


def test_what_the_readme_says_of_the_chart() -> None:
    """The lead over the fastest peer on the newest CPU: within the noise for one image, so many times for eight."""
    newest = report.sources(REPOSITORY / "benchmarks" / "results", "cpu")[0]
    assert newest.machine.startswith("AMD EPYC, 2 threads")
    ratios = {}
    for batch in (1, 8):
        rows = [
            row
            for row in newest.models["rows"]
            if (row["kind"], row.get("model"), row.get("batch")) == ("model", "S", batch) and row.get("median_ms")
        ]
        ours = next(row for row in rows if row["provider"] == "ours")
        peers = [row for row in rows if not row["provider"].startswith("ours")]
        best = min(peers, key=lambda row: float(row["median_ms"]))
        ratios[batch] = Ratio.of(best, ours)
        assert best["label"] == {1: "OpenVINO", 8: "ONNX Runtime"}[batch]
    assert ratios[1].low < 1
    eight = f"{ratios[8].median:.1f} times ({ratios[8].low:.2f} to {ratios[8].high:.2f})"
    assert f"over ONNX Runtime with 8 images it is {eight}" in sentences("README.md")


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_what_the_pages_say_of_the_fused_block(page: str) -> None:
    least = sum(work_of(call.op, call.named).unfused_bytes for call in fusion.block_calls())
    assert f"{least / 1e6:.1f} MB" in sentences(page)

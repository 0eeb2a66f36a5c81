"""Python blocks of the pages run, those of a page one after the other; options of commands exist.

Names of the hub and photos are stood in for by folders and files of these names where the code runs. What needs a GPU
is compiled alone where there is none; `docs/export.md` has a test of its own.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from mobilevit_fast import limits
from mobilevit_fast.cli.app import app
from testing.paths import REPOSITORY
from tests.docs.pages import PAGES, blocks, commands, name_of
from tests.docs.running import EXPORTING, run_page

WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", [page for page in WITH_CODE if page != EXPORTING], ids=name_of)
def test_python_runs(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in vars(limits) if name.startswith("MAX_")]:
        monkeypatch.setattr(limits, name, getattr(limits, name))  # a page may raise one
    run_page(page)


def test_no_block_is_left_out() -> None:
    """Every fence has a language that a test knows, and blocks that need a GPU are few."""
    found = [block for page in PAGES for block in blocks(page)]
    opening = sum(len(re.findall(r"(?m)^\s*```", page.read_text(encoding="utf-8"))) for page in PAGES)
    assert 2 * len(found) == opening
    assert {block.language for block in found} <= {"python", "sh"}
    python = [block for block in found if block.language == "python"]
    assert len(python) >= 12
    assert [name_of(block.page) for block in python if block.needs_gpu] == ["docs/accelerate.md"]


def parse(group: Any, words: list[str]) -> None:
    """Parse a command line as click does, and run nothing."""
    try:
        context = group.make_context(group.name, list(words))
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = group.resolve_command(context, rest)
        command.make_context(name, rest, parent=context)
    except typer.Exit:
        pass  # of an option like --version


OURS = [
    pytest.param(command, id=f"{name_of(page)}: {command}")
    for page in PAGES
    for _, command in commands(page)
    if re.match(r"(\S*/)?mobilevit-fast ", command.split("&&")[-1].strip())
]


@pytest.mark.parametrize("command", OURS)
def test_commands_parse(command: str) -> None:
    _, *words = shlex.split(command.split("&&")[-1])
    parse(typer.main.get_command(app), words)


def test_commands_that_are_wrong_do_not_parse() -> None:
    assert len(OURS) >= 8
    for wrong in ("classify photos/ --modle x", "classified photos/", "classify", "export a.onnx --batch many"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|valid integer"):
            parse(typer.main.get_command(app), shlex.split(wrong))


def test_other_commands_name_what_there_is() -> None:
    """Targets of make, extras of pip and files of tests."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    suites = re.search(r"(?m)^SUITES := (.*)$", makefile)
    targets = set(re.findall(r"(?m)^([\w-]+):", makefile)) | {
        f"test-{s}" for s in (suites[1] if suites else "").split()
    }
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    count = 0
    for page in PAGES:
        for _, command in commands(page):
            words = shlex.split(command)
            if words[0] == "make":
                count += 1
                assert {word for word in words[1:] if "=" not in word} <= targets, command
            for word in words:
                if found := re.fullmatch(r"\.\[([\w,]+)\]", word):
                    assert set(found[1].split(",")) <= project["optional-dependencies"].keys(), command
                if word.startswith("tests/"):
                    assert (REPOSITORY / word.partition("::")[0]).exists(), command
    assert count >= 2

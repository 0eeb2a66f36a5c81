"""`python -m benchmarks`: its commands, and what it says of wrong options."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import COMMANDS, app
from testing.paths import REPOSITORY

NEED_TRITON = ("traffic", "compile-report", "tune")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_names_a_wrong_option_in_one_line(name: str) -> None:
    if name in NEED_TRITON:
        pytest.importorskip("triton")
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    outcome = CliRunner().invoke(app, [name, "--no-such-option"])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: No such option: --no-such-option")
    assert outcome.stderr.count("\n") == 1
    assert outcome.stdout == ""


@pytest.mark.parametrize(("words", "expected"), [([], "Missing command"), (["rum"], "No such command 'rum'")])
def test_what_is_no_command(words: list[str], expected: str) -> None:
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"error: {expected}")
    assert outcome.stderr.count("\n") == 1


def test_the_list_of_commands_loads_none_of_them() -> None:
    code = "import sys; from benchmarks.__main__ import app; app(['--help'])"
    check = "import sys; assert not {'torch', 'triton', 'transformers'} & sys.modules.keys()"
    program = f"try:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n{check}"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def test_what_is_not_installed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.order", None)
    outcome = CliRunner().invoke(app, ["order"])
    assert outcome.exit_code == 1
    assert "benchmarks.order" in outcome.stderr
    assert "expected the extras test and bench" in outcome.stderr
    assert outcome.stderr.count("\n") == 1

"""Commands of the benchmarks that the pages show have these options."""

import re
import shlex

import pytest
import typer

from benchmarks.__main__ import app
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

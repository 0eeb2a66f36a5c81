"""Scheduling of tasks under ThreadSanitizer: each task once, exceptions as they are; see guided_for.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.compiled import FOLDER, alone_in, compile_once, link_once
from testing.compiler import INCLUDE, compiler_with, run

HERE = Path(__file__).resolve().parent
KEPT = FOLDER / "guided_for"


def test_every_task_runs_once_and_exceptions_arrive(tmp_path: Path) -> None:
    compiler = compiler_with(["-fsanitize=thread", "-std=c++17", "-O1", "-g1", "-pthread"], tmp_path)
    with alone_in(KEPT):
        compiled = compile_once([*compiler, *INCLUDE], HERE / "guided_for.cpp", KEPT)
        result = run(link_once(compiler, [compiled.path], "guided_for", KEPT))
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("this ThreadSanitizer does not cope with the addresses that the system hands out")
    assert (result.returncode, result.stdout) == (0, "passed\n"), result.stderr[:4000]

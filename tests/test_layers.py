"""Rooms know only those before them, in the order that docs/architecture.md states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from testing.paths import REPOSITORY

PACKAGE = "mobilevit_fast"
CSRC = REPOSITORY / "csrc"
KNOWN = {
    "mobilevit_fast": {"mobilevit_fast"},
    "testing": {"mobilevit_fast", "testing"},
    "emulator": {"mobilevit_fast", "testing", "emulator"},
    "benchmarks": {"mobilevit_fast", "testing", "emulator", "benchmarks"},
    "tests": {"mobilevit_fast", "testing", "emulator", "docs", "tests"},
    "docs": {"mobilevit_fast", "testing", "docs"},
    "examples": {"mobilevit_fast", "examples"},
}
"""The folders of the repository that hold Python, and of which of these each may import; tests/benchmarks may more."""


class Import(NamedTuple):
    """A module that another one imports, and whether that is imported along with it or later, in a function."""

    module: str
    line: int
    late: bool


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for top in KNOWN for path in sorted((REPOSITORY / top).rglob("*.py"))}


def imports(source: str, package: str) -> Iterator[Import]:
    """All but those for types alone; ``package`` is what a relative import begins at."""
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    while stack:
        node, late = stack.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            stack += [(child, late) for child in node.orelse]
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                named = f"{base}.{alias.name}"
                yield Import(named if named in MODULES else base, node.lineno, late)
        within = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack += [(child, within) for child in ast.iter_child_nodes(node)]


def imports_of(module: str) -> list[Import]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return list(imports(path.read_text(encoding="utf-8"), package))


def layers() -> list[list[str]]:
    """The rooms, lowest first, those of a line together."""
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    section = re.search(r"(?ms)^## Rooms$(.*)", text)
    assert section is not None
    lines = re.findall(r"(?m)^\d+\. (`[\w./]+`(?:, `[\w./]+`)*):", section[1])
    return [re.findall(r"`([\w./]+)`", line) for line in lines]


LAYERS = layers()
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module: str) -> str:
    """As the list names it: a folder or a file of the package."""
    parts = module.split(".")[1:]
    if not parts:
        return "__init__.py"
    return f"{parts[0]}/" if MODULES[f"{PACKAGE}.{parts[0]}"].name == "__init__.py" else f"{parts[0]}.py"


def upward(module: str, found: list[Import]) -> list[str]:
    """What a module imports of later rooms, or of others of the same line."""
    own = room_of(module)
    wrong = []
    for other, line, _ in found:
        if other in MODULES and other.split(".")[0] == PACKAGE:
            room = room_of(other)
            if room != own and LEVEL[room] >= LEVEL[own]:
                wrong.append(f"{module}, line {line}: {own} imports {other} of {room}")
    return wrong


PACKAGE_MODULES = [module for module in MODULES if module.split(".")[0] == PACKAGE]


def test_every_room_stands_in_the_list_once() -> None:
    rooms = {room_of(module) for module in PACKAGE_MODULES}
    assert sorted(room for line in LAYERS for room in line) == sorted(rooms)


def test_rooms_know_only_those_before_them() -> None:
    """At any time: a late import counts as well."""
    assert [text for module in PACKAGE_MODULES for text in upward(module, imports_of(module))] == []


@pytest.mark.parametrize(
    "source",
    [
        "from mobilevit_fast.acceleration.fused import Fused",
        "from mobilevit_fast import acceleration",
        "import mobilevit_fast",
        "def f():\n    from ..acceleration import api",
    ],
)
def test_an_import_of_a_later_room_is_found(source: str) -> None:
    assert len(upward("mobilevit_fast.ops.registry", list(imports(source, "mobilevit_fast.ops")))) == 1
    assert upward("mobilevit_fast.demo", list(imports(source, "mobilevit_fast.ops"))) == []


def test_imports_make_no_circle() -> None:
    graph = {m: {one.module for one in imports_of(m) if not one.late and one.module != m} for m in PACKAGE_MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_tests_and_benchmarks_share_what_is_beside_them() -> None:
    wrong = []
    for module in MODULES:
        top = module.split(".")[0]
        known = KNOWN[top] | ({"benchmarks"} if module.startswith("tests.benchmarks") else set())
        for other, line, _ in imports_of(module):
            if other.split(".")[0] in KNOWN.keys() - known:
                wrong.append(f"{module}, line {line}: imports {other}")
    assert wrong == []


def included(path: Path) -> Iterator[Path]:
    """What a C++ file of csrc includes of csrc: by name of its own folder, else by the path."""
    for name in re.findall(r'(?m)^#include "([^"]+)"', path.read_text(encoding="utf-8")):
        found = in_csrc(path, name)
        if found.exists():  # not the emulator's
            yield found


def in_csrc(path: Path, name: str) -> Path:
    beside = path.parent / name
    return beside if beside.exists() else CSRC / name


def test_native_code_of_a_device_knows_no_other() -> None:
    allowed = {"common": {"common"}, "cpu": {"common", "cpu"}, "cuda": {"common", "cuda"}}
    allowed["python"] = {"common", "cpu", "python"}
    files = [path for path in sorted(CSRC.rglob("*")) if path.suffix in (".h", ".cpp", ".cu")]
    assert {path.relative_to(CSRC).parts[0] for path in files} == set(allowed)
    for path in files:
        tops = {other.relative_to(CSRC).parts[0] for other in included(path)}
        assert tops <= allowed[path.relative_to(CSRC).parts[0]], path


PLAIN_HEADERS = {"cstdint", "cstring", "immintrin.h"}
"""Types, functions of C and instructions: nothing of the C++ library that could be compiled here and used elsewhere."""


def others_headers(path: Path) -> list[str]:
    """What a file includes that is neither in csrc nor one of the plain headers."""
    names = re.findall(r"(?m)^[ \t]*#[ \t]*include[ \t]*(.*)$", path.read_text(encoding="utf-8"))
    own = {f'"{name}"' for name in re.findall(r'"([^"]+)"', "\n".join(names)) if in_csrc(path, name).exists()}
    plain = {f"<{name}>" for name in PLAIN_HEADERS}
    return [name for name in names if name.strip() not in own | plain]


def test_what_is_compiled_for_each_instruction_set_includes_plain_headers_alone() -> None:
    kernels = sorted((CSRC / "cpu").rglob("*_kernel.cpp"))
    assert len(kernels) >= 7
    for kernel in kernels:
        seen, stack = {kernel}, [kernel]
        while stack:
            path = stack.pop()
            assert others_headers(path) == [], (kernel, path)
            new = set(included(path)) - seen
            seen |= new
            stack += new


@pytest.mark.parametrize(
    "line", ["#include <vector>", '# include "vector"', "  #include <torch/csrc/stable/ops.h>", "#include MVF_HEADER"]
)
def test_an_include_of_a_library_is_found(line: str, tmp_path: Path) -> None:
    file = tmp_path / "some_kernel.cpp"
    file.write_text(f'#include <cstring>\n#include "cpu/simd.h"\n{line}\n#include <cstdint>\n')
    assert others_headers(file) == [line.split("include ")[1]]

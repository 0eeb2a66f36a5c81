"""Pages of the repository, and the blocks of code in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from testing.paths import REPOSITORY

FRONT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "csrc/README.md")
PAGES = [REPOSITORY / name for name in FRONT] + sorted((REPOSITORY / "docs").rglob("*.md"))
NEEDS_GPU = "<!-- needs a GPU -->"
_FENCE = re.compile(r"(?ms)^(<!--[^\n]*-->)?\n```(\w*)([^\n]*)\n(.*?)^```$")


class Block(NamedTuple):
    """A block between fences: its language, its text, where it is, and whether the comment above asks for a GPU."""

    page: Path
    line: int
    language: str
    text: str
    needs_gpu: bool

    @property
    def name(self) -> str:
        """Place of the block, as compilers name it."""
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """Path of a page in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path) -> list[Block]:
    """Blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        comment, language, rest, body = match.groups()
        assert not rest, f"{name_of(page)}: expected nothing behind the language of a fence, got {rest!r}"
        line = text.count("\n", 0, match.start(4)) + 1
        found.append(Block(page, line, language, body, comment == NEEDS_GPU))
    return found


def commands(page: Path) -> Iterator[tuple[Block, str]]:
    """Lines of a page's shell blocks, continued ones as one, without comments."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if command := re.sub(r"(^|\s)#.*", "", line).strip():
                    yield block, command


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for heading in re.findall(r"(?m)^#+ (.*)$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{n}" if n else slug for slug, count in found.items() for n in range(count + 1)}


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^()\s]+)\)", text)

"""Running the Python of a page."""

import re
from pathlib import Path
from typing import Any

import torch

from testing.paths import REPOSITORY
from tests.docs.pages import blocks

SMALL = {"hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]}
"""Sizes of the model that stands in for those of the pages."""
EXPORTING = REPOSITORY / "docs" / "export.md"
"""The page whose code takes a quarter of a minute and more."""


def run_page(page: Path) -> dict[str, Any]:
    """Run a page's Python in one namespace, which is the result; without a GPU, what needs one is compiled alone."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for block in blocks(page):
        if block.language == "python":
            count += 1
            code = compile("\n" * (block.line - 1) + block.text, block.name, "exec")
            if not block.needs_gpu or torch.cuda.is_available():
                exec(code, namespace)
    assert count == len(re.findall(r"(?m)^\s*```\s*py", page.read_text(encoding="utf-8"))) > 0
    return namespace

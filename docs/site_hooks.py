"""Hooks of mkdocs.yml: pages and files of the repository outside of docs/ that the pages link to.

README.md is the first page. A file outside keeps its path in the site, so that links to it are those of the repository.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FIRST = "README.md"
PAGES = (FIRST, "CHANGELOG.md", "CONTRIBUTING.md", "csrc/README.md")
"""Pages outside of docs/; the first becomes index.md."""
_LINK = re.compile(r"(?<=\]\()([^()\s#]+)(#[^()\s]*)?(?=\))")


def is_local(target: str) -> bool:
    """Whether a link is to a file of the repository."""
    return not re.match(r"[a-z][a-z0-9+.-]*:", target)


def source_of(uri: str) -> PurePosixPath:
    """Path in the repository of a file of the site."""
    if uri == "index.md":
        return PurePosixPath(FIRST)
    return PurePosixPath(uri) if (ROOT / uri).is_file() else PurePosixPath("docs") / uri


def uri_of(source: str) -> str:
    """The reverse: where a file of the repository is in the site."""
    return "index.md" if source == FIRST else source.removeprefix("docs/")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside of docs/, and every other file that a page links to."""
    for source in PAGES:
        files.append(File.generated(config, uri_of(source), abs_src_path=str(ROOT / source)))
    for page in [file for file in files if file.is_documentation_page()]:
        folder = source_of(page.src_uri).parent
        for target, _ in _LINK.findall(page.content_string):
            source = os.path.normpath(folder / target)
            if is_local(target) and (ROOT / source).is_file() and files.get_file_from_path(uri_of(source)) is None:
                files.append(File.generated(config, uri_of(source), abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between the repository's files become links between the site's."""
    own = source_of(page.file.src_uri)
    here = PurePosixPath(page.file.src_uri).parent

    def moved(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        source = os.path.normpath(own.parent / target)
        if not is_local(target) or source.startswith(".."):
            return found[0]
        return os.path.relpath(uri_of(source), here or ".") + anchor

    return _LINK.sub(moved, markdown)

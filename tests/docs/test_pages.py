"""Links lead somewhere, pages have their size, and figures are those that the code draws."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs import generate_figures
from docs.drawing import Arrow, Box, diagram
from testing.paths import REPOSITORY
from tests.docs.pages import PAGES, anchors, links, name_of

LONGEST_README, LONGEST_PAGE = 150, 300
KERNELS = ("cpu", "cuda", "triton", "emulator")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for link in links(page):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(REPOSITORY):
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: expected one of {sorted(anchors(target))}")
    assert wrong == []


def test_a_heading_is_found_and_another_is_not(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c: D\n\n```sh\n# no heading\n```\n\n## Same\n\n## Same\n", encoding="utf-8")
    assert anchors(page) == {"a-b-c-d", "same", "same-1"}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "csrc"], ids=name_of)
def test_pages_are_short_but_for_what_is_generated(page: Path) -> None:
    text = re.sub(r"(?ms)^<!-- [\w-]+:begin -->$.*?^<!-- [\w-]+:end -->$", "", page.read_text(encoding="utf-8"))
    assert len(text.splitlines()) <= LONGEST_PAGE


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(links(REPOSITORY / "README.md"))
    assert {name_of(page) for page in PAGES if page.name != "README.md"} <= linked


@pytest.mark.parametrize("name", KERNELS)
def test_pages_of_kernels_have_a_figure(name: str) -> None:
    assert any(link.endswith(".svg") for link in links(REPOSITORY / "docs" / "kernels" / f"{name}.md"))


def test_figures_are_current() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in generate_figures.FOLDER.glob("*.svg")}
    assert found == generate_figures.render(), "run `python -m docs.generate_figures`"


def test_every_figure_is_shown() -> None:
    shown = {Path(link).name for page in PAGES for link in links(page)}
    folders = (REPOSITORY / "docs" / "figures", REPOSITORY / "docs" / "plots")
    assert {path.name for folder in folders for path in folder.glob("*.svg")} <= shown


def test_arrows_end_at_the_edges_of_boxes() -> None:
    boxes = {"a": Box(0, 0, "a & b"), "c": Box(1, 0, "c\nwith a line"), "d": Box(0, 1, "it's <d>")}
    text = diagram("what's <here>", boxes, (Arrow("a", "c", "to"), Arrow("a", "d")))
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    rectangles = [r for r in root.iter(f"{space}rect") if r.get("rx")]
    lines = list(root.iter(f"{space}line"))
    assert (len(rectangles), len(lines)) == (3, 2)
    assert root.get("aria-label") == "what's <here>"
    edges = [{float(r.get("x", 0)), float(r.get("x", 0)) + float(r.get("width", 0))} for r in rectangles]
    assert float(lines[0].get("x1", 0)) in edges[0]
    assert float(lines[0].get("x2", 0)) in edges[1]
    assert lines[1].get("x1") == lines[1].get("x2")

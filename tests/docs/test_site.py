"""The site builds from the pages alone: no warning, and nothing that a browser would fetch from a network."""

import logging
import re
from pathlib import Path

import pytest

from testing.paths import REPOSITORY
from tests.docs.pages import PAGES, name_of


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    build(load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(folder)))  # strict: a warning is an error
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in PAGES:
        name = name_of(page).removeprefix("docs/").replace("README.md", "index.md")
        assert (site / name).with_suffix(".html").is_file(), name


def test_nothing_is_fetched_from_a_network(site: Path) -> None:
    wanted = re.compile(
        r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*["']|@import|url\(["']?http"""
    )
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert wanted.findall(path.read_text(encoding="utf-8")) == [], path


def test_links_of_the_site_lead_to_files_of_it(site: Path) -> None:
    count = 0
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # whose links begin at the server's root
            continue
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"""(?:src|href)=["']([^"']+)["']""", text):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (path.parent / target).resolve() if target else path
            assert file.exists(), f"{path.name}: {link}"
            if anchor and file.suffix == ".html":
                assert re.search(rf"""(?:id|name)=["']{re.escape(anchor)}["']""", file.read_text(encoding="utf-8")), (
                    link
                )
            count += 1
    assert count > 100

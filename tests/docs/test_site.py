"""The links of all pages: in the repository, and on the site that `make docs` builds."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

import deepcnn

REPOSITORY = Path(__file__).parent.parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    found = importlib.util.spec_from_file_location("build_site", REPOSITORY / "docs/build_site.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def heading_ids(text: str) -> list[str]:
    """Return what links call the headings of a page, in its order."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


def links(text: str) -> list[tuple[str, str]]:
    """Return path and place of each link that does not leave the repository."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [link.partition("#") for link in LINK.findall(text) if "://" not in link]
    return [(path, place) for path, _, place in found if not path.startswith("data:")]


def test_every_link_of_a_page_leads_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    wrong = []
    for page in pages:
        for path, place in links(page.read_text()):
            aim = (page.parent / path).resolve() if path else page
            if not aim.exists():
                wrong.append(f"{page.name}: {path}")
            elif place and aim.suffix == ".md" and place not in heading_ids(aim.read_text()):
                wrong.append(f"{page.name}: {path}#{place}")
    assert wrong == []


def test_on_the_site_links_lead_to_pages_of_the_site(site: ModuleType) -> None:
    places = dict(site.staged())
    for source, target in places.items():
        if source.suffix == ".md":
            text = site.with_links_of_the_site(source.read_text(), source, target)
            for path, _ in links(text):
                aim = Path(os.path.normpath(target.parent / path)) if path else target
                assert aim in places.values(), (source.name, path)


def test_every_public_name_has_a_place_on_a_page_of_the_interface(site: ModuleType) -> None:
    shown = {name for _, members in site.API.values() for name in members}
    last = {name.rpartition(".")[2] for name in shown}
    assert set(deepcnn.__all__) <= last

"""The pages in Chinese are in step with the English pages of the same names.

Sentences are free. What can be compared is: headings, blocks, pictures, figures, links and tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, ROOT, name_of
from tests.docs.test_site import LINK, heading_ids

ENGLISH, CHINESE = ROOT / "docs", ROOT / "docs" / "zh"
PAGES = sorted(page.relative_to(CHINESE).as_posix() for page in CHINESE.rglob("*.md"))
# The one line that each page has for itself: below its title it leads to the other language.
OTHER_LANGUAGE = {ENGLISH: "[中文](zh/{page})", CHINESE: "[English](../{page})"}
FIGURE = re.compile(r"<!-- figures: (\w+) -->(.*?)<!-- /figures -->", re.DOTALL)
PLACE = re.compile(r"<!-- figure: .*? -->", re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def text_of(page: Path) -> str:
    """Return a page without the line that leads to the other language."""
    lines = page.read_text().splitlines(keepends=True)
    home = next(folder for folder in (CHINESE, ENGLISH) if page.is_relative_to(folder))
    expected = OTHER_LANGUAGE[home].format(page=page.relative_to(home).as_posix())
    assert lines[1:4] == ["\n", f"{expected}\n", "\n"], (
        f"{name_of(page)}: line 3, between empty lines, is {expected!r}"
    )
    return "".join(lines[:1] + lines[3:])


def prose(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def headings(page: Path) -> list[object]:
    """Return the levels of a page's headings, and of numbered ones the number."""
    return re.findall(r"^(#+) (\d+\. )?", prose(page), re.MULTILINE)


def blocks(page: Path) -> list[object]:
    """Return languages and contents, each after the number of headings before it."""
    text = text_of(page)
    found: list[object] = []
    for match in FENCE.finditer(text):
        before = len(re.findall(r"^#", FENCE.sub("", text[: match.start()]), re.MULTILINE))
        found.append((before, *match.groups()))
    return found


def by_section(page: Path, found: Callable[[str], Iterable[object]]) -> list[object]:
    """Return what each section has, in an order that is not that of its sentences."""
    sections = re.split(r"^#+ .*$", prose(page), flags=re.MULTILINE)
    return [(number, sorted(found(text), key=repr)) for number, text in enumerate(sections)]


def pictures(page: Path) -> list[object]:
    """Return which files a page shows, in its order."""
    return [(page.parent / path).resolve() for path in PICTURE.findall(prose(page))]


def figures(page: Path) -> list[object]:
    """Return names and contents of figures; their links as files, wherever the page is."""

    def found(text: str) -> Iterable[object]:
        for name, content in FIGURE.findall(text):
            yield name, LINK.sub(lambda link: str(aim(page, link[1])), content)

    return by_section(page, found)


def places(page: Path) -> list[object]:
    """Return the places that wait for a figure."""
    return by_section(page, PLACE.findall)


def links(page: Path) -> list[object]:
    """Return where the links of each section lead."""
    return by_section(page, lambda text: [aim(page, link) for link in LINK.findall(text)])


def aim(page: Path, link: str) -> tuple[str, int]:
    """Return what a link leads to: an address, or a file and the number of a heading in it.

    A page that is there in Chinese stands for its English one where a page in Chinese leads to it.
    """
    if "://" in link:
        return link, 0
    path, _, place = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    ids = heading_ids(target.read_text()) if place else [""]
    assert place in ids, f"{name_of(page)}: {link} leads to no heading"
    if page.is_relative_to(CHINESE):
        if target.is_relative_to(CHINESE):
            target = ENGLISH / target.relative_to(CHINESE)
        elif target.is_relative_to(ENGLISH):
            in_chinese = CHINESE / target.relative_to(ENGLISH)
            assert not in_chinese.exists(), f"{name_of(page)}: {link} is there in Chinese"
    return target.relative_to(ROOT).as_posix(), ids.index(place)


def tables(page: Path) -> list[object]:
    """Return the columns of each row of each table."""
    cells = re.compile(r"(?<!\\)\|")
    return [
        [len(cells.findall(row)) for row in table.splitlines()]
        for table in TABLE.findall(prose(page))
    ]


COMPARED = (headings, blocks, pictures, figures, places, links, tables)


@pytest.mark.parametrize("compared", COMPARED, ids=lambda compared: compared.__name__)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_chinese_has_what_its_english_page_has(
    page: str, compared: Callable[[Path], list[object]]
) -> None:
    english, chinese = compared(ENGLISH / page), compared(CHINESE / page)
    for before, after in zip(english, chinese, strict=False):
        assert after == before, f"docs/zh/{page} is not in step with docs/{page}"
    assert len(chinese) == len(english), f"docs/zh/{page}: {len(chinese)} for {len(english)}"


def test_there_are_pages_in_chinese() -> None:
    assert {"start.md", "tutorial.md"} <= set(PAGES)

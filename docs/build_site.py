"""Builds the site: puts its pages into build/docs, lets zensical build them, checks the result.

    python docs/build_site.py

Pages are those of docs/, README.md as the home page, those of records/ and benchmarks/, and pages
of the interface, which are made of the docstrings. Links between them become links of the site.
What was built is then read: every link must lead somewhere, and no page may load anything from
outside.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = Path(__file__).resolve().parent.parent
STAGE, SITE = REPOSITORY / "build" / "docs", REPOSITORY / "build" / "site"
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
FOLDERS = ("records", "benchmarks")  # their pages and results are part of the site
LOADING = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
}

# The public names on each page of the interface.
API = {
    "training": (
        "Training and data",
        ("train", "resume", "presets", "Config", "DataSpec", "open_dataset", "load_dataset"),
    ),
    "after_training": (
        "After training",
        ("load", "inference.classifier.Classifier", "evaluate", "export"),
    ),
    "parts": (
        "Inputs and networks",
        (
            *(
                "Network",
                "build_model",
                "inputs.transform.Transform",
                "inputs.stream",
                "inputs.fed",
            ),
            *("data.source.Source", "data.arrays.Arrays", "data.shards.Shard", "events"),
        ),
    ),
}


def main() -> int:
    """Build the site, and return the exit status."""
    began = time.perf_counter()
    shutil.rmtree(STAGE, ignore_errors=True)
    pages = {source: target for source, target in staged() if source.suffix == ".md"}
    for source, target in staged():
        (STAGE / target).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = with_links_of_the_site(source.read_text(), source, target)
            (STAGE / target).write_text(text)
        else:
            shutil.copyfile(source, STAGE / target)
    for name, (title, members) in API.items():
        text = f"# {title}\n\n" + "\n\n".join(f"::: deepcnn.{member}" for member in members) + "\n"
        (STAGE / "api").mkdir(exist_ok=True)
        (STAGE / "api" / f"{name}.md").write_text(text)
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [str(Path(sys.executable).parent / "zensical"), "build", "--clean"], cwd=REPOSITORY
    )
    if built.returncode:
        return built.returncode
    wrong = wrong_links()
    print("\n".join(wrong) or f"{len(pages) + len(API)} pages, every link leads somewhere")
    print(f"{SITE.relative_to(REPOSITORY)}/index.html, in {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0


def staged() -> list[tuple[Path, Path]]:
    """Return each file that is part of the site, and its place below the site's root."""
    found = [(REPOSITORY / "README.md", Path("index.md"))]
    docs = REPOSITORY / "docs"
    found += [
        (path, path.relative_to(docs))
        for path in sorted(docs.rglob("*"))
        if path.suffix in (".md", ".png", ".svg", ".html")
    ]
    for folder in FOLDERS:
        found += [
            (path, path.relative_to(REPOSITORY))
            for path in sorted((REPOSITORY / folder).rglob("*"))
            if path.suffix in (".md", ".jsonl", ".json")
        ]
    return found


def with_links_of_the_site(text: str, source: Path, target: Path) -> str:
    """Return a page whose links lead to where its neighbours are on the site.

    A link to a file that is not part of the site, as one to source code, becomes its text alone.
    """
    places = dict(staged())

    def moved(link: re.Match[str]) -> str:
        label, where = link.groups()
        path, hash_sign, place = where.partition("#")
        if not path or urlsplit(path).scheme:
            return link[0]
        aim = (source.parent / path).resolve()
        exists, aim = aim.exists(), aim / "README.md" if aim.is_dir() else aim
        if aim not in places:
            return label[1:-1] if exists else link[0]
        relative = os.path.relpath(places[aim], target.parent)
        return f"{label}({relative}{hash_sign}{place})"

    return LINK.sub(moved, text)


class Page(HTMLParser):
    """What a page of the site links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag down."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if tag == "a" and name == "href" and value:
                self.links.append(value)
            if (tag, name) in LOADING and value:
                self.loads.append(value)


def wrong_links() -> list[str]:
    """Return a line for each link that leads nowhere, and for all that comes from outside."""
    pages = {path: Page(path) for path in sorted(SITE.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(SITE)
        wrong += [f"{name}: loads {x}" for x in page.loads if urlsplit(x).netloc]
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            aim = aim / "index.html" if aim.is_dir() else aim
            lost = (
                aim in pages and parts.fragment and unquote(parts.fragment) not in pages[aim].places
            )
            if not aim.exists() or lost:
                wrong.append(f"{name}: {link} leads nowhere")
    return wrong


if __name__ == "__main__":
    sys.exit(main())

"""What is in the files of a report, without a browser."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.listings import Listing
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError, DataError
from deepcnn.intervals import wilson
from deepcnn.reports.box import demo_page
from deepcnn.reports.findings import Subject
from deepcnn.reports.write import names_of, write
from deepcnn.runs.beginning import Beginning
from tests.reports.networks import Change
from tests.reports.subjects import ANIMALS, arrays, subject, trained

NASTY = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'&`", "a,b\n-- c")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of those that hold some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append((self._open[-1] if self._open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def words(page: str) -> str:
    """Return the text of a page as it is read."""
    kept = "".join(text for tag, text in Elements(page).text if tag not in ("script", "style"))
    return " ".join(kept.split())


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(about: Subject) -> str:
    return write(about).read_text()


def test_the_verdict_says_how_many_of_how_many_and_how_sure(about: Subject, page: str) -> None:
    correct, total = about.answered.correct, 300
    low, high = wilson(correct, total)
    said = words(page)
    assert f"{100 * correct / total:.2f} % of the test images are answered rightly" in said
    assert f"{correct:,} of {total:,}, 95 % interval {100 * low:.1f} to {100 * high:.1f} %" in said
    assert "Always saying “cat”, the largest class, would be right for 25.0 %" in said


def test_a_report_lies_beside_its_twin_and_all_answers(about: Subject, page: str) -> None:
    folder = about.run.path
    assert {p.name for p in folder.glob("report*")} == {"report.html", "report.json", "report.csv"}
    twin = json.loads((folder / "report.json").read_text())
    assert twin["accuracy"]["correct"] == about.answered.correct
    assert twin["accuracy"]["total"] == 300
    table = np.array(twin["confusion"])
    assert np.trace(table) == about.answered.correct
    assert table.sum(1).tolist() == np.bincount(about.answered.labels).tolist()
    assert twin["settings"]["preset"] == "tiny"
    assert f"{100 * twin['calibration']['error_after']:.2f} % after a temperature" in words(page)
    assert twin["unsure"]["error"] + twin["unsure"]["unknown"] <= 300


def test_the_csv_has_the_answer_to_every_example(about: Subject, page: str) -> None:
    with (about.run.path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "path",
        "label",
        "probability",
        "unsure",
        "given",
        *(f"p_{n}" for n in ANIMALS),
    ]
    chances = about.answered.probabilities()
    assert about.answered.calibration is not None
    images = np.concatenate([images for images, _ in about.source.blocks()])
    doubts = about.answered.calibration.doubts(images, about.answered.logits)
    for index, row in enumerate(rows):
        found = np.array([float(row[f"p_{name}"]) for name in ANIMALS], np.float32)
        np.testing.assert_array_equal(found, chances[index])
        assert row["label"] == ANIMALS[found.argmax()]
        assert float(row["probability"]) == pytest.approx(found.max())
        assert row["given"] == ANIMALS[about.answered.labels[index]]
        assert row["path"] == f"test/{index}"
        assert (row["unsure"] or None) == doubts[index]
    assert sum(row["given"] == row["label"] for row in rows) == about.answered.correct


def test_the_page_asks_for_nothing_outside(page: str) -> None:
    elements = Elements(page)
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert (value or "").startswith(("data:", "#")), (tag, name, value)
    assert {tag for tag, _ in elements.found}.isdisjoint({"iframe", "object", "embed", "base"})
    assert "url(" not in page
    assert "@import" not in page


def test_only_our_scripts_may_run(page: str) -> None:
    elements = Elements(page)
    (policy,) = [m["content"] for m in elements.of("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy
    running = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(running) == 4
    for code in running:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_pictures_are_the_original_pixels_and_no_more_than_may_be(page: str) -> None:
    cells = json.loads(re.findall(r'id="cells">(.*?)</script>', page, re.DOTALL)[0])
    shown = sum(len(cell["pictures"]) for cell in cells["cells"].values())
    assert shown == len(cells["png"]) <= 400
    assert all(len(cell["pictures"]) <= 12 for cell in cells["cells"].values())
    assert sum(cell["count"] for cell in cells["cells"].values()) == 300
    assert f"{shown} of 300 pictures are in this page." in words(page)
    for button in re.findall(r'data-cell="([\d,]+)"', page):
        assert button in cells["cells"]


@pytest.mark.parametrize("classes", [NASTY, ("ship", "ship", "hen", "</title>")])
def test_names_with_markup_are_harmless(tmp_path: Path, classes: tuple[str, ...]) -> None:
    nasty = tmp_path / "<b>run & 'co'"
    about = subject(nasty, classes=classes)
    page = write(about).read_text()
    plain = write(subject(tmp_path / "plain")).read_text()
    counts = [
        {tag: len(Elements(each).of(tag)) for tag in ("script", "img", "b", "title", "button")}
        for each in (page, plain)
    ]
    assert counts[0]["script"] == counts[1]["script"]
    assert counts[0]["title"] == counts[1]["title"]
    assert not any("onerror" in attributes for _, attributes in Elements(page).found)
    said = words(page)
    for name in classes:
        assert " ".join(name.split()) in said
    assert "<b>run & 'co'" in said
    program = json.loads(re.findall(r'id="program">(.*?)</script>', page, re.DOTALL)[0])
    assert program["classes"] == list(classes)
    with (nasty / "report.csv").open(newline="") as file:
        assert next(csv.reader(file))[5:] == [f"p_{name}" for name in classes]
    alone = Elements(demo_page(about.trained))
    assert not any("onerror" in attributes for _, attributes in alone.found)
    assert len(alone.of("script")) == 6


def test_a_network_with_an_unknown_operation_has_a_report_that_names_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 4), Change(lambda x: x.sort(1)[0]))
    about = subject(tmp_path, model=model)
    page = write(about).read_text()
    assert "This network cannot run inside the page: the operation 'sort' (in 2)" in words(page)
    assert 'id="weights"' not in page
    with pytest.raises(ConfigError, match="'sort'"):
        demo_page(about.trained)


def test_few_examples_have_no_temperature_and_it_says_so(tmp_path: Path) -> None:
    page = write(subject(tmp_path, examples=60)).read_text()
    assert "60 examples are too few to tell a temperature or a threshold." in words(page)
    twin = json.loads((tmp_path / "report.json").read_text())
    assert twin["calibration"]["error_after"] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accuracy": 1.1, "classes": ("only",)}, "It made no mistake on this split."),
        ({"classes": tuple(f"class {i}" for i in range(60))}, "60 classes"),
        ({"log": []}, "What it takes for what"),
        ({"shape": (9, 8, 4)}, "There are no pictures in this page."),
        ({"shape": (9, 8, 1)}, "What the network sees"),
    ],
)
def test_odd_sets_have_a_report(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    page = write(subject(tmp_path, **changes)).read_text()
    assert expected in words(page)
    assert "nan" not in words(page).lower().split()


def test_many_classes_have_a_list_in_place_of_a_matrix(tmp_path: Path) -> None:
    many = tuple(f"class {i}" for i in range(60))
    page = write(subject(tmp_path, classes=many, accuracy=0.3)).read_text()
    assert 'class="matrix"' not in page
    assert len(re.findall("taken for", words(page))) == 60
    assert 'class="matrix"' in write(subject(tmp_path, classes=many[:40])).read_text()


def test_answers_that_are_no_numbers_count_as_wrong(tmp_path: Path) -> None:
    about = subject(tmp_path)
    logits = about.answered.logits.copy()
    logits[:10] = np.nan
    logits[10, 0] = np.inf
    about = dataclasses.replace(about, answered=dataclasses.replace(about.answered, logits=logits))
    page = write(about).read_text()
    assert "11 answers are no numbers, and count as wrong." in words(page)
    twin = json.loads((tmp_path / "report.json").read_text())
    assert twin["accuracy"]["correct"] == about.answered.correct


def test_a_report_goes_where_it_is_told_to(tmp_path: Path) -> None:
    about = subject(tmp_path / "run")
    assert write(about, tmp_path / "mine.html") == tmp_path / "mine.html"
    assert {p.name for p in tmp_path.glob("mine*")} == {"mine.html", "mine.json", "mine.csv"}
    assert write(about, tmp_path / "new" / "folder" / "mine.html").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .*--out"):
        write(about, tmp_path / "file" / "mine.html")


def test_a_named_set_is_told_with_the_hashes_of_its_files(tmp_path: Path) -> None:
    about = subject(tmp_path)
    config = dataclasses.replace(about.trained.config, data="mnist")
    about = dataclasses.replace(about, trained=dataclasses.replace(about.trained, config=config))
    said = words(write(about).read_text())
    assert "SHA-256 of t10k-images-idx3-ubyte" in said
    assert "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7" in said


def test_pictures_in_folders_are_called_by_their_paths(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{name}.png" for name in "abc")
    listing = Listing(tmp_path, tuple(map(str, paths)), np.array([0, 1, 0]), ("x", "y"))
    source = Source((PictureShard(listing, Format(4, 4, 3)),), ("x", "y"))
    assert list(names_of(source, "test")) == [str(path) for path in paths]
    some = source.select(np.array([True, False, True]))
    assert list(names_of(some, "test")) == [str(paths[0]), str(paths[2])]


def test_accuracies_in_tiles_have_their_number_of_examples_and_interval(tmp_path: Path) -> None:
    about = subject(tmp_path, classes=tuple(f"class {i}" for i in range(8)))
    said = words(write(about).read_text())
    ranks = about.answered.logits > about.answered.logits[range(300), about.answered.labels, None]
    for top in (1, 5):
        right = int((ranks.sum(1) < top).sum())
        low, high = wilson(right, 300)
        counted = f"{right} of 300, 95 %: {100 * low:.1f} to {100 * high:.1f}"
        assert re.search(rf"Top-{top} accuracy ?{right / 3:.2f} % ?{counted}", said), said


def test_no_path_of_this_machine_goes_to_a_friend(tmp_path: Path) -> None:
    about = subject(tmp_path / "run")
    config = dataclasses.replace(about.trained.config, data="/home/me/photos/")
    about = dataclasses.replace(about, trained=dataclasses.replace(about.trained, config=config))
    page = demo_page(about.trained)
    assert "data photos, step" in words(page)
    assert "/home" not in page
    report = words(write(about).read_text())
    assert "tiny on photos" in report
    assert "on /home" not in report
    assert f"Run {about.run.path.name}, step" in report


def test_paths_that_are_no_utf_8_are_shown_all_the_same(tmp_path: Path) -> None:
    about = subject(tmp_path / os.fsdecode(b"run \xff"))
    config = dataclasses.replace(about.trained.config, data=os.fsdecode(b"/photos \xfe"))
    about = dataclasses.replace(about, trained=dataclasses.replace(about.trained, config=config))
    page = write(about)
    assert r"Run run \udcff, step" in words(page.read_text("utf-8"))
    assert json.loads(page.with_suffix(".json").read_text("utf-8"))["run"] == str(about.run.path)
    assert r"data photos \udcfe, step" in words(demo_page(about.trained))


def test_a_page_with_the_box_alone_is_one_file() -> None:
    data = arrays(ANIMALS, 20, (12, 10, 3))
    page = demo_page(trained(data))
    assert page == demo_page(trained(data))  # the same bytes each time
    assert "What is on this picture?" in words(page)
    assert len(re.findall(r"<li>", page)) == len(ANIMALS)


def test_the_page_says_which_run_the_network_began_with(tmp_path: Path) -> None:
    about = subject(tmp_path / "run")
    left = {"head": "other <classes>"}
    began = Beginning("runs/a", "runs/a/x", 70, True, "photos", "0" * 64, ("conv",), (), left)
    on = dataclasses.replace(about.trained.trained_on, began_with=began)
    made = dataclasses.replace(about, trained=dataclasses.replace(about.trained, trained_on=on))
    page = write(made)
    told = "Began with runs/a, step 70: took conv; new: head (other <classes>)."
    assert told in words(page.read_text())
    assert json.loads(page.with_suffix(".json").read_text())["began_with"] == began.to_dict() | {
        "taken": ["conv"],
        "refitted": [],
    }

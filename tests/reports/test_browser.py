"""Reports as they are seen and used, in Chromium; the box is held against `predict`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn.data.arrays import Arrays
from deepcnn.inference.trained import Trained, newest
from deepcnn.reports.box import demo_page
from deepcnn.reports.write import write
from deepcnn.runs.run import Run
from tests.helpers.box import SAID, as_file, check_answered, choose, drop, paste
from tests.helpers.browser import Browser, Page
from tests.reports.pictures import write_pictures
from tests.reports.subjects import subject
from tests.reports.test_page import NASTY

# Contrast by WCAG 2.2, 1.4.3, of all text that is seen: 4.5, or 3 where it is large. For each text:
# its share of what is asked for, its contrast, and how it begins.
CONTRAST = """(() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const over = ([r, g, b, a = 1], back) => [r, g, b].map((v, i) => v * a + back[i] * (1 - a));
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const chain = [];
    for (let each = element; each; each = each.parentElement) {
      chain.push(parts(getComputedStyle(each).backgroundColor));
    }
    return chain.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const style = getComputedStyle(element);
    const range = document.createRange();
    range.selectNodeContents(node);
    if (!node.textContent.trim() || !range.getClientRects().length) continue;
    if (element.closest("script, style, title, noscript")) continue;
    const back = ground(element);
    const front = over(parts(element.closest("svg") ? style.fill : style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([ratio / (large ? 3 : 4.5), ratio, node.textContent.trim().slice(0, 40)]);
  }
  return found;
})()"""
FOCUSED = """(() => {
  const { dataset, id, localName } = document.activeElement;
  return dataset.cell ? "cell" : dataset.sort ? "head" : id || localName;
})()"""
SIZES = """Promise.all([...document.querySelectorAll("#pictures img")].map(async (picture) => {
  await picture.decode();
  return [picture.naturalWidth, picture.naturalHeight];
}))"""


@pytest.fixture(scope="module")
def report(run: Path) -> str:
    return (run / "report.html").as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    with browser.page(report) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_is_quiet_fits_and_can_be_read(
    browser: Browser, report: str, width: int, dark: bool
) -> None:
    with browser.page(report, width, dark=dark) as page:
        page.run("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.run("document.documentElement.scrollWidth") == width
        found = page.run(CONTRAST)
        assert len(found) > 300
        assert [each for each in found if each[0] < 1] == []
        page.run("document.querySelector('.matrix button').click()")
        assert [each for each in page.run(CONTRAST) if each[0] < 1] == []
        assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        assert page.complaints() == []


def test_what_is_not_to_be_read_on_paper_is_not_printed(page: Page) -> None:
    assert page.printed().startswith(b"%PDF")
    page.send("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    assert page.run(shown.format("nav")) == page.run(shown.format("#box")) == "none"
    assert page.run("document.querySelector('details').open")  # so that it is on paper
    assert page.run(shown.format(".matrix")) == "table"


def test_every_table_and_button_is_reached_by_keyboard(page: Page) -> None:
    steps = page.run("document.querySelectorAll('a, button, input, summary, [tabindex]').length")
    reached: dict[str, int] = {}
    for _ in range(steps + 5):
        page.press("Tab", 9)
        name = page.run(FOCUSED)
        reached[name] = reached.get(name, 0) + 1
        outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or name in ("body", "file"), name
    assert reached["file"] == 1  # which shows its focus on the label around it
    assert reached["cell"] >= 60
    assert reached["head"] == 7
    assert reached["summary"] == 2


def text(page: Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def is_open(page: Page) -> bool:
    found: bool = page.run("document.getElementById('pictures').open")
    return found


def test_a_cell_opens_its_pictures_and_closes_again(page: Page) -> None:
    page.run("document.querySelector('td.wrong button').focus()")
    key = page.run("document.activeElement.dataset.cell")
    count = int(page.run("document.activeElement.textContent"))
    names = json.loads(text(page, "#cells"))["classes"]
    given, label = (names[int(place)] for place in key.split(","))
    page.press("Enter", 13, "\r")
    assert is_open(page)
    assert text(page, "#pictures-title") == f"{given} taken for {label}"
    sizes = page.run(SIZES)
    assert 0 < len(sizes) <= min(12, count)
    assert set(map(tuple, sizes)) == {(32, 32)}
    some = f"{len(sizes)} of {count} pictures" if len(sizes) < count else f"{count} picture"
    assert text(page, "#pictures p").startswith(some)
    page.press("Escape", 27)
    assert not is_open(page)
    assert page.run("document.activeElement.dataset.cell") == key
    page.press("Enter", 13, "\r")
    page.run("document.getElementById('close').click()")
    assert not is_open(page)
    assert page.complaints() == []


def test_a_heading_sorts_its_table_both_ways(page: Page) -> None:
    rows = "[...document.querySelectorAll('.sortable tbody tr')]"
    recall = rows + ".map((row) => Number(row.cells[5].dataset.value))"
    names = rows + ".map((row) => row.cells[0].textContent)"
    before = page.run(recall)
    page.run("document.querySelectorAll('.sortable [data-sort]')[5].focus()")
    for order in ("descending", "ascending"):
        page.press("Enter", 13, "\r")
        assert page.run(recall) == sorted(before, reverse=order == "descending")
        assert page.run("document.querySelectorAll('.sortable th')[5].ariaSort") == order
    for reverse in (False, True):
        page.run("document.querySelectorAll('.sortable [data-sort]')[0].click()")
        assert page.run(names) == sorted(page.run(names), reverse=reverse)


def test_a_picture_is_chosen_dropped_or_pasted(
    page: Page, run: Path, cifar10_test: Arrays, tmp_path: Path
) -> None:
    paths = write_pictures(cifar10_test.images, 3, tmp_path)
    expected = list(deepcnn.load(run, device="cpu").predict(paths))
    ways: tuple[Callable[[Page, Path], None], ...] = (choose, drop, paste)
    for give, path, answer in zip(ways, paths, expected, strict=True):
        page.run("document.getElementById('took').textContent = ''")
        give(page, path)
        check_answered(page, answer)
        rows = page.run("[...document.querySelectorAll('#chances tr')].map((r) => r.textContent)")
        assert len(rows) == 10
        assert rows[0] == f"{answer.label}{100 * answer.probability:.1f} %"
        assert page.run("document.getElementById('seen').width") == 32
    assert page.complaints() == []


def test_of_several_pictures_it_answers_about_the_first_and_says_so(
    page: Page, run: Path, cifar10_test: Arrays, tmp_path: Path
) -> None:
    paths = write_pictures(cifar10_test.images, 3, tmp_path)
    (expected,) = deepcnn.load(run, device="cpu").predict(paths[0])
    drop(page, *paths)
    check_answered(page, expected)
    assert text(page, "#took").startswith("the first of 3 pictures; ")
    assert page.complaints() == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0\0\x10"])
def test_what_is_no_picture_is_refused_in_words(page: Page, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert page.run(f"box.answer({as_file(tmp_path / 'file')})") is None
    assert page.run(SAID).startswith("This picture cannot be read: ")
    assert page.complaints() == []


def held_against(page: Page, classifier: Any, paths: list[Path]) -> tuple[float, float, float]:
    """Return the share of equal classes, of equal doubts, and the largest difference."""
    same, doubts, differences = [], [], []
    for path, answer in zip(paths, classifier.predict(paths), strict=True):
        found = page.run(f"box.answer({as_file(path)})")
        assert found is not None, page.run(SAID)
        same.append(classifier.classes[found["label"]] == answer.label)
        doubts.append(found["unsure"] == answer.unsure)
        chances = np.array(found["probabilities"])
        differences.append(float(np.abs(chances - answer.probabilities).max()))
    return float(np.mean(same)), float(np.mean(doubts)), max(differences)


def test_the_box_answers_as_predict_does(
    page: Page, run: Path, cifar10_test: Arrays, tmp_path: Path
) -> None:
    paths = write_pictures(cifar10_test.images, 40, tmp_path)
    same, doubts, most = held_against(page, deepcnn.load(run, device="cpu"), paths)
    assert same >= 0.995
    assert doubts >= 0.95
    assert most <= 0.01
    assert page.complaints() == []


@pytest.mark.endurance
def test_the_box_answers_500_pictures_as_predict_does(
    browser: Browser, cifar10_test: Arrays, tmp_path: Path
) -> None:
    """With `quick` itself: the run that $DEEPCNN_RUN names, else one that is trained here."""
    given = os.environ.get("DEEPCNN_RUN")
    if given is None:
        deepcnn.train("quick", run_dir=tmp_path / "run", summary_every=0)
    run = Run.open(Path(given or tmp_path / "run"))
    alone = tmp_path / "page.html"
    alone.write_text(demo_page(Trained.load(run, newest(run)[0])))
    paths = write_pictures(cifar10_test.images, 500, tmp_path)
    with browser.page(alone.as_uri()) as page:
        found = held_against(page, deepcnn.load(run.path, device="cpu"), paths)
        assert page.complaints() == []
    same, _, most = found
    assert same >= 0.995
    assert most <= 0.01


def test_names_with_markup_run_nothing(browser: Browser, tmp_path: Path) -> None:
    about = subject(tmp_path / "<img src=x onerror=alert(2)>", classes=NASTY, shape=(32, 32, 3))
    picture = tmp_path / "<b>.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    with browser.page(write(about).as_uri()) as page:
        for button in range(page.run("document.querySelectorAll('[data-cell]').length")):
            page.run(f"document.querySelectorAll('[data-cell]')[{button}].click()")
            page.run("document.getElementById('close').click()")
        found = page.run(f"box.answer({as_file(picture)})")
        assert page.run(SAID).startswith(NASTY[found["label"]])
        assert (
            page.run("document.querySelectorAll('#box script, #chances img, #said img').length")
            == 2
        )
        assert page.complaints() == []
        assert not [e for e in browser.events if e["method"] == "Page.javascriptDialogOpening"]


def test_the_pages_policy_stops_scripts_that_are_not_ours(browser: Browser, tmp_path: Path) -> None:
    html = write(subject(tmp_path)).read_text()
    changed = tmp_path / "changed.html"
    changed.write_text(html.replace("<main>", "<main><script>window.ran = 1</script>"))
    with browser.page(changed.as_uri()) as page:
        assert page.run("window.ran === undefined")
        assert "Content Security Policy" in page.complaints()[0]
        page.run("fetch('https://example.org/').then(() => { window.ran = 2; }, () => {})")
        assert page.run("window.ran === undefined")

"""A mistake in a page is found, and told with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deepcnn.data.arrays import Arrays
from tests.docs.examples import Examples
from tests.docs.pages import Block, Command, blocks_of, commands_of
from tests.docs.shortened import StandIns, shortened, small_cifar10

Run = Callable[[str, str], None]


@pytest.fixture
def here(tmp_path: Path, cifar10_test: Arrays, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    few = cifar10_test.select(slice(64))
    monkeypatch.chdir(tmp_path)
    return StandIns(tmp_path, small_cifar10(tmp_path / "small", few, few), {})


@pytest.fixture
def run(here: StandIns, monkeypatch: pytest.MonkeyPatch) -> Run:
    examples = Examples(here, monkeypatch, {})

    def running(language: str, text: str) -> None:
        before, _, output = text.partition("---\n")
        block = Block("page.md", 7, language, before, output or None)
        examples.run(block, lambda _: False)

    return running


def test_blocks_are_found_with_their_lines_and_output(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "start.md"
    blocks = blocks_of(page)
    assert [block.language for block in blocks] == ["sh", "sh", "sh", "python", "sh"]
    text = page.read_text().splitlines()
    assert all(text[block.line - 1] == f"```{block.language}" for block in blocks)
    assert blocks[0].output is None
    assert (blocks[2].output or "").startswith("deepcnn: the run is runs/")


def test_commands_go_on_in_the_next_line_and_through_pipes() -> None:
    block = Block("page.md", 1, "sh", "find . -name '*.a b' \\\n  | deepcnn predict - # all\n\n")
    (command,) = commands_of(block)
    assert command.pipeline == (("find", ".", "-name", "*.a b"), ("deepcnn", "predict", "-"))
    assert command.words == ("predict", "-")


def test_python_must_print_what_stands_below_it(run: Run) -> None:
    run("python", "for i in range(2):\n    print(i)\n# → 0\n# → 1\n")
    with pytest.raises(AssertionError, match=r"page\.md:7: printed is\n2"):
        run("python", "print(2)\n# → 3\n")
    with pytest.raises(AssertionError, match="output begins with"):
        run("python", "print(2)\n#> 3\n")
    with pytest.raises(AssertionError, match=r"page\.md:7: NameError"):
        run("python", "print(unknown)\n")


def test_of_a_shortened_training_numbers_may_differ_and_words_may_not(run: Run) -> None:
    training = 'run = deepcnn.train("tutorial", steps=50, run_dir="runs/a")\n'
    run("python", training + "print(run.step, 'steps')\n# → 50 steps\n")
    run("python", "print(run.step)\n# → 50\n")  # what came from it may, too
    with pytest.raises(AssertionError, match="not printed: '# epochs'"):
        run("python", "print(run.step, 'steps')\n# → 50 epochs\n")


def test_a_command_must_print_the_lines_of_a_page_in_their_order(run: Run) -> None:
    shown = "cifar10, train: 50,000 images, 32×32×3\n"
    run("sh", f"deepcnn data show cifar10\n---\n{shown}…\n    5,000  cat\nsheet: small-train.png\n")
    with pytest.raises(AssertionError, match="not printed"):
        run("sh", f"deepcnn data show cifar10\n---\nsheet: small-train.png\n{shown}")
    with pytest.raises(BaseException, match=r"page\.md:7: deepcnn data show nowhere"):
        run("sh", "deepcnn data show nowhere\n")


def test_trainings_are_shortened_and_their_own_flags_kept(here: StandIns) -> None:
    words = ("train", "tutorial", "--steps", "3000", "--data=svhn", "--seed", "5")
    assert shortened(words, here)[:4] == ["train", "tutorial", "--seed", "5"]
    assert shortened(words, here)[4:] == [
        *("--steps", "3", "--device", "cpu", "--data", str(here.data)),
        *("--batch-size", "32", "--model.widths", "8", "8", "16", "16"),
    ]
    assert Command("", "", (("torchrun", "-m", "deepcnn", "train"),)).words == ("train",)

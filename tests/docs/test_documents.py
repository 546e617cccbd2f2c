"""What the documents show is true: commands and code run, and print what stands below them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deepcnn
from deepcnn import presets
from deepcnn.cli import arguments as cli_arguments
from deepcnn.cli import main
from deepcnn.data.arrays import Arrays
from deepcnn.doctor import labels
from deepcnn.errors import DeepcnnError
from tests.docs.examples import Examples
from tests.docs.pages import (
    ROOT,
    Block,
    Command,
    blocks_of,
    commands_of,
    inline_commands_of,
    is_shell,
    name_of,
    pages,
)
from tests.docs.shortened import StandIns, furnish, short_recipe, shortened, small_cifar10

# What is only read by the command's own parser, and where it is tested instead.
PARSED_ONLY = {
    r"deepcnn sweep": "starts processes that import torch: tests/cli/test_sweep.py",
    r"deepcnn serve": "answers until it is stopped: tests/serving",
    r"torchrun|.*--devices": "starts processes that import torch: tests/team/test_launch.py",
    r"deepcnn export( RUN| --to onnx)?$": "torch's exporter takes long: tests/cli/test_export.py",
    r"deepcnn predict RUN/export/model.onnx": "the same",
}
# Blocks that are no commands and no Python to be run, by page and first line.
NOT_RUN = {
    ("docs/doctor.md", '{"duplicates"'): "how what is found is written: tests/doctor",
    ("docs/architecture.md", "cli/ "): "a list of rooms",
    ("docs/training.md", "tiny: sgd, "): "200 steps, drawn: tests/cli/test_lr_find.py",
    ("docs/scale.md", "#!/bin/bash"): "needs Slurm",
    ("docs/scale.md", "apiVersion: kubeflow"): "needs Kubernetes",
    (
        "docs/after_training.md",
        "session = onnxruntime",
    ): "the exporter: tests/inference/test_export.py",
}
# What the Python of every page takes for granted, and what that of one page does.
TAKEN_FOR_GRANTED = """
import numpy as np, deepcnn, mynet
config = deepcnn.presets.tutorial()
images, labels = np.zeros((3, 128, 32, 32, 3), np.uint8), np.zeros((3, 128), int)
my_network, make_my_network = mynet.make((3, 24, 24), 10), mynet.make
"""
BY_PAGE = {"docs/after_training.md": "images = images[0]"}
TRAIN, TEST = 600, 100  # images of CIFAR-10 that stand for all


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, cifar10_train: Arrays, cifar10_test: Arrays
) -> Path:
    folder = tmp_path_factory.mktemp("documents") / "small"
    few = cifar10_train.select(slice(TRAIN)), cifar10_test.select(slice(TEST))
    return small_cifar10(folder, *few)


@pytest.fixture(scope="module")
def runs(small: Path) -> dict[str, Path]:
    """Runs as the command line makes them, of the presets that pages speak of."""
    made = {preset: small.parent / preset for preset in ("tutorial", presets.DEFAULT)}
    for preset, run in made.items():
        here = StandIns(small.parent, small, {})
        command = shortened(("train", preset, "--run-dir", str(run)), here)
        assert main.run(command) == 0
    return made


@pytest.fixture
def here(
    small: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandIns]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(labels, "recipe", short_recipe)
    furnish(tmp_path, deepcnn.load_dataset(str(small), "test"))
    yield StandIns(tmp_path, small, runs)
    sys.modules.pop("mynet", None)


def reason(command: Command) -> str | None:
    """Return why a command is only parsed, or None."""
    return next((why for what, why in PARSED_ONLY.items() if re.match(what, command.text)), None)


def is_run(block: Block) -> bool:
    """Tell whether a block is to be run; fail for one of a kind that nobody has decided on."""
    first = block.text.lstrip()
    for (page, begins), _ in NOT_RUN.items():
        if page == block.page and first.startswith(begins):
            return False
    assert block.language == "python" or is_shell(block), (
        f"{block}: neither commands (sh) nor python, nor output (text) right after commands; "
        "NOT_RUN has what is none of these"
    )
    return True


def to_run() -> list[Path]:
    """Return the pages with blocks, without those in Chinese.

    Their blocks are those of the English pages, to the letter: test_chinese.py.
    """
    return [page for page in pages() if blocks_of(page) and not name_of(page).startswith("docs/zh")]


@pytest.mark.parametrize("page", to_run(), ids=name_of)
def test_what_a_page_shows_runs_and_prints_what_it_says(
    page: Path, here: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    exec(TAKEN_FOR_GRANTED + BY_PAGE.get(name_of(page), ""), names)
    examples = Examples(here, monkeypatch, names)
    for block in filter(is_run, blocks_of(page)):
        examples.run(block, lambda command: reason(command) is not None)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_command_of_a_page_is_one_that_its_program_knows(page: Path, here: StandIns) -> None:
    in_blocks = [command for block in blocks_of(page) for command in commands(block)]
    for command in (*in_blocks, *inline_commands_of(page)):
        for words in command.pipeline:
            check_other_program(command, words)
        if command.words:
            check_deepcnn(command, here)


def test_every_exception_is_needed() -> None:
    blocks = [block for page in pages() for block in blocks_of(page)]
    texts = [command.text for block in blocks for command in commands(block)]
    for pattern in PARSED_ONLY:
        assert any(re.match(pattern, text) for text in texts), pattern
    for page, begins in NOT_RUN:
        assert any(b.page == page and b.text.startswith(begins) for b in blocks), (page, begins)


def commands(block: Block) -> list[Command]:
    return commands_of(block) if is_shell(block) else []


def check_deepcnn(command: Command, here: StandIns) -> None:
    """Fail where deepcnn's own parser does not take the words that a page shows."""
    here.provide(command.text)
    words = ["2" if word == "N" else word for word in command.words if word != "…"]
    name = " ".join(words[: 2 if words[0] == "data" else 1])
    assert name in main.COMMANDS, f"{command.where}: there is no command {name!r}"
    rest = words[len(name.split()) :]
    module = importlib.import_module("deepcnn.cli." + re.sub("[ -]", "_", name))
    try:
        if name in ("train", "lr-find", "sweep"):
            module.parse_options(rest)
        elif rest:  # a sentence may speak of a command as such
            cli_arguments.parse(name, module.Options, rest)
    except (DeepcnnError, SystemExit) as error:
        pytest.fail(f"{command.where}: {command.text}: {error!r}")


def check_other_program(command: Command, words: tuple[str, ...]) -> None:
    """Fail where make has no such target, pip no such extra, or run.py no such name."""
    where = f"{command.where}: {command.text}"
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), where
    if words[0] == "pip":
        project = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[(\w+)\]", words[-1]):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), where
    if words[0] == "bash":
        assert (ROOT / words[1]).exists(), where
    if words[0].endswith("python") and words[1] == "benchmarks/run.py":
        listed = subprocess.run(
            [sys.executable, str(ROOT / words[1])], capture_output=True, text=True, check=True
        )
        assert len(words) < 3 or words[2] in listed.stdout.split(), where

"""Runs what a page shows, in its order and in one folder, and compares what it prints."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import deepcnn
from deepcnn import presets
from deepcnn.cli import main
from deepcnn.config import Config
from tests.docs.pages import Block, Command, commands_of, is_shell, printed_by
from tests.docs.shortened import StandIns, short_config, shortened

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"
TAKE_THE_NEWEST = [("predict",), ("evaluate",), ("report",), ("export",)]  # without a name
MASKS = (
    (TIME, "TIME"),
    (r"\bruns/\d{8}-\d{6}-\w+|\bruns/[\w.-]+|\bRUN(_[A-Z])?\b", "RUN"),
    (r"\S*/(?=(deepcnn|tensorboard) )", ""),  # where the programs are
    (r"CIFAR (?=images)", ""),  # which the small set is not called by
    (r"\bphotos/\S+", "PHOTO"),
    (r"unsure: .*", ""),
    (r"\b(bf16|fp32|fp16)\b", "PRECISION"),
    (r"\d+(,\d{3})*(\.\d*)?(e-?\d+)?", "#"),
    (r"\b(error|unknown|None)\b", "DOUBT"),
    (r"# (s|min|h|d)\b", "AGE"),
    (r"\b(thread|process|tower)(e?s)\b", r"\1"),
    (r"\s+", " "),
)


class Screen(io.TextIOWrapper):
    """A terminal that keeps what is printed."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


class Errors(io.StringIO):
    """Standard error of the same terminal, to which no progress bar is drawn."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def write(self, text: str, /) -> int:
        return self._screen.write(text)


class Examples:
    """What a page shows, as it is run: the folder it is in, and the names its Python has."""

    def __init__(self, here: StandIns, monkeypatch: pytest.MonkeyPatch, names: dict[str, Any]):
        self._here = here
        self._patch = monkeypatch
        self._names = {"__name__": "page", "deepcnn": deepcnn, **names}
        self._inexact: set[str] = set()  # names of what came from a shortened training
        self._shortened = False
        self._train = deepcnn.train
        monkeypatch.setattr(deepcnn, "train", self._train_shortly, raising=False)

    def run(self, block: Block, parsed_only: Callable[[Command], bool]) -> None:
        """Run a block, and compare its output with what the page says."""
        if block.language == "python":
            self._run_python(block)
        elif is_shell(block):
            printed, whole = "", True
            for command in commands_of(block):
                if block.output and command.words[:1] in TAKE_THE_NEWEST:
                    self._here.make_newest()
                if command.words and not parsed_only(command):
                    printed += self._run_command(command)
                else:
                    whole = whole and not command.words
            if block.output is not None:
                assert whole, f"{block}: shows output of what is not run"
                self._compare(block, block.output, printed)

    def _run_command(self, command: Command) -> str:
        self._here.provide(command.text)
        arguments = shortened(command.words, self._here)
        screen = Screen()
        with (
            self._typed(command),
            contextlib.redirect_stdout(screen),
            contextlib.redirect_stderr(Errors(screen)),
        ):
            try:
                status = main.run(arguments)
            except (Exception, SystemExit) as error:  # a page that shows what does not work
                pytest.fail(f"{command.where}: {command.text}\n{arguments}\n{error!r}")
        assert status == 0, f"{command.where}: {command.text}: status {status}\n{screen.shown()}"
        return screen.shown()

    @contextlib.contextmanager
    def _typed(self, command: Command) -> Iterator[None]:
        """Give a command on standard input what comes before it in a pipe."""
        if len(command.pipeline) == 1:
            yield
            return
        done = subprocess.run(command.pipeline[0], capture_output=True, cwd=self._here.folder)
        assert done.returncode == 0, f"{command.where}: {command.pipeline[0]}"
        assert done.stdout, f"{command.where}: {command.pipeline[0]} finds nothing"
        with tempfile.TemporaryFile() as file, self._patch.context() as patch:
            file.write(done.stdout)
            file.seek(0)
            patch.setattr(sys, "stdin", file)
            yield

    def _run_python(self, block: Block) -> None:
        self._here.provide(block.text)
        tree = ast.parse(block.text)
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        self._shortened = bool(used & self._inexact)
        if "load(" in block.text and "runs/" in block.text:
            self._shortened = True
        screen = Screen()
        with contextlib.redirect_stdout(screen):
            try:
                exec(compile(block.text, str(block), "exec"), self._names)
            except Exception as error:
                raise AssertionError(f"{block}: {error!r}") from error
        if self._shortened:
            self._inexact |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        expected = printed_by(block)
        if expected is None:
            return
        if self._shortened:
            self._compare(block, expected, screen.shown())
        else:
            printed = screen.shown()
            assert printed == expected, f"{block}: printed is\n{printed}"

    def _train_shortly(self, config: Config | str | None = None, **settings: Any) -> Any:
        self._shortened = True
        config = presets.DEFAULT if config is None else config
        settings.pop("budget", None)
        known = Config.__dataclass_fields__.keys() - {"feed", "model"}
        of_config = {name: settings.pop(name) for name in known & settings.keys()}
        return self._train(short_config(config, of_config, self._here), **settings)

    def _compare(self, block: Block, expected: str, printed: str) -> None:
        """Fail unless the lines that a page shows, or parts of lines, come in what is printed."""
        real = masked(printed, self._here)
        at = 0
        for line in masked(expected, self._here):
            places = [i for i, whole in enumerate(real) if i >= at and line in whole]
            assert places, f"{block}: not printed: {line!r}; printed are {real}"
            at = places[0]


def masked(text: str, here: StandIns) -> list[str]:
    """Return the lines of an output without what differs from run to run; equal ones once."""
    for path in (here.data, here.folder):
        text = text.replace(str(path), "cifar10" if path == here.data else "")
    names = (here.data / "batches.meta.txt").read_text().split()
    text = re.sub(rf"\b({'|'.join(names)})\b", "CLASS", text)
    found: list[str] = []
    for line in text.splitlines():
        for pattern, mask in MASKS:
            line = re.sub(pattern, mask, line)
        line = line.strip()
        if line not in ("", "…", *found[-1:]):
            found.append(line)
    return found

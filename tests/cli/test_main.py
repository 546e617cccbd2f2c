"""The program: help at once, and mistakes answered without a traceback."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deepcnn as package
from deepcnn.cli.main import COMMANDS, run
from tests.helpers.command import run_here


def test_help_names_commands_and_presets_without_torch(tmp_path: Path) -> None:
    script = """
import sys
from deepcnn.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules
if sys.argv[1] in ("--help", "data"):
    assert "numpy" not in sys.modules
"""
    helps = (["--help"], ["train", "--help"], ["evaluate", "--help"], ["bench", "--help"], ["data"])
    for arguments in helps:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        words = {
            "train": ("--steps", "--resume"),
            "evaluate": ("--follow",),
            "bench": ("--device", "--threads", "--json"),
        }
        for word in words.get(arguments[0], ("quick", "tutorial", "data fetch")):
            assert word in done.stdout


def test_every_command_is_listed_with_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["help"]) == 0
    listed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        (line,) = [line for line in listed.splitlines() if line.startswith(f"  deepcnn {name} ")]
        assert command.usage in line
        assert line.endswith(f" {command.does}")
        module = importlib.import_module("deepcnn.cli." + re.sub("[ -]", "_", name))
        assert (module.__doc__ or "").splitlines()[0] == command.does
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"deepcnn {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'. Did you mean 'train'?"),
        (["data", "fetsh"], "Did you mean 'data fetch'?"),
        (
            ["train", "tutorail"],
            "no preset 'tutorail'; expected one of quick, speedrun94, speedrun94_gpu,",
        ),
        (["train", "tiny", "--data", "nowhere"], "found 'nowhere', which is neither"),
        (["train", "tiny", "--batch-size", "0"], "batch_size: expected at least 1, found 0"),
        (["train", "--resume", "nowhere"], "expected the directory of a run"),
        (["evaluate", "nowhere"], "expected the directory of a run"),
        (["data", "fetch", "cifar"], "expected one of cifar10, cifar100"),
    ],
)
def test_mistakes_are_answered_without_traceback(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, *arguments) == 1  # what is no DeepcnnError fails the test
    told = capsys.readouterr().err
    assert told.startswith("deepcnn: ")
    assert message in told

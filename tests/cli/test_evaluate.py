"""Scoring by the command line, and the command that a training prints for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import ENVIRONMENT, deepcnn
from tests.helpers.own_data import images_of, write_pictures

OWN = """
import math
import os
from pathlib import Path
from torch import nn

Path(os.environ["IMPORTED"]).touch()

def make(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
"""


def printed(out: str, title: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that was printed, as one would who copies it."""
    (line,) = [line for line in out.splitlines() if line.startswith(title)]
    programs = str(Path(sys.executable).parent)
    return subprocess.run(
        shlex.split(line.removeprefix(title)),
        cwd=folder,
        env=ENVIRONMENT | {"PATH": os.pathsep.join([programs, ENVIRONMENT["PATH"]])},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "split"),
    [
        ((), "validation"),  # a tenth of these pictures, which have no other split
        (("--validation-size", "30"), "validation"),
        (("--data", "synthetic"), "test"),
        (("--data", "synthetic", "--validation-size", "30"), "validation"),
        (("--data", "synthetic", "--evaluate-on", "test", "train"), "train"),
    ],
)
def test_what_a_training_prints_scores_it_again_on_what_it_was_scored_on(
    tmp_path: Path, arguments: tuple[str, ...], split: str
) -> None:
    write_pictures(tmp_path / "data", *images_of(90, 12, 12, 3))
    settings = ("--steps", "3", "--batch-size", "8", "--summary-every", "0", "--run-dir", "run")
    data = () if "--data" in arguments else ("--data", "data")
    done = deepcnn("train", "tiny", *settings, *data, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = printed(done.stdout, "Evaluate again: ", tmp_path)
    assert again.returncode == 0, again.stderr
    scores = [
        [line.partition(": ")[2] for line in out.splitlines() if ": step 3, accuracy " in line]
        for out in (done.stdout, again.stdout)
    ]
    assert f" {split} images, 95 % interval " in scores[0][-1]
    assert scores[1] == [scores[0][-1]]


def test_a_network_of_ones_own_is_named_in_every_command_and_else_its_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, folder, imported = tmp_path / "modules", tmp_path / "work", tmp_path / "imported"
    for made in (modules, folder):
        made.mkdir()
    (modules / "networks_of_mine.py").write_text(OWN)
    paths = [str(modules), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])]
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setitem(ENVIRONMENT, "IMPORTED", str(imported))
    name = "networks_of_mine:make"
    named = ("--model.name", name)
    done = deepcnn("train", "tiny", *named, "--steps", "3", "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert imported.exists()
    imported.unlink()
    for command in (("evaluate", "run"), ("train", "--resume", "run", "--steps", "5")):
        refused = deepcnn(*command, cwd=folder)
        assert refused.returncode == 1
        assert f"Its code only runs if you name it again: --model.name {name}" in refused.stderr
        assert not imported.exists()
    again = printed(done.stdout, "Evaluate again: ", folder)
    assert again.returncode == 0, again.stderr
    assert imported.exists()
    on = deepcnn("train", "--resume", "run", "--steps", "5", *named, cwd=folder)
    assert on.returncode == 0, on.stderr
    assert ": step 5, accuracy " in on.stdout
    assert " test images, " in on.stdout

"""Scoring by the command line, and the command that a training prints for it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepcnn.runs.run import Run
from tests.helpers.command import ENVIRONMENT, deepcnn, run_here
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    split: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "data", *images_of(90, 12, 12, 3))
    settings = ("--steps", "3", "--batch-size", "8", "--summary-every", "0", "--run-dir", "run")
    data = () if "--data" in arguments else ("--data", "data")
    assert run_here(monkeypatch, "train", "tiny", *settings, *data, *arguments) == 0
    trained = capsys.readouterr().out
    (command,) = [line for line in trained.splitlines() if line.startswith("Evaluate again: ")]
    program, *words = shlex.split(command.removeprefix("Evaluate again: "))
    assert Path(program).name == "deepcnn"
    assert run_here(monkeypatch, *words) == 0
    scores = [
        [line.partition(": ")[2] for line in out.splitlines() if ": step 3, accuracy " in line]
        for out in (trained, capsys.readouterr().out)
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


def following(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `evaluate --follow`, until it says that it waits."""
    evaluating = subprocess.Popen(
        [sys.executable, "-m", "deepcnn", "evaluate", *arguments, "--follow", "--interval", "0.1"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert evaluating.stderr is not None
    line = evaluating.stderr.readline()
    if not line.startswith("deepcnn: waiting for "):
        evaluating.kill()
        pytest.fail(line + "".join(evaluating.communicate()))
    return evaluating


@pytest.mark.parametrize("name", ["later", None])
def test_following_waits_for_a_run_that_has_not_begun_and_says_so_once(
    tmp_path: Path, tiny_run: Path, name: str | None
) -> None:
    evaluating = following(tmp_path, *([] if name is None else [name]))
    time.sleep(1.2)  # longer than from one look to the next
    shutil.copytree(tiny_run, tmp_path / "made")  # appears at once, as a run does
    (tmp_path / "runs").mkdir()
    (tmp_path / "made").rename(tmp_path / (name or "runs/first"))
    out, err = evaluating.communicate(timeout=120)
    assert evaluating.returncode == 0, err
    assert err == ("" if name else "deepcnn: the run is runs/first\n")
    assert ": step 40, accuracy " in out


def test_control_c_ends_the_waiting_without_a_traceback(tmp_path: Path) -> None:
    evaluating = following(tmp_path, "never")
    evaluating.send_signal(signal.SIGINT)
    out, err = evaluating.communicate(timeout=60)
    assert (evaluating.returncode, out, err) == (130, "", "deepcnn: stopped\n")


def test_control_c_ends_the_following_of_a_training(tmp_path: Path, tiny_run: Path) -> None:
    run = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    with run.lock():  # as if it was trained
        command = [sys.executable, "-m", "deepcnn", "evaluate", "run", "--follow"]
        evaluating = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert evaluating.stdout is not None
        while "waiting for the next checkpoint of run" not in evaluating.stdout.readline():
            assert evaluating.poll() is None
        evaluating.send_signal(signal.SIGINT)
        _, err = evaluating.communicate(timeout=60)
    assert (evaluating.returncode, err) == (130, "deepcnn: stopped\n")


@pytest.mark.parametrize("run", ["file", "file/run"])
def test_a_file_is_no_run_that_could_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "evaluate", run, "--follow") == 1
    assert capsys.readouterr().err == (
        "deepcnn: file: expected the directory of a run, found a file\n"
    )
    assert run_here(monkeypatch, "evaluate", run) == 1
    assert f"{run}: expected the directory of a run" in capsys.readouterr().err

"""What the program says of scores and of how far it is; and the commands that it prints."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from rich import progress

from deepcnn.console import console, program
from deepcnn.errors import RunError
from deepcnn.events import (
    Advanced,
    Evaluated,
    Finished,
    Interrupted,
    Noted,
    Planned,
    Reading,
    Started,
    Stepped,
)
from deepcnn.runs.run import Run
from tests.helpers.command import ENVIRONMENT

SCORE = Evaluated(step=290, split="test", averaged=False, correct=8670, total=10_000, loss=0.5673)


def started(preset: str) -> Started:
    counts = {"step": 0, "steps": 9, "batch_size": 8, "parameters": 1, "examples": 1, "threads": 1}
    return Started(
        run="run",
        preset=preset,
        model="tutorial",
        device="cpu",
        precision="fp32",
        towers=0,
        processes=1,
        **counts,
    )


# Scores


@pytest.mark.parametrize("preset", ["quick", "tiny", "speedrun94", ""])
def test_an_accuracy_is_told_with_its_interval(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with console(as_json=False, preset=preset) as tell:
        tell(SCORE)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.sub(r"^[-\d]+ [:.\d]+: ", "", line) == (
        "step 290, accuracy 86.70 % (8,670 of 10,000 test images, 95 % interval 86.0 to 87.4), "
        "loss = 0.567, raw parameters"
    )


@pytest.mark.parametrize("by_event", [True, False])
def test_the_presets_of_the_reference_keep_its_lines(
    by_event: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both while a training tells its preset and when a run is scored later."""
    lines = {}
    for preset in ("tutorial", "mnist"):
        with console(as_json=False, preset="" if by_event else preset) as tell:
            if by_event:
                tell(started(preset))
            tell(SCORE)
        lines[preset] = capsys.readouterr().out.splitlines()[1 if by_event else 0 :]
    (line,) = lines["tutorial"]
    assert line.partition(": ")[2] == (
        "precision @ 1 = 0.867 (8670 / 10000 correct, test, step 290, raw parameters, loss = 0.567)"
    )
    assert lines["mnist"] == [
        "Test Data Eval:",
        "Num examples: 10000  Num correct: 8670  Precision @ 1: 0.8670",
    ]


def test_json_says_the_same_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=True, preset="tutorial") as tell:
        tell(SCORE)
    out, err = capsys.readouterr()
    assert '"correct": 8670, "total": 10000' in out
    assert '"split": "test"' in out
    assert err == ""


# A plan, and how far it is

PLAN = Planned(
    shape=(24, 32, 3),
    original=(75, 100, 3),
    growing=(0.5, 0.75, 1.0),
    classes=4,
    examples=1856,
    left_out=0,
    batch_size=100,
    steps=1200,
    views="one",
    split="validation",
    scored=206,
    before=12.4,
    training=240.0,
    scoring=2.2,
    report=3.0,
    budget=300.0,
    enough=False,
)


def test_a_plan_is_told_in_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=False) as tell:
        tell(PLAN)
        tell(
            dataclasses.replace(
                PLAN,
                shape=(28, 28, 1),
                original=(28, 28, 1),
                growing=(),
                split="test",
                scored=10_000,
                views="unsure",
                left_out=4000,
                enough=True,
            )
        )
    seconds = (
        "      12 s are gone, training takes 4 min, scoring and report 5 s: done after 4 min 18 s "
        "of 5 min"
    )
    assert capsys.readouterr().out.splitlines() == [
        "Plan: 1,856 images of 24×32 (75×100 as they lie there: 10 times the pixels), 4 classes.",
        "      1,200 steps of 100 (64.7 epochs), on images that grow from 50 % of each side; "
        "scored on 206 held-out images, 10 % of all.",
        f"{seconds}.",
        "Plan: 1,856 images of 28×28 in gray, 4 classes; there is no time to read 4,000 more.",
        "      1,200 steps of 100 (64.7 epochs); scored on 10,000 test images, over several views "
        "(unsure).",
        f"{seconds}; more would not help.",
    ]


def test_a_plan_says_how_reading_is_paid_once(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=False) as tell:
        tell(dataclasses.replace(PLAN, reading=130.0, data="my photos/"))  # of 257 seconds
        tell(dataclasses.replace(PLAN, reading=120.0, data="photos"))
        tell(dataclasses.replace(PLAN, reading=9.0, data="photos", left_out=4000))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "convert" in line]
    said = f"To pay that once for many trainings: {program('deepcnn')} data convert"
    assert lines == [
        f"Reading took 2 min 10 s. {said} 'my photos/' 'my photos-read' --to npz",
        f"Reading took 9 s. {said} photos photos-read --to npz",
    ]


@pytest.mark.parametrize("preset", ["quick", "tutorial", "mnist"])
def test_what_is_left_of_a_training_is_told_without_a_terminal(
    preset: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each line, but the reference's, which are as they were: there it is told each minute."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console(as_json=False, preset=preset) as tell:
        for step in range(4):
            now[0] += 25
            left = 100.0 - 25 * step
            tell(Stepped(step, {"total_loss": 1.0}, {}, 0.1, 512.0, 0.5, seconds_left=left))
        tell(Stepped(5, {"total_loss": 1.0}, {}, 0.1, 512.0, 0.5))
    lines = capsys.readouterr().out.splitlines()
    if preset == "quick":
        assert [line.partition("sec/batch)")[2] for line in lines] == [
            ", 1 min 40 s left",
            ", 1 min 15 s left",
            ", 50 s left",
            ", 25 s left",
            "",
        ]
    else:
        assert [line for line in lines if "left" in line] == ["50 s left"]
        assert len(lines) == 6


def test_the_bar_of_a_training_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    seen: list[str] = []
    plain = progress.Progress.update

    def update(self: progress.Progress, *arguments: object, **settings: object) -> None:
        plain(self, *arguments, **settings)  # type: ignore[arg-type]
        seen.append(str(settings["text"]))

    monkeypatch.setattr(progress.Progress, "update", update)
    with console(as_json=False) as tell:
        tell(Advanced(1, 4, 0.1))
        tell(Advanced(2, 4, 0.5, 75.0))
    assert seen == ["1/4", "2/4, 1 min 15 s left"]


def test_what_is_left_is_told_in_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console(as_json=False, to="stderr") as tell:
        for total in (1000, None):
            for done in range(500, 1001, 100):
                tell(Reading(f"reading {total}", done, total))
                now[0] += 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "reading 1000: 700 of 1,000, 12 s left",
        "reading 1000: 900 of 1,000, 4 s left",
        "reading None: 700",
        "reading None: 900",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [1000, None])
def test_a_terminal_gets_a_bar_after_a_while(
    total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    seen: list[progress.Task] = []
    plain = progress.Progress.update

    def update(self: progress.Progress, *arguments: object, **settings: object) -> None:
        plain(self, *arguments, **settings)  # type: ignore[arg-type]
        seen[:] = [*self.tasks]

    monkeypatch.setattr(progress.Progress, "update", update)
    with console(as_json=False) as tell:
        tell(Reading("answering", 100, total))
        now[0] += 0.2
        tell(Reading("answering", 200, total))
        assert seen == []
        now[0] += 0.4
        tell(Reading("answering", 300, total))
    (task,) = seen
    assert (task.description, task.completed, task.total) == ("answering", 300, total)
    assert "answering" in terminal.getvalue()


@pytest.mark.parametrize("to", ["stdout", "stderr"])
def test_lines_stand_above_the_bar(
    to: Literal["stdout", "stderr"], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console(as_json=False, to=to) as tell:
        for step in range(1, 4):
            tell(Advanced(step, 4, step / 4))
            tell(Noted(f"line {step}"))
    seen = terminal.getvalue()
    assert "training" in seen
    for step in range(1, 4):
        before = seen[: seen.index(f"line {step}")]
        codes = re.search(r"(?:\r|\n|\x1b\[[0-9;?]*[A-Za-z])*$", before)
        assert codes is not None
        assert codes[0] == before or re.search(r"\n|\x1b\[2K", codes[0]), repr(before[-60:])


# Commands


def printed(capsys: pytest.CaptureFixture[str], event: Finished | Interrupted) -> str:
    with console(as_json=False) as tell:
        tell(event)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "evaluate " in line or "--resume " in line]
    return line.partition(": ")[2].strip()


def test_commands_are_printed_as_a_shell_takes_them(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With spaces and quotes, also in the path of the program, which is not to be found."""
    folder = tmp_path / "my 'bin"
    folder.mkdir()
    program = folder / "deepcnn"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m deepcnn "$@"\n')
    program.chmod(0o755)
    run = Path(shutil.copytree(tiny_run, tmp_path / 'the "run" & $HOME'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    for event, word in (
        (Finished(40, str(run), 1.0), "evaluate"),
        (Interrupted(40, str(run)), "--resume"),
    ):
        command = printed(capsys, event)
        assert shlex.split(command)[0] == "my 'bin/deepcnn"
        assert shlex.split(command)[-2:] == [word, str(run)]
    done = subprocess.run(
        ["sh", "-c", f"{printed(capsys, Finished(40, str(run), 1.0))} --examples 5"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert " of 5 test images, " in done.stdout


def test_commands_that_errors_name_are_such_as_well(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "my run"))
    with pytest.raises(RunError) as raised, Run.begin(run, "tiny"):
        pass
    assert f"--resume '{tmp_path}/my run', " in str(raised.value)

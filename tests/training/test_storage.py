"""Trainings whose disk is full for a while, or for ever; and that are told to stop."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcnn import atomic
from deepcnn.errors import StorageError
from deepcnn.events import Advanced, Event, Interrupted, Noted
from deepcnn.inference.answers import Answers
from deepcnn.runs import checkpoint
from deepcnn.training import room
from deepcnn.training.progress import Progress
from deepcnn.training.start import resume, train
from tests.helpers.command import run_here
from tests.helpers.tiny import last, logged, saved, tiny

CONFIG = tiny(steps=12, save_every=4, keep=2)
COMMAND = ["train", "tiny", "--steps", "4", "--threads", "1", "--device", "cpu"]
COMMAND += ["--summary-every", "0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, run_dir=run)
    return run


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> list[str]:
    """Let files whose name `fails` not be written atomically; return the names that were asked."""
    asked: list[str] = []
    write = atomic.write

    def refusing(path: Path, content: bytes) -> None:
        asked.append(path.name)
        if fails(path.name):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(atomic, "write", refusing)
    return asked


def test_a_checkpoint_that_cannot_be_written_is_tried_again_and_the_training_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = failing(monkeypatch, lambda name: name == "step-000000008.safetensors")
    heard: list[Event] = []
    result = train(CONFIG, run_dir=tmp_path / "run", emit=heard.append)
    assert result.saved
    noted = [event.text for event in heard if isinstance(event, Noted)]
    notes = [text for text in noted if not text.startswith("Careful: ")]  # it learns little
    assert len(notes) == 1
    path = tmp_path / "run/checkpoints/step-000000008.safetensors"
    start = f"No checkpoint of step 8: {path}: cannot be written (No space left on device). Free "
    assert notes[0].startswith(start)
    assert [checkpoint.step_of(path) for path in saved(tmp_path / "run")] == [4, 12]
    assert last(tmp_path / "run") == last(whole)
    assert [entry["text"] for entry in logged(tmp_path / "run", "Noted")] == notes
    assert asked.count("step-000000008.safetensors") == 1


def test_the_last_checkpoint_is_tried_once_more_after_the_evaluation(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def fails(name: str) -> bool:
        if name == "step-000000012.safetensors":
            tries.append(name)
        return tries == [name]

    failing(monkeypatch, fails)
    result = train(CONFIG, run_dir=tmp_path / "run")
    assert result.saved
    assert len(tries) == 2
    assert last(tmp_path / "run") == last(whole)


def test_a_training_that_was_not_saved_says_so_by_its_status_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, lambda name: name == "step-000000004.safetensors")
        assert run_here(patch, *COMMAND, "--save-every", "2", "--run-dir", "run") == 4
    out = capsys.readouterr().out
    said = r"No checkpoint of step 4: run/checkpoints/step-0+4\.safetensors: cannot be written"
    assert len(re.findall(said, out)) == 2
    assert [checkpoint.step_of(path) for path in saved(Path("run"))] == [2]
    assert run_here(monkeypatch, "train", "--resume", "run") == 0
    assert [checkpoint.step_of(path) for path in saved(Path("run"))] == [2, 4]


def test_a_best_checkpoint_that_cannot_be_written_leaves_the_place_to_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(steps=12, evaluate_every=4, keep_best=True, validation_size=64, save_every=100)
    refused: list[Path] = []
    save = checkpoint.save

    def refusing(directory: Path, *arguments: Any, **named: Any) -> Path:
        if directory.name == "best" and not refused:
            refused.append(directory)
            raise OSError(errno.EIO, "Input/output error")
        return save(directory, *arguments, **named)

    monkeypatch.setattr(checkpoint, "save", refusing)
    result = train(config, run_dir=tmp_path / "run")
    assert refused
    assert result.saved
    scores = logged(tmp_path / "run", "Evaluated")
    (best,) = checkpoint.paths(tmp_path / "run/checkpoints/best")
    later = max(scores[1:3], key=lambda scored: (scored["correct"], -scored["loss"]))
    assert checkpoint.step_of(best) == later["step"]


@pytest.mark.parametrize(("free", "refused"), [(1.0, True), (2.5, False), (1e9, False)])
def test_free_space_is_looked_at_before_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, refused: bool
) -> None:
    size = 2 * 61_000 * 4  # more than one checkpoint takes without its averages, less than two
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * size / 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    tensors = {"w": torch.empty(size // 4)}
    heard: list[Event] = []
    if refused:
        with pytest.raises(StorageError, match=r"run: a checkpoint of this training takes 0\.5 MB"):
            room.check_room(tmp_path / "run", tensors, 2, heard.append)
    else:
        room.check_room(tmp_path / "run", tensors, 2, heard.append)
    assert len(heard) == (free == 2.5)


def test_a_start_without_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, *COMMAND, "--run-dir", "run") == 1
    assert "run: a checkpoint of this training takes" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_run_below_a_file_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert run_here(monkeypatch, *COMMAND, "--run-dir", "file/x") == 1
    expected = "deepcnn: file/x: cannot be written (Not a directory). A part of that path is a "
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        keeps = os.dup(full.fileno())
        with os.fdopen(keeps, "w", buffering=1) as output:
            monkeypatch.setattr("sys.stdout", output)
            arguments = [*COMMAND, "--run-dir", str(tmp_path / "run")]
            assert run_here(monkeypatch, *arguments) == 1
            monkeypatch.undo()
    err = capsys.readouterr().err
    assert err == (
        "deepcnn: the output or a temporary file: cannot be written (No space left on device). "
        "Free some space on that disk, or choose another place.\n"
    )
    assert [checkpoint.step_of(path) for path in saved(tmp_path / "run")] == [4]


# Being told to stop


@pytest.mark.parametrize("evaluate_at", [10, 20])
def test_an_evaluation_that_a_signal_cuts_off_saves_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluate_at: int
) -> None:
    """Also the one after the last step; where none of its step is saved, that is done first."""
    config = tiny(steps=20, evaluate_every=10, save_every=7, validation_size=1500)
    config = dataclasses.replace(config, evaluate_on=("validation", "test"))  # 3 and 2 blocks
    blocks = 0
    logits = Answers.logits

    def counting(answers: Answers, images: Tensor) -> Tensor:
        nonlocal blocks
        blocks += 1
        if blocks == (2 if evaluate_at == 10 else 5 + 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return logits(answers, images)

    heard: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(Answers, "logits", counting)
        stopped = train(config, run_dir=tmp_path / "run", emit=heard.append)
    assert (stopped.step, stopped.stopped, stopped.evaluated) == (evaluate_at, 15, None)
    assert heard[-1] == Interrupted(evaluate_at, str(tmp_path / "run"), "SIGTERM")
    assert checkpoint.step_of(saved(tmp_path / "run")[-1]) == evaluate_at
    assert blocks == (2 if evaluate_at == 10 else 5 + 4), "it waits for no other block"
    resume(tmp_path / "run")
    train(config, run_dir=tmp_path / "whole")
    scores = [
        [{**entry, "time": None} for entry in logged(tmp_path / name, "Evaluated")]
        for name in ("run", "whole")
    ]
    assert scores[0] == scores[1]
    assert last(tmp_path / "run") == last(tmp_path / "whole")


def test_a_pipe_that_is_closed_saves_and_returns(tmp_path: Path) -> None:
    heard: list[Event] = []

    def closing(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Advanced) and event.step == 5:
            raise BrokenPipeError

    result = train(CONFIG, run_dir=tmp_path / "run", emit=closing)
    assert (result.step, result.stopped, result.saved) == (5, 13, True)
    assert heard[-1] == Advanced(5, 12, heard[-1].work)  # type: ignore[attr-defined]
    assert resume(tmp_path / "run").step == 12


def test_time_that_is_over_saves_and_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, *COMMAND, "--run-dir", "run", "--max-time", "0.001s") == 0
    out = capsys.readouterr().out
    assert "The time is over. Stopped and saved at step 1. Go on with: " in out
    assert [checkpoint.step_of(path) for path in saved(Path("run"))] == [1]
    assert run_here(monkeypatch, *COMMAND, "--run-dir", "x", "--max-time", "soon") == 1
    assert "--max-time: expected a duration such as" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGUSR1, 0)])
def test_the_status_is_that_of_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    advanced = Progress.advanced

    def killing(progress: Progress) -> Advanced:
        os.kill(os.getpid(), number)
        return advanced(progress)

    monkeypatch.setattr(Progress, "advanced", killing)
    monkeypatch.chdir(tmp_path)
    before = signal.signal(number, signal.SIG_DFL)  # where these tests run with nohup
    try:
        assert run_here(monkeypatch, *COMMAND, "--run-dir", "run") == status
    finally:
        signal.signal(number, before)
    assert [checkpoint.step_of(path) for path in saved(Path("run"))] == [1]

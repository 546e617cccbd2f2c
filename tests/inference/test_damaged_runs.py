"""Whoever opens a run passes over its damaged checkpoints, says so, and takes the newest whole one.

Also while it is trained: then what is damaged is looked at once, and told once.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import deepcnn
from deepcnn.errors import CheckpointError
from deepcnn.events import Evaluated, Event, Noted
from deepcnn.inference import evaluation, load, trained
from deepcnn.inference.evaluation import Scorer
from deepcnn.reports.subject import subject_of
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import Owner
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from tests.helpers.command import run_here
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.tiny import saved
from tests.helpers.waiting import wait_for


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy whose newest checkpoint, of step 40, is cut; that of step 20 is whole."""
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    newest = saved(copy)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    return copy


Opened = Callable[[Path, Callable[[Event], None]], int]
OPENED: dict[str, Opened] = {
    "evaluate": lambda run, emit: deepcnn.evaluate(run, examples=8, threads=1, emit=emit).step,
    "load": lambda run, emit: load.open_trained(run, threads=1, emit=emit)[0].step,
    "report": lambda run, emit: subject_of(run, threads=1, emit=emit).trained.step,
    "export": lambda run, emit: deepcnn.export(run, "safetensors", emit=emit).record["step"],
    "page": lambda run, emit: deepcnn.export(run, "html", emit=emit).record["step"],
}


@pytest.mark.parametrize("name", OPENED)
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(run: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in saved(run)}
    heard: list[Event] = []
    assert OPENED[name](run, heard.append) == 20
    (note,) = [event for event in heard if isinstance(event, Noted)]
    assert note.text.startswith(f"Passed over: {saved(run)[-1]}: ")
    assert {path: path.read_bytes() for path in saved(run)} == before


def test_a_run_goes_on_from_the_newest_whole_one_and_ends_as_if_nothing_had_happened(
    run: Path, tiny_run: Path
) -> None:
    damaged = saved(run)[-1].read_bytes()
    heard: list[Event] = []
    assert deepcnn.resume(run, emit=heard.append).step == 40
    assert any("step-000000040" in event.text for event in heard if isinstance(event, Noted))
    assert saved(run)[-1].read_bytes() == saved(tiny_run)[-1].read_bytes()
    assert saved(run)[-1].with_name("step-000000040.safetensors.damaged").read_bytes() == damaged


def test_the_command_line_says_it_in_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pictures(tmp_path / "pictures", *images_of(3, 32, 32, 3))
    picture = next((tmp_path / "pictures").rglob("*.png"))
    assert run_here(monkeypatch, "predict", str(run), str(picture), "--threads", "1") == 0
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if "Passed over" in line]
    assert "step-000000040.safetensors" in line
    assert "bytes, found" in line
    assert "Passed over" not in told.out


def test_with_none_whole_every_way_ends_in_a_clear_error(run: Path) -> None:
    saved(run)[0].write_bytes(b"")
    ways: list[Opened] = [*OPENED.values(), lambda path, emit: deepcnn.resume(path, emit=emit).step]
    for opened in ways:
        with pytest.raises(CheckpointError, match=r"expected a whole checkpoint, found only dam"):
            opened(run, lambda _: None)


def test_a_damaged_checkpoint_that_is_asked_for_is_an_error(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"step-000000040\.safetensors: .*damaged"):
        load.open_trained(run, step=40)
    assert load.open_trained(run, step=20)[0].step == 20


def test_a_damaged_best_checkpoint_gives_way_to_the_newest(tiny_run: Path, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(tiny_run, tmp_path / "run")))
    copy.best.mkdir()
    best = Path(shutil.copy(saved(copy.path)[0], copy.best))
    assert trained.best_or_newest(copy)[0] == best
    best.write_bytes(b"half")
    heard: list[Event] = []
    assert trained.Trained.open(copy, emit=heard.append).step == 40
    assert len(heard) == 1


def test_who_follows_looks_at_damage_once_and_takes_what_comes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to itself under the name of a later step; then a new checkpoint is saved."""
    opened = Run(run)
    newest = saved(run)[-1]
    whole = checkpoint.load(saved(run)[0])
    newest.unlink()
    newest.symlink_to(newest.name)
    looks: list[float] = []
    really = checkpoint.newest_whole

    def counted(*arguments: object) -> object:
        looks.append(time.monotonic())
        return really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "newest_whole", counted)
    heard: list[Event] = []
    seen: list[Event] = []
    scorer = Scorer(run, examples=8, device="cpu", threads=1, emit=heard.append)
    with opened.lock():
        follower = threading.Thread(target=lambda: seen.extend(scorer.follow(0.01)))
        follower.start()
        assert wait_for(lambda: len(looks) == 1, 30)
        time.sleep(0.3)  # thirty looks at the folder
        assert len(looks) == 1
        owner = Owner.of(opened.config(), TrainedOn.read(opened))
        checkpoint.save(opened.checkpoints, 30, whole.tensors, keep=1, owner=owner)
        assert wait_for(lambda: len(looks) == 2, 30)
    follower.join(30)
    assert not follower.is_alive()
    assert [event.step for event in seen if isinstance(event, Evaluated)] == [20, 30]
    assert len(heard) == 1
    assert newest.is_symlink()


def test_who_follows_for_days_remembers_no_checkpoint_that_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    run = Run(tmp_path)
    following = evaluation.Following(run, lambda _: None)
    opened = iter(range(1, 6))

    def newest(_: object, __: object) -> object:
        path = checkpoint.path_of(directory, step)
        return path, checkpoint.Checkpoint(step, {}, None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation, "newest_or_none", newest)
        for step in opened:
            for old in directory.iterdir():
                old.unlink()
            checkpoint.path_of(directory, step).touch()
            found = following.next(True)
            assert found is not None
            assert found[1].step == step
    assert len(following.seen) == 1

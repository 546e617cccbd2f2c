"""A run is scored again, once or while it is trained, on the data that it was trained on."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from deepcnn.config import Config
from deepcnn.errors import CheckpointError, ConfigError, DataError, RunError
from deepcnn.events import Evaluated, Event, Noted, Waiting
from deepcnn.inference.evaluation import Scorer, evaluate
from deepcnn.runs import checkpoint
from deepcnn.runs.run import Run
from deepcnn.training.start import resume, train
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.stored import change
from tests.helpers.tiny import points, saved, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "run"
    train(tiny(steps=100), run_dir=path)
    return path


def test_splits_examples_and_parameters_can_be_chosen(run: Path) -> None:
    whole = evaluate(run)
    assert (whole.step, whole.split, whole.total, whole.averaged) == (100, "test", 512, True)
    raw = evaluate(run, averaged=False)
    assert not raw.averaged
    assert raw.loss != whole.loss
    assert evaluate(run, "train").total == 8192
    assert evaluate(run, examples=100).total == 100
    with pytest.raises(ConfigError, match="examples: expected 1 to 512, found 513"):
        evaluate(run, examples=513)
    with pytest.raises(DataError, match="no validation split"):
        evaluate(run, "validation")


def test_other_views_than_the_runs_score_it_and_leave_it_as_it_is(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    one, ten = evaluate(run, views="one", device="cpu"), evaluate(run, views="ten", device="cpu")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert one == evaluate(run, device="cpu")  # which is what the run says
    trained, answered = Scorer(run, "test", views="ten", device="cpu").answered()
    assert (trained.trained_on.transform.views, trained.calibration) == ("ten", None)
    assert (ten.correct, ten.total) == (answered.correct, 512)
    assert ten.loss != one.loss


def test_without_a_checkpoint_or_a_run_it_says_so(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunError, match="expected the directory of a run"):
        evaluate(tmp_path)
    for name in ("config.json", "inputs.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(CheckpointError, match="No checkpoint file found"):
        evaluate(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_bytes((run / "config.json").read_bytes())
    (tmp_path / "bad" / "inputs.json").write_text('{"inputs": {"crop": 3}, "classes": []}')
    with pytest.raises(RunError, match=r"inputs.json: not as deepcnn writes it"):
        evaluate(tmp_path / "bad")
    with pytest.raises(CheckpointError, match="No checkpoint file found"):
        list(scorer(tmp_path).follow(0.01))


def scorer(run: Path) -> Scorer:
    return Scorer(run, "test", examples=64, device="cpu", threads=1)


def own_data(tmp_path: Path, form: str) -> tuple[Path, Config, Path]:
    """Make a small set, and return it, how to train on it, and one of its files."""
    images, labels = images_of(90, 8, 8, 3)
    data = tmp_path / "data"
    if form == "pictures":
        write_pictures(data, images, labels)
        spoilt = data / "class 0" / "00000.png"
    else:
        data.mkdir()
        np.savez(data / "train.npz", images=images[:60], labels=labels[:60])
        np.savez(data / "test.npz", images=images[60:], labels=labels[60:])
        spoilt = data / "test.npz"
    config = tiny(data=str(data), steps=2, batch_size=8, feed="preloaded")
    return data, config, spoilt


@pytest.mark.parametrize("form", ["pictures", "npz"])
def test_data_whose_counts_changed_since_the_training_are_refused(
    tmp_path: Path, form: str
) -> None:
    """One example less: what is held out would be drawn anew, and hold what was trained on."""
    _, config, spoilt = own_data(tmp_path, form)
    split = "validation" if form == "pictures" else "test"
    result = train(config, run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert result.evaluated.split == split
    assert evaluate(result.run).correct == result.evaluated.correct
    if form == "pictures":
        spoilt.unlink()
    else:
        images, labels = images_of(90, 8, 8, 3)
        np.savez(spoilt, images=images[61:], labels=labels[61:])
    with pytest.raises(RunError, match=r"the \w+ split changed since this run began: expected \["):
        evaluate(result.run)
    if form == "npz":
        assert evaluate(result.run, "train").total == 60  # which is what it was


@pytest.mark.parametrize(
    ("form", "feed"), [("pictures", "preloaded"), ("npz", "preloaded"), ("npz", "streamed")]
)
def test_a_file_that_was_swapped_for_another_is_noticed(
    tmp_path: Path, form: str, feed: Literal["preloaded", "streamed"]
) -> None:
    """As many examples of each class, and another picture among them."""
    _, config, spoilt = own_data(tmp_path, form)
    result = train(dataclasses.replace(config, feed=feed), run_dir=tmp_path / "run")
    if form == "pictures":
        pixels = np.asarray(Image.open(spoilt)).copy()
        pixels[0, 0, 0] ^= 1
        Image.fromarray(pixels).save(spoilt)
    else:
        images, labels = images_of(90, 8, 8, 3)
        images[70, 0, 0, 0] ^= 1
        np.savez(spoilt, images=images[60:], labels=labels[60:])
    for again in (evaluate, resume):
        with pytest.raises(RunError, match=r"content of the \w+ split changed .*: expected crc32c"):
            again(result.run)
    heard: list[Event] = []
    change(result.run, "inputs.json", decoder="Pillow 1.1, libjpeg 6b")
    assert evaluate(result.run, emit=heard.append).total > 8
    notes = [event.text for event in heard if isinstance(event, Noted)]
    assert any("read by Pillow 1.1, libjpeg 6b" in note for note in notes)


def test_following_a_run_that_is_over_scores_it_once(run: Path) -> None:
    (event,) = scorer(run).follow(60)
    assert isinstance(event, Evaluated)
    assert list((run / "summaries" / "test").iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_an_evaluation_shows_lies_beside_the_trainers_and_is_shown_once(
    tmp_path: Path,
) -> None:
    """Also for the split that was trained on, and when a run is followed again."""
    path = tmp_path / "run"
    train(tiny(steps=21, summary_every=100), run_dir=path)
    trainers = path / "summaries" / "train"
    before = {file.name: file.read_bytes() for file in trainers.iterdir()}
    for split, folder in (("train", "train_evaluated"), ("test", "test")):
        for _ in range(2):
            scoring = Scorer(path, split, examples=64, device="cpu", threads=1)  # type: ignore[arg-type]
            (scored,) = scoring.follow(60)
        assert isinstance(scored, Evaluated)
        shown = path / "summaries" / folder
        ((step, accuracy),) = points(shown, f"accuracy/{split}")
        assert step == 21
        assert accuracy == pytest.approx(scored.accuracy)
        assert [step for step, _ in points(shown, "sparsity/conv1")] == [21]
    assert {file.name: file.read_bytes() for file in trainers.iterdir()} == before
    assert [step for step, _ in points(trainers, "loss/total_loss")] == [0, 10, 20]


def train_slowly(path: Path) -> None:
    torch.set_num_threads(1)
    train(tiny(steps=100_000, save_every=10, keep=2), run_dir=path)


def test_following_scores_new_checkpoints_until_the_training_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    trainer = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(path,))
    trainer.start()
    try:
        deadline = time.monotonic() + 60
        while not (path / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        heard: list[Event] = []

        def follow() -> None:
            for event in scorer(path).follow(0.05):
                heard.append(event)
                if sum(isinstance(e, Evaluated) for e in heard) == 3:
                    trainer.kill()  # no goodbye: only the lock tells

        follower = threading.Thread(target=follow)
        follower.start()
        follower.join(120)
        assert not follower.is_alive()
    finally:
        trainer.kill()
        trainer.join()
    steps = [event.step for event in heard if isinstance(event, Evaluated)]
    assert len(steps) >= 3
    assert steps == sorted(set(steps))
    assert any(isinstance(event, Waiting) for event in heard)
    assert steps[-1] == checkpoint.step_of(saved(path)[-1])


def test_following_does_not_wait_any_longer_once_the_training_has_ended(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    with Run(copy).lock():
        following = scorer(copy).follow(20)
        assert isinstance(next(following), Evaluated)
        assert isinstance(next(following), Waiting)
    began = time.monotonic()
    assert list(following) == []
    assert time.monotonic() - began < 10

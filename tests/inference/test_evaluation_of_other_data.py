"""Scoring on other data than a run's own, and on data that were moved."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn.data.arrays import Arrays
from deepcnn.data.open import load_dataset
from deepcnn.data.splits import Split
from deepcnn.errors import CheckpointError, ConfigError, DataError
from deepcnn.inference.evaluation import Scorer
from deepcnn.intervals import wilson
from deepcnn.runs.run import Run
from deepcnn.training.start import resume, train
from tests.helpers.command import run_here
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.stored import change
from tests.helpers.tiny import points, tiny

NAMES = ("dark", "middle", "bright")


def store(folder: Path, names: tuple[str, ...] = NAMES, **counts: int) -> Path:
    """Write splits as NumPy's files; the examples of each are its first `counts`."""
    folder.mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps(names))
    for split, count in counts.items():
        images, labels = images_of(count, 12, 12, 3, seed=len(split))
        labels = np.array([names.index(NAMES[label]) for label in labels])
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data with a test set, of whose training set 30 examples are held out."""
    folder = tmp_path_factory.mktemp("own")
    data = store(folder / "data", train=150, test=60)
    train(tiny(data=str(data), validation_size=30, steps=20), run_dir=folder / "run")
    return folder / "run"


@pytest.fixture
def scored(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be scored and changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def same(one: Scorer, data: Path, split: Split) -> bool:
    """Tell whether the examples are those of a split, all and in order."""
    found = one.source.load()
    expected = load_dataset(data, split, validation_size=30 if split != "test" else 0)
    return np.array_equal(found.images, expected.images) and len(found) == len(expected)


# Data that were moved


def test_moved_data_are_held_out_from_as_they_were(trained: Path, tmp_path: Path) -> None:
    data = trained.parent / "data"
    moved = Path(shutil.copytree(data, tmp_path / "elsewhere"))
    for split, count in (("train", 120), ("validation", 30), ("test", 60)):
        scorer = Scorer(trained, split, data=moved, device="cpu")  # type: ignore[arg-type]
        assert (scorer.split, len(scorer.source)) == (split, count)
        assert same(scorer, data, split)  # type: ignore[arg-type]
        assert scorer.once() == deepcnn.evaluate(trained, split, device="cpu")  # type: ignore[arg-type]


def test_moved_data_are_scored_on_what_the_training_was_scored_on(
    trained: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(trained.parent / "data", tmp_path / "elsewhere"))
    found = deepcnn.evaluate(trained, data=moved, device="cpu")
    assert (found.split, found.total) == ("validation", 30)
    assert found == deepcnn.evaluate(trained, device="cpu")


def test_where_data_are_gone_it_is_said_how_to_name_their_new_place(
    trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    old = str(tmp_path / "gone")
    change(run, data=old)
    told = f"{old}: the run's data are not there any more.*--data PATH"
    with pytest.raises(DataError, match=told):
        Scorer(run, device="cpu")
    with pytest.raises(DataError, match=told):
        resume(run)
    with pytest.raises(DataError, match="'nowhere', which is neither"):  # a place that was named
        resume(run, changes=lambda config: dataclasses.replace(config, data="nowhere"))


@pytest.mark.parametrize("count", [149, 151, 30, 20])
def test_nothing_is_held_out_from_other_data(trained: Path, tmp_path: Path, count: int) -> None:
    other = store(tmp_path / "other", train=count)
    found = deepcnn.evaluate(trained, data=other, device="cpu")
    assert (found.split, found.total) == ("train", count)
    with pytest.raises(DataError, match="no validation split"):
        deepcnn.evaluate(trained, "validation", data=other, device="cpu")


def test_other_data_with_a_test_set_are_scored_on_that(trained: Path, tmp_path: Path) -> None:
    alone = store(tmp_path / "alone", test=45)
    whole = store(tmp_path / "whole", train=90, validation=24, test=45)
    for data in (alone, whole):
        found = deepcnn.evaluate(trained, data=data, device="cpu")
        assert (found.split, found.total) == ("test", 45)
    assert deepcnn.evaluate(trained, "validation", data=whole, device="cpu").total == 24
    assert deepcnn.evaluate(trained, "train", data=whole, device="cpu").total == 90


# Other classes, other sizes


def test_labels_are_matched_by_the_names_of_classes(trained: Path, tmp_path: Path) -> None:
    expected = deepcnn.evaluate(trained, "test", device="cpu")
    turned = store(tmp_path / "turned", NAMES[::-1], test=60)
    assert deepcnn.evaluate(trained, "test", data=turned, device="cpu") == expected
    images, labels = images_of(60, 12, 12, 3, seed=4)
    few = tmp_path / "few"
    few.mkdir()
    (few / "classes.json").write_text('["bright", "dark"]')
    some = labels != 1
    np.savez(few / "test.npz", images=images[some], labels=(labels[some] == 0).astype(np.int64))
    scorer = Scorer(trained, data=few, device="cpu")
    assert scorer.source.classes == NAMES
    assert np.array_equal(scorer.source.labels(), labels[some])
    _, answered = Scorer(trained, "test", device="cpu").answered()
    assert scorer.once().correct == int(answered.right[some].sum())


def test_classes_that_a_run_does_not_know_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('["dark", "other"]')
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 12, 12, 3), np.uint8), labels=[0, 1])
    with pytest.raises(DataError, match=r"expected classes among 3, such as 'dark', found 'other'"):
        deepcnn.evaluate(trained, data=tmp_path, device="cpu")


def test_images_of_another_size_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 12, 13, 3), np.uint8), labels=[0, 1])
    with pytest.raises(DataError, match=r"expected images of 12×12×3, .* found 12×13×3"):
        deepcnn.evaluate(trained, data=tmp_path, device="cpu")


def test_pictures_of_another_size_are_brought_to_the_runs(trained: Path, tmp_path: Path) -> None:
    images, labels = images_of(9, 25, 30, 3)
    write_pictures(tmp_path, images, labels)
    for label, name in enumerate(NAMES):
        (tmp_path / f"class {label}").rename(tmp_path / name)
    scorer = Scorer(trained, data=tmp_path, device="cpu")
    assert scorer.source.shape == (12, 12, 3)
    assert scorer.once().total == 9


def test_a_real_test_set_is_scored_from_pictures(tmp_path: Path, cifar10_test: Arrays) -> None:
    """A few hundred images of CIFAR-10, four classes, once as NumPy's and once as pictures."""
    some = np.flatnonzero(np.isin(cifar10_test.labels, (0, 1, 8, 9)))[:300]
    images, labels = cifar10_test.images[some], cifar10_test.labels[some]
    data = tmp_path / "data"
    data.mkdir()
    names = ("airplane", "automobile", "ship", "truck")
    (data / "classes.json").write_text(json.dumps(names))
    mine = np.searchsorted((0, 1, 8, 9), labels)
    np.savez(data / "train.npz", images=images[:200], labels=mine[:200])
    np.savez(data / "test.npz", images=images[200:], labels=mine[200:])
    train(tiny(data=str(data), steps=10), run_dir=tmp_path / "run")
    expected = deepcnn.evaluate(tmp_path / "run", device="cpu")
    for i, (image, label) in enumerate(zip(images[200:], mine[200:], strict=True)):
        folder = tmp_path / "pictures" / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.png")
    found = deepcnn.evaluate(tmp_path / "run", data=tmp_path / "pictures", device="cpu")
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)  # the order is by file name
    assert (
        (found.correct, found.total) == (expected.correct, expected.total) == (found.correct, 100)
    )


# Which checkpoint, and how many examples


def test_a_step_is_scored(tiny_run: Path) -> None:
    scorer = Scorer(tiny_run, device="cpu")
    assert (scorer.once(20).step, scorer.once(40).step, scorer.once().step) == (20, 40, 40)
    assert scorer.once(20).loss != scorer.once(40).loss
    with pytest.raises(CheckpointError, match="expected a checkpoint of step 30, found 20, 40"):
        scorer.once(30)


def test_all_answers_are_those_that_are_scored(tiny_run: Path) -> None:
    for averaged in (True, False):
        scorer = Scorer(tiny_run, device="cpu", averaged=averaged, examples=100)
        trained, answered = scorer.answered(20)
        evaluated = scorer.once(20)
        assert (trained.step, answered.step, answered.averaged) == (20, 20, averaged)
        assert (answered.correct, len(answered)) == (evaluated.correct, evaluated.total)
        assert np.array_equal(answered.labels, scorer.source.labels())


def test_settings_that_cannot_be_are_refused(tiny_run: Path) -> None:
    for examples in (0, 513):
        with pytest.raises(ConfigError, match=f"examples: expected 1 to 512, found {examples}"):
            Scorer(tiny_run, examples=examples)
    with pytest.raises(ConfigError, match="threads: expected at least 1, found 0"):
        Scorer(tiny_run, threads=0)
    with pytest.raises(DataError, match="which is neither"):
        Scorer(tiny_run, data="nowhere")


# Summaries


def test_a_plain_evaluation_writes_its_summaries_as_one_that_follows(scored: Path) -> None:
    deepcnn.evaluate(scored, device="cpu")
    assert not (scored / "summaries").exists()  # this run was told to write none
    change(scored, summary_every=10)
    evaluated = deepcnn.evaluate(scored, device="cpu")
    folder = scored / "summaries" / "validation"
    shown = points(folder, "accuracy/validation")
    assert shown == [(20, pytest.approx(evaluated.accuracy))]  # type: ignore[comparison-overlap]
    deepcnn.evaluate(scored, device="cpu")  # again: what was written for this step is replaced
    assert points(folder, "accuracy/validation") == shown
    (event,) = Scorer(scored, device="cpu").follow(60)
    assert event == evaluated
    assert points(folder, "accuracy/validation") == shown
    # scores on other data are no part of the run
    before = sorted(scored.rglob("*"))
    deepcnn.evaluate(scored, "test", device="cpu", data=Run(scored).config().data)
    assert sorted(scored.rglob("*")) == before


# The command


def lines_of(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def test_json_is_alone_on_standard_output(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(trained), "--json", "--verbose", "--device", "cpu"]
    assert run_here(monkeypatch, *arguments) == 0
    out, err = lines_of(capsys)
    events = [json.loads(line) for line in out]
    (score,) = [event for event in events if event["event"] == "Evaluated"]
    assert (score["total"], score["split"], score["step"]) == (30, "validation", 20)
    assert 0 <= score["correct"] <= 30
    assert err.splitlines()[0].split() == [
        "class",
        "examples",
        "right",
        "precision",
        *("recall", "(95", "%", "interval)"),
        "F1",
    ]


def test_verbose_tells_how_each_class_fares(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(trained), "--verbose", "--split", "test", "--device", "cpu"]
    assert run_here(monkeypatch, *arguments) == 0
    out, err = lines_of(capsys)
    assert err == ""
    (score,) = [line for line in out if "accuracy" in line]
    (heading,) = (line for line in out if line.startswith("class   examples    right  precision  "))
    head = out.index(heading)
    assert out.index(score) < head
    _, answered = Scorer(trained, "test", device="cpu").answered()
    assert f"({answered.correct} of 60 test images, 95 % interval " in score
    for label, (name, line) in enumerate(zip(NAMES, out[head + 1 :], strict=True)):
        cells = line.split()
        given, said = answered.labels == label, answered.predicted == label
        right = (given & said).sum()
        assert cells[:3] == [name, str(given.sum()), str(right)]
        precision, recall = right / max(1, said.sum()), right / given.sum()
        assert cells[3] == (f"{100 * precision:.1f}" if said.any() else "–")
        low, high = wilson(int(right), int(given.sum()))
        sure = f"{100 * recall:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        mean = 2 * precision * recall / (precision + recall) if right else 0.0
        assert line.endswith(f"  {sure}  {f'{100 * mean:.1f} %':>7}")


def test_a_step_and_other_data_are_asked_for_by_the_command(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = store(tmp_path / "other", test=45)
    arguments = ["evaluate", str(trained), "--data", str(other), "--step", "20", "--json"]
    assert run_here(monkeypatch, *arguments) == 0
    out, _ = lines_of(capsys)
    score = json.loads(out[-1])
    assert (score["event"], score["split"], score["total"]) == ("Evaluated", "test", 45)
    assert run_here(monkeypatch, *arguments[:-3], "--step", "7") == 1
    assert "expected a checkpoint of step 7, found 20" in lines_of(capsys)[1]


def test_without_a_run_the_newest_is_scored_and_said(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "evaluate") == 1
    assert "runs/: expected a run, found none" in lines_of(capsys)[1]
    shutil.copytree(trained, tmp_path / "runs" / "mine")
    assert run_here(monkeypatch, "evaluate", "--device", "cpu", "--json") == 0
    out, err = lines_of(capsys)
    assert err == "deepcnn: the run is runs/mine\n"
    assert json.loads(out[-1])["event"] == "Evaluated"

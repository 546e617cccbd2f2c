"""`deepcnn compare`: McNemar's test in words, and the images on which two runs differ."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from deepcnn.cli import compare as cli_compare
from deepcnn.cli.main import run as cli
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.errors import ConfigError, RunError
from deepcnn.reports import subject as subjects
from deepcnn.reports.differing import Answering, compare
from deepcnn.reports.findings import Subject
from deepcnn.training.start import train
from tests.helpers.tiny import tiny
from tests.reports.subjects import ANIMALS, arrays, subject

TOTAL = 300


def answering(folder: Path, wrong: list[int], **changes: Any) -> Answering:
    """Return a run that is right about all images but some, about which it says the next class."""
    return Answering.of(with_answers(subject(folder, examples=TOTAL, **changes), wrong))


def with_answers(made: Subject, wrong: list[int]) -> Subject:
    """Return a subject that is right about all images but some."""
    labels = made.answered.labels
    said = labels.copy()
    said[wrong] = (said[wrong] + 1) % len(made.classes)
    logits = np.eye(len(made.classes), dtype=np.float32)[said]
    return dataclasses.replace(made, answered=dataclasses.replace(made.answered, logits=logits))


def test_the_test_counts_what_only_one_has_right(tmp_path: Path) -> None:
    found = compare(
        answering(tmp_path / "a", [*range(70), 80]), answering(tmp_path / "b", [*range(60, 71), 80])
    )
    assert (found.pair.only_first, found.pair.only_second) == (1, 60)
    assert found.pair.p == pytest.approx(stats.binomtest(1, 61).pvalue)
    assert found.pair.words == "b is better: 60 against 1 images, p < 0.0001"
    assert found.scores()[0].startswith("a: 76.33 % (229 of 300 test images, 95 % interval 71.2 to")
    assert [each.index for each in found.differences] == [*range(60), 70]
    first, last = found.differences[0], found.differences[-1]
    assert (first.right, last.right) == ((False, True), (True, False))
    assert first.answers[1] == first.truth != first.answers[0]
    assert first.image == "test/0"


def test_where_both_are_wrong_in_other_ways_comes_last(tmp_path: Path) -> None:
    first, second = answering(tmp_path / "a", [3, 7]), answering(tmp_path / "b", [3])
    answers = second.answers.copy()
    answers[3] = (answers[3] + 1) % len(ANIMALS)
    found = compare(first, dataclasses.replace(second, answers=answers))
    assert [each.index for each in found.differences] == [7, 3]
    assert found.differences[1].right == (False, False)
    assert found.pair.words == "no evidence of a difference: 0 against 1 images, p = 1"


def test_runs_that_saw_other_images_or_classes_are_not_compared(tmp_path: Path) -> None:
    first = answering(tmp_path / "a", [])
    other = subject(tmp_path / "b", examples=TOTAL)
    data = arrays(ANIMALS, TOTAL, (12, 10, 3))
    images = data.images.copy()
    images[5, 0, 0, 0] ^= 1  # a single bit
    changed = in_memory(Arrays(images, data.labels, ANIMALS))
    with pytest.raises(RunError, match=r"not the same images: .*a on the 300 test images of p"):
        compare(first, Answering.of(dataclasses.replace(other, source=changed)))
    with pytest.raises(RunError, match="not the same classes"):
        compare(first, answering(tmp_path / "c", [], classes=(*ANIMALS[1:], "cat")))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, where runs called `a` and `b` differ on 40 images."""
    monkeypatch.chdir(tmp_path)
    found = {
        "a": with_answers(subject(tmp_path / "a", examples=TOTAL), [*range(40)]),
        "b": with_answers(subject(tmp_path / "b", examples=TOTAL), []),
    }
    monkeypatch.setattr(subjects, "subject_of", lambda path, *_, **__: found[str(path)])
    return tmp_path


def test_twenty_images_are_printed_and_all_are_written(
    told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["compare", "a", "b"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2] == "b is better: 40 against 0 images, p < 0.0001."
    assert said[4] == "They differ on 40 images:"
    assert said[5].split() == ["index", "image", "a", "b", "truth", "right"]
    assert len(said) == 6 + cli_compare.SHOWN + 1
    assert said[-1] == "… and 20 more; all of them: --out FILE.csv, or --json"
    assert cli(["compare", "a", "b", "--json", "-o", "all.csv"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["only_first"], found["only_second"]) == (0, 40)
    assert [run["correct"] for run in found["runs"]] == [260, 300]
    with (told / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["differences"]) == 40
    for row, each in zip(rows, found["differences"], strict=True):
        assert [int(row["index"]), row["image"]] == [each["index"], each["image"]]
        assert [row["a"], row["b"], row["truth"]] == [*each["answers"], each["truth"]]
        assert (row["right: a"], row["right: b"]) == ("false", "true")


def test_trained_runs_are_compared_by_their_checkpoints(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    other = train(tiny(steps=20, save_every=20, seed=1), run_dir=tmp_path / "other")
    assert other.evaluated is not None
    alike = shutil.copytree(tiny_run, tmp_path / "alike")
    assert cli(["compare", str(alike), str(other.run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["runs"]
    assert second["correct"] == other.evaluated.correct
    lead = found["only_second"] - found["only_first"]
    assert lead == second["correct"] - first["correct"]
    assert cli(["compare", str(tiny_run), str(alike)]) == 0
    assert capsys.readouterr().out.endswith("They answer the same about every image.\n")
    with pytest.raises(ConfigError, match="expected two runs, found the same one twice"):
        cli(["compare", str(alike), "alike"])

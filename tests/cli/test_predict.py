"""The command `predict`, as somebody who has a run and pictures uses it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import deepcnn
from deepcnn.cli import predict
from deepcnn.events import Reading
from deepcnn.inference.load import load
from tests.helpers.predicting import CLASSES, GOOD, PASSED, Predict, TypeIn, rows

# What is asked about


@pytest.mark.parametrize(
    "arguments",
    [
        GOOD,
        ["photos"],
        ["./photos"],
        ["photos/*.png", "photos/*.jpg", "photos/more"],
        ["photos/[12].*", "photos/more/*"],
        ["photos/**/*.png", "photos/**/*.jpg", "photos/**/*.gif"],
        ["phot*"],
    ],
)
def test_files_folders_and_patterns_are_answered_about(ask: Predict, arguments: list[str]) -> None:
    status, out, err = ask(*arguments)
    is_folder = arguments[0].strip("./") in ("photos", "phot*")
    assert (status, err) == (0, PASSED if is_folder else "")
    found = [str(Path(row["path"])) for row in rows(out)]
    assert sorted(found) == GOOD
    if len(arguments) < 3:
        assert found == GOOD


@pytest.mark.parametrize("form", ["csv", "table", "json", "jsonl"])
@pytest.mark.parametrize("typed", [False, True])
def test_files_that_are_no_pictures_are_counted_and_named_beside_the_answers(
    ask: Predict, type_in: TypeIn, tmp_path: Path, form: str, typed: bool
) -> None:
    folder = tmp_path / "set"
    shutil.copytree("photos", folder)
    expected = ask(str(folder), "--format", form)[1]
    for name in ("a.heic", "b.avif", "c.HEIF", "more/d", ".DS_Store", "Thumbs.db", "more/e.psd"):
        (folder / name).write_bytes(b"what is not looked at")
    if typed:
        type_in(f"{folder}\n".encode())
    status, out, err = ask("-" if typed else str(folder), "--format", form)
    assert (status, out) == (0, expected)
    names = ", ".join(f"{folder}/{name}" for name in ("a.heic", "b.avif", "c.HEIF", "more/d"))
    assert err == (
        "predict: passed over 6 files whose names end as no picture's does: "
        f"{names}, {folder}/more/e.psd, …. Save .heic as JPEG first.\n"
    )


def test_a_folder_of_other_files_alone_is_refused_with_their_names(
    ask: Predict, tmp_path: Path
) -> None:
    (tmp_path / "1.heic").write_bytes(b"")
    status, out, err = ask(str(tmp_path))
    assert (status, out) == (1, b"")
    assert f"{tmp_path}: no picture lies in this folder; passed over 1 file" in err
    assert err.endswith(f"{tmp_path}/1.heic. Save .heic as JPEG first.\n")


def test_answers_are_those_of_the_library(ask: Predict, tiny_run: Path) -> None:
    for options, settings in (
        ([], {}),
        (["--step", "20"], {"step": 20}),
        (["--no-averaged"], {"averaged": False}),
        (["--precision", "bf16"], {"precision": "bf16"}),
    ):
        status, out, _ = ask("photos", *options)
        assert status == 0
        expected = load(tiny_run, device="cpu", **settings).predict("photos")
        for row, answer in zip(rows(out), expected, strict=True):
            assert (row["path"], row["label"]) == (answer.source, answer.label)
            chances = [float(row[f"p_{name}"]) for name in CLASSES]
            assert np.array_equal(np.array(chances, np.float32), answer.probabilities)
            assert row["unsure"] == (answer.unsure or "")


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(GOOD),
        "\n".join(GOOD) + "\n",
        "\r\n".join(GOOD) + "\r\n",
        "\n\n" + "\n\n".join(GOOD) + "\n\n\r\n",
        "\0".join(GOOD) + "\0",
        "\0".join(GOOD),
        "photos\n",
    ],
)
def test_paths_are_read_from_standard_input(ask: Predict, type_in: TypeIn, content: str) -> None:
    type_in(content.encode())
    status, out, err = ask("-")
    assert (status, err) == (0, PASSED if content == "photos\n" else "")
    assert [row["path"] for row in rows(out)] == GOOD


def test_names_of_any_bytes_come_from_standard_input(
    ask: Predict, monkeypatch: pytest.MonkeyPatch, type_in: TypeIn
) -> None:
    """Once there is a NUL, new lines are parts of names, in whatever pieces they arrive."""
    pieces = [b"one.png\0", b"t\nw", b"o\r\0\xff\xfe.png", b"\0", b"last\n"]
    monkeypatch.setattr(os, "read", lambda *_: pieces.pop(0) if pieces else b"")
    type_in(b"")
    status, out, err = ask("-", "--format", "jsonl")
    assert (status, err) == (3, "")
    found = [json.loads(line)["path"] for line in out.decode().splitlines()]
    assert found == ["one.png", "t\nwo\r", "\\xff\\xfe.png", "last\n"]


def test_standard_input_without_paths(ask: Predict, type_in: TypeIn) -> None:
    type_in(b"")
    assert ask("-", "--format", "jsonl") == (0, b"", "")
    type_in(b"x" * (predict.LONGEST_NAME + 1))
    status, _, err = ask("-")
    assert status == 1
    assert "standard input: expected paths, one a line or apart by NUL, found 65,537 bytes" in err


def test_a_stop_while_standard_input_is_waited_for_ends_it_all(
    ask: Predict, monkeypatch: pytest.MonkeyPatch, type_in: TypeIn, tmp_path: Path
) -> None:
    def stop(*_: object) -> bytes:
        raise KeyboardInterrupt

    type_in(b"")
    monkeypatch.setattr(os, "read", stop)
    status, out, err = ask("-", "--out", str(tmp_path / "out.csv"))
    assert (status, out, err) == (130, b"", "deepcnn: stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected pictures, a folder, - or --data, found none"),
        (["photos/*.webp"], "photos/*.webp: no picture matches this pattern"),
        (["photos/a**b"], "photos/a**b: no picture matches this pattern"),
        (["photos", "empty"], "empty: no picture lies in this folder"),
        (["photos", "--top", "0"], "--top: expected at least 1, found 0"),
        (["photos", "--step", "7"], "expected a checkpoint of step 7, found 20, 40"),
        (["photos", "--threads", "0"], "threads: expected at least 1, found 0"),
        (["photos", "--device", "abacus"], "device: 'abacus' cannot be used here"),
        (["photos", "--sort-into", "photos/sorted"], "lies in photos, whose pictures"),
        (["--data", "synthetic", "--sort-into", "sorted"], "leave it out with --data"),
        (["--data", "nowhere"], "found 'nowhere', which is neither"),
        (["photos", "--model.name", "nowhere:net"], "'nowhere:net' cannot be imported"),
    ],
)
def test_mistakes_are_answered_before_anything_is_done(
    ask: Predict, tmp_path: Path, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir(exist_ok=True)
    status, out, err = ask(*arguments, "--out", str(tmp_path / "out.csv"))
    assert (status, out) == (1, b"")
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert not Path("photos/sorted").exists()


def test_a_wrong_usage_has_a_status_of_its_own(ask: Predict) -> None:
    assert ask("photos", "--format", "xml")[0] == 2
    assert ask("photos", "--nothing")[0] == 2


def test_without_a_run_the_newest_one_answers_and_is_named(
    ask: Predict, tiny_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = ask(str(photos / "photos"), run="")
    assert status == 1
    assert "runs/: expected a run, found none" in err
    for age, name in enumerate(("new", "old", "oldest")):
        run = Path(shutil.copytree(tiny_run, Path("runs") / name))
        os.utime(run / "log.jsonl", (10**9 - age, 10**9 - age))
    for first in (str(photos / "photos"), str(photos / "photos" / "*.png"), str(photos / GOOD[0])):
        status, out, err = ask(first, run="")
        assert (status, err.splitlines()[0]) == (0, "deepcnn: the run is runs/new")
        assert rows(out)
    status, out, err = ask("--data", "synthetic", run="")
    assert (status, err.splitlines()[0]) == (0, "deepcnn: the run is runs/new")
    status, out, err = ask("missing.png", run="")
    assert (status, rows(out)) == (3, [])
    status, out, err = ask("runs/newest", str(photos / "photos"), run="")
    assert (status, out) == (1, b"")
    assert "runs/newest: expected a run or a picture, found nothing there" in err


def test_a_damaged_run_is_not_taken_for_a_folder_of_pictures(
    ask: Predict, tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "inputs.json").unlink()
    status, out, err = ask("photos", run=str(run))
    assert (status, out) == (1, b"")
    assert "inputs.json: expected a file, found none" in err


# Labelled sets


@pytest.mark.parametrize("run", ["tiny_run", "unsure_run"])
def test_as_many_answers_are_right_as_evaluate_finds(
    ask: Predict, run: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(run)
    evaluated = deepcnn.evaluate(path, device="cpu")
    status, out, err = ask("--data", "synthetic", run=str(path))
    assert status == 0
    assert f"({evaluated.correct} of 512 test images, 95 % interval " in err
    labels = deepcnn.load_dataset("synthetic", "test").labels
    found = rows(out)
    assert [row["path"] for row in found] == [f"synthetic/test/{i}" for i in range(512)]
    right = [row["label"] == CLASSES[label] for row, label in zip(found, labels, strict=True)]
    assert sum(right) == evaluated.correct


def test_the_examples_of_a_labelled_set_are_those_of_evaluate(ask: Predict, tmp_path: Path) -> None:
    """What was held out of the training set is held out again."""
    from deepcnn.training.start import train
    from tests.helpers.own_data import images_of
    from tests.helpers.tiny import tiny

    images, labels = images_of(90, 12, 12, 3)
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    train(tiny(data=str(tmp_path), steps=3, validation_size=30), run_dir=tmp_path / "run")
    for split, count in (("validation", 30), ("train", 60)):
        evaluated = deepcnn.evaluate(tmp_path / "run", split, device="cpu")  # type: ignore[arg-type]
        arguments = ("--data", str(tmp_path / "train.npz"), "--split", split)
        status, out, err = ask(*arguments, "photos/1.png", run=str(tmp_path / "run"))
        assert (status, len(rows(out))) == (0, count + 1)
        assert f"({evaluated.correct} of {count} {split} images" in err
    status, out, err = ask("--data", "synthetic", run=str(tmp_path / "run"))
    assert (status, out) == (1, b"")
    assert "expected" in err


# How far it is


class Clock:
    """A clock that goes on by three seconds whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 3
        return self.now


def test_a_long_answering_is_told_with_what_is_left(
    ask: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", Clock())
    for form in ("csv", "json", "jsonl", "table"):
        status, out, err = ask(*["photos/1.png"] * 6, "--format", form)
        assert status == 0
        assert err.splitlines() == [
            "answering: 3 of 6, 9 s left",
            "answering: 5 of 6, 3 s left",
        ]
        assert b"answering" not in out


def test_of_standard_input_nobody_knows_how_long_it_is(
    ask: Predict, monkeypatch: pytest.MonkeyPatch, type_in: TypeIn
) -> None:
    monkeypatch.setattr(time, "monotonic", Clock())
    type_in(b"photos/1.png\n" * 4)
    status, _, err = ask("photos/1.png", "-")
    assert (status, err.splitlines()) == (0, ["answering: 3", "answering: 5"])


def test_paths_are_taken_as_they_are_answered_and_never_listed(
    ask: Predict, monkeypatch: pytest.MonkeyPatch, type_in: TypeIn, tmp_path: Path
) -> None:
    """So memory does not grow with their number."""
    given, ahead = 0, []

    def read(*_: int) -> bytes:
        nonlocal given
        given += 100
        return b"missing/picture.png\n" * 100 if given <= 3000 else b""

    def reading(what: str, done: int, total: int | None) -> Reading:
        ahead.append(given - done)
        return Reading(what, done, total)

    type_in(b"")
    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(predict, "Reading", reading)
    out = tmp_path / "out"
    assert ask("-", "--format", "jsonl", "--out", str(out))[0] == 3
    assert out.read_bytes().count(b"\n") == len(ahead) == 3000
    assert max(ahead) < 256 + 100

"""How answers are written: forms, names, files and folders."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.cli import answers
from deepcnn.data.arrays import Arrays
from tests.helpers.predicting import CLASSES, GOOD, PASSED, Predict, TypeIn, rows

# Forms


def test_csv_has_all_probabilities_and_they_sum_to_one(ask: Predict) -> None:
    _, out, _ = ask("photos")
    head = next(csv.reader(io.StringIO(out.decode())))
    assert head == ["path", "label", "probability", "unsure", *(f"p_{name}" for name in CLASSES)]
    for row in rows(out):
        chances = [float(row[f"p_{name}"]) for name in CLASSES]
        assert sum(chances) == pytest.approx(1, abs=1e-6)
        assert row["label"] == CLASSES[int(np.argmax(chances))]
        assert float(row["probability"]) == max(chances)
        assert len(row["probability"].split(".")[1].rstrip("0")) >= 6
        assert row["unsure"] in ("", "error", "unknown")
    assert any(row["unsure"] for row in rows(out))


def test_json_and_json_lines_hold_the_same(ask: Predict) -> None:
    status, lines, err = ask("bad", "photos", "--format", "jsonl")
    assert (status, err) == (3, PASSED)
    found = [json.loads(line) for line in lines.decode().splitlines()]
    status, out, _ = ask("bad", "photos", "--format", "json")
    assert (status, json.loads(out)) == (3, found)
    assert [each["path"] for each in found] == ["bad/0.png", "bad/1.png", "bad/2.png", *GOOD]
    for each in found:
        if each["path"] in ("bad/1.png", "bad/2.png"):
            assert each.keys() == {"path", "error"}
            assert each["error"].startswith(("expected the head", "cannot be decoded"))
            continue
        assert list(each) == ["path", "label", "probability", "unsure", "probabilities"]
        assert list(each["probabilities"]) == CLASSES
        assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert each["probability"] == each["probabilities"][each["label"]]
        assert each["unsure"] in (None, "error", "unknown")


def test_no_pictures_are_an_empty_list(ask: Predict, type_in: TypeIn) -> None:
    type_in(b"")
    assert json.loads(ask("-", "--format", "json")[1]) == []


def test_a_table_shows_the_likeliest_classes(ask: Predict) -> None:
    _, out, _ = ask("photos", "--format", "table")
    _, answers_out, _ = ask("photos", "--format", "jsonl")
    for line, answer in zip(out.decode().splitlines(), answers_out.splitlines(), strict=True):
        expected = json.loads(answer)
        assert line[:40].rstrip() == expected["path"]
        best = sorted(expected["probabilities"].items(), key=lambda item: -item[1])[:3]
        cells = [f"{name} {chance:.1%}" for name, chance in best]
        doubt = [f"unsure: {answers.DOUBTS[expected['unsure']]}"] if expected["unsure"] else []
        assert line[42:].split("  ") == cells + doubt
    for options, count in ((["--top", "1"], 1), (["--top", "99"], 10), (["--all"], 10)):
        _, out, _ = ask("photos", "--format", "table", *options)
        assert [line.count("%") for line in out.decode().splitlines()] == [count] * 4


HOSTILE = [
    b'comma, and "quotes".png',
    b"new\nline.png",
    b"return\r.png",
    b"\x1b[31mred\x1b]0;title\x07.png",
    b"\xff\xfe no utf-8.png",
    b"\xc2\x9b31m c1.png",
    b"\xe2\x80\xae turned.png",
    b"\xe2\x80\xa8 line.png",
    "ü 漢字.png".encode(),
    b"=1+1.png",
    b"[1] *.png",
]


@pytest.fixture
def hostile(tmp_path: Path, cifar10_test: Arrays) -> Path:
    for name in HOSTILE:
        Image.fromarray(cifar10_test.images[0]).save(tmp_path / os.fsdecode(name))
    return tmp_path


def test_csv_has_any_name_on_one_line_and_signs_that_command_a_terminal_escaped(
    ask: Predict, hostile: Path
) -> None:
    status, out, _ = ask(str(hostile))
    assert status == 0
    assert all(line.isprintable() for line in out.decode().split("\n"))
    found = {Path(row["path"]).name for row in rows(out)}
    assert found >= {'comma, and "quotes".png', "ü 漢字.png", "=1+1.png", "[1] *.png"}
    assert found >= {r"new\nline.png", r"\udcff\udcfe no utf-8.png", r"\u202e turned.png"}
    assert len(found) == len(HOSTILE)


def test_no_name_in_csv_is_a_formula(ask: Predict, hostile: Path) -> None:
    shutil.copy(hostile / "=1+1.png", "=1+1.png")
    try:
        status, out, _ = ask("=1+1.png")
    finally:
        Path("=1+1.png").unlink()
    assert (status, rows(out)[0]["path"]) == (0, "./=1+1.png")


@pytest.mark.parametrize("form", ["json", "jsonl", "table"])
def test_other_forms_have_no_sign_that_commands_a_terminal(
    ask: Predict, hostile: Path, form: str
) -> None:
    status, out, _ = ask(str(hostile), "--format", form)
    text = out.decode()
    assert status == 0
    assert all(line.isprintable() for line in text.split("\n"))
    if form == "jsonl":
        assert len(text.splitlines()) == len(HOSTILE)
        found = {os.fsencode(Path(json.loads(line)["path"]).name) for line in text.splitlines()}
        assert found == set(HOSTILE) - {HOSTILE[4]} | {rb"\xff\xfe no utf-8.png"}


def test_errors_have_no_sign_that_commands_a_terminal(ask: Predict, tmp_path: Path) -> None:
    name = f"{tmp_path}/\x1b[31m\x9b"
    for arguments in (
        (f"{name}.png", "photos"),
        (f"{name}*.png",),
        ("photos", "--out", f"{name}/out"),
        ("photos", "--sort-into", f"{'a' * 300}{name}"),
        ("--data", name),
        ("photos", "--model.name", f"{name}:net"),
    ):
        status, _, err = ask(*arguments)
        assert status in (1, 3)
        assert "Traceback" not in err
        assert all(line.isprintable() for line in err.split("\n"))
    status, _, err = ask("photos", run=name)
    assert status == 1
    assert all(line.isprintable() for line in err.split("\n"))


# Pictures that cannot be read


@pytest.mark.parametrize("form", ["csv", "table"])
def test_pictures_that_cannot_be_read_are_told_and_the_others_answered(
    ask: Predict, form: str
) -> None:
    status, out, err = ask("bad", "missing.png", "photos/1.png", "--format", form)
    assert status == 3
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "bad/1.png",
        "bad/2.png",
        "missing.png",
    ]
    names = [line.split(",")[0].split()[0] for line in out.decode().splitlines()]
    assert [name for name in names if name != "path"] == ["bad/0.png", "photos/1.png"]


# Files


def test_a_file_appears_whole(ask: Predict, tmp_path: Path) -> None:
    for form in ("csv", "json", "jsonl", "table"):
        out = tmp_path / form
        assert ask("photos", "--format", form, "--out", str(out)) == (0, b"", PASSED)
        assert out.read_bytes() == ask("photos", "--format", form)[1]
    assert ask("photos", "--out", str(tmp_path / "json")) == (0, b"", PASSED)  # which was there
    assert (tmp_path / "json").read_bytes() == (tmp_path / "csv").read_bytes()
    assert ask("bad", "--out", str(tmp_path / "some"))[0] == 3
    assert len(rows((tmp_path / "some").read_bytes())) == 1
    assert len(list(tmp_path.iterdir())) == 5


def test_a_failure_leaves_the_file_as_it_was(ask: Predict, tmp_path: Path, type_in: TypeIn) -> None:
    out = tmp_path / "out.csv"
    out.write_text("before")
    type_in(b"photos/1.png\n" + b"x" * 70_000)
    assert ask("photos", "-", "--out", str(out))[0] == 1
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_what_cannot_be_written_is_said(ask: Predict, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "/dev/null"):
        status, _, err = ask("photos", "--out", str(tmp_path / name))
        assert status == 1
        assert "expected a file for the answers, found something else" in err
    assert Path("/dev/null").is_char_device()
    (tmp_path / "file").write_text("")
    for name in ("none/out.csv", "file/out.csv", "a" * 300):
        status, _, err = ask("photos", "--out", str(tmp_path / name))
        assert status == 1
        assert "cannot be written" in err
    assert len(list(tmp_path.iterdir())) == 3


# Sorted into folders


def test_pictures_are_sorted_into_folders_and_nothing_is_overwritten(
    ask: Predict, tmp_path: Path
) -> None:
    for copies in (1, 2, 3):
        status, out, _ = ask("photos", "bad/1.png", "--sort-into", str(tmp_path / "sorted"))
        assert status == 3
        files = {path for path in (tmp_path / "sorted").rglob("*") if path.is_file()}
        assert len(files) == 4 * copies
        for row in rows(out):
            source = Path(row["path"])
            folder = tmp_path / "sorted" / ("unsure" if row["unsure"] else row["label"])
            names = [source.name, *(f"{source.stem}-{i}{source.suffix}" for i in range(1, copies))]
            for name in names:
                assert (folder / name).read_bytes() == source.read_bytes()


def test_what_is_sure_lies_below_its_class(
    ask: Predict, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "calibration.json").unlink()  # without it nothing is unsure
    status, out, _ = ask("photos", "--sort-into", str(tmp_path / "sorted"), run=str(run))
    assert status == 0
    for row in rows(out):
        assert (tmp_path / "sorted" / row["label"] / Path(row["path"]).name).is_file()
    assert not (tmp_path / "sorted" / "unsure").exists()


def test_a_copy_that_fails_leaves_nothing(
    ask: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    status, _, err = ask("photos", "--sort-into", str(tmp_path))
    assert status == 1
    assert "photos/1.png cannot be copied there (No space left on device)" in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.setattr(answers, "MOST_OF_A_NAME", 0)
    status, _, err = ask("photos", "--sort-into", str(tmp_path))
    assert status == 1
    assert "holds 0 pictures called 1.png" in err

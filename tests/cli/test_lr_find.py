"""`deepcnn lr-find`: a rate to begin with, and no run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from deepcnn.cli.lr_find import parse_options
from deepcnn.cli.train import parse_options as parse_training
from tests.helpers.command import deepcnn, run_here

FAST = ["tiny", "--optimizer.method", "adam", "--optimizer.learning-rate", "0.001"]


def test_it_draws_suggests_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = deepcnn("lr-find", *FAST, "--png", "plots/rates.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *above, command = done.stdout.splitlines()
    assert above[0].startswith("tiny: adam, ")
    assert max(map(len, above)) < 80
    assert sum("*" in line for line in above) > 5
    found = {line.split()[0]: line for line in above if line[:1].isalpha()}
    assert {"lowest", "steepest", "suggestion", "Train"} <= found.keys()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == [
        "plots/rates.png"
    ]
    with Image.open(tmp_path / "plots" / "rates.png") as picture:
        assert picture.format == "PNG"
    # What it says is what one can type.
    program, verb, *arguments = shlex.split(command)
    assert (Path(program).name, verb) == ("deepcnn", "train")
    config = parse_training(arguments).config
    suggested = float(found["suggestion"].split()[1].strip(","))
    assert config.optimizer.learning_rate == suggested
    assert 1e-4 < suggested < 1e-2
    assert (config.optimizer.method, config.steps) == ("adam", 200)


def test_as_json_it_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    test = ["--lowest", "1e-4", "--highest", "0.01", "--tries", "60", "--json"]
    assert run_here(monkeypatch, "lr-find", *FAST, "--seed", "3", *test) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) == 60
    assert found["rates"][0] == pytest.approx(1e-4)
    assert found["rates"][-1] == pytest.approx(0.01)
    assert found["steepest"] in found["rates"]
    assert found["remarks"] == ["The loss fell to the end: test higher rates, too (highest)."]
    assert "--seed 3" in found["command"]
    assert not list(tmp_path.iterdir())


def test_where_nothing_was_learned_it_says_what_to_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ["--lowest", "1e-9", "--highest", "1e-7", "--tries", "40"]
    assert run_here(monkeypatch, "lr-find", "tiny", *test) == 0
    said = capsys.readouterr().out
    assert said.endswith("The loss did not fall: test higher rates (highest), or more (tries).\n")
    assert "deepcnn train" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--resume", "run"], "--resume: lr-find keeps no run"),
        (["tiny", "--run-dir=run"], "--run-dir: lr-find keeps no run"),
        (["tiny", "--devices", "2"], "--devices: lr-find keeps no run, in one process"),
        (["tiny", "--png", "rates.jpg"], "--png: expected the name of a PNG file, found rates.jpg"),
        (["tiny", "--tries", "3"], "tries: expected at least 20, found 3"),
        (["tiny", "--highest", "1e-9"], "expected 0 < lowest < highest, found 2e-06 and 1e-09"),
        (["tinny"], "there is no preset 'tinny'"),
    ],
)
def test_what_it_cannot_do_is_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here(monkeypatch, "lr-find", *arguments) == 1
    assert message in capsys.readouterr().err


def test_what_is_not_its_own_is_read_as_train_does() -> None:
    options = parse_options(
        [
            "tiny",
            "--model.widths",
            "4",
            "4",
            "8",
            "8",
            "--tries",
            "30",
            "--steps=5",
            "--batch_size",
            "7",
        ]
    )
    assert options.tries == 30
    config = options.config
    assert config is not None
    assert (config.model.widths, config.steps, config.batch_size) == ((4, 4, 8, 8), 5, 7)

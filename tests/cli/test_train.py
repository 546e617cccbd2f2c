"""Training by the command line: settings, stops and kills, and going on."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deepcnn import presets
from deepcnn.cli import main
from deepcnn.cli.train import parse_options
from deepcnn.config import Config
from deepcnn.durations import running_for
from deepcnn.errors import ConfigError
from deepcnn.events import Evaluated
from deepcnn.learning.assembly import make_schedule
from deepcnn.training import start
from deepcnn.training.loop import Result
from deepcnn.training.start import train
from tests.helpers.command import ENVIRONMENT, deepcnn, run_here, train_no_more
from tests.helpers.tiny import QUICK, logged, saved, tiny


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], presets.quick()),
        (["tutorial", "--steps", "500"], dataclasses.replace(presets.tutorial(), steps=500)),
        (["--seed=7"], dataclasses.replace(presets.quick(), seed=7)),
        (["tiny", "--data-dir", "x"], dataclasses.replace(presets.tiny(), data_dir="x")),
    ],
)
def test_the_preset_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: Config
) -> None:
    asked = train_no_more(monkeypatch)
    assert run_here(monkeypatch, "train", *arguments) == 0
    assert asked == [expected]


def test_a_resume_without_a_run_is_refused(tmp_path: Path) -> None:
    done = deepcnn("train", "--resume", cwd=tmp_path)
    assert done.returncode == 2
    assert "--resume" in done.stderr


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    done = deepcnn("train", "tiny", "--optimizer.lerning-rate", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert "--optimizer.learning-rate" in done.stderr
    assert not list(tmp_path.iterdir())


def test_train_resume_and_evaluate(tmp_path: Path) -> None:
    done = deepcnn("train", "tiny", "--steps", "21", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ": step 10, loss = " in done.stdout
    assert " examples/sec; " in done.stdout
    assert " sec/batch)" in done.stdout
    assert ": step 21, accuracy " in done.stdout
    assert " of 512 test images, 95 % interval " in done.stdout
    assert "tensorboard --logdir run/summaries" in done.stdout
    assert "evaluate run" in done.stdout
    assert done.stderr == ""
    done = deepcnn("train", "--resume", "run", "--steps", "25", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (started,) = [line for line in lines if line["event"] == "Started"]
    assert (started["step"], started["steps"]) == (21, 25)
    done = deepcnn("train", "tiny", "--steps", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = [json.loads(line)["event"] for line in done.stdout.splitlines()[-2:]]
    assert last == ["Finished", "Reported"]
    done = deepcnn("evaluate", "run", "--examples", "10", "--no-averaged", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ": step 25, accuracy " in done.stdout
    assert " of 10 test images, 95 % interval " in done.stdout
    assert done.stdout.endswith(", raw parameters\n")
    done = deepcnn("train", "--resume", "run", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 1
    assert "seed: cannot change" in done.stderr


def test_killed_at_any_instant_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL during start-up, steps and saves: the end is the one of a run left in peace."""
    command = ["train", "tiny", "--steps", "120", "--save-every", "3", "--summary-every", "0"]
    done = deepcnn(*command, "--run-dir", "peace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = saved(tmp_path / "peace")[-1]
    arguments = [*command, "--run-dir", "run"]
    kills = 0
    for seconds_after_start in (0.05, 0.31, 0.02):
        trainer = subprocess.Popen(
            [sys.executable, "-m", "deepcnn", *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert trainer.stdout is not None
        first_line = trainer.stdout.readline()
        assert first_line.startswith("tiny:"), first_line
        time.sleep(seconds_after_start)
        trainer.send_signal(signal.SIGKILL)
        trainer.communicate()
        kills += trainer.returncode == -signal.SIGKILL
        arguments = ["train", "--resume", "run"]
    assert kills >= 2
    done = deepcnn(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/checkpoints" / expected.name).read_bytes() == expected.read_bytes()
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_control_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-m", "deepcnn", "train", "tiny", "--steps", "100000", "--run-dir", "run"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    for line in trainer.stdout:
        if ": step 10," in line:
            break
    trainer.send_signal(signal.SIGINT)
    out, err = trainer.communicate(timeout=60)
    assert trainer.returncode == 130
    assert "train --resume run" in out
    assert "Traceback" not in err
    assert saved(tmp_path / "run")


def test_the_table_of_what_lies_where_has_a_column_for_each_tower(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["tiny", "--towers", "2", "--steps", "1", "--device", "cpu", "--threads", "1"]
    arguments += ["--run-dir", str(tmp_path / "run"), "--log-device-placement"]
    assert run_here(monkeypatch, "train", *arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["what", "type", "state", "tower", "0", "tower", "1"] in lines
    variable = ["conv1.weight", "float32", "[16,", "3,", "5,", "5]", "cpu", "cpu", "cpu"]
    assert variable in lines
    assert ["momentum", "float32", "[49370]", "cpu"] in lines
    assert ["moving", "averages", "float32", "[49370]", "cpu"] in lines
    assert ["mean", "of", "the", "gradients", "cpu"] in lines
    assert ["tower_1/conv1/conv2d", "conv2d", "cpu"] in lines
    assert ["mean_of_gradients/conv1/weight", "mean", "cpu"] in lines


@pytest.mark.parametrize(
    ("arguments", "towers", "batch_size", "decay_steps"),
    [
        (["tutorial"], 0, 128, 136_718),
        (["tutorial", "--num-gpus", "2"], 2, 256, 68_359),
        (["tutorial", "--num-gpus=4"], 4, 512, 34_179),
        (["tutorial", "--num_gpus", "2"], 2, 256, 68_359),  # the spelling of TensorFlow's program
        (["tutorial", "--num_gpus=2", "--batch_size=64"], 2, 128, 136_718),  # its fifth exercise
        (["tutorial", "--batch-size", "128", "--num-gpus", "2"], 2, 256, 68_359),
        (["tutorial", "--towers", "2", "--batch-size", "64"], 2, 64, 273_437),
        (["tutorial", "--towers", "2"], 2, 128, 136_718),
    ],
)
def test_num_gpus_multiplies_the_batch_and_the_schedule_follows(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    towers: int,
    batch_size: int,
    decay_steps: int,
) -> None:
    asked = train_no_more(monkeypatch)
    assert run_here(monkeypatch, "train", *arguments) == 0
    (config,) = asked
    assert (config.towers, config.batch_size) == (towers, batch_size)
    schedule = make_schedule(config, 50_000)
    assert [schedule(s) for s in (decay_steps - 1, decay_steps)] == pytest.approx([1, 0.1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "run", "--num-gpus", "2"], "--num-gpus changes the size of a batch, which"),
        (["tiny", "--num-gpus", "0"], "--num-gpus: expected at least 1, found 0"),
        (["tiny", "--num-gpus", "2", "--towers", "3"], "--num-gpus says how many towers there are"),
        (["tiny", "--devices", "2", "--towers", "2"], "--devices starts processes, --towers"),
        (["tiny", "--devices", "2", "--num-gpus", "2"], "--devices starts processes, --towers"),
        (["tiny", "--devices", "0"], "--devices: expected at least 1, found 0"),
        (["tiny", "--towers", "33"], "towers: expected at most one for each of the 32 examples"),
        (["tiny", "--resume", "run"], "--resume goes on with the preset of the run; leave out"),
        (["--resume", "run", "--overwrite"], "--resume goes on in the run's own directory"),
        (["--resume", "run", "--run-dir", "other"], "--resume goes on in the run's own directory"),
    ],
)
def test_settings_that_cannot_be_are_answered(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    train(tiny(steps=1), run_dir=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


# A budget instead of steps


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--data", "x"], {"data"}),
        (
            ["--data=x", "--model.widths", "8", "8", "8", "--no-keep-best"],
            {"data", "model.widths", "keep_best"},
        ),
        (
            ["--data", "x", "--budget", "90", "--image-size", "8", "9", "--no-report"],
            {"data", "image_size"},
        ),
        (["--data", "x", "--inputs.pad", "1"], {"data", "inputs.pad"}),  # the preset's value, too
        (["quick", "--data", "x"], None),
        (["--data", "x", "--steps", "5"], None),
        (["--data", "x", "--epochs=5"], None),
        (["--data", "x", "--feed", "streamed"], None),
        (["--data", "x", "--devices", "2"], None),
        (["--budget", "2m"], None),
        ([], None),
    ],
)
def test_data_alone_leave_the_settings_to_a_recipe(
    arguments: list[str], chosen: set[str] | None
) -> None:
    options = parse_options(arguments)
    assert options.chosen == (None if chosen is None else frozenset(chosen))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--budget", "5x"], "--budget: expected a duration such as 30s"),
        (["tiny", "--budget", "1m", "--steps", "5"], "--budget and --steps: both say how long"),
        (["tiny", "--budget", "1m", "--epochs", "5"], "--budget and --epochs: both say how long"),
        (["--budget=1m", "--resume", "x"], "--budget and --resume: a run that is resumed has"),
        (["tiny", "--budget", "1m", "--devices", "2"], "--devices: steps are measured in one"),
    ],
)
def test_what_contradicts_a_budget_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        main.run(["train", *arguments])


def test_the_time_of_a_command_began_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def train_not(_: Config, **settings: Any) -> Result:
        asked.append(settings)
        return Result(Path("run"), 1, (Evaluated(1, "test", False, 1, 1, 0.0),))

    monkeypatch.setattr(start, "train", train_not)
    assert run_here(monkeypatch, "train", "tiny", "--budget", "2m") == 0
    assert run_here(monkeypatch, "train", "--data", "x", "--seed", "3") == 0
    assert run_here(monkeypatch, "train", "tiny") == 0
    given, by_recipe, nothing = (settings["budget"] for settings in asked)
    now = time.monotonic()
    assert (given.seconds, given.chosen) == (120, None)
    assert now - running_for() == pytest.approx(given.began, abs=1.1)
    assert (by_recipe.seconds, by_recipe.chosen) == (300, frozenset({"data", "seed"}))
    assert nothing is None


def test_more_goes_on_with_a_run_in_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its settings and begins where that one ended; the time is planned for."""
    config = dataclasses.replace(QUICK, steps=3, data="synthetic")
    train(config, run_dir=tmp_path / "parent")
    parent = str(tmp_path / "parent")
    whole = dataclasses.replace(config.inputs, scales=())
    further = dataclasses.replace(config, start_from=parent, inputs=whole)
    options = parse_options(["--more", parent, "--seed", "4"])
    assert (options.config, options.chosen) == (dataclasses.replace(further, seed=4), None)
    with pytest.raises(ConfigError, match="--more goes on with all settings of a run"):
        parse_options(["quick", "--more", parent])
    with pytest.raises(ConfigError, match="--more goes on with all settings of a run"):
        parse_options(["--more", parent, "--resume", parent])
    asked: list[Any] = []

    def train_not(_: Config, **settings: Any) -> Result:
        asked.append(settings["budget"])
        return Result(Path("run"), 1, (Evaluated(1, "test", False, 1, 1, 0.0),))

    child = ["train", "--more", parent, "--steps", "2", "--no-report", "--run-dir"]
    assert main.run([*child, str(tmp_path / "child")]) == 0
    (began,) = logged(tmp_path / "child", "BeganWith")
    assert (began["path"], began["step"], began["left"]) == (parent, 3, {})
    monkeypatch.setattr(start, "train", train_not)
    assert main.run(["train", "--more", parent]) == 0
    assert main.run(["train", "--more", parent, "--budget", "2m"]) == 0
    assert main.run(["train", "--more", parent, "--steps", "2"]) == 0
    assert [allowed and allowed.seconds for allowed in asked] == [300, 120, None]

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from deepcnn import presets
from deepcnn.cli.main import main as cli
from deepcnn.config import Config
from deepcnn.events import Evaluated, Fetching, SourceFailed
from deepcnn.runs import checkpoint
from deepcnn.training.start import start as training

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def deepcnn(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deepcnn", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_names_commands_and_presets_without_torch(tmp_path: Path) -> None:
    script = """
import sys
from deepcnn.cli.main import main as cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules
"""
    helps = (["--help"], ["train", "--help"], ["evaluate", "--help"], ["bench", "--help"], ["data"])
    for arguments in helps:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        words = {
            "train": ("--steps", "--resume"),
            "evaluate": ("--follow",),
            "bench": ("--device", "--threads", "--json"),
        }
        for word in words.get(arguments[0], ("quick", "tutorial", "data fetch")):
            assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'. Did you mean 'train'?"),
        (["data", "fetsh"], "Did you mean 'data fetch'?"),
        (
            ["train", "tutorail"],
            "no preset 'tutorail'; expected one of quick, speedrun94, speedrun94_gpu,",
        ),
        (["train", "tiny", "--data", "nowhere"], "found 'nowhere', which is neither"),
        (["train", "tiny", "--batch-size", "0"], "batch_size: expected at least 1, found 0"),
        (["train", "--resume", "nowhere"], "expected the directory of a run"),
        (["evaluate", "nowhere"], "expected the directory of a run"),
        (["data", "fetch", "cifar"], "expected one of cifar10, cifar100"),
    ],
)
def test_mistakes_are_answered_without_traceback(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = deepcnn(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def train_no_more(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Let `train` only note, in the list that is returned, what it was asked for."""
    asked: list[Config] = []

    def train(config: Config, **_: object) -> training.Result:
        asked.append(config)
        return training.Result(Path("run"), 1, (Evaluated(1, "test", False, 1, 1, 0.0),))

    monkeypatch.setattr(training, "train", train)
    return asked


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
    monkeypatch.setattr(sys, "argv", ["deepcnn", "train", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
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
    assert " / 512 correct, test, step 21, averaged parameters" in done.stdout
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
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "Finished"
    done = deepcnn("evaluate", "run", "--examples", "10", "--no-averaged", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " / 10 correct, test, step 25, raw parameters" in done.stdout
    done = deepcnn("train", "--resume", "run", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 1
    assert "seed: cannot change" in done.stderr


def test_each_source_of_a_data_set_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    console = cli._Console()
    console(Fetching("x", "home page", 1, 10))
    console(SourceFailed("x", "home page", "broke off"))
    console(Fetching("x", "npm", 1, 10))
    console(Fetching("x", "npm", 2, 10))
    console.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Fetching x from home page", "x: home page: broke off", "Fetching x from npm"]


def test_show_counts_and_draws(tmp_path: Path) -> None:
    done = deepcnn("data", "show", "synthetic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8,192 images, 32×32×3" in done.stdout
    assert "820  pattern 0" in done.stdout
    with Image.open(tmp_path / "synthetic-train.png") as sheet:
        assert sheet.size == (150 + 12 * 68 + 4, 10 * 68 + 4)


def test_killed_at_any_instant_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL during start-up, steps and saves: the end is the one of a run left in peace."""
    command = ["train", "tiny", "--steps", "120", "--save-every", "3", "--summary-every", "0"]
    done = deepcnn(*command, "--run-dir", "peace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = checkpoint.paths(tmp_path / "peace" / "checkpoints")[-1]
    arguments = [*command, "--run-dir", "run"]
    kills = 0
    for seconds_after_start in (0.05, 0.31, 0.02, 0.47, 0.13):
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
    assert kills >= 3
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
    assert checkpoint.paths(tmp_path / "run" / "checkpoints")

"""The flags of TensorFlow's programs: taken, or answered with ours in a command that works."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from deepcnn import presets
from deepcnn.cli import data_convert, evaluate
from deepcnn.cli.arguments import parse
from deepcnn.cli.respelled import FLAGS, refuse
from deepcnn.cli.train import Options, parse_options
from deepcnn.errors import ConfigError
from tests.helpers.command import deepcnn, run_here


def answer(command: str, *arguments: str) -> tuple[list[str], list[str]]:
    """Return what is said of the flags, and the words of the command that is advised."""
    with pytest.raises(ConfigError) as refused:
        refuse(command, list(arguments))
    *said, typed = str(refused.value).splitlines()
    words = shlex.split(typed.removeprefix("Type: "))
    start = ["deepcnn", *command.split()]
    assert words[: len(start)] == start
    return said, words[len(start) :]


@pytest.mark.parametrize(
    ("arguments", "said", "typed"),
    [
        ("--max_steps 100", "--max_steps is spelt --steps here", "--steps 100"),
        ("tutorial --max-steps=9", "--max-steps is spelt --steps here", "tutorial --steps 9"),
        ("--num_epochs=2", "--num_epochs is spelt --epochs here", "--epochs 2"),
        ("--train_dir 'a b'", "--train_dir is spelt --run-dir here", "--run-dir 'a b'"),
        ("mnist --log_dir x", "--log_dir is spelt --run-dir here", "mnist --run-dir x"),
        ("--log_frequency 5", "--log_frequency is spelt --log-every here", "--log-every 5"),
        ("--use_fp16", "--use_fp16 is spelt --precision fp16 here", "--precision fp16"),
        ("--use_fp16=false", "--use_fp16 is spelt --precision fp32 here", "--precision fp32"),
        ("--use_fp16 True", "--use_fp16 is spelt --precision fp16 here", "--precision fp16"),
        ("--nouse_fp16", "--nouse_fp16 is spelt --precision fp32 here", "--precision fp32"),
        (
            "mnist --learning_rate 0.1",
            "--learning_rate is spelt --optimizer.learning-rate here",
            "mnist --optimizer.learning-rate 0.1",
        ),
        (
            "--hidden1 64 --seed 3",
            "--hidden1 is spelt --model.widths HIDDEN1 HIDDEN2 here",
            "mnist --seed 3 --model.widths 64 32",
        ),
        (
            "mnist --hidden2 16",
            "--hidden2 is spelt --model.widths HIDDEN1 HIDDEN2 here",
            "mnist --model.widths 128 16",
        ),
        (
            "mnist --input_data_dir d",
            "--input_data_dir is spelt --data-dir here",
            "mnist --data-dir d",
        ),
        (
            "mnist --fake_data",
            "--fake_data is spelt --data synthetic here",
            "mnist --data synthetic",
        ),
        ("mnist --fake_data=False", "--fake_data is left out here", "mnist"),
        ("--eval_dir=x --seed 3", "--eval_dir is a flag of deepcnn evaluate", "--seed 3"),
        ("--norun_once", "--norun_once is a flag of deepcnn evaluate", ""),
    ],
)
def test_flags_of_a_training(arguments: str, said: str, typed: str) -> None:
    found, words = answer("train", *shlex.split(arguments))
    assert found == [said]
    assert words == shlex.split(typed)
    parse_options(words)


@pytest.mark.parametrize(
    ("arguments", "said", "typed"),
    [
        ("--checkpoint_dir r", "needs no flag here: the run's directory comes first", "r"),
        ("--eval_data=test", "is spelt --split test here", "--split test"),
        ("r --eval_data train_eval", "is spelt --split train here", "r --split train"),
        (
            "r --eval_interval_secs 60",
            "is spelt --follow --interval here",
            "r --follow --interval 60",
        ),
        ("r --num_examples=100", "is spelt --examples here", "r --examples 100"),
        ("r --run_once", "is not needed here: only --follow goes on", "r"),
        ("r --run_once=False", "is not needed here: only --follow goes on", "r --follow"),
        ("r --norun_once", "is not needed here: only --follow goes on", "r --follow"),
        ("r --eval_dir x", "is not needed here: summaries are written into the run", "r"),
        ("r --batch_size 7", "is not needed here: each example counts once", "r"),
        ("r --use_fp16", "is spelt --precision bf16 here", "r --precision bf16"),
        ("r --max_steps 7", "is a flag of deepcnn train", "r"),
    ],
)
def test_flags_of_an_evaluation(arguments: str, said: str, typed: str) -> None:
    (found,), words = answer("evaluate", *shlex.split(arguments))
    assert found.partition(" ")[2] == said
    assert words == shlex.split(typed)
    parse("evaluate", evaluate.Options, words)


def test_the_flag_of_a_conversion() -> None:
    (said,), words = answer("data convert", "--directory=out", "--validation_size=100")
    assert said == "--directory is not needed here: name the data and a new folder"
    assert words == ["mnist", "out", "--to", "tfrecord", "--validation_size=100"]
    options = parse("data convert", data_convert.Options, words)
    assert (options.source, str(options.target), options.validation_size) == ("mnist", "out", 100)


def test_all_are_answered_at_once_and_what_is_ours_stays() -> None:
    said, words = answer(
        *("evaluate", "--checkpoint_dir=r", "--run_once=false", "--eval_interval_secs=5"),
        *("--split", "test"),
    )
    assert len(said) == 3
    assert words == ["r", "--follow", "--interval", "5", "--split", "test"]
    said, words = answer("train", "--hidden2=8", "--max_steps=5", "--hidden1=16", "--batch_size=4")
    config = parse_options(words).config
    assert dataclasses.replace(presets.mnist(), model=config.model, steps=5, batch_size=4) == config
    assert config.model.widths == (16, 8)


def test_what_is_ours_and_other_commands_are_left_alone() -> None:
    refuse("train", ["tutorial", "--data", "max_steps", "--steps", "5", "--no-report"])
    refuse("predict", ["--max_steps", "5"])


@pytest.mark.parametrize("command", FLAGS)
def test_what_is_refused_is_no_option_here(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, *command.split(), "--help") == 0
    options = capsys.readouterr().out.split()
    for flag in FLAGS[command]:
        assert "--" + flag.replace("_", "-") not in options


def test_the_program_answers_in_lines_and_trains_nothing(tmp_path: Path) -> None:
    done = deepcnn("train", "tiny", "--max_steps=3", "--use_fp16", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "deepcnn: --max_steps is spelt --steps here",
        "--use_fp16 is spelt --precision fp16 here",
        "Type: deepcnn train tiny --steps 3 --precision fp16",
    ]
    assert not list(tmp_path.iterdir())


def test_64_examples_for_each_of_two_gpus_are_a_batch_of_128(tmp_path: Path) -> None:
    options = ("--data", "synthetic", "--steps", "1", "--device", "cpu", "--summary-every", "0")
    done = deepcnn(
        *("train", "tutorial", "--num_gpus=2", "--batch_size=64", *options, "--no-report"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert " of batch 128, " in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[0].endswith(", 2 towers")


def test_epochs_and_steps_exclude_each_other(tmp_path: Path) -> None:
    for words in (["tiny"], ["--resume", str(tmp_path)]):
        with pytest.raises(ConfigError, match="--steps and --epochs both say how long"):
            parse_options([*words, "--steps", "3", "--epochs=2"])
    options: Options = parse_options(["tiny", "--epochs", "0.5"])
    assert (options.config.epochs, options.config.steps) == (0.5, 200)

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from deepcnn.config import Config
from deepcnn.devices import Place
from deepcnn.errors import CheckpointError, RunError
from deepcnn.inference.trained import (
    Trained,
    answers_of,
    calibration_of,
    checkpoint_of,
    newest,
)
from deepcnn.runs import checkpoint
from deepcnn.runs.run import Run
from tests.helpers.tiny import saved, state_of, tiny, transform_of

PLACE = Place(torch.device("cpu"), "fp32")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy, to be changed."""
    return Run(Path(shutil.copytree(tiny_run, tmp_path / "run")))


def test_what_a_checkpoint_holds_is_loaded(tiny_run: Path) -> None:
    run = Run(tiny_run)
    for path in saved(tiny_run):
        step, tensors, _ = checkpoint.load(path)
        for averaged, prefix in ((True, "average."), (False, "model.")):
            trained = Trained.load(run, path, averaged=averaged)
            assert (trained.step, trained.averaged) == (step, averaged)
            assert isinstance(trained.config, Config)
            assert trained.config.steps == 40
            for name, value in trained.model.named_parameters():
                assert torch.equal(value, tensors[prefix + name])


def test_a_run_without_averages_has_none_to_answer_with(unsure_run: Path) -> None:
    run = Run(unsure_run)
    trained = Trained.load(run, newest(run)[0], averaged=True)
    assert not trained.averaged
    assert trained.calibration is not None
    assert trained.answers(PLACE).margin == trained.calibration.margin


def test_checkpoints_are_found_by_their_steps(tiny_run: Path) -> None:
    run = Run(tiny_run)
    older, newer = saved(tiny_run)
    assert newest(run)[0] == checkpoint_of(run, None) == checkpoint_of(run, 40) == newer
    assert checkpoint_of(run, 20) == older
    for step in (0, 41, -20):
        with pytest.raises(CheckpointError, match=f"checkpoint of step {step}, found 20, 40$"):
            checkpoint_of(run, step)


def test_a_calibration_of_another_network_is_not_used(run: Run) -> None:
    stored = run.read("calibration.json")
    assert calibration_of(run, 40, averaged=True) is not None
    assert calibration_of(run, 40, averaged=False) is None
    assert calibration_of(run, 20, averaged=True) is None
    run.write("calibration.json", stored | {"step": 20})
    assert Trained.load(run, checkpoint_of(run, 40)).calibration is None
    trained = Trained.load(run, checkpoint_of(run, 20))
    assert trained.calibration is not None
    assert trained.calibration.step == 20
    (run.path / "calibration.json").unlink()
    assert Trained.load(run, checkpoint_of(run, 20)).calibration is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff",
        b'{"step": 40}',
        b'"a"',
        b"9" * 9000,
        b'{"step": 40, "averaged": true, "split": "test", "examples": 1, "temperature": NaN}',
    ],
)
def test_a_damaged_calibration_is_an_error_that_says_where(run: Run, content: bytes) -> None:
    path = run.path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"calibration\.json: "):
        Trained.load(run, newest(run)[0])
    for values in (b"null", b"1e999"):
        hostile = json.dumps(json.loads((run.path / "config.json").read_text()))
        path.write_bytes(hostile.encode().replace(b"40", values))
        with pytest.raises(RunError, match=r"calibration\.json: "):
            Trained.load(run, newest(run)[0])


def test_a_checkpoint_that_is_gone_is_no_damage(run: Run) -> None:
    last = newest(run)[0]
    last.unlink()
    with pytest.raises(FileNotFoundError):
        Trained.load(run, last)
    assert newest(run)[0] == checkpoint_of(run, 20)


def test_a_checkpoint_of_another_network_does_not_fit(run: Run) -> None:
    values = run.read("config.json")
    values["model"]["widths"] = [8, 16, 64, 64]
    run.write("config.json", values)
    with pytest.raises(CheckpointError, match="step-000000040"):
        Trained.load(run, newest(run)[0])


def test_a_training_that_goes_on_is_not_touched_by_its_answers() -> None:
    config = tiny()
    state = state_of(config)
    answers = answers_of(state, transform_of(config), PLACE)
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    before = answers.logits(images)
    for parameter in state.model.parameters():
        parameter.data.zero_()
    assert state.model.training
    assert torch.equal(answers.logits(images), before)

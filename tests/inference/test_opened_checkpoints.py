"""A checkpoint, opened: the network with its averages or its raw parameters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deepcnn.devices import Place
from deepcnn.errors import CheckpointError
from deepcnn.inference.trained import Trained, answers_of, newest
from deepcnn.runs import checkpoint
from deepcnn.runs.run import Run
from deepcnn.settings import ModelConfig
from deepcnn.training.start import train
from tests.helpers.parameters import OPEN
from tests.helpers.tiny import CPU, TINY, saved, state_of, tensors, tiny, transform_of

PLACE = Place(CPU, "fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("trained") / "run"
    return Run(train(tiny(steps=20, save_every=10), run_dir=path).run)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_gives_averages_or_raw_parameters(run: Run, averaged: bool) -> None:
    trained = Trained.load(run, newest(run)[0], averaged=averaged)
    assert (trained.step, trained.averaged) == (20, averaged)
    assert trained.config == run.config()
    stored = tensors(run.path)
    kind = "average" if averaged else "model"
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(parameter, stored[f"{kind}.{name}"])
        assert not torch.equal(stored[f"average.{name}"], stored[f"model.{name}"])
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    assert trained.answers(PLACE).logits(images).shape == (2, len(trained.trained_on.classes))


def test_where_no_averages_are_kept_the_raw_parameters_are_taken(tmp_path: Path) -> None:
    run = Run(train(tiny(steps=2, average_decay=None), run_dir=tmp_path / "run").run)
    trained = Trained.load(run, newest(run)[0])
    assert not trained.averaged
    stored = tensors(run.path)
    assert all(torch.equal(p, stored[f"model.{n}"]) for n, p in trained.model.named_parameters())


def test_the_newest_checkpoint_is_that_of_the_last_step(run: Run, tmp_path: Path) -> None:
    assert len(saved(run.path)) == 2
    assert newest(run)[0] == saved(run.path)[-1]
    with pytest.raises(CheckpointError, match=r"No checkpoint file found .*train --resume"):
        newest(Run(tmp_path))


def test_a_checkpoint_that_is_gone_or_does_not_fit_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Trained.load(run, tmp_path / "step-000000005.safetensors")
    other = state_of(tiny(model=ModelConfig("tutorial", widths=(8, 8, 8, 8)))).tensors()
    path = checkpoint.save(tmp_path, 5, other, keep=1)
    with pytest.raises(CheckpointError, match=r"does not fit this run: conv1\.bias: expected"):
        Trained.load(run, path)


def test_a_training_is_asked_by_way_of_a_copy_that_has_its_averages() -> None:
    state = state_of(TINY)
    assert state.averages is not None
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(1.0)
    state.averages.update(torch.tensor(0.25), OPEN)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    images = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    state.model.train()
    found = answers_of(state, transform_of(TINY), PLACE).probabilities(images)
    assert state.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    averaged = state.averages.model(state.model).eval()
    with torch.no_grad():
        expected = averaged(transform_of(TINY).evaluate(images)).softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.sum(1) == pytest.approx(torch.ones(3))


def test_a_checkpoint_of_a_step_that_is_removed_meanwhile_is_told_as_such(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.path, copy := tmp_path / "run")
    original = checkpoint.load

    def load(path: Path, *rest: Any) -> checkpoint.Checkpoint:
        path.unlink()
        return original(path, *rest)

    monkeypatch.setattr(checkpoint, "load", load)
    with pytest.raises(CheckpointError, match=r"000010\.safetensors: a training has removed it"):
        Trained.open(Run(copy), 10)

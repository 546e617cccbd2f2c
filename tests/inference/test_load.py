from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import deepcnn
from deepcnn.data.open import load_dataset
from deepcnn.errors import CheckpointError, ConfigError, RunError
from deepcnn.inference.load import load
from deepcnn.inference.trained import Trained, checkpoint_of
from deepcnn.runs.run import Run
from deepcnn.training.start import train
from tests.helpers.tiny import tiny

IMAGES = load_dataset("synthetic", "test").images[:30]


@pytest.mark.parametrize("step", [None, 20, 40])
@pytest.mark.parametrize("averaged", [True, False])
def test_a_classifier_answers_as_the_checkpoints_network(
    tiny_run: Path, step: int | None, averaged: bool
) -> None:
    classifier = load(tiny_run, step=step, averaged=averaged, device="cpu")
    assert (classifier.image_shape, len(classifier.classes)) == ((32, 32, 3), 10)
    assert classifier.classes[0] == "pattern 0"
    run = Run(tiny_run)
    trained = Trained.load(run, checkpoint_of(run, step), averaged=averaged)
    model, transform = trained.model.eval(), trained.trained_on.transform
    with torch.no_grad():
        logits = model(transform.evaluate(torch.from_numpy(IMAGES))).double()
    temperature = classifier.calibration.temperature if classifier.calibration else 1.0
    expected = (logits / temperature).softmax(1).numpy()
    np.testing.assert_allclose(classifier.probabilities(IMAGES), expected, atol=1e-5)
    # only the last checkpoint's averages were scored, so only they are calibrated
    assert (classifier.calibration is not None) == (averaged and step != 20)


def test_a_text_is_a_path_and_the_newest_checkpoint_answers(tiny_run: Path) -> None:
    newest = deepcnn.load(str(tiny_run)).probabilities(IMAGES)
    assert np.array_equal(newest, load(tiny_run, step=40).probabilities(IMAGES))
    assert not np.allclose(newest, load(tiny_run, step=20).probabilities(IMAGES))


def test_what_is_missing_is_said(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: there is no such run"):
        load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"expected the directory of a run, with a config\.json"):
        load(tmp_path)
    with pytest.raises(RunError, match="expected the directory of a run"):
        load(tiny_run / "config.json")
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of step 1,234, found 20, 40"):
        load(tiny_run, step=1234)
    run = tmp_path / "my run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(CheckpointError, match=r"deepcnn train --resume '.*/my run'$"):
        load(run)
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of step 20, found none"):
        load(run, step=20)


def test_settings_that_cannot_be_are_refused(tiny_run: Path) -> None:
    threads = torch.get_num_threads()
    for count in (0, -1):
        with pytest.raises(ConfigError, match=f"threads: expected at least 1, found {count}"):
            load(tiny_run, threads=count)
    with pytest.raises(ConfigError, match="device: 'abacus' cannot be used here"):
        load(tiny_run, device="abacus")
    with pytest.raises(
        ConfigError, match="precision: expected auto or fp32, bf16, fp16, found 'fp8'"
    ):
        load(tiny_run, precision="fp8")  # type: ignore[arg-type]
    assert torch.get_num_threads() == threads
    try:
        load(tiny_run, threads=threads + 1)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


class Own(nn.Module):
    """Somebody's own network."""

    def __init__(self, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


def test_a_network_of_ones_own_is_named_again(tmp_path: Path) -> None:
    train(tiny(steps=2), run_dir=tmp_path / "run", model=Own)
    with pytest.raises(
        ConfigError, match=r"Its code only runs if you name it again: --model.name "
    ):
        load(tmp_path / "run")
    expected = load(tmp_path / "run", model=Own).probabilities(IMAGES)
    name = f"{Own.__module__}:Own"
    assert np.array_equal(load(tmp_path / "run", model=name).probabilities(IMAGES), expected)
    given = Own(10, (3, 24, 24))
    before = given.get_parameter("layers.1.weight").clone()
    assert np.array_equal(load(tmp_path / "run", model=given).probabilities(IMAGES), expected)
    assert torch.equal(given.get_parameter("layers.1.weight"), before)  # it is the caller's
    with pytest.raises(CheckpointError):
        load(tmp_path / "run", model=nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 10)))


def test_without_a_run_torch_is_not_waited_for(tmp_path: Path) -> None:
    script = """
import sys
import deepcnn
from deepcnn.errors import RunError
import deepcnn.inference.classifier
try:
    deepcnn.load("nowhere")
except RunError:
    assert "torch" not in sys.modules
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")

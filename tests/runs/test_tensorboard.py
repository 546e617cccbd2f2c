"""What TensorBoard reads back of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepcnn.training.start import train
from tests.helpers.tiny import read_back, tiny


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_everything_that_the_reference_showed(tmp_path: Path) -> None:
    train(tiny(steps=1, summary_every=100), run_dir=tmp_path / "run")
    found = read_back(tmp_path / "run/summaries/train")
    losses = {"cross_entropy", "local3/weight_loss", "local4/weight_loss", "total_loss"}
    layers = {"conv1", "conv2", "local3", "local4", "softmax_linear"}
    variables = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    tags = found.Tags()
    assert set(tags["scalars"]) == {
        *(f"loss/{name}" for name in losses),
        *(f"loss_averaged/{name}" for name in losses),
        *(f"sparsity/{layer}" for layer in layers),
        *("learning_rate", "examples_per_second"),
        *("accuracy/train_batch", "accuracy/test", "cross_entropy/test"),
    }
    assert set(tags["histograms"]) == {
        *(f"activations/{layer}" for layer in layers),
        *(f"variables/{name}" for name in variables),
        *(f"gradients/{name}" for name in variables),
    }
    assert set(tags["images"]) == {"images/0", "images/1", "images/2"}
    assert tags["graph"]
    (event,) = found.Histograms("variables/conv1.weight")
    assert event.histogram_value.num == 16 * 3 * 25

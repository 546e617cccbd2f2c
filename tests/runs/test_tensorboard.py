"""What TensorBoard reads back of a training."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from deepcnn.events import Stepped
from deepcnn.runs.tensorboard import TensorBoard
from deepcnn.training.start import train
from tests.helpers.tiny import points, read_back, tiny


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("first", [0, 2])
def test_what_is_written_again_is_shown_once(tmp_path: Path, first: int) -> None:
    """By a process that goes on at a step, and by one that goes back to it."""

    def written(board: TensorBoard, steps: range, loss: float) -> None:
        for step in steps:
            board(Stepped(step, {"total_loss": loss}, {}, 0.1, 1.0, 1.0))

    with closing(TensorBoard(tmp_path, pytest.fail)) as board:
        written(board, range(4), 1.0)
    with closing(TensorBoard(tmp_path, pytest.fail, first_step=first)) as board:
        written(board, range(first, 4), 2.0)
        board.begin_again(3)
        written(board, range(3, 5), 3.0)
    expected = [(step, 1.0) for step in range(first)]
    expected += [(step, 2.0) for step in range(first, 3)] + [(3, 3.0), (4, 3.0)]
    assert points(tmp_path, "loss/total_loss") == expected

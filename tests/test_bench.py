"""What `deepcnn bench` computes from times; not the times."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from deepcnn import bench, presets
from deepcnn.devices import Place
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Noted
from deepcnn.inference import speed
from deepcnn.models.build import build_model
from deepcnn.training.loop import Result

SMALL = bench.Plan(presets=("tiny",), steps=31, batches=20, repetitions=2, matrix=32)


ANSWERING = speed.Answering("torch", "fp32", 1.0, {"tiny": speed.Speed(0.5, 4000.0)})


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take answers as measured: tests/inference/test_runtimes.py measures them."""

    def measure(runs: dict[str, Path], images: NDArray[np.uint8], **_: object) -> list[Any]:
        assert {name: (run / "checkpoints").is_dir() for name, run in runs.items()} == {
            "tiny": True
        }
        assert images.shape == (speed.MANY, 32, 32, 3)
        return [ANSWERING]

    monkeypatch.setattr(speed, "measure", measure)


def test_without_cifar10_synthetic_data_are_measured_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEEPCNN_DATA", str(tmp_path / "nothing"))
    told: list[Event] = []
    report = bench.measure("cpu", 1, plan=SMALL, emit=told.append)
    assert report.data == "synthetic"
    assert not (tmp_path / "nothing").exists()
    (first, *_) = told
    assert isinstance(first, Noted)
    assert "deepcnn data fetch cifar10" in first.text
    assert list(report.rates) == ["distorted inputs", "training tiny", "scoring tiny"]
    assert all(rate > 0 for rate in report.rates.values())
    assert report.answering == (ANSWERING,)
    assert [layer.name for layer in report.layers] == [
        *("conv1", "pool1", "norm1", "conv2", "norm2", "pool2"),
        *("local3", "local4", "softmax_linear"),
    ]
    assert report.limits.best >= report.limits.matrix_product > 0
    assert (report.environment["device"], report.environment["threads"]) == ("cpu", 1)


def test_the_real_images_are_measured_where_they_are_on_disk(
    cifar10_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPCNN_DATA", str(cifar10_folder.parent))
    monkeypatch.setattr(bench, "training_rate", lambda config, _: len(config.data))
    monkeypatch.setattr(bench, "scoring_rate", lambda *_: 1.0)
    monkeypatch.setattr(speed, "measure", lambda *_, **__: [])
    report = bench.measure("cpu", 1, plan=SMALL)
    assert report.data == "cifar10"
    assert report.rates["training tiny"] == len("cifar10")


def test_operations_are_those_of_the_definition() -> None:
    conv = nn.Conv2d(3, 8, 5, padding=2)
    output = conv(torch.zeros(2, 3, 6, 4))
    # Each of 2·8·6·4 values is a sum of 3·5·5 products: a multiplication and an addition each.
    assert bench.operations(conv, output) == 2 * 8 * 6 * 4 * (3 * 5 * 5) * 2
    linear = nn.Linear(7, 5)
    assert bench.operations(linear, linear(torch.zeros(3, 7))) == 3 * 5 * 7 * 2
    assert bench.operations(nn.MaxPool2d(2), output) is None


def test_layers_are_compared_with_the_limit_and_only_the_first_has_no_gradient_of_its_input() -> (
    None
):
    model = build_model("tutorial", shape=(3, 8, 8), widths=(4, 4, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    limits = bench.Limits(matrix_product=3.0, convolution=5.0)
    layers = bench.time_layers(model, images, Place.choose("cpu", "fp32"), limits, 2)
    by_name = {layer.name: layer for layer in layers}
    conv1, conv2 = by_name["conv1"], by_name["conv2"]
    assert conv1.forward.gigaflops == pytest.approx(2 * 4 * 8 * 8 * (3 * 25) * 2 / 1e9)
    assert conv1.backward.gigaflops == pytest.approx(conv1.forward.gigaflops)
    assert conv2.forward.gigaflops == pytest.approx(2 * 4 * 4 * 4 * (4 * 25) * 2 / 1e9)
    assert conv2.backward.gigaflops == pytest.approx(2 * (conv2.forward.gigaflops or 0))
    for each in (conv1.forward, conv2.backward):
        assert each.gigaflops is not None
        speed = each.gigaflops / (each.milliseconds / 1e3)
        assert each.share == pytest.approx(speed / 5.0)
    assert by_name["pool1"].forward.share is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_are_timed_in_the_layout_they_compute_in() -> None:
    model = build_model("tutorial", widths=(64, 8, 8, 8))
    images = torch.randn(112, 3, 24, 24)
    limits = bench.Limits(matrix_product=3.0, convolution=5.0)
    conv1, pool1, *_ = bench.time_layers(model, images, Place.choose("cpu", "fp32"), limits, 1)
    assert (conv1.name, pool1.name) == ("conv1", "pool1")
    assert conv1.forward.gigaflops == pytest.approx(2 * 112 * 64 * 24 * 24 * (3 * 25) / 1e9)
    assert pool1.backward.milliseconds > 0


def test_the_limits_are_operations_by_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(itertools.accumulate([0.0, 4.0, 0.0, 2.0, 0.0, 3.0, 0.0, 1.0, 0.0, 8.0, 0.0, 9.0]))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    limits = bench.find_limits(Place.choose("cpu", "fp32"), 10, 3)
    assert limits.matrix_product == pytest.approx(2 * 10**3 / 2.0 / 1e9)
    assert limits.convolution == pytest.approx(2 * 128 * 64 * 12 * 12 * 64 * 25 / 1.0 / 1e9)


def test_a_signal_to_the_training_stops_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "train", lambda *_, **__: Result(tmp_path, 1, ()))
    with pytest.raises(KeyboardInterrupt):
        bench.training_rate(presets.tiny(), tmp_path)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads: expected at least 1, found 0"):
        bench.measure("cpu", 0)

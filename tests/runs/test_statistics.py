from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deepcnn.models.build import build_model
from deepcnn.runs import statistics


def test_histograms_count_like_numpy() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    found = statistics.histogram(values)
    counts, edges = np.histogram(values.numpy(), statistics.BUCKETS)
    np.testing.assert_allclose(found.edges, edges, atol=1e-5)
    # float32 and float64 may put a value beside an edge differently
    assert np.abs(found.counts - counts).sum() <= 4
    assert found.counts.sum() == 10_000
    assert found.total == pytest.approx(float(values.double().sum()), rel=1e-3)
    assert found.squares == pytest.approx(float(values.double().square().sum()), rel=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_histograms_of_bf16_are_those_of_the_same_values(relu: bool) -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = torch.cat([values.relu() if relu else values, torch.tensor([0.0, -0.0]).bfloat16()])
    found, expected = statistics.histogram(values), statistics.histogram(values.double())
    np.testing.assert_array_equal(found.edges, expected.edges)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.total == pytest.approx(float(values.double().sum()), rel=1e-9)
    assert found.squares == pytest.approx(float(values.double().square().sum()), rel=1e-9)
    assert np.histogram(values.double().numpy(), statistics.BUCKETS)[0].tolist() == list(
        found.counts
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([3.0, 3.0], 2),
        ([float("nan"), 1.0, 2.0, float("inf")], 2),
        ([float("nan")], 0),
        ([-3e38, 0.0, 3e38], 3),
        ([0.0, 1e-45], 2),
        ([], 0),
    ],
)
def test_histograms_of_odd_values(values: list[float], count: int, dtype: torch.dtype) -> None:
    found = statistics.histogram(torch.tensor(values, dtype=dtype))
    assert found.counts.sum() == count
    assert np.all(np.diff(found.edges) > 0)


@pytest.mark.parametrize("count", [4, 112])  # of 112 images conv1's output is opaque
def test_activations_are_taken_after_relu_and_their_sparsity_is_exact(count: int) -> None:
    model = build_model("tutorial", widths=(64, 8, 32, 16))
    images = torch.randn(count, 3, 24, 24)
    with statistics.capture(model) as activations:
        model(images)
    conv1 = model.get_submodule("conv1")
    assert isinstance(conv1, nn.Conv2d)
    assert torch.allclose(
        activations["conv1"],
        F.conv2d(images, conv1.weight, conv1.bias, padding=2).relu(),
        atol=1e-5,
    )
    assert list(activations) == ["conv1", "conv2", "local3", "local4", "softmax_linear"]
    assert activations["conv1"].min() == 0
    found = statistics.summarize(5, images=images, activations=activations, variables=model)
    zeros = (activations["conv1"] == 0).double().mean()
    assert found.scalars["sparsity/conv1"] == pytest.approx(float(zeros))
    assert set(found.images) == {"images/0", "images/1", "images/2"}
    picture = found.images["images/0"]
    assert picture.shape == (24, 24, 3)
    assert (picture.min(), picture.max()) == (0, 255)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_minus_zero_is_sparse_and_nan_is_not(dtype: torch.dtype) -> None:
    values = torch.tensor([[0.0, -0.0, float("nan"), 1e-30]], dtype=dtype)
    found = statistics.summarize(0, images=torch.zeros(1, 3, 2, 2), activations={"x": values})
    assert found.scalars == {"sparsity/x": 0.5}


def test_activations_of_a_large_batch_are_those_of_its_first_examples() -> None:
    model = build_model("mlp", shape=(1, 4, 4), widths=(8, 8))
    images = torch.randn(statistics.EXAMPLES + 2, 1, 4, 4)
    with statistics.capture(model) as activations, torch.no_grad():
        logits = model(images)
    last = list(activations.values())[-1]
    assert torch.equal(last, logits[: statistics.EXAMPLES])


def test_capture_removes_its_hooks_after_an_error() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), statistics.capture(model):
        model(torch.zeros(1, 3))
    assert not model._forward_hooks

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deepcnn import presets
from deepcnn.events import Evaluated, Stepped
from deepcnn.models import BUILDERS, build_model
from deepcnn.runs import graph, summaries
from deepcnn.training.start import start as training


def test_histograms_count_like_numpy() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    found = summaries.histogram(values)
    counts, edges = np.histogram(values.numpy(), summaries.BUCKETS)
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
    found, expected = summaries.histogram(values), summaries.histogram(values.double())
    np.testing.assert_array_equal(found.edges, expected.edges)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.total == pytest.approx(float(values.double().sum()), rel=1e-9)
    assert found.squares == pytest.approx(float(values.double().square().sum()), rel=1e-9)
    assert np.histogram(values.double().numpy(), summaries.BUCKETS)[0].tolist() == list(
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
    found = summaries.histogram(torch.tensor(values, dtype=dtype))
    assert found.counts.sum() == count
    assert np.all(np.diff(found.edges) > 0)


@pytest.mark.parametrize("count", [4, 112])  # of 112 images conv1's output is opaque
def test_activations_are_taken_after_relu_and_their_sparsity_is_exact(count: int) -> None:
    model = build_model("tutorial", widths=(64, 8, 32, 16))
    images = torch.randn(count, 3, 24, 24)
    with summaries.capture(model) as activations:
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
    found = summaries.summarize(5, images=images, activations=activations, variables=model)
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
    found = summaries.summarize(0, images=torch.zeros(1, 3, 2, 2), activations={"x": values})
    assert found.scalars == {"sparsity/x": 0.5}


def test_activations_of_a_large_batch_are_those_of_its_first_examples() -> None:
    model = build_model("mlp", shape=(1, 4, 4), widths=(8, 8))
    images = torch.randn(summaries.EXAMPLES + 2, 1, 4, 4)
    with summaries.capture(model) as activations, torch.no_grad():
        logits = model(images)
    last = list(activations.values())[-1]
    assert torch.equal(last, logits[: summaries.EXAMPLES])


def test_the_graph_names_layers_variables_and_shapes() -> None:
    nodes = {node.name: node for node in graph.trace(build_model("tutorial"), (3, 24, 24))}
    assert nodes["conv1/conv2d"].inputs == ("images", "conv1/weight", "conv1/bias")
    assert nodes["conv1/conv2d"].shape == (-1, 64, 24, 24)
    assert nodes["local3/weight"].operation == "variable"
    assert nodes["softmax_linear/linear"].shape == (-1, 10)
    assert nodes["permute"].shape == (-1, 6, 6, 64)
    assert nodes["norm1/mul_2"].inputs == ("norm1/relu", "norm1/mul")
    assert all(source in nodes for node in nodes.values() for source in node.inputs)
    order = list(nodes)
    assert all(order.index(i) < order.index(n) for n, node in nodes.items() for i in node.inputs)


@pytest.mark.parametrize("name", BUILDERS)
def test_tracing_leaves_the_network_alone(name: str) -> None:
    model = build_model(name, shape=(3, 28, 28))
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    nodes = graph.trace(model, (3, 28, 28))
    assert nodes[-1].shape == (-1, 10)
    assert model.training
    assert all(t.dtype == before[n].dtype for n, t in model.state_dict().items())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_training_does_without_torchs_compiler(tmp_path: Path) -> None:
    """Its import takes longer than all else before the first step."""
    script = f"""
import dataclasses, sys
from deepcnn import presets, train
train(dataclasses.replace(presets.tiny(), steps=1), run_dir={str(tmp_path / "run")!r})
assert not {{"torch._dynamo", "torch._inductor"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def read_back(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory), size_guidance={"histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_everything_that_the_reference_showed(tmp_path: Path) -> None:
    config = dataclasses.replace(presets.tiny(), steps=1, device="cpu")
    training.train(config, run_dir=tmp_path / "run")
    found = read_back(tmp_path / "run/summaries/train")
    losses = {"cross_entropy", "local3/weight_loss", "local4/weight_loss", "total_loss"}
    layers = {"conv1", "conv2", "local3", "local4", "softmax_linear"}
    variables = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    tags = found.Tags()
    assert set(tags["scalars"]) == {
        *(f"loss/{name}" for name in losses),
        *(f"loss_averaged/{name}" for name in losses),
        *(f"sparsity/{layer}" for layer in layers),
        *("learning_rate", "examples_per_second", "accuracy/test", "cross_entropy/test"),
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


def test_the_budget_of_summaries_holds() -> None:
    budget = training._Budget(0.03)
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: now)
        budget.start()
        assert budget.left()
        with budget:
            now = 3.0
        assert not budget.left()
        now = 99.0
        assert not budget.left()
        now = 101.0
        assert budget.left()


def test_the_log_survives_a_line_cut_off_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "A"}\n{"event": "B", "st')
    with closing(summaries.JsonLog(path)) as log:
        log(Evaluated(3, "test", True, 1, 2, float("nan")))
        log(Stepped(1, {"a": float("inf")}, {}, 0.1, 1.0, 1.0))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["A", "Evaluated", "Stepped"]
    assert lines[1]["loss"] is None
    assert lines[2]["losses"] == {"a": None}


def test_capture_removes_its_hooks_after_an_error() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), summaries.capture(model):
        model(torch.zeros(1, 3))
    assert not model._forward_hooks

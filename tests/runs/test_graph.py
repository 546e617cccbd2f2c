from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from deepcnn.config import Config
from deepcnn.events import Event, Node, Traced
from deepcnn.models.build import BUILDERS, build_model
from deepcnn.runs import graph
from deepcnn.training.start import train
from tests.helpers.tiny import tiny


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


def traced(config: Config, run: Path) -> dict[str, Node]:
    """Return the nodes that a training tells, by name, in order."""
    heard: list[Event] = []
    train(config, run_dir=run, emit=heard.append)
    (found,) = (event for event in heard if isinstance(event, Traced))
    return {node.name: node for node in found.nodes}


def check_order(nodes: dict[str, Node]) -> None:
    order = {name: i for i, name in enumerate(nodes)}
    assert all(order[i] < order[name] for name, node in nodes.items() for i in node.inputs)


def test_the_graph_of_a_step_goes_from_images_to_moving_averages(tmp_path: Path) -> None:
    nodes = traced(tiny(steps=1, summary_every=9), tmp_path / "run")
    check_order(nodes)
    assert {node.device for node in nodes.values()} == {"cpu"}
    assert nodes["inputs/images"].shape == (-1, 32, 32, 3)
    assert nodes["inputs/distorted"].inputs == (
        "inputs/images",
        *(f"inputs/choices/{name}" for name in ("row", "column", "flip", "contrast")),
    )
    assert nodes["conv1/conv2d"].inputs == ("inputs/distorted", "conv1/weight", "conv1/bias")
    assert nodes["losses/cross_entropy"].inputs == ("softmax_linear/linear", "inputs/labels")
    assert nodes["losses/local3/weight_loss"].inputs == ("local3/weight",)
    assert nodes["losses/total_loss"].inputs == (
        "losses/cross_entropy",
        "losses/local3/weight_loss",
        "losses/local4/weight_loss",
    )
    assert nodes["gradients/conv2/bias"].inputs == ("losses/total_loss", "conv2/bias")
    assert nodes["update/conv2/bias"].inputs == (
        *("gradients/conv2/bias", "conv2/bias", "learning_rate", "momentum/conv2/bias"),
    )
    assert nodes["moving_average/conv2/bias"].inputs == ("update/conv2/bias",)


def test_towers_have_nodes_of_their_own_and_one_update(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(steps=1, summary_every=9), towers=2, average_decay=None)
    nodes = traced(config, tmp_path / "run")
    check_order(nodes)
    assert nodes["tower_1/conv1/weight"].inputs == ("conv1/weight",)
    assert nodes["tower_1/conv1/conv2d"].inputs == (
        *("tower_1/inputs/distorted", "tower_1/conv1/weight", "tower_1/conv1/bias"),
    )
    assert nodes["tower_0/losses/local4/weight_loss"].inputs == ("tower_0/local4/weight",)
    assert nodes["mean_of_gradients/local4/weight"].inputs == (
        *("tower_0/gradients/local4/weight", "tower_1/gradients/local4/weight"),
    )
    assert nodes["update/local4/weight"].inputs[0] == "mean_of_gradients/local4/weight"
    assert not any(name.startswith(("conv1/conv2d", "moving_average")) for name in nodes)

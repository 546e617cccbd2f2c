from __future__ import annotations

import pytest
import torch

from deepcnn.models.build import BUILDERS, build_model
from deepcnn.runs import graph


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

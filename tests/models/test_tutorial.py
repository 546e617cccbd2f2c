"""The tutorial's network, and all that a training does with it, against TensorFlow's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.transform import Transform
from deepcnn.learning import objective
from deepcnn.learning.averages import ParameterAverages
from deepcnn.learning.optimizers import SGD
from deepcnn.models.build import build_model
from deepcnn.models.tutorial import Tutorial
from tests.golden import tensorflow_reference as reference

GOLDEN = Path(reference.__file__).with_name("tutorial.npz")


def test_the_tutorial_network_has_the_references_layers_and_size() -> None:
    model = build_model("tutorial")
    assert sum(p.numel() for p in model.parameters()) == 1_068_298
    assert [name for name, _ in model.named_children()] == [
        *("conv1", "pool1", "norm1", "conv2", "norm2", "pool2"),
        *("local3", "local4", "softmax_linear"),
    ]
    assert model(torch.zeros(2, 3, 24, 24)).shape == (2, 10)


def test_initial_weights_are_truncated_normal_and_a_function_of_the_seed() -> None:
    model = build_model("tutorial", seed=4)
    for name, std, bias in (
        ("conv1", 0.05, 0.0),
        ("conv2", 0.05, 0.1),
        ("local3", 0.04, 0.1),
        ("local4", 0.04, 0.1),
        ("softmax_linear", 1 / 192, 0.0),
    ):
        weight = model.get_parameter(f"{name}.weight").detach()
        assert weight.abs().max() <= 2 * std
        # A normal distribution cut at two deviations has 0.8796 of its deviation.
        assert float(weight.std()) == pytest.approx(0.8796 * std, rel=3 / weight.numel() ** 0.5)
        assert torch.all(model.get_parameter(f"{name}.bias") == torch.tensor(bias))
    same, other = build_model("tutorial", seed=4), build_model("tutorial", seed=5)
    assert torch.equal(same.get_parameter("conv1.weight"), model.get_parameter("conv1.weight"))
    assert not torch.equal(other.get_parameter("conv1.weight"), model.get_parameter("conv1.weight"))


def tutorial_with_reference_weights() -> Tutorial:
    model = build_model("tutorial")
    assert isinstance(model, Tutorial)
    with torch.no_grad():
        for name, (weight, bias) in reference.weights().items():
            w = torch.from_numpy(weight)
            own = model.get_parameter(f"{name}.weight")
            own.copy_(w.permute(3, 2, 0, 1) if w.ndim == 4 else w.t())
            model.get_parameter(f"{name}.bias").copy_(torch.from_numpy(bias))
    return model


def as_reference(tensor: torch.Tensor) -> np.ndarray:
    """Bring a weight into TensorFlow's layout."""
    if tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0)
    return tensor.detach().t().numpy() if tensor.ndim == 2 else tensor.detach().numpy()


def test_inputs_logits_losses_gradients_updates_and_averages_equal_tensorflows() -> None:
    golden = np.load(GOLDEN)
    data = reference.examples()
    arrays = Arrays(data["images"], data["labels"], tuple("abcdefghij"))
    transform = Transform.of(
        in_memory(arrays),
        crop=0.75,
        pad=0,
        flip="random",
        contrast=(0.2, 1.8),
        standardize="image",
    )
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    draws = Draws(*(torch.from_numpy(data[k]) for k in ("row", "column", "flip", "contrast")))
    distorted, central = transform.train(images, draws), transform.evaluate(images)
    for name, found in (("distorted", distorted), ("central", central)):
        sample = reference.sample(found.permute(0, 2, 3, 1))
        np.testing.assert_allclose(sample, golden[name], rtol=1e-5, atol=1e-5)

    model = tutorial_with_reference_weights()
    with torch.no_grad():
        np.testing.assert_allclose(model(central), golden["logits"], atol=1e-5)

    parameters = dict(model.named_parameters())
    sgd = SGD(parameters, learning_rate=0.1)
    averages = ParameterAverages(model, 0.9999)
    gate, factor = torch.tensor(True), torch.ones(())
    for n in range(1, reference.UPDATES + 1):
        losses = objective.losses(model, model(distorted), labels)
        model.zero_grad()
        torch.autograd.backward(losses[objective.TOTAL])
        if n == 1:
            found_losses = [float(loss.detach()) for loss in losses.values()]
            np.testing.assert_allclose(found_losses, golden["losses"], rtol=1e-5)
            assert list(losses) == objective.names(model)
            for name, parameter in parameters.items():
                assert parameter.grad is not None
                close(as_reference(parameter.grad), golden[f"gradient.{name}"], 1e-4)
        sgd.step(factor, gate)
        averages.update(torch.tensor(averages.weight(n)), gate)
    for name, parameter in parameters.items():
        close(as_reference(parameter), golden[f"updated.{name}"], 1e-5)
        close(as_reference(averages.tensors[name]), golden[f"average.{name}"], 1e-5)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Compare in units of the largest value that is compared."""
    sample = reference.sample(found)
    np.testing.assert_allclose(sample, expected, atol=tolerance * np.abs(expected[:-1]).max())

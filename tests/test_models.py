from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.errors import ConfigError
from deepcnn.inputs.transform import Draws, Inputs
from deepcnn.kernels.response_norm import LocalResponseNorm
from deepcnn.learning import objective
from deepcnn.learning import optimizers as optim
from deepcnn.learning.averages import ParameterAverages
from deepcnn.models import build_model
from deepcnn.models.layers import SameMaxPool
from deepcnn.models.speednet import Speednet
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
    inputs = Inputs.of(
        in_memory(arrays),
        crop=0.75,
        pad=0,
        flip="random",
        contrast=(0.2, 1.8),
        standardize="image",
    )
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    draws = Draws(*(torch.from_numpy(data[k]) for k in ("row", "column", "flip", "contrast")))
    distorted, central = inputs.train(images, draws), inputs.evaluate(images)
    for name, found in (("distorted", distorted), ("central", central)):
        sample = reference.sample(found.permute(0, 2, 3, 1))
        np.testing.assert_allclose(sample, golden[name], rtol=1e-5, atol=1e-5)

    model = tutorial_with_reference_weights()
    with torch.no_grad():
        np.testing.assert_allclose(model(central), golden["logits"], atol=1e-5)

    parameters = dict(model.named_parameters())
    sgd = optim.SGD(parameters, learning_rate=0.1)
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


def test_normalization_equals_the_definition_in_float64() -> None:
    x = np.random.default_rng(0).normal(0, 30, (2, 20, 3, 3))
    expected = np.empty_like(x)
    for channel in range(20):
        window = x[:, max(0, channel - 4) : channel + 5]
        total = (window**2).sum(1)
        expected[:, channel] = x[:, channel] / (1 + 0.001 / 9 * total) ** 0.75
    found = LocalResponseNorm(20)(torch.from_numpy(x).float())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_normalization_keeps_float32_inside_lower_precision() -> None:
    x = torch.randn(2, 16, 4, 4)
    norm = LocalResponseNorm(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize(("height", "width"), [(24, 24), (25, 25), (24, 25), (5, 4), (1, 2)])
def test_pooling_pads_like_tensorflows_same(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    found = SameMaxPool()(x)
    rows, columns = -(-height // 2), -(-width // 2)
    assert found.shape == (2, 3, rows, columns)
    top = max((rows - 1) * 2 + 3 - height, 0) // 2
    left = max((columns - 1) * 2 + 3 - width, 0) // 2
    for r in range(rows):
        for c in range(columns):
            y0, x0 = 2 * r - top, 2 * c - left
            window = x[:, :, max(y0, 0) : y0 + 3, max(x0, 0) : x0 + 3]
            assert torch.equal(found[:, :, r, c], window.amax((2, 3)))


def test_speednet_whitens_real_patches(cifar10_test: Arrays) -> None:
    inputs = Inputs.of(
        in_memory(cifar10_test), crop=1, pad=1, flip="none", contrast=None, standardize="dataset"
    )
    images = inputs.evaluate(torch.from_numpy(cifar10_test.images[:5000]))
    model = build_model("speednet", shape=(3, 32, 32))
    assert isinstance(model, Speednet)
    model.initialize(images)
    with torch.no_grad():
        out = model.stem(images).permute(1, 0, 2, 3).flatten(1).double()
    second_moments = (out[:12] @ out[:12].t()) / out.shape[1]
    diagonal = second_moments.diagonal()
    assert torch.all((diagonal > 0.5) & (diagonal < 1.01))  # epsilon takes some of the faintest
    assert (second_moments - second_moments.diag().diag()).abs().max() < 1e-3
    assert torch.allclose(out[12:], -out[:12], atol=1e-4)


def test_speednets_filters_and_scales_are_no_parameters() -> None:
    model = build_model("speednet", shape=(3, 32, 32))
    blocks = [f"group{group}_{k}" for group, k in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1))]
    blocks += ["group3_2", "group3_3"]
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == [
        "stem.bias",
        *(f"{block}.{name}" for block in blocks for name in ("conv.weight", "norm.bias")),
        "head.weight",
    ]
    assert model(torch.zeros(4, 3, 32, 32)).shape == (4, 10)


def test_a_residual_group_adds_what_its_first_block_made() -> None:
    """Against torch's own functions, in the order of the literature."""
    model = build_model("residual_speednet", shape=(3, 32, 32), widths=(8, 12, 16), seed=1)
    assert isinstance(model, Speednet)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    model.initialize(images)

    def convolved(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, model.get_parameter(f"{name}.conv.weight"), padding=1)

    def normal(x: Tensor, name: str) -> Tensor:
        bias = model.get_parameter(f"{name}.norm.bias")
        return F.batch_norm(x, None, None, None, bias, training=True)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
        x = F.silu(F.conv2d(images, model.stem.weight, model.stem.bias))
        for group in ("group1", "group2", "group3"):
            x = F.silu(normal(F.max_pool2d(convolved(x, f"{group}_1"), 2), f"{group}_1"))
            first = x
            x = F.silu(normal(convolved(x, f"{group}_2"), f"{group}_2"))
            x = F.silu(normal(convolved(x, f"{group}_3"), f"{group}_3") + first)
        expected = F.linear(x.amax((2, 3)), model.head.weight) / 16
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tutorial", "speednet", "residual_speednet"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 24, 33)])
def test_networks_take_other_sizes_channels_and_classes(
    name: str, shape: tuple[int, int, int]
) -> None:
    model = build_model(name, shape=shape, classes=7)
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet"},
            "expected one of tutorial, speednet, residual_speednet, mlp, found 'resnet'",
        ),
        ({"name": "tutorial", "widths": (1, 2)}, "has 4 .* found 2"),
        ({"name": "speednet", "widths": (1, 2)}, "has 3 groups, found 2"),
        ({"name": "speednet", "shape": (3, 8, 32)}, "at least 9 pixels a side, found 8 by 32"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(**arguments)  # type: ignore[arg-type]


def test_parameters_are_in_channels_last_memory() -> None:
    for name in ("tutorial", "speednet"):
        for module in build_model(name, shape=(3, 32, 32)).modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.is_contiguous(memory_format=torch.channels_last)

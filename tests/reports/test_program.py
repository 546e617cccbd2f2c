from __future__ import annotations

import base64
import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.models.build import BUILDERS, build_model
from deepcnn.reports.packing import follow, packed, prove, rounded
from deepcnn.reports.program import Floats, trace
from tests.reports.networks import NETWORKS, Change, as_trained
from tests.reports.subjects import ANIMALS, arrays, trained

SHAPE = (3, 17, 14)


def exact(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = copy.deepcopy(model).eval().double()(images.double())
        return logits


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_what_its_network_does(name: str) -> None:
    model, shape = as_trained(name)
    program = trace(model, shape)
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    expected = exact(model, images)
    torch.testing.assert_close(follow(program, images).double(), expected, rtol=1e-4, atol=1e-4)
    for number, operation in enumerate(program, 1):
        assert all(0 <= taken < number for taken in operation.takes)


def test_every_network_of_the_package_is_tried() -> None:
    assert {name.split(",")[0] for name in NETWORKS} >= set(BUILDERS)


def test_batch_normalization_goes_into_the_convolution_before_it() -> None:
    model, shape = as_trained("speednet")
    names = [operation.name for operation in trace(model, shape)]
    assert "affine" not in names
    assert names[:5] == ["conv", "silu", "conv", "maxpool", "silu"]


def test_a_negative_scale_stays_behind_the_pooling() -> None:
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), norm, nn.Flatten(), nn.Linear(4 * 7 * 6, 5)
    )
    norm.weight.data[2] = -1.0
    assert [operation.name for operation in trace(model, SHAPE)][:3] == [
        "conv",
        "maxpool",
        "affine",
    ]
    images = torch.randn(3, *SHAPE)
    expected = exact(model, images).float()
    torch.testing.assert_close(follow(trace(model, SHAPE), images), expected, rtol=1e-4, atol=1e-4)
    norm.weight.data[2] = 1.0
    assert "affine" not in [operation.name for operation in trace(model, SHAPE)]


def test_what_is_used_twice_is_not_changed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.norm.running_mean = torch.tensor([1.0, 2.0, 3.0, 4.0])

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            means: Tensor = (x + self.norm(x)).mean((2, 3))
            return means

    torch.manual_seed(0)
    model, images = Twice(), torch.randn(3, *SHAPE)
    expected = exact(model, images).float()
    torch.testing.assert_close(follow(trace(model, SHAPE), images), expected, rtol=1e-4, atol=1e-4)


UNKNOWN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "an activation": (F.softplus, "'softplus' (in change)"),
    "joining": (lambda x: torch.cat([x, x], 1), "'cat' (in change)"),
    "another order": (lambda x: x.transpose(2, 3), "'transpose'"),
    "a part of the image": (lambda x: x[:, :, 1:], "getitem"),
    "the batch's mean": (lambda x: x - x.mean(0), "mean over other than all pixels"),
    "looking at the values": (lambda x: x if x.sum() > 0 else -x, "'sum'"),
    "what is no number": (lambda x: x if bool(x.amax((2, 3)).add(1)[0, 0]) else -x, "'"),
    "two values multiplied": (lambda x: x * x, "mul of two values"),
    "the image on the right": (lambda x: 1 / x, "'"),
    "overlapping edges": (lambda x: F.avg_pool2d(x, 3, padding=1), "avg_pool2d over the edge"),
    "its own statistics": (lambda x: F.batch_norm(x, None, None, training=True), "statistics"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_operation_is_named(name: str) -> None:
    change, expected = UNKNOWN[name]
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 3, 1))
    model.add_module("change", Change(change))
    model.add_module("end", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ConfigError) as caught:
        trace(model, SHAPE)
    assert expected in str(caught.value)
    assert "it knows conv2d, linear" in str(caught.value)


def test_a_network_that_fails_in_double_precision_is_refused() -> None:
    weight = torch.ones(3, 3, 1, 1)  # no parameter, so it stays in float32
    model = nn.Sequential(Change(lambda x: F.conv2d(x, weight)), nn.Flatten())
    with pytest.raises(ConfigError, match="does not run in float64"):
        trace(model, SHAPE)


def test_the_weights_in_a_page_are_those_of_the_rounded_program() -> None:
    model, shape = as_trained("residual_speednet")
    program = trace(model, shape)
    operations, text = packed(program)
    content = base64.b64decode(text)
    for about, operation in zip(operations, rounded(program), strict=True):
        for name, values in operation.constants.items():
            place = about[name]
            if "scales" in place:
                outputs = operation.out[-1]
                steps = np.frombuffer(content, "<i2", place["count"], place["at"])
                scales = np.frombuffer(content, "<f4", outputs, place["scales"])
                found = steps.reshape(-1, outputs) * scales.astype(np.float64)
            else:
                found = np.frombuffer(content, "<f4", place["count"], place["at"])
            np.testing.assert_array_equal(found.reshape(values.shape), values)


def test_rounded_weights_are_within_half_a_step() -> None:
    model, shape = as_trained("residual_speednet")
    program = trace(model, shape)
    count = 0
    for before, after in zip(program, rounded(program), strict=True):
        if "weight" in before.constants:
            weight = before.constants["weight"]
            step = np.abs(weight).max(tuple(range(weight.ndim - 1))) / (2**15 - 1)
            away: Floats = np.abs(after.constants["weight"] - weight)
            assert (away <= 0.51 * step + 1e-12).all()
            count += weight.size
    assert len(packed(program)[1]) < 3 * count  # two bytes each, in base64


def test_the_proof_passes_a_network_and_refuses_what_only_looks_like_it() -> None:
    data = arrays(ANIMALS, 20, (17, 14, 3))
    about = trained(data)
    transform = about.trained_on.transform
    program = rounded(trace(about.model, transform.shape))
    assert prove(program, about.model, transform, 1.0) < 1e-3
    other = nn.Sequential(copy.deepcopy(about.model), Change(lambda x: x * 1.5))
    with pytest.raises(ConfigError, match="followed one by one"):
        prove(program, other, transform, 1.0)
    not_a_number = nn.Sequential(copy.deepcopy(about.model), Change(lambda x: x * torch.nan))
    with pytest.raises(ConfigError, match="followed one by one"):
        prove(program, not_a_number, transform, 1.0)


def test_a_network_that_draws_numbers_is_refused() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 17 * 14, 4), Change(lambda x: x * (3 * torch.rand(())))
    )
    torch.manual_seed(0)
    about = trained(arrays(ANIMALS, 20, (17, 14, 3)), model)
    program = trace(model, SHAPE)
    with pytest.raises(ConfigError, match="followed one by one"):
        prove(program, about.model, about.trained_on.transform, 0.1)


def test_building_a_program_leaves_the_network_as_it_was() -> None:
    model = build_model("speednet", shape=(3, 32, 32), widths=(8, 8, 8)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (3, 32, 32))
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.parameters())

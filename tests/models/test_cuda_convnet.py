"""cuda-convnet's network: against torch's layers in float64, its updates, and a short training."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.errors import ConfigError
from deepcnn.learning.assembly import make_optimizers, make_schedule
from deepcnn.models.build import build_model
from deepcnn.models.layers import LocallyConnected2d
from deepcnn.training.start import resume, train
from tests.helpers.tiny import last, logged, saved

PRESET = presets.cuda_convnet()
SHORT = dataclasses.replace(
    PRESET,
    data="synthetic",
    model=dataclasses.replace(PRESET.model, widths=(8, 8, 6, 4)),
    steps=12,
    batch_size=32,
    save_every=4,
    log_every=1,
    summary_every=6,
    keep=10,
    device="cpu",
    precision="fp32",
    threads=1,
)


def test_the_network_has_the_layers_and_the_size_of_the_literature() -> None:
    model = build_model("cuda_convnet")
    assert sum(p.numel() for p in model.parameters()) == 1_116_490
    layers = [name for name, _ in model.named_children()]
    assert layers == [
        *("conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "local3", "local4", "fc10")
    ]
    assert {n: tuple(p.shape) for n, p in model.named_parameters() if n.startswith("local")} == {
        "local3.weight": (3, 6, 6, 32, 3, 64),
        "local3.bias": (6, 6, 32),
        "local4.weight": (3, 6, 6, 32, 3, 32),
        "local4.bias": (6, 6, 32),
    }
    assert model(torch.zeros(2, 3, 24, 24)).shape == (2, 10)


def test_initial_weights_are_normal_and_a_function_of_the_seed() -> None:
    model = build_model("cuda_convnet", seed=4)
    for name, std in (
        ("conv1", 0.0001),
        ("conv2", 0.01),
        ("local3", 0.04),
        ("local4", 0.04),
        ("fc10", 0.01),
    ):
        weight = model.get_parameter(f"{name}.weight").detach()
        assert float(weight.std()) == pytest.approx(std, rel=3 / weight.numel() ** 0.5)
        assert abs(float(weight.mean())) < 4 * std / weight.numel() ** 0.5
        assert weight.abs().max() > 2.8 * std  # nothing is cut off
        assert not model.get_parameter(f"{name}.bias").any()
    same, other = build_model("cuda_convnet", seed=4), build_model("cuda_convnet", seed=5)
    assert torch.equal(same.get_parameter("local4.weight"), model.get_parameter("local4.weight"))
    assert not torch.equal(other.get_parameter("conv1.weight"), model.get_parameter("conv1.weight"))


def normalized(x: Tensor) -> Tensor:
    """Response normalization by cuda-convnet's definition: size 5, scale 0.001 / 5, power 0.75."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    sums = torch.stack([squares[:, i : i + x.shape[1]] for i in range(5)]).sum(0)
    return x / (1 + 0.001 / 5 * sums) ** 0.75


def pooled(x: Tensor) -> Tensor:
    """Maxima of windows that begin at 0, 2, 4 … and may hang over the other edge."""
    rows, columns = (-(-(side - 3) // 2) + 1 for side in x.shape[2:])
    found = [
        x[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].amax((2, 3))
        for r, c in itertools.product(range(rows), range(columns))
    ]
    return torch.stack(found, 2).view(*x.shape[:2], rows, columns)


def place_by_place(x: Tensor, layer: LocallyConnected2d) -> Tensor:
    """A torch convolution for each place, of which nothing is shared."""
    wide = F.pad(x, (1, 1, 1, 1))
    assert layer.bias is not None
    found = []
    for r, c in itertools.product(*map(range, x.shape[2:])):
        weight = layer.weight[:, r, c].double().permute(1, 3, 0, 2)  # out, in, kh, kw
        patch = wide[:, :, r : r + 3, c : c + 3]
        found.append(F.conv2d(patch, weight, layer.bias[r, c].double())[:, :, 0, 0])
    return torch.stack(found, 2).view(len(x), -1, *x.shape[2:])


def composed(model: nn.Module, images: Tensor) -> Tensor:
    """The network in float64 of plain functions."""
    x = images.double()
    for conv in (model.get_submodule("conv1"), model.get_submodule("conv2")):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        x = F.conv2d(x, conv.weight.double(), conv.bias.double(), padding=2)
        x = pooled(normalized(x.relu()))
    for layer in (model.get_submodule("local3"), model.get_submodule("local4")):
        assert isinstance(layer, LocallyConnected2d)
        x = place_by_place(x, layer).relu()
    x = x.permute(0, 2, 3, 1).flatten(1)
    return F.linear(
        x, model.get_parameter("fc10.weight").double(), model.get_parameter("fc10.bias").double()
    )


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 23, 30), (3, 4, 5)])
def test_logits_and_gradients_are_those_of_a_composition_of_torchs_layers(
    shape: tuple[int, int, int],
) -> None:
    model = build_model("cuda_convnet", shape=shape, widths=(16, 8, 6, 4), seed=1)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):  # as if trained
            generator = torch.Generator().manual_seed(index)
            parameter.normal_(0, 0.15, generator=generator)
    images = 60 * torch.randn(5, *shape, generator=torch.Generator().manual_seed(9))
    parameters = list(model.parameters())
    expected = composed(model, images)
    found = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert (found.std(0) > 1e-2).all()
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    ours = torch.autograd.grad((found * weights).sum(), parameters)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters)
    for mine, exact in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 \(conv1, conv2, local3, local4\), found 2"):
        build_model("cuda_convnet", widths=(64, 32))
    with pytest.raises(ConfigError, match="at least 4 pixels a side, found 3 by 24"):
        build_model("cuda_convnet", shape=(3, 3, 24))
    with pytest.raises(ValueError, match=r"images of \(2, 3\): expected .* kernel \(5, 5\)"):
        LocallyConnected2d(3, 4, 5, size=(2, 3), padding=1)


def test_updates_are_those_of_cuda_convnet() -> None:
    """Increments remember; decay goes with the rate, and meets three layers, and no bias."""
    model = build_model("cuda_convnet", shape=(3, 8, 8), widths=(4, 4, 3, 2), seed=1)
    optimizers = make_optimizers(PRESET, model)
    exact = {n: p.detach().double().clone() for n, p in model.named_parameters()}
    steps = {n: torch.zeros_like(p) for n, p in exact.items()}
    for turn in range(4):
        for index, (name, parameter) in enumerate(model.named_parameters()):
            generator = torch.Generator().manual_seed(10 * turn + index)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            layer, kind = name.split(".")
            rate = 0.002 if kind == "bias" else 0.001
            decayed = kind == "weight" and layer in ("local3", "local4", "fc10")
            decay = 0.004 if decayed else 0.0
            steps[name] = 0.9 * steps[name] - rate * (parameter.grad + decay * exact[name])
            exact[name] = exact[name] + steps[name]
        for optimizer in optimizers:
            optimizer.step(torch.ones(()), torch.tensor(True))
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach(), exact[name], rtol=1e-5, atol=1e-8)


def test_the_rate_falls_to_a_tenth_twice_at_the_end() -> None:
    schedule = make_schedule(PRESET, 50_000)
    epoch = 50_000 / 128
    assert PRESET.steps == 183_594
    factors = {n: schedule(round(n * epoch)) for n in (0, 100, 449, 451, 459, 461, 469)}
    expected = {0: 1.0, 100: 1.0, 449: 1.0, 451: 0.1, 459: 0.1, 461: 0.01, 469: 0.01}
    assert factors == pytest.approx(expected)


def test_the_preset_trains_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(SHORT, run_dir=tmp_path / "whole")
    assert whole.evaluated is not None
    assert whole.evaluated.total == 512
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for path in saved(tmp_path / "part")[1:]:
        path.unlink()
    assert len(saved(tmp_path / "part")) == 1  # of step 4
    again = resume(tmp_path / "part")
    assert last(tmp_path / "part") == last(tmp_path / "whole")
    assert again.evaluated == whole.evaluated
    losses = [event["losses"]["cross_entropy"] for event in logged(tmp_path / "whole", "Stepped")]
    assert losses[-1] < losses[0]


def test_in_bf16_it_trains_as_well(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, precision="bf16", steps=4)
    result = train(config, run_dir=tmp_path / "run")
    rounded = [event["losses"]["cross_entropy"] for event in logged(tmp_path / "run", "Stepped")]
    exact = train(dataclasses.replace(config, precision="fp32"), run_dir=tmp_path / "exact")
    plain = [event["losses"]["cross_entropy"] for event in logged(tmp_path / "exact", "Stepped")]
    assert result.step == exact.step == 4
    np.testing.assert_allclose(rounded, plain, rtol=2e-2)

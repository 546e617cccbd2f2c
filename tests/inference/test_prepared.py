from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from deepcnn.inference.prepared import for_inference
from deepcnn.models.build import BUILDERS, build_model
from deepcnn.models.cuda_convnet import CudaConvnet
from deepcnn.models.speednet import Speednet

NETWORKS = {
    "tutorial": ("tutorial", (3, 24, 24), ()),
    "tutorial, odd sides": ("tutorial", (1, 27, 21), (16, 16, 32, 32)),
    "speednet": ("speednet", (3, 32, 32), ()),
    "speednet, many filters": ("speednet", (3, 32, 32), (64, 256, 256)),
    "speednet, odd sides": ("speednet", (1, 27, 21), (8, 16, 32)),
    "residual speednet": ("residual_speednet", (3, 32, 32), (16, 192, 32)),
    "mlp": ("mlp", (1, 28, 28), ()),
    "cuda-convnet": ("cuda_convnet", (3, 24, 24), ()),
    "cuda-convnet, odd sides": ("cuda_convnet", (1, 27, 21), (16, 16, 32, 16)),
}


def as_trained(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network whose statistics and biases are not the initial ones, in training mode."""
    builder, shape, widths = NETWORKS[name]
    model = build_model(builder, shape=shape, widths=widths, seed=3)
    generator = torch.Generator().manual_seed(4)
    if isinstance(model, Speednet):
        model.initialize(torch.randn(500, *shape, generator=generator))
    with torch.no_grad():
        if isinstance(model, CudaConvnet):  # whose initial filters hardly tell images apart
            for each, parameter in model.named_parameters():
                if each.endswith(".weight"):
                    parameter.normal_(0, 0.05, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.normal_(0, 0.3, generator=generator)
    return model, shape


def exact(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = copy.deepcopy(model).eval().double()(images.double())
        return logits


def test_every_network_is_tested() -> None:
    assert {builder for builder, _, _ in NETWORKS.values()} == set(BUILDERS)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 3, 20, 257])
def test_predictions_are_those_of_evaluation_mode(name: str, count: int) -> None:
    model, shape = as_trained(name)
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))
    expected = exact(model, images)
    network = for_inference(model)
    assert not network.training
    for memory_format in (torch.contiguous_format, torch.channels_last):
        found = network(images.contiguous(memory_format=memory_format))
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
        error = (found - expected).abs().max() / expected.abs().max()
        assert error < 2e-5, memory_format


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 20, 130])
def test_predictions_in_bf16_are_the_same_to_its_rounding(name: str, count: int) -> None:
    model, shape = as_trained(name)
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))
    expected = exact(model, images)
    found = for_inference(model, torch.bfloat16)(images)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        autocast = copy.deepcopy(model).eval()(images)
    of_autocast = (autocast - expected).norm() / expected.norm()
    assert (found - expected).norm() / expected.norm() < max(3 * of_autocast, 1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_left_as_it_is_and_not_shared(name: str) -> None:
    model, shape = as_trained(name)
    images = torch.randn(20, *shape)
    before = copy.deepcopy(model.state_dict())
    network = for_inference(model)
    found = network(images).clone()
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert torch.equal(network(images), found)


def test_where_there_are_no_programs_of_their_own_batch_norm_is_folded() -> None:
    model, shape = as_trained("speednet")
    images = torch.randn(5, *shape)
    network = for_inference(model.double())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(images.double()), exact(model, images))


def test_a_scale_that_is_not_positive_does_not_commute_with_pooling() -> None:
    model, _ = as_trained("speednet")
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.weight.data[0] = -1
    with pytest.raises(ValueError, match="positive scale"):
        for_inference(model)


def test_the_number_of_threads_is_the_callers() -> None:
    torch.set_num_threads(1)  # as all tests have it, and as nothing before this one may change
    model, shape = as_trained("tutorial")
    for_inference(model)(torch.randn(1, *shape))
    assert torch.get_num_threads() == 1

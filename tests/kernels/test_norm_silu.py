"""What speednet does on a GPU beside its convolutions, run on the processor by Triton."""

import copy
import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.inference.prepared import for_inference
from deepcnn.models.speednet import Block, ResidualSpeednet, Speednet

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="there is no Triton for this system"
)
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2**-7}  # against the largest value
SHAPES = [  # with more tiles than programs, parts of tiles, odd sides, and one pixel of each image
    (5, 6, 7, 9, True),
    (5, 64, 31, 31, True),
    (4, 70, 6, 5, False),
    (9, 128, 3, 3, False),
    (6, 256, 2, 2, True),
]


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    """Let it start few programs, and find nothing in new memory by luck."""
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("deepcnn.kernels.norm_silu")
        patch.setattr(module, "PROGRAMS", 4)
        torch.use_deterministic_algorithms(True)  # which fills new memory with NaN
        assert torch.empty(3).isnan().all()
        yield module
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def on_gpu(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let speednet take the processor for a GPU."""
    for module in ("deepcnn.models.speednet", "deepcnn.inference.prepared"):
        monkeypatch.setattr(f"{module}.runs_triton", lambda x: x.dtype != torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def assert_close(found: Tensor | None, expected: Tensor | None, dtype: torch.dtype) -> None:
    assert found is not None
    assert expected is not None
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max()
    assert difference <= ROUNDING[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_shortcut", [False, True])
@pytest.mark.parametrize(("n", "c", "height", "width", "pool"), SHAPES)
def test_pooling_normalization_and_silu_are_those_of_torch(
    gpu: ModuleType,
    n: int,
    c: int,
    height: int,
    width: int,
    pool: bool,
    has_shortcut: bool,
    dtype: torch.dtype,
) -> None:
    """Values, gradients and what is kept between batches, against torch's layers in float64."""
    halved = (height // 2, width // 2) if pool else (height, width)
    y = (3 + 2 * random(n, c, height, width)).to(dtype)
    shortcut = random(n, c, *halved, seed=1).to(dtype) if has_shortcut else None
    gradient = random(n, c, *halved, seed=2).to(dtype)
    norm = nn.BatchNorm2d(c, momentum=0.2).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    expected_y = y.double().requires_grad_()
    z = norm(F.max_pool2d(expected_y, 2) if pool else expected_y)
    expected_shortcut = None if shortcut is None else shortcut.double().requires_grad_()
    expected = F.silu(z if expected_shortcut is None else z + expected_shortcut)
    torch.autograd.backward(expected, gradient.double())

    y.requires_grad_()
    if shortcut is not None:
        shortcut = shortcut.contiguous().requires_grad_()  # in another order of memory
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float().requires_grad_()
    running = torch.zeros(c), torch.ones(c), torch.tensor(0)
    known = gpu.BatchNorm(weight, bias, *running, norm.eps, 0.2)
    found = gpu.pool_norm_silu(y, known, shortcut, pool=pool)
    torch.autograd.backward(found, gradient)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_close(found, expected, dtype)
    assert_close(y.grad, expected_y.grad, dtype)
    assert_close(bias.grad, norm.bias.grad, torch.float32)
    if shortcut is not None and expected_shortcut is not None:
        assert_close(shortcut.grad, expected_shortcut.grad, dtype)
    assert_close(running[0], norm.running_mean, torch.float32)
    assert_close(running[1], norm.running_var, torch.float32)
    assert int(running[2]) == 1

    norm.eval()
    with torch.no_grad():
        z = norm(F.max_pool2d(expected_y, 2) if pool else expected_y)
        expected = F.silu(z if expected_shortcut is None else z + expected_shortcut)
        found = gpu.evaluated_pool_norm_silu(y, known, shortcut, pool=pool)
    assert_close(found, expected, dtype)


def test_the_same_one_of_equal_maxima_learns(gpu: ModuleType) -> None:
    """Small whole numbers are often equal; torch gives the gradient to the first."""
    y = random(3, 8, 6, 6).round()
    gradient = random(3, 8, 3, 3, seed=1)
    norm = nn.BatchNorm2d(8)
    expected = y.clone().requires_grad_()
    torch.autograd.backward(F.silu(norm(F.max_pool2d(expected, 2))), gradient)
    running = torch.zeros(8), torch.ones(8), torch.tensor(0)
    found = y.clone().requires_grad_()
    known = gpu.BatchNorm(torch.ones(8), torch.zeros(8), *running, norm.eps, 0.1)
    gpu.pool_norm_silu(found, known, None, pool=True).backward(gradient)
    assert found.grad is not None
    assert expected.grad is not None
    assert torch.equal(found.grad != 0, expected.grad != 0)
    assert_close(found.grad, expected.grad, torch.float32)


def test_what_is_not_a_number_stays_so(gpu: ModuleType) -> None:
    y = random(2, 4, 4, 4)
    y[1, 2, 3, 3] = torch.nan
    running = torch.zeros(4), torch.ones(4), torch.tensor(0)
    known = gpu.BatchNorm(torch.ones(4), torch.zeros(4), *running, 1e-5, 0.1)
    found = gpu.pool_norm_silu(y, known, None, pool=True)
    assert found.isnan().all((0, 2, 3)).tolist() == [False, False, True, False]
    assert running[0].isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(("channels", "filters"), [(3, 24), (1, 8), (5, 40)])
def test_the_first_layer_is_that_of_torch(gpu: ModuleType, channels: int, filters: int) -> None:
    images = random(9, channels, 13, 12)
    weight, bias = random(filters, channels, 2, 2, seed=1), random(filters, seed=2)
    expected_bias = bias.double().requires_grad_()
    expected = F.silu(F.conv2d(images.double(), weight.double(), expected_bias))
    bias.requires_grad_()
    found = gpu.first_silu(images, weight, bias, torch.float32)
    assert found.shape[1] % 32 == 0
    assert not found[:, filters:].any()
    assert_close(found[:, :filters], expected, torch.float32)
    gradient = random(*found.shape, seed=3)
    torch.autograd.backward(found, gradient)
    torch.autograd.backward(expected, gradient[:, :filters].double())
    assert_close(bias.grad, expected_bias.grad, torch.float32)
    assert gpu.first_silu(images, weight, bias, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [Speednet, ResidualSpeednet])
def test_the_networks_learn_and_predict_the_same(kind: type[Speednet], on_gpu: None) -> None:
    """As those in float64, which Triton's functions leave to torch."""
    images = random(20, 3, 17, 16)
    network = kind(shape=(3, 17, 16), widths=(16, 24, 32))
    for block in network.modules():
        if isinstance(block, Block):
            nn.init.uniform_(block.norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(2))
    network.initialize(images)
    nn.init.uniform_(network.stem.bias, -0.3, 0.3, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    reference = copy.deepcopy(network).double()
    network(images).square().sum().backward()
    reference(images.double()).square().sum().backward()
    parameters = dict(network.named_parameters())
    for name, expected in reference.named_parameters():
        if expected.requires_grad:
            assert_close(parameters[name].grad, expected.grad, torch.float32)
    buffers = dict(network.named_buffers())
    for name, buffer in reference.named_buffers():
        assert_close(buffers[name], buffer, torch.float32)

    reference.eval()
    predict = for_inference(network.eval())
    with torch.no_grad():
        found = predict(images)
    assert_close(found, reference(images.double()), torch.float32)


def test_derivatives_that_are_not_made_here_are_torchs(on_gpu: None) -> None:
    """In evaluation mode, with respect to the images, and while somebody watches a layer."""
    images = random(4, 3, 16, 16).requires_grad_()
    network = Speednet(shape=(3, 16, 16), widths=(8, 8, 8))
    network.initialize(images.detach())
    network.eval()
    network(images).sum().backward()
    assert images.grad is not None
    assert images.grad.any()
    assert network.get_parameter("group1_1.norm.bias").grad is not None
    seen: list[Tensor] = []
    handle = network.stem.register_forward_hook(lambda _, __, output: seen.append(output))
    network.train()(images.detach())
    handle.remove()
    assert [len(output) for output in seen] == [4]


def test_torch_may_trace_and_compile_them(gpu: ModuleType) -> None:
    """Each operation does what it declares of shapes, types, and what it changes."""
    y, bias = random(3, 8, 5, 4), random(8, seed=1)
    images, weight = random(3, 3, 6, 6), random(24, 3, 2, 2)
    running = torch.zeros(8), torch.ones(8), torch.tensor(0)
    of_norm = torch.ones(8), bias
    given = y, *of_norm, *running
    ours = torch.ops.deepcnn
    out, pooled, which, moments = ours.pool_norm_silu(*given, None, True, 1e-5, 0.1)
    first = ours.first_silu(images, weight, random(24), torch.float32)
    for operation, arguments in (
        (ours.pool_norm_silu, (*given, None, True, 1e-5, 0.1)),
        (ours.pool_norm_silu, (*given, y, False, 1e-5, 0.1)),
        (ours.pool_norm_silu_backward, (out, pooled, which, moments, *of_norm, None, 5, 4)),
        (ours.pool_norm_silu_backward, (out, pooled, which, moments, *of_norm, out, 5, 4)),
        (ours.first_silu, (images, weight, random(24), torch.float32)),
        (ours.first_silu_backward, (first, images, weight, random(24))),
    ):
        torch.library.opcheck(operation, arguments)


def test_they_compile_for_gpus() -> None:
    """Interpreted, a program may do what the compiler refuses; it needs no GPU."""
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 2 * len(set(result.stdout.split()))


COMPILE = """
import os
os.environ.pop("TRITON_INTERPRET", None)
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from deepcnn.kernels import crop_triton
from deepcnn.kernels import norm_silu_triton as kernels

bf16 = {"y", "pooled", "out", "gradient", "x", "shortcut", "of_y", "of_shortcut"}
numbers = {"channels", "filters", "columns", *kernels.SIZES}
numbers |= {"full_height", "full_width", "pad"}
kinds = {"which": "*u8", "row": "*i64", "column": "*i64", "flip": "*i1", "batches": "*i64"}
kinds |= {"eps": "fp32", "momentum": "fp32"}
kinds |= dict.fromkeys(bf16, "*bf16") | dict.fromkeys(numbers, "i32")
tile = {"PIXELS": 32, "CHANNELS": 64}
first = {"PIXELS": 128, "FILTERS": 32, "CHANNELS": 3}
for name, constants in (
    ("first_silu", first),
    ("first_gradient", first),
    ("pool_and_measure", {"POOL": True, **tile}),
    ("conclude", {"PROGRAMS": 1024, "CHANNELS": 16}),
    ("normalize_silu", {"POOL": True, "SHORTCUT": True, **tile}),
    ("measure_gradient", {"SHORTCUT": True, **tile}),
    ("add_up", {"PROGRAMS": 1024, "COLUMNS": 16}),
    ("spread_gradient", {"POOL": True, "SHORTCUT": True, **tile}),
    ("make_window", {"CHANNELS": 3, "BLOCK": 1024}),
):
    function = getattr(kernels, name, None) or getattr(crop_triton, name)
    types = {
        argument: "constexpr" if argument in constants else kinds.get(argument, "*fp32")
        for argument in function.arg_names
    }
    if function.__name__ == "make_window":
        types |= {"images": "*u8", "out": "*fp32"}
    for capability in (80, 90):
        source = ASTSource(function, types, constexprs=constants)
        compile(source, target=GPUTarget("cuda", capability, 32))
        print(name)
"""

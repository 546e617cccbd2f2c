"""The functions with derivatives of their own, against the definition in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.kernels.fourier import fourier_conv2d, fourier_pays
from deepcnn.kernels.onednn import _is_suitable, opaque_conv2d, opaque_pays
from deepcnn.kernels.response_norm import (
    STEEP,
    LocalResponseNorm,
    ReLUResponseNorm,
    near_one,
    times_power,
)
from deepcnn.kernels.winograd import Tile, tile_that_pays, winograd_conv2d
from deepcnn.models.layers import LateReLU, LateReLUToPool, SameConv2d, SameMaxPool


def values_and_gradients(
    function: Callable[..., Tensor], arguments: list[Tensor], weights: Tensor
) -> list[Tensor]:
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, weights.to(y.dtype))]


def check(
    function: Callable[..., Tensor],
    definition: Callable[..., Tensor],
    arguments: list[Tensor],
    weights: Tensor,
    tolerance: float,
) -> None:
    """Compare in units of the largest value of each result."""
    found = values_and_gradients(function, arguments, weights)
    doubles = [argument.double() for argument in arguments]
    expected = values_and_gradients(definition, doubles, weights)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.shape == exact.shape
        assert (ours - exact).abs().max() < tolerance * exact.abs().max()


TILES = [
    *((5, (4, 4)), (5, (2, 3)), (5, (6, 4)), (5, (6, 1))),
    *((3, (1, 1)), (3, (4, 4)), (3, (6, 5)), (3, (7, 7)), (3, (8, 8)), (3, (7, 8))),
]


def rounding(taps: int, tile: Tile) -> float:
    """Return how far a value may be off, in units of the largest."""
    points = {side + taps - 1 for side in tile}
    return next(limit for most, limit in ((8, 1e-5), (9, 5e-5), (10, 2e-4)) if max(points) <= most)


@pytest.mark.parametrize(("taps", "tile"), TILES)
@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 7), (1, 3), (4, 1), (7, 7)])
def test_winograd_equals_the_direct_sum(taps: int, tile: Tile, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=torch.channels_last)
    check(
        lambda x, w, b: winograd_conv2d(x, w, b, tile),
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [x, torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, height, width),
        rounding(taps, tile),
    )


@pytest.mark.parametrize(("taps", "tile"), TILES)
@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 7), (15, 14), (3, 2)])
def test_winograd_leaves_out_what_pooling_does_not_see(
    taps: int, tile: Tile, height: int, width: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=torch.channels_last)
    rows, columns = height // 2 * 2, width // 2 * 2
    check(
        lambda x, w, b: winograd_conv2d(x, w, b, tile, even=True),
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2)[:, :, :rows, :columns],
        [x, torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, rows, columns),
        rounding(taps, tile),
    )


def test_winograd_without_bias_or_gradient_of_the_images() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(3, 6, 9, 9), torch.randn(3, 5, 9, 9)
    check(
        lambda w: winograd_conv2d(x, w, None, (4, 4)),
        lambda w: F.conv2d(x.to(w.dtype), w, padding=1),
        [torch.randn(5, 6, 3, 3)],
        weights,
        1e-5,
    )


@pytest.mark.parametrize(
    ("tile", "stated"),
    [((2, 2), 1e-6), ((4, 4), 3e-6), ((5, 5), 9e-6), ((6, 6), 2e-5)],
)
def test_winograd_rounds_as_its_documentation_says(tile: Tile, stated: float) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(32, 64, 12, 12).relu(), torch.randn(64, 64, 5, 5)
    exact = F.conv2d(x.double(), w.double(), padding=2)
    error = winograd_conv2d(x, w, None, tile).double() - exact
    assert 0.5 * stated < error.norm() / exact.norm() < 1.5 * stated


@pytest.mark.parametrize("side", [4, 9])  # one tile, several
def test_winograd_of_more_images_than_a_block(side: int) -> None:
    torch.manual_seed(0)
    check(
        lambda x, w: winograd_conv2d(x, w, None, (4, 4)),
        lambda x, w: F.conv2d(x, w, padding=1),
        [torch.randn(130, 2, side, side), torch.randn(3, 2, 3, 3)],
        torch.randn(130, 3, side, side),
        1e-5,
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 3), (3, 8), (8, 8)])
@pytest.mark.parametrize("side", [4, 9])  # one tile, several
@pytest.mark.parametrize("images_last", [False, True])
def test_winograd_where_rows_would_be_whole_pages(
    inputs: int, outputs: int, side: int, images_last: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(side, side, 256, inputs).permute(2, 3, 0, 1)  # two blocks; rows of 4096 bytes
    check(
        lambda x, w, b: winograd_conv2d(x, w, b, (3, 3)),
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        [
            x if images_last else x.contiguous(),
            torch.randn(outputs, inputs, 3, 3),
            torch.randn(outputs),
        ],
        torch.randn(256, outputs, side, side),
        1e-5,
    )


def test_winograd_is_used_where_it_saves_most() -> None:
    def tile(inputs: int, outputs: int, side: int, count: int = 500, **rest: bool) -> Tile | None:
        image = torch.Size([count, inputs, side, side])
        return tile_that_pays(image, torch.Size([outputs, inputs, 3, 3]), **rest)

    assert tile(256, 256, 7) == (7, 7)  # one tile of 81 points
    assert tile(256, 256, 7, even=True) == (6, 6)  # one of 64, for 6 × 6
    assert tile(64, 256, 15) == (5, 5)  # (5, 8) would save little more, and round more
    assert tile(64, 256, 15, even=True) == (7, 7)  # four of 81 instead of nine of 49
    assert tile(256, 256, 2) == (2, 2)
    assert tile(64, 64, 15) == (5, 5)
    assert tile(128, 128, 2) == (2, 2)
    assert tile(32, 64, 15, even=True) == (7, 7)
    assert tile(32, 64, 15, even=True, backward=False) is None
    assert tile(256, 256, 1) is None  # nothing to save
    assert tile(32, 32, 7) is None  # too few channels for the transformations
    assert tile(24, 32, 15, even=True) is None
    assert tile(24, 64, 31) is None
    assert tile(64, 64, 3) == (3, 3)  # one tile alone needs to save less
    assert tile(32, 32, 15) is None
    assert tile(256, 256, 7, count=31) is None
    image = torch.Size([500, 256, 7, 4])  # rows and columns have tiles of their own
    assert tile_that_pays(image, torch.Size([256, 256, 3, 3])) == (7, 4)
    # Where the direct sum is in bf16 one tile alone must save more, and several save too little.
    assert tile(96, 128, 7, even=True, bf16=True) == (6, 6)
    assert tile(96, 96, 3, bf16=True) == (3, 3)
    assert tile(96, 128, 7, even=True, bf16=True, backward=False) is None
    assert tile(64, 64, 3, bf16=True) is None
    assert tile(256, 256, 15, even=True, bf16=True) is None
    assert tile(128, 128, 15, bf16=True) is None


@pytest.mark.parametrize(("side", "even"), [(7, False), (7, True), (3, False)])
def test_tiles_are_more_precise_than_the_direct_sum_in_bf16(side: int, even: bool) -> None:
    inputs, outputs = 96, 128
    torch.manual_seed(0)
    layer = SameConv2d(inputs, outputs, 3, even=even)
    assert layer.bias is not None
    x = torch.randn(64, inputs, side, side).relu().bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    assert tile_that_pays(x.shape, layer.weight.shape, even=even, bf16=True) is not None
    size = side // 2 * 2 if even else side

    def tiled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)
        return y

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)[:, :, :size, :size]

    arguments = [x, layer.weight.detach(), layer.bias.detach()]
    weights = torch.randn(64, outputs, size, size)
    with torch.autocast("cpu", torch.bfloat16):
        found = values_and_gradients(tiled, arguments, weights)
        rounded = values_and_gradients(direct, arguments, weights)
    exact = values_and_gradients(direct, [a.double() for a in arguments], weights)
    for ours, theirs, value in zip(found, rounded, exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - value).norm() < (theirs - value).norm() < 4e-3 * value.norm()


@pytest.mark.parametrize("taps", [3, 5])
def test_a_single_pixel_is_convolved_by_the_kernels_middle(taps: int) -> None:
    torch.manual_seed(0)
    layer = LateReLU(6, 5, taps)
    check(
        lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, x),
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [torch.randn(3, 6, 1, 1), torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, 1, 1),
        1e-6,
    )


@pytest.mark.parametrize(("taps", "side"), [(3, 15), (5, 12)])  # by tiles, by transforms
def test_results_lie_as_torchs_own_do(taps: int, side: int) -> None:
    x = torch.randn(32, 64, side, side).contiguous(memory_format=torch.channels_last)
    layer = LateReLU(64, 64, taps)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    direct = F.conv2d(x, layer.weight, layer.bias, padding=taps // 2)
    assert not torch.equal(y, direct)  # something else was used
    assert torch.allclose(y, direct, atol=1e-4)


@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 7), (6, 9), (1, 3), (4, 1), (2, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 4e-2)])
def test_fourier_equals_the_direct_sum(
    taps: int, height: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    check(
        fourier_conv2d,
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [x, torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, height, width).to(dtype),
        tolerance,
    )


@pytest.mark.parametrize(("height", "width"), [(13, 7), (6, 9), (3, 2)])
def test_fourier_leaves_out_what_pooling_does_not_see(height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=torch.channels_last)
    rows, columns = height // 2 * 2, width // 2 * 2
    check(
        lambda x, w, b: fourier_conv2d(x, w, b, even=True),
        lambda x, w, b: F.conv2d(x, w, b, padding=1)[:, :, :rows, :columns],
        [x, torch.randn(5, 6, 3, 3), torch.randn(5)],
        torch.randn(3, 5, rows, columns),
        5e-6,
    )


def test_fourier_without_bias_or_gradient_of_the_images() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(3, 6, 9, 9), torch.randn(3, 5, 9, 9)
    check(
        lambda w: fourier_conv2d(x.to(w.dtype), w, None),
        lambda w: F.conv2d(x.to(w.dtype), w, padding=2),
        [torch.randn(5, 6, 5, 5)],
        weights,
        5e-6,
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 3), (3, 8), (8, 8)])
@pytest.mark.parametrize("images_last", [False, True])
def test_fourier_where_rows_would_be_whole_pages(
    inputs: int, outputs: int, images_last: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 128, inputs).permute(2, 3, 0, 1)  # rows of 4096 bytes
    check(
        fourier_conv2d,
        lambda x, w, b: F.conv2d(x, w, b, padding=2),
        [
            x if images_last else x.contiguous(),
            torch.randn(outputs, inputs, 5, 5),
            torch.randn(outputs),
        ],
        torch.randn(128, outputs, 4, 5),
        5e-6,
    )


@pytest.mark.parametrize(
    ("dtype", "stated", "times"), [(torch.float32, 3e-7, 1.3), (torch.bfloat16, 5e-3, 3.3)]
)
def test_fourier_rounds_as_its_documentation_says(
    dtype: torch.dtype, stated: float, times: float
) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(64, 64, 12, 12).relu().to(dtype), 0.05 * torch.randn(64, 64, 5, 5)
    arguments, weights = [x, w, torch.randn(64)], torch.randn(64, 64, 12, 12).to(dtype)

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=2)

    exact = values_and_gradients(direct, [a.double() for a in arguments], weights)
    found = values_and_gradients(fourier_conv2d, arguments, weights)
    rounded = values_and_gradients(direct, arguments, weights)
    for ours, theirs, value in zip(found, rounded, exact, strict=True):
        error = (ours - value).norm() / value.norm()
        assert 0.3 * stated < error < 1.3 * stated
        assert error < times * (theirs - value).norm() / value.norm()


def test_fourier_is_used_where_it_saves_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def pays(
        inputs: int,
        outputs: int,
        side: int,
        taps: int = 5,
        count: int = 128,
        dtype: torch.dtype = torch.float32,
    ) -> bool:
        image = torch.Size([count, inputs, side, side])
        return fourier_pays(image, torch.Size([outputs, inputs, taps, taps]), dtype)

    assert pays(64, 64, 12)  # the tutorial's conv2
    assert pays(32, 32, 12, taps=7)
    assert pays(64, 64, 6)
    assert not pays(3, 64, 24)  # its conv1 has too few channels
    assert not pays(16, 32, 12)
    assert not pays(64, 64, 4)  # tiles are faster
    assert pays(64, 64, 32)
    assert not pays(64, 64, 33)
    assert not pays(64, 64, 12, count=31)
    assert not pays(256, 256, 15, taps=3)  # so they are
    assert not pays(64, 64, 12, dtype=torch.float16)
    for has in (True, False):
        monkeypatch.setattr("deepcnn.kernels.fourier.multiplies_bf16", lambda has=has: has)
        assert pays(64, 64, 12, dtype=torch.bfloat16) is has
        assert pays(64, 256, 15, taps=3, dtype=torch.bfloat16) is has
        assert not pays(64, 64, 15, taps=3, dtype=torch.bfloat16)
        assert not pays(256, 256, 7, taps=3, dtype=torch.bfloat16)  # one tile is faster


@pytest.mark.parametrize(
    ("taps", "height", "width"), [(3, 1, 1), (3, 2, 2), (3, 1, 2), (3, 2, 1), (5, 3, 3), (5, 2, 3)]
)
def test_images_within_a_kernels_reach_are_convolved_as_by_definition(
    taps: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    layer = SameConv2d(3, 5, taps)
    assert layer.bias is not None
    x = torch.randn(4, 3, height, width).contiguous(memory_format=torch.channels_last)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        variables = {"weight": weight, "bias": bias}
        y: Tensor = torch.func.functional_call(layer, variables, x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        return y

    check(
        convolve,
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [x, layer.weight.detach(), layer.bias.detach()],
        torch.randn(4, 5, height, width),
        1e-6,
    )


def test_rectified_normalization_equals_its_two_steps() -> None:
    torch.manual_seed(0)
    x = 20 * torch.randn(20, 24, 12, 12)  # more than one block
    x[0, 0, 0, 0] = 0.0
    plain = LocalResponseNorm(24).double()
    check(
        ReLUResponseNorm(24),
        lambda x: plain(F.relu(x)),
        [x.contiguous(memory_format=torch.channels_last)],
        torch.randn(x.shape),
        1e-6,
    )


def test_rectified_normalization_is_the_same_in_any_memory_format_and_batch() -> None:
    norm = ReLUResponseNorm(16)
    x = torch.randn(5, 16, 3, 4)
    expected = norm(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(norm(x), expected)
    assert torch.allclose(torch.cat([norm(x[:2]), norm(x[2:])]), expected, rtol=1e-6)
    assert norm(x[:0]).shape == (0, 16, 3, 4)


@pytest.mark.parametrize("size", [1, 8, 20])  # the last is too large for a polynomial
def test_rectified_normalization_in_bf16_equals_its_two_steps_to_rounding(size: int) -> None:
    torch.manual_seed(0)
    x = (size * torch.randn(160, 24, 12, 12)).bfloat16()  # more than one block
    sums = F.conv2d(F.relu(x.float()).square(), LocalResponseNorm(24).band)
    assert (sums.max() > 0.25) == (size == 20)
    plain = LocalResponseNorm(24).double()
    check(
        ReLUResponseNorm(24),
        lambda x: plain(F.relu(x)),
        [x.contiguous(memory_format=torch.channels_last)],
        torch.randn(x.shape).bfloat16(),
        6e-3,  # one rounding is 4e-3
    )


def test_what_is_near_one_is_multiplied_with_its_power() -> None:
    sums = torch.linspace(0, STEEP * 0.25, 1001).bfloat16()
    q = near_one(sums)
    assert q is not None
    ones = torch.ones(1001)
    expected = (1 + sums.double() / STEEP) ** -0.75
    error = times_power(ones, q.float()).double() - expected
    assert error.abs().max() < 1e-3  # a quarter of a bit
    assert near_one(torch.tensor([0.0, STEEP * 0.2520]).bfloat16()) is None
    for value in (torch.nan, -torch.nan, torch.inf):
        found = ReLUResponseNorm(16)(torch.full((1, 16, 1, 1), value, dtype=torch.bfloat16))
        assert found.isnan().all()
    assert ReLUResponseNorm(16)(torch.ones(0, 16, 2, 2).bfloat16()).shape == (0, 16, 2, 2)


def test_rectified_normalization_in_lower_precision_is_the_plain_one() -> None:
    norm = ReLUResponseNorm(16)
    x = torch.randn(2, 16, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(x.float()).bfloat16())


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 4), (3, 1)])
def test_onednns_own_layout_changes_no_result(height: int, width: int) -> None:
    torch.manual_seed(0)
    pool = SameMaxPool()

    def in_own_layout(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = opaque_conv2d(x, weight, bias)
        assert y.is_mkldnn
        assert y.shape == (3, 16, height, width)
        pooled: Tensor = pool(y)
        return pooled

    def in_torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = pool(F.conv2d(x, weight, bias, padding=2))
        return y

    arguments = [torch.randn(3, 5, height, width), torch.randn(16, 5, 5, 5), torch.randn(16)]
    weights = torch.randn(3, 16, -(-height // 2), -(-width // 2))
    check(in_own_layout, in_torchs, arguments, weights, 1e-5)
    # In bf16 which is the largest of a window depends on rounding, so only torch's is comparable.
    in_bf16 = [argument.bfloat16() for argument in arguments]
    found = values_and_gradients(in_own_layout, in_bf16, weights)
    expected = values_and_gradients(in_torchs, in_bf16, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()


@pytest.mark.parametrize("bf16", [False, True])
def test_a_large_first_layer_is_opaque_until_it_is_pooled(bf16: bool) -> None:
    torch.manual_seed(0)
    own, usual, pool = LateReLUToPool(3, 64, 5), LateReLU(3, 64, 5), SameMaxPool()
    usual.load_state_dict(own.state_dict())
    images, weights = torch.randn(112, 3, 25, 24), torch.randn(112, 64, 13, 12)

    def results(layer: LateReLU, images: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", enabled=bf16):
            y = pool(layer(images))
        return [y.detach(), *torch.autograd.grad(y, [*layer.parameters()], weights.to(y.dtype))]

    with torch.autocast("cpu", enabled=bf16):
        dtype = torch.bfloat16 if bf16 else torch.float32
        assert own(images).is_mkldnn == opaque_pays(images.shape, own.weight.shape, dtype)
    found = results(own, images)
    if not bf16:
        usual, images = usual.double(), images.double()
    for ours, expected in zip(found, results(usual, images), strict=True):
        assert (ours - expected).norm() < (5e-3 if bf16 else 5e-6) * expected.norm()


@pytest.fixture
def another_processor() -> Iterator[None]:
    yield
    _is_suitable.cache_clear()


@pytest.mark.usefixtures("another_processor")
def test_images_are_opaque_where_that_was_measured_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = torch.Size((128, 3, 24, 24)), torch.Size((64, 3, 5, 5))

    def pays(
        images: torch.Size = images,
        weight: torch.Size = weight,
        dtype: torch.dtype = torch.bfloat16,
    ) -> bool:
        _is_suitable.cache_clear()
        return opaque_pays(images, weight, dtype)

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    assert pays()
    assert pays(dtype=torch.float32)
    assert not pays(dtype=torch.float64)
    assert not pays(torch.Size((64, 3, 24, 24)))
    assert not pays(torch.Size((128, 1, 28, 28)), torch.Size((64, 1, 5, 5)))
    assert not pays(torch.Size((256, 3, 32, 32)), torch.Size((20, 3, 5, 5)))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not pays()
    assert pays(dtype=torch.float32)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"neon": True})
    assert not pays(dtype=torch.float32)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("where", ["image", "weight", "bias"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pooling_hides_no_failure(bf16: bool, where: str, bad: float) -> None:
    torch.manual_seed(0)
    layer, pool = LateReLUToPool(3, 64, 5), SameMaxPool()
    images = torch.randn(128, 3, 24, 24)
    with torch.no_grad():
        (images if where == "image" else layer.get_parameter(where)).flatten()[40] = bad
    with torch.autocast("cpu", enabled=bf16):
        y = pool(layer(images))
        expected = pool(F.conv2d(images, layer.weight, layer.bias, padding=2))
    assert not y.isfinite().all()
    assert torch.equal(y.isnan(), expected.isnan())


def test_rows_and_columns_may_be_exchanged_in_memory() -> None:
    torch.manual_seed(0)
    turned = torch.randn(40, 12, 12, 64).permute(0, 3, 2, 1)  # [N, C, H, W], in memory [N, W, H, C]
    images = [x.detach().requires_grad_() for x in (turned, turned.contiguous())]
    layer, norm = LateReLU(64, 64, 5), ReLUResponseNorm(64)
    assert tile_that_pays(turned.shape, layer.weight.shape) is not None
    results = []
    for x in images:
        y = norm(x)
        z = layer(y)
        results.append((y, z, *torch.autograd.grad(z.sum(), [y, x])))
    y, _, of_y, of_x = results[0]
    assert y.stride() == of_y.stride() == of_x.stride() == turned.stride()
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-5)

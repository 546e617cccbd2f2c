"""Locally connected layers against their definition in float64, and against torch's layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn.kernels.locally_connected import (
    locally_connected2d,
    places_of,
    plain_locally_connected2d,
)

Pair = tuple[int, int]
Floats = NDArray[np.float64]
Compute = Callable[[Tensor, Tensor, Tensor | None, Pair], Tensor]
WAYS = (locally_connected2d, plain_locally_connected2d)
# images, kernels, padding
SIZES = [
    ((6, 6), (3, 3), (1, 1)),
    ((5, 4), (3, 2), (1, 0)),
    ((4, 7), (2, 5), (1, 4)),
    ((3, 3), (1, 1), (0, 0)),
    ((2, 3), (7, 3), (3, 2)),  # rows of taps that see no pixel
    ((2, 3), (5, 3), (4, 1)),
    ((6, 2), (4, 1), (2, 0)),
]


def problem(size: Pair, kernel: Pair, padding: Pair) -> tuple[Floats, Floats, Floats, Floats]:
    """Return images, filters, biases, and a derivative towards the result."""
    generator = np.random.default_rng(0)
    images, inputs, outputs = 3, 4, 5
    height, width = places_of(size, kernel, padding)
    filters = (kernel[0], height, width, outputs, kernel[1], inputs)
    shapes = ((images, inputs, *size), filters, (height, width, outputs))
    x, weight, bias = (generator.normal(size=shape) for shape in shapes)
    return x, weight, bias, generator.normal(size=(images, outputs, height, width))


def by_definition(
    x: Floats, weight: Floats, bias: Floats, gradient: Floats, padding: Pair
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the result, and the derivatives towards images, filters and biases."""
    y = np.zeros_like(gradient)
    of_x, of_weight, of_bias = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)
    kh, height, width, outputs, kw, _ = weight.shape
    for r, c, o in itertools.product(range(height), range(width), range(outputs)):
        y[:, o, r, c] += bias[r, c, o]
        of_bias[r, c, o] += gradient[:, o, r, c].sum()
        for i, j in itertools.product(range(kh), range(kw)):
            row, column = r + i - padding[0], c + j - padding[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                y[:, o, r, c] += x[:, :, row, column] @ weight[i, r, c, o, j]
                of_weight[i, r, c, o, j] += gradient[:, o, r, c] @ x[:, :, row, column]
                of_x[:, :, row, column] += np.outer(gradient[:, o, r, c], weight[i, r, c, o, j])
    return y, of_x, of_weight, of_bias


def computed(
    compute: Compute,
    arrays: tuple[Floats, Floats, Floats, Floats],
    padding: Pair,
    dtype: torch.dtype,
    memory: torch.memory_format = torch.channels_last,
) -> list[Tensor]:
    x, weight, bias, gradient = (torch.from_numpy(each).to(dtype) for each in arrays)
    x, gradient = x.contiguous(memory_format=memory), gradient.contiguous(memory_format=memory)
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    y = compute(x, weight, bias, padding)
    torch.autograd.backward(y, gradient)
    return [y.detach(), *(each.grad for each in leaves if each.grad is not None)]


@pytest.mark.parametrize("compute", WAYS)
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_derivatives_are_those_of_the_definition(
    compute: Compute, sizes: tuple[Pair, Pair, Pair]
) -> None:
    arrays, padding = problem(*sizes), sizes[2]
    expected = by_definition(*arrays, padding)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for memory in (torch.channels_last, torch.contiguous_format):
            found = computed(compute, arrays, padding, dtype, memory)
            for each, exact in zip(found, expected, strict=True):
                assert each.dtype == dtype
                np.testing.assert_allclose(each, exact, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("sizes", SIZES)
def test_derivatives_are_those_of_small_steps(sizes: tuple[Pair, Pair, Pair]) -> None:
    padding = sizes[2]
    x, weight, bias = (torch.from_numpy(each).requires_grad_() for each in problem(*sizes)[:3])

    def compute(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return locally_connected2d(x, weight, bias, padding)

    assert torch.autograd.gradcheck(compute, (x, weight, bias), fast_mode=True)


def test_each_place_is_a_convolution_of_its_own() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 7, 5)
    layers = {(r, c): nn.Conv2d(6, 8, 3) for r, c in itertools.product(range(7), range(5))}
    wide = nn.functional.pad(x, (1, 1, 1, 1))
    expected = torch.empty(4, 8, 7, 5)
    weight, bias = torch.empty(3, 7, 5, 8, 3, 6), torch.empty(7, 5, 8)
    with torch.no_grad():
        for (r, c), layer in layers.items():
            assert layer.bias is not None
            expected[:, :, r, c] = layer(wide[:, :, r : r + 3, c : c + 3])[:, :, 0, 0]
            weight[:, r, c] = layer.weight.permute(2, 0, 3, 1)
            bias[r, c] = layer.bias
        found = locally_connected2d(x, weight, bias, (1, 1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_filters_that_are_the_same_at_each_place_convolve() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(6, 8, (3, 5), padding=(2, 1)), torch.randn(4, 6, 9, 11)
    height, width = places_of((9, 11), (3, 5), (2, 1))
    shared = layer.weight.detach().permute(2, 0, 3, 1)[:, None, None]
    weight = shared.expand(3, height, width, 8, 5, 6).contiguous()
    found = locally_connected2d(x, weight, None, (2, 1))
    expected = layer(x) - layer.bias[:, None, None]  # type: ignore[index]  # there is a bias
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compute", WAYS)
def test_in_bf16_as_precise_as_a_convolution(compute: Compute) -> None:
    sizes = SIZES[0]
    generator = np.random.default_rng(1)
    shapes = ((64, 48, 6, 6), (3, 6, 6, 32, 3, 48), (6, 6, 32), (64, 32, 6, 6))
    arrays = [generator.normal(size=shape) for shape in shapes]
    arrays[2] *= 0.0
    rounded = [torch.from_numpy(each).bfloat16().double().numpy() for each in arrays]
    expected = computed(compute, tuple(rounded), sizes[2], torch.float64)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = computed(compute, tuple(rounded), sizes[2], torch.float32)  # type: ignore[arg-type]
    assert found[0].dtype == torch.bfloat16
    assert all(each.dtype == torch.float32 for each in found[1:])
    for each, exact in zip(found, expected, strict=True):
        error = (each.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < 4e-3


def test_the_same_bits_every_time_whatever_needs_a_derivative() -> None:
    arrays = problem(*SIZES[0])
    one, other = (computed(locally_connected2d, arrays, (1, 1), torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    x, weight, bias, gradient = (torch.from_numpy(each).float() for each in arrays)
    y = locally_connected2d(x.requires_grad_(), weight, bias, (1, 1))
    torch.autograd.backward(y, gradient)
    assert x.grad is not None
    assert torch.equal(x.grad, one[1])
    weight.requires_grad_()
    torch.autograd.backward(locally_connected2d(x.detach(), weight, bias, (1, 1)), gradient)
    assert weight.grad is not None
    assert torch.equal(weight.grad, one[2])


@pytest.mark.parametrize(
    ("images", "padding", "expected"),
    [
        (
            (2, 4, 6, 6),
            (3, 1),
            r"expected 0 to below the kernel's \(3, 3\), found \(3, 1\)",
        ),
        ((2, 4, 6, 6), (-1, 1), r"padding: .* found \(-1, 1\)"),
        ((2, 4, 7, 6), (1, 1), r"6 by 6 places, found \[2, 4, 7, 6\], which have 7 by 6"),
        ((2, 5, 6, 6), (1, 1), r"images of 4 channels .* found \[2, 5, 6, 6\]"),
    ],
)
def test_what_does_not_fit_is_told(images: tuple[int, ...], padding: Pair, expected: str) -> None:
    for compute in WAYS:
        with pytest.raises(ValueError, match=expected):
            compute(torch.zeros(images), torch.zeros(3, 6, 6, 5, 3, 4), None, padding)

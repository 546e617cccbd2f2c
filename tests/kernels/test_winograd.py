"""Convolution by Winograd's tiles, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deepcnn.kernels.winograd import Tile, tile_that_pays, winograd_conv2d
from tests.helpers.definition import check

TILES: list[tuple[int, Tile]] = [
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

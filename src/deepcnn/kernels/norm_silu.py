"""All that speednet does beside its 3×3 convolutions, in few passes over a GPU's memory.

These operations multiply little; their time depends on the bytes that they move. torch's own
functions, and what torch.compile makes of them, read and write the largest tensors several times.
Here the first layer's output is written once, with its activation. From a convolution's output
before max pooling, training keeps a quarter: the maxima, and for each of them one byte that says
where it was. In the backward pass, the larger tensor needs nothing but this byte. Every sum is
taken in a fixed order, so the same input gives the same bits.

The functions are written for Triton (Tillet, Kung, Cox: "Triton: an intermediate language and
compiler for tiled neural network computations", 2019), which compiles them at their first call.
With TRITON_INTERPRET=1 it runs them on a processor instead. For them, an image is a list of pixels
of `channels` values, as in channels_last memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

import deepcnn.kernels.norm_silu_triton as kernels

# A program holds a tile: so many values, of at most so many channels. What adds up all pixels does
# so in few programs, since their sums are added up by one: `PROGRAMS` keep a GPU busy. With
# `_WARPS` they take few registers, so that a GPU has others to go on with while one waits.
_TILE, _CHANNELS, _PIXELS = 2048, 64, 128
PROGRAMS, _WARPS = 1024, 8
_COLUMNS = 16  # of sums that one program adds up
_FILTERS = 32  # cuDNN convolves multiples of it faster
_CHANNELS_LAST = torch.channels_last


def first_silu(images: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Return SiLU of a 2×2 convolution without padding; only its bias learns.

    `images`: float32 [N, C, H, W]. `weight`: float32 [F, C, 2, 2]. `bias`: float32 [F]. Returns
    `dtype` [N, G, H - 1, W - 1], in channels_last memory, where G is F rounded up to a multiple of
    32. The channels after the first F are zeros.
    """
    result: Tensor = _FirstSiLU.apply(images, weight, bias, dtype)  # type: ignore[no-untyped-call]
    return result


class BatchNorm(NamedTuple):
    """The parameters and statistics of a batch normalization, as torch.nn.BatchNorm2d has them.

    `weight` (which does not learn), `bias`, `mean` and `variance`: float32 [C]. `batches`: how many
    there were, int64 [].
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    batches: Tensor
    eps: float
    momentum: float


def pool_norm_silu(y: Tensor, norm: BatchNorm, shortcut: Tensor | None, *, pool: bool) -> Tensor:
    """Return SiLU(normalized(pooled(y)) · weight + bias + shortcut), and update the statistics.

    `y`: [N, C, H, W], float32 or of lower precision, with N · H · W > 1 after pooling. `shortcut`:
    of the result's shape, or None. With `pool`, maxima of 2×2 pixels are taken first, without an
    odd last row and column. Returns the type of `y`, in channels_last memory.
    """
    running = norm.mean, norm.variance, norm.batches
    result: Tensor = _PoolNormSiLU.apply(  # type: ignore[no-untyped-call]
        y, norm.weight, norm.bias, running, shortcut, pool, norm.eps, norm.momentum
    )
    return result


@torch.no_grad()
def evaluated_pool_norm_silu(
    y: Tensor, norm: BatchNorm, shortcut: Tensor | None, *, pool: bool
) -> Tensor:
    """Do the same as `pool_norm_silu` with `norm`'s mean and variance, without a derivative."""
    y = y.contiguous(memory_format=_CHANNELS_LAST)
    if shortcut is not None:
        shortcut = shortcut.contiguous(memory_format=_CHANNELS_LAST)
    out = _empty_like(y, y.dtype, pool)
    known = norm.mean, (norm.variance + norm.eps).rsqrt(), norm.weight, norm.bias
    _launch_normalize(y, out, known, shortcut, pool)
    return out


class _FirstSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
    ) -> Tensor:
        images = images.contiguous(memory_format=_CHANNELS_LAST)
        ctx.save_for_backward(images, weight, bias)
        out: Tensor = _first(images, weight, bias, dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, None]:
        images, weight, bias = ctx.saved_tensors
        if not ctx.needs_input_grad[2]:
            return None, None, None, None
        gradient = gradient.contiguous(memory_format=_CHANNELS_LAST)
        return None, None, _first_backward(gradient, images, weight, bias), None


@torch.library.custom_op("deepcnn::first_silu", mutates_args=())
def _first(images: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    out = _empty_first(images, weight, dtype)
    filters, pixels = _sizes(out, False)
    kernels.first_silu[(triton.cdiv(pixels, _PIXELS), filters // _FILTERS)](
        *(images, *_enlarged(weight, bias, filters), out, pixels, *images.shape[2:], filters),
        **_first_shape(images),
    )
    return out


@_first.register_fake
def _(images: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    return _empty_first(images, weight, dtype)


@torch.library.custom_op("deepcnn::first_silu_backward", mutates_args=())
def _first_backward(gradient: Tensor, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gradient of the bias."""
    filters, pixels = _sizes(gradient, False)
    programs, tiles = _few(triton.cdiv(pixels, _PIXELS))
    partial = torch.empty(programs, filters, device=bias.device)
    kernels.first_gradient[(programs, filters // _FILTERS)](
        *(images, *_enlarged(weight, bias, filters), gradient, partial, pixels),
        *(*images.shape[2:], filters, tiles),
        **_first_shape(images),
    )
    return _added_up(partial)[: len(bias)].clone()


@_first_backward.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    images: Tensor,  # noqa: ARG001
    weight: Tensor,  # noqa: ARG001
    bias: Tensor,
) -> Tensor:
    return torch.empty_like(bias)


def _empty_first(images: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    count, _, height, width = images.shape
    filters = triton.cdiv(len(weight), _FILTERS) * _FILTERS
    return _empty_channels_last(count, filters, height - 1, width - 1, images, dtype)


def _enlarged(weight: Tensor, bias: Tensor, filters: int) -> tuple[Tensor, Tensor]:
    """Return weights as [row, column, channel, filters], as pixels lie in memory, and [filters]."""
    more = filters - len(bias)
    return F.pad(weight.permute(2, 3, 1, 0), (0, more)).contiguous(), F.pad(bias, (0, more))


def _first_shape(images: Tensor) -> dict[str, int]:
    return {"CHANNELS": images.shape[1], "PIXELS": _PIXELS, "FILTERS": _FILTERS}


class _PoolNormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor, Tensor],
        shortcut: Tensor | None,
        pool: bool,
        eps: float,
        momentum: float,
    ) -> Tensor:
        y = y.contiguous(memory_format=_CHANNELS_LAST)
        if shortcut is not None:
            shortcut = shortcut.contiguous(memory_format=_CHANNELS_LAST)
        out, pooled, which, moments = _forward(
            y, weight, bias, *running, shortcut, pool, eps, momentum
        )
        ctx.save_for_backward(pooled if pool else y, which, moments, weight, bias, shortcut)
        ctx.size = y.shape[2:]
        result: Tensor = out
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shortcut = ctx.saved_tensors[-1]
        gradient = gradient.contiguous(memory_format=_CHANNELS_LAST)
        of_y, of_bias, of_shortcut = _backward(gradient, *ctx.saved_tensors, *ctx.size)
        of_shortcut = None if shortcut is None else of_shortcut
        return of_y, None, of_bias, None, of_shortcut, None, None, None


@torch.library.custom_op(
    "deepcnn::pool_norm_silu", mutates_args=("running_mean", "running_var", "batches")
)
def _forward(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    shortcut: Tensor | None,
    pool: bool,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the result, and what the backward pass needs.

    These are the maxima, and which of the four pixels each was, uint8 (both empty without pooling);
    and the mean and the scale (one over the deviation), float32 [2, C].
    """
    out, pooled, which, moments = made = _made_forward(y, pool)
    channels, pixels = _sizes(y, pool)
    grid, tiles, shape = _few_programs(pixels, channels)
    partial = torch.empty(grid[0], 2, channels, device=y.device)
    kernels.pool_and_measure[grid](
        *(y, pooled, which, partial, pixels, *y.shape[2:], channels, tiles, pool), **shape
    )
    kernels.conclude[(triton.cdiv(channels, _COLUMNS),)](
        *(partial, moments, running_mean, running_var, batches, pixels, channels, grid[0]),
        *(tiles * shape["PIXELS"], eps, momentum),
        PROGRAMS=PROGRAMS,
        CHANNELS=_COLUMNS,
        num_warps=_WARPS,
    )
    x = pooled if pool else y
    _launch_normalize(x, out, (moments[0], moments[1], weight, bias), shortcut, False)
    return made


@_forward.register_fake
def _(
    y: Tensor,
    weight: Tensor,  # noqa: ARG001
    bias: Tensor,  # noqa: ARG001
    running_mean: Tensor,  # noqa: ARG001
    running_var: Tensor,  # noqa: ARG001
    batches: Tensor,  # noqa: ARG001
    shortcut: Tensor | None,  # noqa: ARG001
    pool: bool,
    eps: float,  # noqa: ARG001
    momentum: float,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _made_forward(y, pool)


def _made_forward(y: Tensor, pool: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return memory for what `_forward` returns."""
    pooled = _empty_like(y, y.dtype, pool) if pool else y.new_empty(0)
    which = _empty_like(y, torch.uint8, pool) if pool else y.new_empty(0, dtype=torch.uint8)
    moments = torch.empty(2, y.shape[1], device=y.device)
    return _empty_like(y, y.dtype, pool), pooled, which, moments


@torch.library.custom_op("deepcnn::pool_norm_silu_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    which: Tensor,
    moments: Tensor,
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor | None,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `y` [N, C, height, width], of the bias and of the shortcut."""
    channels, pixels = _sizes(x, False)
    pool = which.numel() > 0
    grid, tiles, shape = _few_programs(pixels, channels)
    partial = torch.empty(grid[0], 2, channels, device=x.device)
    has_shortcut = shortcut is not None
    known = gradient, x, *moments, weight, bias, shortcut if shortcut is not None else x
    kernels.measure_gradient[grid](
        *known, partial, pixels, channels, tiles, SHORTCUT=has_shortcut, **shape
    )
    sums = _added_up(partial)
    of_y = _empty_channels_last(x.shape[0], channels, height, width, x)
    of_shortcut = torch.empty_like(x if shortcut is not None else x[:0])
    grid, shape = _many_programs(pixels, channels)
    kernels.spread_gradient[grid](
        *(*known, sums, which, of_y, of_shortcut, pixels, height, width, channels, pool),
        SHORTCUT=has_shortcut,
        **shape,
    )
    return of_y, sums[0].clone(), of_shortcut


@_backward.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    x: Tensor,
    which: Tensor,  # noqa: ARG001
    moments: Tensor,  # noqa: ARG001
    weight: Tensor,  # noqa: ARG001
    bias: Tensor,
    shortcut: Tensor | None,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    of_y = _empty_channels_last(x.shape[0], x.shape[1], height, width, x)
    return of_y, torch.empty_like(bias), torch.empty_like(x if shortcut is not None else x[:0])


def _sizes(y: Tensor, pool: bool) -> tuple[int, int]:
    """Return how many channels and how many pixels the result has."""
    count, channels, height, width = y.shape
    return channels, count * (height // 2) * (width // 2) if pool else count * height * width


def _empty_like(y: Tensor, dtype: torch.dtype, pool: bool) -> Tensor:
    count, channels, height, width = y.shape
    height, width = (height // 2, width // 2) if pool else (height, width)
    return _empty_channels_last(count, channels, height, width, y, dtype)


def _empty_channels_last(
    count: int,
    channels: int,
    height: int,
    width: int,
    like: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    shape = count, channels, height, width
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=_CHANNELS_LAST
    )


def _many_programs(pixels: int, channels: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Return how many programs work on all pixels with a tile each, and the tile's shape."""
    together = min(_CHANNELS, triton.next_power_of_2(channels))
    shape = {"PIXELS": _TILE // together, "CHANNELS": together}
    return (triton.cdiv(pixels, shape["PIXELS"]), triton.cdiv(channels, together)), shape


def _few_programs(pixels: int, channels: int) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Return how many programs work on all pixels, how many tiles each takes, and their shape."""
    (tiles, across), shape = _many_programs(pixels, channels)
    programs, each = _few(tiles)
    return (programs, across), each, {**shape, "num_warps": _WARPS}


def _few(tiles: int) -> tuple[int, int]:
    """Return how many programs work on tiles, and how many tiles each takes."""
    each = triton.cdiv(tiles, PROGRAMS)
    return triton.cdiv(tiles, each), each


def _added_up(partial: Tensor) -> Tensor:
    """Return the sum of the sums of at most `PROGRAMS` programs, in a fixed order."""
    sums = torch.empty(partial.shape[1:], device=partial.device)
    kernels.add_up[(triton.cdiv(sums.numel(), _COLUMNS),)](
        *(partial, sums, sums.numel(), len(partial)),
        PROGRAMS=PROGRAMS,
        COLUMNS=_COLUMNS,
        num_warps=_WARPS,
    )
    return sums


def _launch_normalize(
    y: Tensor,
    out: Tensor,
    known: tuple[Tensor, Tensor, Tensor, Tensor],
    shortcut: Tensor | None,
    pool: bool,
) -> None:
    """Normalize by `known` (mean, scale, weight and bias, float32 [C]), and write SiLU of it."""
    channels, pixels = _sizes(y, pool)
    grid, shape = _many_programs(pixels, channels)
    has_shortcut = shortcut is not None
    kernels.normalize_silu[grid](
        *(y, out, *known, shortcut if shortcut is not None else y),
        *(pixels, *y.shape[2:], channels, pool),
        SHORTCUT=has_shortcut,
        **shape,
    )

"""Local response normalization, and its fusion with the ReLU before it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepcnn.devices import as_it_is

_BLOCK = 36864  # bytes of a channel at a time: what is between operations stays in the cache
# (1 + t) ** -0.75 = 1 - a + _BEND · a² to 2.4e-4, where a = STEEP · t and t is up to _MOST: found
# by least squares, weighted until the largest error was the least. In bf16 the power has 2e-3.
STEEP, _BEND, _MOST = 0.73843862, 0.90221521, 0.25


def relu_response_norm(x: Tensor, band: Tensor, start: Tensor, *, starts_at_one: bool) -> Tensor:
    """Normalize f = max(x, 0): f · (start + f² band) ** -0.75, over the channels.

    `x`: float32 or bf16 [N, C, H, W]. `band`: float32 [C, C], symmetric, with alpha in it. `start`:
    float32 [C]. `starts_at_one`: whether `start` is 1. Returns the shape and the type of `x`. On a
    processor it is computed block by block.
    """
    turned = x.stride(2) < x.stride(3)  # in memory [N, W, H, C]; no need to reorder that
    pixels = x.permute(0, 3, 2, 1) if turned else x.permute(0, 2, 3, 1)
    rows = pixels.reshape(-1, pixels.shape[-1])
    near = starts_at_one and x.dtype == torch.bfloat16 and x.device.type == "cpu"
    scale = STEEP if near else 1.0
    with as_it_is(x.device):
        y: Tensor = _ReLUResponseNorm.apply(  # type: ignore[no-untyped-call]
            rows, (band * scale).to(x.dtype), start, scale
        )
    y = y.view(pixels.shape)
    return y.permute(0, 3, 2, 1) if turned else y.permute(0, 3, 1, 2)


def near_one(sums: Tensor, *, out: Tensor | None = None) -> Tensor | None:
    """Return q, for `times_power` to multiply with (1 + sums / STEEP) ** -0.75, to bf16's rounding.

    `sums`: bf16, on a processor, not negative. Sums of squares times alpha hardly differ from 0.
    For such sums, one operation in bf16 replaces seven that are mostly in float32. Returns None if
    one of them is too large for this, or not a number.
    """
    # The bits of numbers that are not negative are ordered as they are, and compared faster.
    if sums.numel() and int(sums.view(torch.int16).amax()) > _bits(_MOST * STEEP):
        return None
    return torch.addcmul(sums, sums, sums, value=-_BEND, out=out)


def times_power(x: Tensor, q: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return x · (1 - q), rounded once."""
    return torch.addcmul(x, x, q, value=-1, out=out)


def _to_compare(x: Tensor) -> Tensor:
    """Return a tensor that is above 0 where `x` is: on a processor the bits of bf16, for speed."""
    return x.view(torch.int16) if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


@functools.cache
def _bits(value: float) -> int:
    return int(torch.tensor(value, dtype=torch.bfloat16).view(torch.int16))


class _ReLUResponseNorm(torch.autograd.Function):
    """y = f · s^-¾ with f = max(x, 0), s = start + f² band, for rows of x [pixels, C].

    With r = s^-¾ the derivative towards f is g · r - (3/2) f · ((g · y / s) band); `band` holds
    alpha and is symmetric. Products with it have the precision of x, float32 or bf16; s and its
    powers are float32. On a processor in bf16, `near_one` is used if s starts at 1. Then `band` is
    multiplied with `scale`, STEEP, and q = 1 - r replaces r, since bf16 has more digits for values
    near 0 than for values near 1. Else `scale` is 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, start: Tensor, scale: float) -> Tensor:
        y, r, y_over_s = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        near = scale != 1
        blocks = _blocks(x, y, r, y_over_s)
        f = torch.empty_like(blocks[0][0])
        s, root = start.new_empty(2, *f.shape)
        for some_x, some_y, some_r, some_y_over_s in blocks:
            if some_x.shape != f.shape:
                f, s, root = (scratch[: len(some_x)] for scratch in (f, s, root))
            torch.clamp_min(some_x, 0, out=f)
            torch.mul(f, f, out=some_y)
            if x.dtype == torch.float32:
                torch.addmm(start, some_y, band, out=s)
            else:
                sums = some_y @ band
                if near and (q := near_one(sums, out=some_r)) is not None:
                    times_power(f, q, out=some_y)
                    # One over s is r to the power of 4/3, and near enough to 1 for a line: it takes
                    # part in a small correction alone.
                    torch.addcmul(some_y, some_y, q, value=-4 / 3, out=some_y_over_s)
                    continue
                torch.add(start, sums, alpha=1 / scale, out=s)
            torch.rsqrt(s.rsqrt_(), out=root)  # s ** 0.25; a quotient takes less time than a root
            some_r.copy_(torch.div(s, root, out=root))
            torch.mul(f, some_r, out=some_y)
            some_y_over_s.copy_(s.square_())
            some_y_over_s.mul_(some_y)
            if near:
                some_r.copy_(root.neg_().add_(1))
        ctx.save_for_backward(x, r, y_over_s, band)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, r, y_over_s, band = ctx.saved_tensors
        of_x = torch.empty_like(x)
        blocks = _blocks(gradient, x, r, y_over_s, of_x)
        u, v = x.new_empty(2, *blocks[0][0].shape)
        for some_g, some_x, some_r, some_y_over_s, some_of_x in blocks:
            if some_g.shape != u.shape:
                u, v = u[: len(some_g)], v[: len(some_g)]
            torch.mul(some_g, some_y_over_s, out=u)
            with as_it_is(x.device):
                torch.mm(u, band, out=v)
            if ctx.scale != 1:
                times_power(some_g, some_r, out=u)
            else:
                torch.mul(some_g, some_r, out=u)
            u.addcmul_(some_x, v, value=-1.5 / ctx.scale)
            torch.ops.aten.threshold_backward.grad_input(
                _to_compare(u), _to_compare(some_x), 0, grad_input=_to_compare(some_of_x)
            )
        return of_x, None, None, None


def _blocks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the same rows of all tensors, in blocks that stay in the cache."""
    rows = _BLOCK // tensors[0].element_size()
    if tensors[0].device.type != "cpu" or len(tensors[0]) <= rows:
        return [tensors]
    return [*zip(*(torch.split(x, rows) for x in tensors), strict=True)]

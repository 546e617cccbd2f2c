"""Locally connected layers: convolutions that have their own filters at each place.

All images share the filters of a place, and nothing else is shared. So a layer is one product of
matrices for each place: the pixels of all images there, times the filters.

A kernel is computed one row of taps at a time. The values that a place sees of one row of pixels
lie side by side in memory, since channels come last. They are gathered once for each column of
places. This takes kw times the image, and not kh · kw times. Then each row of taps is one batch of
products for all rows of places, and the results of the rows of taps are added. Rows of taps above
and below an image are left out; columns of taps beside it multiply zeros.

The gradient of the filters is computed from the gathered values. The gradient of the images is a
locally connected layer itself: each pixel looks at the places that look at it, through filters that
are turned around. So nothing is scattered, and each sum has one fixed order, on a GPU too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepcnn.devices import as_it_is

Pair = tuple[int, int]


def locally_connected2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
    """Multiply the pixels at each place with the filters of this place.

    `x`: [N, in, H, W]. `weight`: [kh, H', W', out, kw, in], where H' = H + 2 p - kh + 1 and W' = W
    + 2 q - kw + 1; weight[:, r, c] are the filters of the place (r, c). `bias`: [H', W', out] or
    None. `padding`: p rows of zeros above and below, q columns on either side, fewer than the
    kernel has. Returns [N, out, H', W']:

        y[n, o, r, c] = bias[r, c, o] + Σ weight[i, r, c, o, j, k] · x[n, k, r + i - p, c + j - q]

    The sum is over i, j and k. Under autocast it is computed in autocast's type. Raises ValueError
    for shapes that do not fit. (LeCun: "Generalization and network design strategies", 1989;
    Krizhevsky: cuda-convnet, 2011, whose "local" layers these are.)
    """
    x, weight, bias = _in_one_type(x, weight, bias, padding)
    with as_it_is(x.device):
        y: Tensor = _LocallyConnected.apply(x, weight, padding)  # type: ignore[no-untyped-call]
        return _with_bias(y, bias)


def plain_locally_connected2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair
) -> Tensor:
    """Do the same in a few of torch's own operations, for tracing and for reading.

    All taps are gathered, which takes kh · kw times the image.
    """
    x, weight, bias = _in_one_type(x, weight, bias, padding)
    rows, height, width, outputs, columns, inputs = weight.shape
    wide = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    taps = [wide[:, :, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    patches = torch.stack(taps, 1).permute(3, 4, 0, 1, 2)  # [H', W', N, taps, in]
    patches = patches.reshape(height * width, -1, len(taps) * inputs)
    filters = weight.permute(1, 2, 0, 4, 5, 3).reshape(height * width, -1, outputs)
    with as_it_is(x.device):
        return _with_bias(torch.bmm(patches, filters).view(height, width, -1, outputs), bias)


def places_of(size: Pair, kernel: Pair, padding: Pair) -> Pair:
    """Return the numbers of rows and columns of places for images of a size [rows, columns]."""
    rows, columns = (s + 2 * p - k + 1 for s, k, p in zip(size, kernel, padding, strict=True))
    return rows, columns


def _in_one_type(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments as autocast wants them; raise ValueError unless they fit."""
    kh, height, width, _, kw, inputs = weight.shape
    if not (0 <= padding[0] < kh and 0 <= padding[1] < kw):
        raise ValueError(f"padding: expected 0 to below the kernel's {kh, kw}, found {padding}")
    places = places_of((x.shape[2], x.shape[3]), (kh, kw), padding)
    if places != (height, width) or x.shape[1] != inputs:
        raise ValueError(
            f"filters {list(weight.shape)} with padding {padding}: expected images of {inputs} "
            f"channels and {height} by {width} places, found {list(x.shape)}, which have "
            f"{places[0]} by {places[1]}"
        )
    if not torch.is_autocast_enabled(x.device.type):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias [H', W', out] to places [H', W', N, out]; return images [N, out, H', W']."""
    return (y if bias is None else y + bias[:, :, None]).permute(2, 3, 0, 1)


def _inside(taps: int, places: int, size: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield, for each row of taps, the rows of places that see pixels by it, and of these pixels.

    `taps`, `places`, `size`: the numbers of rows of the kernel, of places and of pixels.
    """
    for tap in range(taps):
        first = max(0, padding - tap)
        last = max(first, min(places, size + padding - tap))
        yield tap, slice(first, last), slice(first + tap - padding, last + tap - padding)


def _gathered(pixels: Tensor, columns: int, padding: int) -> Tensor:
    """Return what each column of places sees of each row of pixels: [H, W', N, columns · C].

    `pixels`: [N, H, W, C]; `padding`: columns of zeros on either side.
    """
    wide = F.pad(pixels, (0, 0, padding, padding))
    return wide.unfold(2, columns, 1).permute(1, 2, 0, 4, 3).contiguous().flatten(3)


def _multiplied(seen: Tensor, filters: Tensor, padding: int) -> Tensor:
    """Return the sums over all taps: [H', W', N, out].

    `seen`: [H, W', N, columns · in]; `filters`: [kh, H', W', columns · in, out].
    """
    taps, height, width, _, outputs = filters.shape
    y = seen.new_zeros(height, width, seen.shape[2], outputs)
    for tap, places, pixels in _inside(taps, height, len(seen), padding):
        some = seen[pixels].flatten(0, 1)
        y[places].flatten(0, 1).baddbmm_(some, filters[tap, places].flatten(0, 1))
    return y


class _LocallyConnected(torch.autograd.Function):
    """The products without the bias: [H', W', N, out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: Pair) -> Tensor:
        seen = _gathered(x.permute(0, 2, 3, 1), weight.shape[4], padding[1])
        ctx.save_for_backward(seen, weight)
        ctx.size, ctx.padding = (x.shape[2], x.shape[3]), padding
        return _multiplied(seen, weight.flatten(4).transpose(3, 4), padding[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        seen, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _of_images(gradient, weight, ctx.size, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _of_filters(gradient.contiguous(), weight, seen, ctx.padding[0])
        return of_x, of_weight, None


def _of_filters(gradient: Tensor, weight: Tensor, seen: Tensor, padding: int) -> Tensor:
    """Return the gradient of the filters: 0 for rows of taps that see no pixels."""
    of_weight = torch.empty_like(weight)
    for tap, places, pixels in _inside(len(weight), len(gradient), len(seen), padding):
        turned = gradient[places].flatten(0, 1).transpose(1, 2)
        some = of_weight[tap, places].flatten(3).flatten(0, 1)
        torch.bmm(turned, seen[pixels].flatten(0, 1), out=some)
        of_weight[tap, : places.start].zero_()
        of_weight[tap, places.stop :].zero_()
    return of_weight


def _of_images(gradient: Tensor, weight: Tensor, size: Pair, padding: Pair) -> Tensor:
    """Return the gradient of the images: what pixels see of the places."""
    kernel = weight.shape[0], weight.shape[4]
    rows, columns = (taps - 1 - pad for taps, pad in zip(kernel, padding, strict=True))
    seen = _gathered(gradient.permute(2, 0, 1, 3), kernel[1], columns)
    turned = _turned(weight, size, (rows, columns))
    return _multiplied(seen, turned, rows).permute(2, 3, 0, 1)


def _turned(weight: Tensor, size: Pair, padding: Pair) -> Tensor:
    """Return the filters by which pixels look at places: [kh, H, W, kw · out, in].

    `size`: H and W. `padding`: p and q, of the places. Through its tap (i, j) the pixel (r, c)
    looks at the place (r + i - p, c + j - q). This place looks at the pixel through its own tap (kh
    - 1 - i, kw - 1 - j). So each next tap means one place further and one tap back. The result is
    undefined for rows of taps that see no places.
    """
    taps, height, _, outputs, columns, inputs = weight.shape
    turned = weight.new_empty(taps, *size, columns, outputs, inputs)
    wide = F.pad(weight, (0,) * 6 + (padding[1], padding[1])).contiguous()
    _, row, place, output, column, one = wide.stride()
    for tap, pixels, places in _inside(taps, size[0], height, padding[0]):
        some = wide[taps - 1 - tap, places]
        turned[tap, pixels] = some.as_strided(
            (len(some), size[1], columns, outputs, inputs),
            (row, place, place - column, output, one),
            some.storage_offset() + (columns - 1) * column,
        )
    return turned.flatten(3, 4)

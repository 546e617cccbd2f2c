"""Layers that several networks share, or that torch lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.devices import is_on_processor, multiplies_bf16
from deepcnn.models.fourier import fourier_conv2d, fourier_pays
from deepcnn.models.opaque import all_finite, opaque_conv2d, opaque_pays, to_dense
from deepcnn.models.winograd import tile_that_pays, winograd_conv2d


class SameConv2d(nn.Conv2d):
    """A convolution with a square kernel of odd size that keeps the image's size (SAME).

    On a processor it is computed by Fourier transforms where that is faster (see `fourier`), or in
    tiles, in float32 even where others are in bf16 (see `winograd`). Those leave out a last odd row
    and column where `even`, since pooling by 2 follows. An image so small that each pixel sees all
    others is multiplied with one matrix.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, even: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self._even = even

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, inputs, H, W] to [N, outputs, H, W], or as `even` has it."""
        if max(input.shape[2:]) <= self.kernel_size[0] // 2 + 1:
            return self._by_matrix(input)
        if is_on_processor(input) and self.weight.dtype == torch.float32:
            dtype = _precision(input)
            if fourier_pays(input.shape, self.weight.shape, dtype):
                with torch.autocast("cpu", enabled=False):
                    x = input.to(dtype)
                    return fourier_conv2d(x, self.weight, self.bias, even=self._even)
            bf16 = dtype == torch.bfloat16 and multiplies_bf16()
            tile = tile_that_pays(input.shape, self.weight.shape, even=self._even, bf16=bf16)
            if tile is not None:
                with torch.autocast("cpu", enabled=False):
                    return winograd_conv2d(input, self.weight, self.bias, tile, even=self._even)
        return super().forward(input)

    def _by_matrix(self, images: Tensor) -> Tensor:
        """Map images whose pixels see all others, without any product with padding."""
        count, _, height, width = images.shape
        middle = self.kernel_size[0] // 2
        by_pixel = self.weight.permute(0, 2, 3, 1)  # [outputs, kernel, kernel, inputs]
        seen = [
            by_pixel[:, middle - row : middle - row + height, middle - column :][:, :, :width]
            for row in range(height)
            for column in range(width)
        ]
        matrix = torch.stack(seen).flatten(2).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(height * width)
        y = F.linear(images.permute(0, 2, 3, 1).flatten(1), matrix, bias)
        return y.view(count, height, width, -1).permute(0, 3, 1, 2)


class LateReLU(SameConv2d):
    """A convolution that keeps the size, with bias, whose ReLU is left to a later layer.

    ReLU and max pooling may change places, and after pooling there is less to do; and it costs
    nothing within a layer that reads its input anyway. `activation` tells who looks at a layer's
    output what the literature means by it.
    """

    activation = staticmethod(F.relu)


class LateReLUToPool(LateReLU):
    """A `LateReLU` whose output nobody but `SameMaxPool` computes with.

    On a processor that may lie in oneDNN's own layout; see `opaque`.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, inputs, H, W] to [N, outputs, H, W], opaque (`is_mkldnn`) where that pays."""
        dtype = _precision(input)
        if (
            is_on_processor(input)
            and opaque_pays(input.shape, self.weight.shape, dtype)
            and all_finite(input, *self.parameters())
        ):
            assert self.bias is not None
            with torch.autocast("cpu", enabled=False):
                return opaque_conv2d(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))
        return super().forward(input)


def _precision(x: Tensor) -> torch.dtype:
    """Return the type in which a processor multiplies x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class LinearReLU(nn.Linear):
    """A fully connected layer with bias, followed by ReLU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, inputs] to [N, outputs]."""
        return F.relu_(super().forward(input))


class SameMaxPool(nn.Module):
    """Max pooling 3×3, stride 2, padded like TensorFlow's SAME.

    The output has ceil(size / 2) rows. Of the padding this needs, the smaller half goes before
    the image: an even size is padded only after it (ceil mode), an odd one by 1 on both sides.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W], opaque or not, to [N, C, ceil(H / 2), ceil(W / 2)], which is not."""
        y = F.max_pool2d(x, 3, 2, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
        return to_dense(y) if y.is_mkldnn else y


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the statistics of several devices' examples together.

    `total` sums a tensor over all devices; all of them call it in the same order. torch's own layer
    of this name runs on GPUs only. (Ioffe and Szegedy: "Batch normalization", 2015, with the
    variance taken about the common mean in a second pass, since E[x²] - E[x]² cancels.)
    """

    def __init__(self, normal: nn.BatchNorm2d, total: Callable[[Tensor], Tensor]) -> None:
        super().__init__(normal.num_features, normal.eps, normal.momentum)
        self.weight, self.bias = normal.weight, normal.bias  # the same objects, as optimizers know
        self.running_mean, self.running_var = normal.running_mean, normal.running_var
        self.num_batches_tracked = normal.num_batches_tracked
        self.train(normal.training)
        self._total = total

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, C, H, W] to the same shape and dtype."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.float()
        local = torch.cat([x.sum((0, 2, 3)), x.new_full((1,), x.numel() / self.num_features)])
        sums = _total(local, self._total)
        n = sums[-1].detach()
        centred = x - (sums[:-1] / n)[:, None, None]
        variance = _total(centred.square().sum((0, 2, 3)), self._total) / n
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(sums[:-1] / n, momentum)
            self.running_var.lerp_(variance * (n / (n - 1).clamp_min(1)), momentum)
            self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _Total(torch.autograd.Function):
    """The sum over all devices. Every device's loss depends on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.total = total
        return total(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total: Tensor = ctx.total(gradients[0])
        return total, None


def _total(values: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    result: Tensor = _Total.apply(values, total)  # type: ignore[no-untyped-call]
    return result


def synchronize_batch_norm(model: nn.Module, total: Callable[[Tensor], Tensor]) -> None:
    """Replace every batch normalization in `model` by a `SyncBatchNorm` of the same variables."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncBatchNorm(child, total))


def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with normal values of deviation `std`, drawn again beyond two deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)

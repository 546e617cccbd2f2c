"""Batch normalization with the statistics of several devices together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization with the statistics of the examples of several devices together.

    `total` sums a tensor over all devices; all devices call it in the same order. torch's own layer
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

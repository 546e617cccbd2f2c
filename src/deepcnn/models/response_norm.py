"""Local response normalization, as layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.devices import as_it_is
from deepcnn.kernels.response_norm import relu_response_norm


class LocalResponseNorm(nn.Module):
    """Local response normalization over channels, as TensorFlow defines it.

    out = x / (bias + alpha * sum of x² over channels c - radius … c + radius) ** 0.75: the sum is
    not divided by the window's size, as torch's own layer does. (Krizhevsky, Sutskever, Hinton:
    "ImageNet classification with deep convolutional neural networks", 2012, section 3.3.)

    The sum over neighbouring channels is a 1×1 convolution with a banded matrix. It runs on the
    same fast kernels as every convolution, in bf16 if `x` is bf16. All that follows the sum is in
    float32 for any precision of `x`, because it hardly differs from the bias.
    """

    band: Tensor
    start: Tensor

    def __init__(
        self, channels: int, radius: int = 4, bias: float = 1.0, alpha: float = 0.001 / 9
    ) -> None:
        super().__init__()
        self.radius, self.bias, self.alpha = radius, bias, alpha
        index = torch.arange(channels)
        near = (index[:, None] - index[None, :]).abs() <= radius
        self.register_buffer("band", (alpha * near)[:, :, None, None], persistent=False)
        self.register_buffer("start", torch.full((channels,), bias), persistent=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        exact = x.float() if x.dtype == torch.float16 else x  # whose squares fp16 may not hold
        with as_it_is(x.device):
            sums = F.conv2d(exact.square(), self.band.to(exact.dtype)).float()
            root = (sums + self.start[:, None, None]).rsqrt()  # (…) ** -0.5
            return (x * (root * root.sqrt())).to(x.dtype)

    @override
    def extra_repr(self) -> str:
        return f"radius={self.radius}, bias={self.bias}, alpha={self.alpha:.4g}, beta=0.75"


class ReLUResponseNorm(LocalResponseNorm):
    """ReLU, then local response normalization.

    Both are one function with a derivative of its own, since their time depends on memory, not on
    arithmetic. On a processor it is computed block by block.
    """

    @override
    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or x.dtype not in (torch.float32, torch.bfloat16):
            return super().forward(F.relu(x))
        return relu_response_norm(x, self.band.flatten(1), self.start, starts_at_one=self.bias == 1)

"""Layers that several networks share, or that torch lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.kernels.convolve import same_conv2d
from deepcnn.kernels.onednn import to_dense


class SameConv2d(nn.Conv2d):
    """A convolution with a square kernel of odd size that keeps the image's size (SAME).

    How it is computed is chosen in `kernels.convolve`. `even`: pooling by 2 follows, so a last odd
    row and column may be left out; `to_pool`: only `SameMaxPool` computes with the output, which
    may then be opaque (`is_mkldnn`).
    """

    to_pool = False

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, even: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self._even = even

    @override
    def forward(self, input: Tensor) -> Tensor:
        return same_conv2d(input, self.weight, self.bias, even=self._even, to_pool=self.to_pool)


class LateReLU(SameConv2d):
    """A convolution that keeps the size, with bias, whose ReLU is left to a later layer.

    ReLU and max pooling may change places, and after pooling there is less to do; and it costs
    nothing within a layer that reads its input anyway. `activation` tells who looks at a layer's
    output what the literature means by it.
    """

    activation = staticmethod(F.relu)


class LateReLUToPool(LateReLU):
    """A `LateReLU` whose output nobody but `SameMaxPool` computes with."""

    to_pool = True


class LinearReLU(nn.Linear):
    """A fully connected layer with bias, followed by ReLU."""

    @override
    def forward(self, input: Tensor) -> Tensor:
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


def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with normal values of deviation `std`, drawn again beyond two deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)

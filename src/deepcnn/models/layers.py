"""Layers that several networks share, or that torch does not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.kernels.convolve import same_conv2d
from deepcnn.kernels.locally_connected import (
    locally_connected2d,
    places_of,
    plain_locally_connected2d,
)
from deepcnn.kernels.onednn import to_dense


class SameConv2d(nn.Conv2d):
    """A convolution with a square kernel of odd size that keeps the image's size (SAME).

    `kernels.convolve` chooses how it is computed. `even`: pooling by 2 follows, so an odd last row
    and column may be left out. `to_pool`: only `SameMaxPool` uses the output, which may then be
    opaque (`is_mkldnn`).
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

    ReLU and max pooling can be exchanged, and after pooling there is less to do. Inside a layer
    that reads its input anyway, ReLU costs nothing. `activation` is for summaries: it turns the
    layer's output into what the literature means by it.
    """

    activation = staticmethod(F.relu)


class LateReLUToPool(LateReLU):
    """A `LateReLU` whose output only `SameMaxPool` uses."""

    to_pool = True


class LinearReLU(nn.Linear):
    """A fully connected layer with bias, followed by ReLU."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return F.relu_(super().forward(input))


class LocallyConnected2d(nn.Module):
    """A convolution that has its own filters and biases at each place of the image.

    `size`: rows and columns of its images, which are fixed. `kernel`, `padding`: a number, or one
    for rows and one for columns. Padding is with zeros, and less than the kernel. `weight`: [rows
    of taps, rows of places, columns of places, outputs, columns of taps, inputs]. `bias`: [rows of
    places, columns of places, outputs]. Both start like those of torch's convolutions. Raises
    ValueError if images of this size have no places.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        size: tuple[int, int],
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.padding = (padding, padding) if isinstance(padding, int) else padding
        self.size = size
        places = places_of(size, self.kernel_size, self.padding)
        if min(places) < 1:
            raise ValueError(
                f"images of {size}: expected at least as many pixels as the kernel "
                f"{self.kernel_size} without the padding {self.padding} on both sides"
            )
        rows, columns = self.kernel_size
        self.weight = nn.Parameter(torch.empty(rows, *places, outputs, columns, inputs))
        self.bias = nn.Parameter(torch.empty(*places, outputs)) if bias else None
        limit = (rows * columns * inputs) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -limit, limit)

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Map [N, inputs, *size] to [N, outputs, rows of places, columns of places]."""
        is_looked_at = torch.compiler.is_compiling() or input.dtype == torch.float64
        compute = plain_locally_connected2d if is_looked_at else locally_connected2d
        return compute(input, self.weight, self.bias, self.padding)

    @override
    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape[3], self.weight.shape[5]
        return (
            f"{inputs}, {outputs}, kernel_size={self.kernel_size}, size={self.size}, "
            f"padding={self.padding}, bias={self.bias is not None}"
        )


class LocallyConnectedReLU(LocallyConnected2d):
    """A locally connected layer with bias, followed by ReLU."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return F.relu_(super().forward(input))


class SameMaxPool(nn.Module):
    """Max pooling 3×3, stride 2, padded like TensorFlow's SAME.

    The output has ceil(size / 2) rows. The smaller half of the padding goes before the image. So an
    even size is padded only after the image (ceil mode), and an odd size by 1 on both sides.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W], opaque or not, to [N, C, ceil(H / 2), ceil(W / 2)], which is not."""
        y = F.max_pool2d(x, 3, 2, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
        return to_dense(y) if y.is_mkldnn else y


def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with normal values of deviation `std`; values beyond two deviations are drawn again."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)

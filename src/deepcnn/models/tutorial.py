"""The network of TensorFlow's CIFAR-10 tutorial ("Deep CNN", 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.models.layers import (
    LateReLU,
    LateReLUToPool,
    LinearReLU,
    SameMaxPool,
    truncated_normal_,
)
from deepcnn.models.network import Network
from deepcnn.models.response_norm import ReLUResponseNorm


class Tutorial(Network):
    """Two convolutions, each with pooling and normalization, then three fully connected layers.

    With inputs of 24×24×3 and ten classes it has 1,068,298 parameters.

    The names and the mathematics are the reference's, so its weights can be carried over. A
    convolution's `weights` [height, width, in, out] become `weight` as [out, in, height, width]
    (`.permute(3, 2, 0, 1)`). A fully connected layer's `weights` [in, out] become `weight` as [out,
    in] (`.t()`). `biases` become `bias`. Before `local3` the image is flattened in the reference's
    order (row, column, channel), so the matrix need not be reordered; with channels_last memory
    this costs no copy.
    """

    # The factor of ½‖w‖² in the loss, for each weight that has such a penalty.
    penalties: ClassVar[Mapping[str, float]] = {"local3.weight": 0.004, "local4.weight": 0.004}

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 24, 24),
        classes: int = 10,
        widths: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if len(widths or (64, 64, 384, 192)) != 4:
            raise ConfigError(
                "model.widths: the tutorial network has 4 (conv1, conv2, local3, local4), "
                f"found {len(widths)}"
            )
        first, second, third, fourth = widths or (64, 64, 384, 192)
        pooled = -(-height // 4) * -(-width // 4)  # two poolings, each rounding up
        self.conv1 = LateReLUToPool(channels, first, 5)
        self.pool1 = SameMaxPool()
        self.norm1 = ReLUResponseNorm(first)
        self.conv2 = LateReLU(first, second, 5)
        self.norm2 = ReLUResponseNorm(second)
        self.pool2 = SameMaxPool()
        self.local3 = LinearReLU(pooled * second, third)
        self.local4 = LinearReLU(third, fourth)
        self.softmax_linear = nn.Linear(fourth, classes)

        generator = torch.Generator().manual_seed(seed)
        for layer, std, bias in (
            (self.conv1, 0.05, 0.0),
            (self.conv2, 0.05, 0.1),
            (self.local3, 0.04, 0.1),
            (self.local4, 0.04, 0.1),
            (self.softmax_linear, 1 / fourth, 0.0),
        ):
            truncated_normal_(layer.weight, std, generator)
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]  # there is a bias

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        x = self.norm1(self.pool1(self.conv1(images)))
        x = self.pool2(self.norm2(self.conv2(x)))
        x = x.permute(0, 2, 3, 1).flatten(1)
        logits: Tensor = self.softmax_linear(self.local4(self.local3(x)))
        return logits

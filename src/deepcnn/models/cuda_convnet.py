"""The network with locally connected layers that cuda-convnet trains on CIFAR-10 (2011)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.models.layers import LateReLU, LocallyConnectedReLU
from deepcnn.models.network import Network
from deepcnn.models.response_norm import ReLUResponseNorm

ALPHA = 0.001 / 5  # of the normalization over five maps, by whose number cuda-convnet divides
SMALLEST_SIDE = 4  # pixels, of which two poolings leave one


class CudaConvnet(Network):
    """Two convolutions, each with normalization and pooling, two locally connected layers, a head.

    conv1 and conv2 are 5×5, local3 and local4 are 3×3. All are padded so that they keep the size,
    and ReLU follows each. Pooling takes the maximum of 3×3 pixels, at every second pixel. Its first
    window begins at the edge, and its last one may reach over the edge. With inputs of 24×24×3 and
    ten classes there are 1,116,490 parameters, of which local3 and local4 have 997,632.

    Weights start as normal numbers with the deviations 0.0001, 0.01, 0.04, 0.04 and 0.01, biases at
    0. (Krizhevsky: cuda-convnet, 2011; Krizhevsky, Sutskever, Hinton: "ImageNet classification with
    deep convolutional neural networks", 2012, section 3.3, for normalization over five maps, before
    pooling. cuda-convnet's own file for 11 % pools conv1 first, normalizes over nine maps, and has
    64 filters in local3: `widths` of 64, 64, 64, 32.)
    """

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
        if len(widths or (64, 64, 32, 32)) != 4:
            raise ConfigError(
                "model.widths: cuda_convnet has 4 (conv1, conv2, local3, local4), found "
                f"{len(widths)}"
            )
        if min(height, width) < SMALLEST_SIDE:
            raise ConfigError(
                f"cuda_convnet needs inputs of at least {SMALLEST_SIDE} pixels a side, found "
                f"{height} by {width}"
            )
        first, second, third, fourth = widths or (64, 64, 32, 32)
        size = (height // 4, width // 4)  # each pooling halves, and rounds down
        self.conv1 = LateReLU(channels, first, 5)
        self.norm1 = ReLUResponseNorm(first, radius=2, alpha=ALPHA)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = LateReLU(first, second, 5)
        self.norm2 = ReLUResponseNorm(second, radius=2, alpha=ALPHA)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.local3 = LocallyConnectedReLU(second, third, 3, size=size, padding=1)
        self.local4 = LocallyConnectedReLU(third, fourth, 3, size=size, padding=1)
        self.fc10 = nn.Linear(size[0] * size[1] * fourth, classes)

        generator = torch.Generator().manual_seed(seed)
        for layer, std in (
            (self.conv1, 0.0001),
            (self.conv2, 0.01),
            (self.local3, 0.04),
            (self.local4, 0.04),
            (self.fc10, 0.01),
        ):
            nn.init.normal_(layer.weight, std=std, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is a bias

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], 0 to 255 minus the mean image, to logits [N, classes]."""
        x = self.pool1(self.norm1(self.conv1(images)))
        x = self.pool2(self.norm2(self.conv2(x)))
        x = self.local4(self.local3(x))
        logits: Tensor = self.fc10(x.permute(0, 2, 3, 1).flatten(1))
        return logits

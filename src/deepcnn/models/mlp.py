"""The fully connected network of TensorFlow's MNIST program that feeds from Python (2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.models.layers import LinearReLU, truncated_normal_
from deepcnn.models.network import Network


class MLP(Network):
    """Two hidden layers with ReLU, then a linear one: 784 → 128 → 32 → 10 for MNIST.

    Weights start with a truncated normal distribution of deviation 1 / √(units before), biases at
    0. The image is flattened in the reference's order (row, column, channel).
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        widths: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if len(widths or (128, 32)) != 2:
            raise ConfigError(f"model.widths: mlp has 2 (hidden1, hidden2), found {len(widths)}")
        first, second = widths or (128, 32)
        self.hidden1 = LinearReLU(channels * height * width, first)
        self.hidden2 = LinearReLU(first, second)
        self.softmax_linear = nn.Linear(second, classes)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.hidden1, self.hidden2, self.softmax_linear):
            truncated_normal_(layer.weight, layer.in_features**-0.5, generator)
            nn.init.zeros_(layer.bias)  # there is a bias

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = images.permute(0, 2, 3, 1).flatten(1)
        logits: Tensor = self.softmax_linear(self.hidden2(self.hidden1(x)))
        return logits

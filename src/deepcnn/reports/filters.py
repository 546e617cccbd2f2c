"""The filters of a network's first layer, as pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepcnn.inference.trained import Trained
from deepcnn.models.mlp import MLP

MOST = 96  # filters that are shown


def first_filters(trained: Trained) -> NDArray[np.float32] | None:
    """Return the weights of the first layer that sees the image: float32 [n, height, width, C].

    Returns None if this layer is neither a convolution nor fully connected to all pixels.
    """
    channels, height, width = trained.trained_on.transform.shape
    layers = (
        layer for layer in trained.model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    first = next(layers, None)
    if isinstance(first, nn.Conv2d) and first.in_channels == channels and first.groups == 1:
        weight = first.weight.detach().permute(0, 2, 3, 1)
    elif isinstance(first, nn.Linear) and first.in_features == channels * height * width:
        flat = first.weight.detach()
        if isinstance(trained.model, MLP):  # which flattens by row, column, channel
            weight = flat.reshape(-1, height, width, channels)
        else:
            weight = flat.reshape(-1, channels, height, width).permute(0, 2, 3, 1)
    else:
        return None
    found: NDArray[np.float32] = weight[:MOST].float().cpu().numpy()
    return found

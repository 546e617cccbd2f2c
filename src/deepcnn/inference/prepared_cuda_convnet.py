"""The network of cuda-convnet prepared for prediction on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcnn.inference.prepared_layers import (
    LARGE_BLOCK,
    Convolution,
    PreparedResponseNorm,
    bias_of,
    by_blocks,
    pool,
)
from deepcnn.kernels.locally_connected import locally_connected2d
from deepcnn.models.cuda_convnet import CudaConvnet
from deepcnn.models.layers import LocallyConnected2d

LOCAL_BLOCK = 128  # images at a time where filters are read once for all of them


class PreparedCudaConvnet(nn.Module):
    """The network of cuda-convnet on a processor, in float32 or bf16."""

    def __init__(self, model: CudaConvnet, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._conv1, self._conv2 = (
            Convolution(conv.weight.to(dtype), bias_of(conv).to(dtype), padding=2, then="relu")
            for conv in (model.conv1, model.conv2)
        )
        self._norm1, self._norm2 = (
            PreparedResponseNorm(model.norm1),
            PreparedResponseNorm(model.norm2),
        )
        self._locals = [PreparedLocalReLU(layer, dtype) for layer in (model.local3, model.local4)]
        self._weight, self._bias = model.fc10.weight.detach().t().contiguous(), bias_of(model.fc10)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], 0 to 255 minus the mean image, to logits [N, classes]."""
        x = by_blocks(self._features, images.to(self._dtype), LOCAL_BLOCK)
        return torch.addmm(self._bias, x.float(), self._weight)

    def _features(self, images: Tensor) -> Tensor:
        """Return the input of fc10, [N, h * w * channels]."""
        x = torch.cat([self._pooled(some) for some in torch.split(images, LARGE_BLOCK)])
        for layer in self._locals:
            x = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x.flatten(1)

    def _pooled(self, images: Tensor) -> Tensor:
        """Return the input of local3, [N, h, w, channels]."""
        x = images
        for convolution, norm in ((self._conv1, self._norm1), (self._conv2, self._norm2)):
            x = norm(convolution(x).permute(0, 2, 3, 1))
            x = pool(pool(x, 1, same=False), 2, same=False).permute(0, 3, 1, 2)
        return x.permute(0, 2, 3, 1)


class PreparedLocalReLU:
    """A locally connected layer, then ReLU, with its filters in the type of the multiplications."""

    def __init__(self, layer: LocallyConnected2d, dtype: torch.dtype) -> None:
        assert layer.bias is not None
        self._weight, self._bias = (x.detach().to(dtype, copy=True) for x in layer.parameters())
        self._padding = layer.padding

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W'], of the layer's type."""
        return locally_connected2d(x, self._weight, self._bias, self._padding).clamp_min_(0)

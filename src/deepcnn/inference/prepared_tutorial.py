"""The tutorial's network prepared for prediction on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcnn.inference.prepared_layers import (
    BLOCK,
    ENOUGH,
    LARGE_BLOCK,
    Convolution,
    PreparedLinearReLU,
    PreparedResponseNorm,
    bias_of,
    by_blocks,
    pool,
)
from deepcnn.kernels import fourier
from deepcnn.kernels.convolve import way_that_pays
from deepcnn.models.layers import SameMaxPool
from deepcnn.models.tutorial import Tutorial


class PreparedTutorial(nn.Module):
    """The tutorial's network on a processor, in float32 or bf16.

    For few images, starting an operation costs more than what it computes. Then only the operations
    that multiply most are in bf16, since the conversion to bf16 and back takes two more operations.
    """

    def __init__(self, model: Tutorial, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._block = BLOCK * torch.bfloat16.itemsize // dtype.itemsize  # of as many bytes
        self._conv1, self._conv1_of_few, self._conv2 = (
            Convolution(conv.weight.to(kind), bias_of(conv).to(kind), padding=2, then="relu")
            for conv, kind in (
                (model.conv1, dtype),
                (model.conv1, torch.float32),
                (model.conv2, dtype),
            )
        )
        self._weight2, self._bias2 = model.conv2.weight.detach().clone(), bias_of(model.conv2)
        self._kernels2: dict[tuple[int, int], Tensor] = {}  # transformed, by the size of the images
        self._same_pool = SameMaxPool()
        self._norm1, self._norm2 = (
            PreparedResponseNorm(model.norm1),
            PreparedResponseNorm(model.norm2),
        )
        self._local3 = PreparedLinearReLU(model.local3, dtype)
        self._linears = [
            (x.weight.detach().t().contiguous(), bias_of(x))
            for x in (model.local4, model.softmax_linear)
        ]

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        if len(images) < ENOUGH:
            x = self._of_few(images.float())
        else:
            x = by_blocks(self._features, images.to(self._dtype), self._block)
        (weight4, bias4), (weight, bias) = self._linears
        x = torch.addmm(bias4, self._local3(x).float(), weight4).clamp_min_(0)
        return torch.addmm(bias, x, weight)

    def _of_few(self, images: Tensor) -> Tensor:
        """Return the input of local3, [N, h * w * channels], for a few images in float32."""
        x: Tensor = self._same_pool(self._conv1_of_few(images)).permute(0, 2, 3, 1)
        x = self._norm1(x).to(self._dtype)
        x = self._conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self._norm2(x.float())
        x = self._same_pool(x.permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).flatten(1).to(self._dtype)

    def _features(self, images: Tensor) -> Tensor:
        """Return the input of local3, [N, h * w * channels]."""
        pooled = [
            pool(pool(self._conv1(some).permute(0, 2, 3, 1), 1), 2).permute(1, 2, 0, 3)
            for some in torch.split(images, LARGE_BLOCK)
        ]
        x = self._convolve2(self._norm1(torch.cat(pooled, 2).contiguous()))
        return pool(pool(self._norm2(x), 0), 1).permute(2, 0, 1, 3).flatten(1)

    def _convolve2(self, pixels: Tensor) -> Tensor:
        """Return conv2 and ReLU of pixels [H, W, N, C], which lie row after row in memory."""
        images = pixels.permute(2, 3, 0, 1)
        way = way_that_pays(images.shape, self._weight2.shape, self._dtype, training=False)
        if way.name != "fourier":
            return self._conv2(images).permute(2, 3, 0, 1).contiguous()
        size, taps = (images.shape[2], images.shape[3]), self._weight2.shape[2]
        if size not in self._kernels2:
            self._kernels2[size] = fourier.transform_kernel(self._weight2, size, self._dtype)
        x = fourier.convolve_pixels(pixels, self._kernels2[size], self._bias2, taps)
        return x.clamp_min_(0)

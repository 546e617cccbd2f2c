"""Speednet prepared for prediction on a processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deepcnn.inference.prepared_layers import ENOUGH, Convolution, bias_of, by_blocks
from deepcnn.kernels import winograd
from deepcnn.kernels.convolve import way_that_pays
from deepcnn.models.speednet import Block, Speednet, through_groups


class PreparedSpeednet(nn.Module):
    """Speednet on a processor, in float32 or bf16."""

    def __init__(self, model: Speednet, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        stem = model.stem
        self._stem = Convolution(
            stem.weight.to(dtype), bias_of(stem).to(dtype), padding=0, then="none"
        )
        self._groups = [[FoldedBlock(block, dtype) for block in group] for group in model.groups()]
        self._residual = model.residual
        self._head = (model.head.weight.detach() * model.scale).t().to(dtype).contiguous()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        x = by_blocks(self._features, images.to(self._dtype))
        return (x @ self._head).float()

    def _features(self, images: Tensor) -> Tensor:
        """Return the input of the head, [N, channels]."""
        x = F.silu(self._stem(images), inplace=True)
        return through_groups(self._groups, x, residual=self._residual).amax((2, 3))


class FoldedBlock:
    """A block of speednet, with its batch normalization folded into the convolution."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self._weight, self._bias = (tensor.to(dtype) for tensor in folded(block))
        self._kernels: dict[winograd.Tile, Tensor] = {}  # transformed, by the tiles they are for
        self._pools = isinstance(block.pool, nn.MaxPool2d)
        self._convolution, self._with_silu = (
            Convolution(self._weight, self._bias, padding=1, then=then)
            for then in ("none", "swish")
        )

    def __call__(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Do the same as `Block.forward`."""
        few = len(x) < ENOUGH
        if few and not self._pools and shortcut is None:
            return self._with_silu(x)
        x = self._convolve(x)
        if self._pools:
            x = F.max_pool2d(x, 2) if few else _halve(x)
        if shortcut is not None:
            x += shortcut
        return F.silu(x, inplace=True)

    def _convolve(self, x: Tensor) -> Tensor:
        way = way_that_pays(x.shape, self._weight.shape, x.dtype, even=self._pools, training=False)
        if way.name != "tiles":
            return self._convolution(x)
        tile = way.tile
        if tile not in self._kernels:
            self._kernels[tile] = winograd.transform_kernel(self._weight, tile)
        return winograd.convolve_tiles(x, self._kernels[tile], self._bias, tile, even=self._pools)


def _halve(x: Tensor) -> Tensor:
    """Take maxima of 2×2 pixels of [N, C, H, W], without an odd last row and column."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(x[..., 0:width:2], x[..., 1:width:2])


def folded(block: Block) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a block's convolution, including its batch normalization."""
    norm = block.norm
    if not torch.all(norm.weight > 0):
        raise ValueError("batch normalization: expected a positive scale, found another")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        *(block.conv.weight, block.conv.bias, norm.running_mean, norm.running_var),
        *(norm.eps, norm.weight, norm.bias),
    )
    return weight.detach(), bias.detach()

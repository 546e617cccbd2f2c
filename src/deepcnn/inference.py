"""Networks prepared for prediction: the same mathematics, with nothing kept for training.

On a processor much of the time is not spent in multiplications but in moving memory: a batch's
activations are larger than the caches. So a batch is computed in blocks of images, whose
activations stay there, and layers are fused where that saves a pass over memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deepcnn.devices import float32_products, onednn_computes, runs_triton
from deepcnn.models import fourier, winograd
from deepcnn.models.layers import SameMaxPool
from deepcnn.models.response_norm import STEEP, LocalResponseNorm, near_one, times_power
from deepcnn.models.speednet import Block, Speednet, through_groups
from deepcnn.models.tutorial import Tutorial

_BLOCK = 64  # images at a time
_LARGE_BLOCK = 16  # images at a time where activations are largest
_ENOUGH = 16  # images; for fewer what a call costs counts more than what it computes


@torch.no_grad()
def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of a network of `deepcnn.models` for prediction, on the device of `model`.

    The copy maps images [N, C, H, W], of any N > 0 and memory format, to the logits [N, classes]
    that `model` has in evaluation mode, to float summation; `model` is left as it is. Batch
    normalization is folded into the convolution before it, or done in the pass over memory that
    pools and activates, on a GPU with Triton. On a processor the tutorial's network
    and speednet become programs of their own, which cannot be moved or trained. With `dtype`
    bfloat16 these multiply and remember in bf16, and their logits, still float32, are those of
    `model` to bf16's rounding; other networks and devices need autocast for that. Raises
    ValueError for a batch normalization that has a scale which is not positive, since it does not
    commute with the max pooling before it.
    """
    float32 = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in model.parameters())
    if float32 and onednn_computes(dtype):
        if isinstance(model, Tutorial):
            return _FastTutorial(model, dtype).eval()
        if isinstance(model, Speednet):
            return _FastSpeednet(model, dtype).eval()
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for block in copied.modules():
        if isinstance(block, Block) and not runs_triton(block.conv.weight):
            weight, bias = _folded(block)
            block.conv.weight = nn.Parameter(weight, requires_grad=False)
            block.conv.bias = nn.Parameter(bias, requires_grad=False)
            block.norm = nn.Identity()  # type: ignore[assignment]
    return copied


class _FastTutorial(nn.Module):
    """The tutorial's network on a processor, in float32 or bf16.

    For few images each operation costs more than what it computes. There only those are in bf16
    that multiply most; it takes two more operations to go there and back.
    """

    def __init__(self, model: Tutorial, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._block = _BLOCK * torch.bfloat16.itemsize // dtype.itemsize  # of as many bytes
        self._conv1, self._conv1_of_few, self._conv2 = (
            _Convolution(conv.weight.to(kind), _bias(conv).to(kind), padding=2, then="relu")
            for conv, kind in (
                (model.conv1, dtype),
                (model.conv1, torch.float32),
                (model.conv2, dtype),
            )
        )
        self._weight2, self._bias2 = model.conv2.weight.detach().clone(), _bias(model.conv2)
        self._kernels2: dict[tuple[int, int], Tensor] = {}  # transformed, by the size of the images
        self._same_pool = SameMaxPool()
        self._norm1, self._norm2 = _ResponseNorm(model.norm1), _ResponseNorm(model.norm2)
        self._local3 = _LinearReLU(model.local3, dtype)
        self._linears = [
            (x.weight.detach().t().contiguous(), _bias(x))
            for x in (model.local4, model.softmax_linear)
        ]

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        if len(images) < _ENOUGH:
            x = self._of_few(images.float())
        else:
            x = _by_blocks(self._features, images.to(self._dtype), self._block)
        (weight4, bias4), (weight, bias) = self._linears
        x = torch.addmm(bias4, self._local3(x).float(), weight4).clamp_min_(0)
        return torch.addmm(bias, x, weight)

    def _of_few(self, images: Tensor) -> Tensor:
        """Return what local3 sees [N, h * w * channels], of a few images in float32."""
        x: Tensor = self._same_pool(self._conv1_of_few(images)).permute(0, 2, 3, 1)
        x = self._norm1(x).to(self._dtype)
        x = self._conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self._norm2(x.float())
        x = self._same_pool(x.permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).flatten(1).to(self._dtype)

    def _features(self, images: Tensor) -> Tensor:
        """Return what local3 sees [N, h * w * channels]."""
        pooled = [
            _pool(_pool(self._conv1(some).permute(0, 2, 3, 1), 1), 2).permute(1, 2, 0, 3)
            for some in torch.split(images, _LARGE_BLOCK)
        ]
        x = self._convolve2(self._norm1(torch.cat(pooled, 2).contiguous()))
        return _pool(_pool(self._norm2(x), 0), 1).permute(2, 0, 1, 3).flatten(1)

    def _convolve2(self, pixels: Tensor) -> Tensor:
        """Return conv2 and ReLU of pixels [H, W, N, C], in memory one row after another."""
        images = pixels.permute(2, 3, 0, 1)
        if not fourier.fourier_pays(images.shape, self._weight2.shape, self._dtype):
            return self._conv2(images).permute(2, 3, 0, 1).contiguous()
        size, taps = (images.shape[2], images.shape[3]), self._weight2.shape[2]
        if size not in self._kernels2:
            self._kernels2[size] = fourier.transform_kernel(self._weight2, size, self._dtype)
        x = fourier.convolve_pixels(pixels, self._kernels2[size], self._bias2, taps)
        return x.clamp_min_(0)


class _FastSpeednet(nn.Module):
    """Speednet on a processor, in float32 or bf16."""

    def __init__(self, model: Speednet, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        stem = model.stem
        self._stem = _Convolution(
            stem.weight.to(dtype), _bias(stem).to(dtype), padding=0, then="none"
        )
        self._groups = [[_FoldedBlock(block, dtype) for block in group] for group in model.groups()]
        self._residual = model.residual
        self._head = (model.head.weight.detach() * model.scale).t().to(dtype).contiguous()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        x = _by_blocks(self._features, images.to(self._dtype))
        return (x @ self._head).float()

    def _features(self, images: Tensor) -> Tensor:
        """Return what the head sees [N, channels]."""
        x = F.silu(self._stem(images), inplace=True)
        return through_groups(self._groups, x, residual=self._residual).amax((2, 3))


class _FoldedBlock:
    """A block of speednet, its batch normalization folded into the convolution."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self._weight, self._bias = (tensor.to(dtype) for tensor in _folded(block))
        self._kernels: dict[winograd.Tile, Tensor] = {}  # transformed, by the tiles they are for
        self._pools = isinstance(block.pool, nn.MaxPool2d)
        self._convolution, self._with_silu = (
            _Convolution(self._weight, self._bias, padding=1, then=then)
            for then in ("none", "swish")
        )

    def __call__(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Do what `Block.forward` does."""
        few = len(x) < _ENOUGH
        if few and not self._pools and shortcut is None:
            return self._with_silu(x)
        x = self._convolve(x)
        if self._pools:
            x = F.max_pool2d(x, 2) if few else _halve(x)
        if shortcut is not None:
            x += shortcut
        return F.silu(x, inplace=True)

    def _convolve(self, x: Tensor) -> Tensor:
        bf16 = x.dtype == torch.bfloat16
        tile = winograd.tile_that_pays(
            x.shape, self._weight.shape, even=self._pools, backward=False, bf16=bf16
        )
        if tile is None:
            return self._convolution(x)
        if tile not in self._kernels:
            self._kernels[tile] = winograd.transform_kernel(self._weight, tile)
        return winograd.convolve_tiles(x, self._kernels[tile], self._bias, tile, even=self._pools)


class _Convolution:
    """A convolution of stride 1 in oneDNN, with its weights in oneDNN's order, then a function.

    `padding`: on each side; `then`: "none", "relu" or "swish", which is SiLU. Which order of the
    weights is the fastest depends on the size of the images.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, padding: int, then: str) -> None:
        self._convolve = torch.ops.mkldnn._convolution_pointwise.default
        self._padding, self._then = [padding, padding], then
        self._weight, self._bias = weight.detach().clone(), bias.clone()
        self._ordered: dict[tuple[int, ...], Tensor] = {}  # by how many images, and their size

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W'], in channels_last memory."""
        size = (1 if len(x) < _ENOUGH else _BLOCK, *x.shape[1:])
        if size not in self._ordered:
            self._ordered[size] = self._order(size)
        y: Tensor = self._convolve(
            x.contiguous(memory_format=torch.channels_last),
            *(self._ordered[size], self._bias, self._padding, [1, 1], [1, 1], 1),
            *(self._then, [], ""),
        )
        return y

    def _order(self, size: tuple[int, ...]) -> Tensor:
        nn_functions: Any = torch._C._nn
        ordered: Tensor = nn_functions.mkldnn_reorder_conv2d_weight(
            self._weight.to_mkldnn(), self._padding, [1, 1], [1, 1], 1, list(size)
        )
        return ordered


def _by_blocks(features: Callable[[Tensor], Tensor], images: Tensor, block: int = _BLOCK) -> Tensor:
    """Return what `features` makes of images [N, C, H, W], block by block."""
    if len(images) < _ENOUGH:
        return features(images)
    with float32_products(images.device):
        return torch.cat([features(some) for some in torch.split(images, block)])


class _LinearReLU:
    """A fully connected layer in oneDNN, with its weights in oneDNN's order, then ReLU."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        weight = layer.weight.detach().to(dtype, copy=True)
        self._multiply = torch.ops.mkldnn._linear_pointwise.default
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _BLOCK)
        self._bias = _bias(layer).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs], of the layer's type."""
        y: Tensor = self._multiply(x, self._weight, self._bias, "relu", [], "")
        return y


class _ResponseNorm:
    """Local response normalization of what is not negative, with few passes over memory."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        self._start = norm.start.clone()
        self._scale = {torch.float32: 1.0, torch.bfloat16: STEEP if norm.bias == 1 else 1.0}
        self._band = {
            dtype: (norm.band.flatten(1) * scale).to(dtype) for dtype, scale in self._scale.items()
        }

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize `x` [..., C], contiguous; the result may share its memory."""
        rows = x.view(-1, x.shape[-1])
        band = self._band[x.dtype]
        if x.dtype == torch.float32:
            s = torch.addmm(self._start, rows * rows, band)
        else:
            scale = self._scale[x.dtype]
            sums = torch.mm(rows * rows, band)
            q = near_one(sums) if scale != 1 else None
            if q is not None:
                return times_power(rows, q).view(x.shape)
            s = torch.add(self._start, sums, alpha=1 / scale)
        s.rsqrt_()
        s.div_(s.rsqrt())  # s ** -0.75; roots and quotients take less time than a power
        return rows.mul_(s.to(x.dtype)).view(x.shape)


def _pool(x: Tensor, dim: int) -> Tensor:
    """Take maxima along `dim` of what is not negative, 3 wide, stride 2, padded as `SameMaxPool`.

    Without the indices of the maxima, which max_pool2d stores for a backward pass. The bits of
    numbers that are not negative are ordered as they are, and in bf16 compared faster.
    """
    if x.dtype == torch.bfloat16:
        return _pool(x.view(torch.int16), dim).view(torch.bfloat16)
    size = x.shape[dim]
    each = [slice(None)] * dim
    even, odd = x[(*each, slice(0, None, 2))], x[(*each, slice(1, None, 2))]
    inner = (size - 1) // 2  # windows that have three values
    if size % 2 == 0:
        y = torch.maximum(even, odd)
        torch.maximum(
            y.narrow(dim, 0, inner), even.narrow(dim, 1, inner), out=y.narrow(dim, 0, inner)
        )
    else:
        y = even.clone(memory_format=torch.contiguous_format)
        for start in (0, 1):
            some = y.narrow(dim, start, inner)
            torch.maximum(some, odd, out=some)
    return y


def _halve(x: Tensor) -> Tensor:
    """Take maxima of 2×2 pixels of [N, C, H, W]; a last odd row and column are left out."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(x[..., 0:width:2], x[..., 1:width:2])


def _folded(block: Block) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a block's convolution with its batch normalization in them."""
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


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach().clone()

"""A network that learns fast: whitening, then groups of convolutions with batch normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.errors import ConfigError
from deepcnn.hardware import runs_triton
from deepcnn.models.layers import SameConv2d
from deepcnn.models.network import INITIAL_BLOCK, INITIAL_IMAGES, Network

WIDTHS = (32, 96, 128)  # of the groups
MOST_PATCHES = 2**24  # values of pixels of which patches are made at once
WHITENING_EPSILON = 5e-4  # added to the variances, so that faint directions are not blown up


class Block(nn.Module):
    """A 3×3 convolution, max pooling by 2 if wanted, batch normalization, SiLU.

    The normalization has a bias but no scale. The convolution starts as the identity on as many
    channels as possible; all other filters have torch's default values.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        pool: bool,
        generator: torch.Generator,
        convolution: type[SameConv2d] = SameConv2d,
    ) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, 3, bias=False, even=pool)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(outputs, momentum=0.2)
        self.norm.weight.requires_grad_(False)
        nn.init.kaiming_uniform_(self.conv.weight, a=5**0.5, generator=generator)
        with torch.no_grad():
            nn.init.dirac_(self.conv.weight[: min(inputs, outputs)])

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H, W], or half of H and W after pooling.

        `shortcut`, of the output's shape, is added before SiLU.
        """
        x = self.conv(x)
        norm = self.norm
        is_written = type(norm) is nn.BatchNorm2d and not norm.weight.requires_grad
        if runs_triton(x) and is_written and (self.training or not torch.is_grad_enabled()):
            return self._in_few_passes(x, shortcut)
        x = norm(self.pool(x))
        return F.silu(x if shortcut is None else x + shortcut)

    def _in_few_passes(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Return what `forward` computes from a convolution's output."""
        from deepcnn.kernels.norm_silu import BatchNorm, evaluated_pool_norm_silu, pool_norm_silu

        norm, pool = self.norm, isinstance(self.pool, nn.MaxPool2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        known = BatchNorm(
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            norm.eps,
            norm.momentum,
        )
        compute = pool_norm_silu if self.training else evaluated_pool_norm_silu
        return compute(x, known, shortcut, pool=pool)


class _AfterStem(SameConv2d):
    """A `SameConv2d` whose images may have more channels, all zeros, which a GPU wants."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, inputs or more, H, W] to [N, outputs, H, W]."""
        more = input.shape[1] - self.in_channels
        if more <= 0:
            return super().forward(input)
        y: Tensor = self._conv_forward(input, F.pad(self.weight, (0, 0, 0, 0, 0, more)), None)
        return y


class Speednet(Network):
    """Whitening 2×2 convolution, three groups of blocks, global max pooling, a linear head.

    The first layer's filters are not parameters. They are the eigenvectors of the covariance of 2×2
    patches of the training images, scaled to variance 1, and their negatives; `initialize` sets
    them. `widths`: of the groups; before them there may be the number of filters of the first
    layer. With fewer filters than eigenvectors, those of the largest variances are kept; with more,
    the rest is zero. The ideas are those of Keller Jordan's airbench ("94% on CIFAR-10 in 3.29
    seconds on a single GPU", 2024) and David Page's "How to train your ResNet" (2018), with fewer
    filters.

    Each group first halves the image. For images below 9 pixels a side, only the last groups do:
    two if there are at least 5 pixels, else one.
    """

    depths: ClassVar[tuple[int, ...]] = (2, 2, 3)  # convolutions in each group
    residual: ClassVar[bool] = False  # add what a group's first block makes before its last SiLU
    smallest_side = 3

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        widths: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        first, widths = self._split(widths, channels)
        if len(widths) != len(self.depths):
            raise ConfigError(
                f"model.widths: speednet has {len(self.depths)} groups, found {len(widths)} widths"
            )
        side = min(height, width)
        if side < self.smallest_side:
            raise ConfigError(
                f"model: speednet halves its input and needs at least {self.smallest_side} pixels "
                f"a side, found {height} by {width}"
            )
        halving = min(len(self.depths), (side - 1).bit_length() - 1)
        self.smallest_side = 2**halving + 1  # images that grow are never smaller than that
        generator = torch.Generator().manual_seed(seed)
        self.stem = nn.Conv2d(channels, first, 2)
        self.stem.weight.requires_grad_(False)
        nn.init.zeros_(self.stem.weight)
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]  # there is a bias
        inputs = first
        for group, (outputs, depth) in enumerate(zip(widths, self.depths, strict=True), start=1):
            for k in range(1, depth + 1):
                convolution = _AfterStem if group == k == 1 else SameConv2d
                pool = k == 1 and group > len(widths) - halving
                block = Block(
                    inputs, outputs, pool=pool, generator=generator, convolution=convolution
                )
                self.add_module(f"group{group}_{k}", block)
                inputs = outputs
        self.head = nn.Linear(inputs, classes, bias=False)
        nn.init.uniform_(self.head.weight, -(3**0.5), 3**0.5, generator=generator)  # variance 1
        self.scale = 1 / inputs

    @classmethod
    def _split(cls, widths: tuple[int, ...], channels: int) -> tuple[int, tuple[int, ...]]:
        """Return how many filters the first layer has, and the widths of the groups."""
        widths = widths or WIDTHS
        if len(widths) == len(cls.depths) + 1:
            return widths[0], widths[1:]
        return 2 * 4 * channels, widths  # of each direction of 2×2 pixels, and its negative

    @classmethod
    def widths_to_take(
        cls, widths: tuple[int, ...], channels: int, weights: Mapping[str, Tensor]
    ) -> tuple[int, ...]:
        """Return the widths with as many filters in the first layer as `weights` have, by name.

        `widths`: the requested ones. `channels`: of the network's own images.
        """
        first, groups = cls._split(widths, channels)
        there = weights["stem.weight"].shape[0] if "stem.weight" in weights else first
        return widths if there == first or len(widths) > len(groups) else (there, *groups)

    @torch.no_grad()
    def initialize(self, images: Tensor) -> None:
        """Set the whitening filters from the first of `images` [N, C, H, W], undistorted input."""
        self.initialize_by_blocks(torch.split(images[:INITIAL_IMAGES], INITIAL_BLOCK))

    @override
    @torch.no_grad()
    def initialize_by_blocks(self, blocks: Iterable[Tensor]) -> None:
        products, count = torch.zeros(()), 0
        for block in blocks:
            pixels = block.permute(0, 2, 3, 1)
            at_once = max(1, min(INITIAL_BLOCK, MOST_PATCHES // pixels[0].numel()))
            for some in torch.split(pixels, at_once):
                patches = _patches(some)
                products = products.to(patches.device) + patches.t() @ patches
                count += len(patches)
        channels = len(products) // 4
        variances, directions = torch.linalg.eigh(products.cpu() / count)
        filters = (directions / (variances + WHITENING_EPSILON).sqrt()).t()
        filters = filters.reshape(-1, 2, 2, channels).permute(0, 3, 1, 2)
        wanted = len(self.stem.weight)
        filters = filters[-((wanted + 1) // 2) :]  # the largest variances come last
        both = torch.cat([filters, -filters])[:wanted]
        self.stem.weight.zero_()[: len(both)].copy_(both)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W], standardized, to logits [N, classes]."""
        x = through_groups(self.groups(), self._first(images), residual=self.residual)
        logits: Tensor = self.head(_maxima(x)) * self.scale
        return logits

    def _first(self, images: Tensor) -> Tensor:
        """Return the first group's input: [N, filters, H - 1, W - 1], perhaps with more zeros."""
        stem = self.stem
        watched = stem._forward_hooks or images.requires_grad or stem.weight.requires_grad
        if watched or not runs_triton(images) or images.shape[1] != stem.in_channels:
            return F.silu(stem(images))
        from deepcnn.kernels.norm_silu import first_silu

        kind = images.device.type
        lower = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if lower else images.dtype
        assert stem.bias is not None
        return first_silu(images, stem.weight, stem.bias, dtype)

    def groups(self) -> list[list[Block]]:
        """Return the blocks of each group."""
        blocks = iter([child for child in self.children() if isinstance(child, Block)])
        return [[next(blocks) for _ in range(depth)] for depth in self.depths]


def _patches(pixels: Tensor) -> Tensor:
    """Return all patches of 2×2 pixels [N, H, W, C] as rows of 4 × C values."""
    height, width = pixels.shape[1:3]
    corners = [(i, j) for i in (0, 1) for j in (0, 1)]
    parts = [pixels[:, i : height - 1 + i, j : width - 1 + j] for i, j in corners]
    return torch.cat(parts, 3).flatten(0, 2)


def _maxima(x: Tensor) -> Tensor:
    """Return the largest value of each channel: [N, C] of [N, C, H, W]."""
    if torch.compiler.is_compiling():
        # The derivative of amax looks for what equals the maximum. Compiled, what is in bf16 may be
        # computed again in float32, and then nothing does.
        return F.max_pool2d(x, (x.shape[2], x.shape[3])).flatten(1)
    return x.amax((2, 3))


class ResidualSpeednet(Speednet):
    """Speednet with three blocks in each group; the last one adds the output of the first.

    (The network of Jordan's airbench96, 2024; He et al.: "Deep residual learning", 2015.)
    """

    depths: ClassVar[tuple[int, ...]] = (3, 3, 3)
    residual: ClassVar[bool] = True


def through_groups(
    groups: Sequence[Sequence[Callable[[Tensor, Tensor | None], Tensor]]],
    x: Tensor,
    *,
    residual: bool,
) -> Tensor:
    """Return `x` [N, C, H, W] after all groups of blocks."""
    for first, *between, last in groups:
        x = first(x, None)
        shortcut = x if residual else None
        for block in between:
            x = block(x, None)
        x = last(x, shortcut)
    return x

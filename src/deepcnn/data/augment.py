"""From uint8 images to the network's input, for a whole batch at once on any device.

The reference distorts a training image in this order: random crop, horizontal flip with
probability 1/2, brightness (add u), contrast (of each channel about its own mean, times f),
standardization (subtract the image's mean, divide by its deviation). Nothing is clipped, so
brightness has no effect: contrast keeps a channel's mean m_c + u, and standardization subtracts
u with the image's mean, whichever of the two comes first. With m the mean of all m_c, and v_c the
variance of channel c over the crop, all that is left is one scale and one offset per channel:

    out = (f * (x - m_c) + m_c - m) / max(sqrt(f² * mean(v_c) + mean((m_c - m)²)), 1 / sqrt(n))

with n the number of values in the crop. The sums are taken over integers and are exact; m_c is
subtracted first, so that an image without contrast becomes zeros and not rounding errors.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deepcnn.data import order
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError


@dataclass(frozen=True)
class Draws:
    """The random choices for a batch of B images.

    `row`, `column`: int64 [B], where the crop starts in the padded image; `flip`: bool [B];
    `contrast`: float32 [B], the factor, or None for no change.
    """

    row: Tensor
    column: Tensor
    flip: Tensor
    contrast: Tensor | None


@dataclass(frozen=True)
class Inputs:
    """The training and the evaluation transform of a run, with the statistics of its data.

    `height`, `width`, `channels`: of the images; `crop_height`, `crop_width`: of the network's
    input; `pad`: pixels of reflection added at each edge before a random crop; `flip`: "random"
    (each time anew), "alternate" (each image every other epoch) or "none"; `contrast`: range of
    the factor, or None; `standardize`: by each "image" alone, or by the mean and the standard
    deviation of each channel of the training set ("dataset"), which `mean` and `std` hold, in
    pixel values of 0 to 255; "unit" only divides by 255.
    """

    height: int
    width: int
    channels: int
    crop_height: int
    crop_width: int
    pad: int
    flip: Literal["random", "alternate", "none"]
    contrast: tuple[float, float] | None
    standardize: Literal["image", "dataset", "unit"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        crop: float,
        pad: int,
        flip: Literal["random", "alternate", "none"],
        contrast: tuple[float, float] | None,
        standardize: Literal["image", "dataset", "unit"],
    ) -> Inputs:
        """Make the inputs for a training set; `crop` is the share of each side that is seen."""
        height, width, channels = source.shape
        if not 0 < crop <= 1 or not 0 <= pad < min(height, width):
            raise ConfigError(
                f"inputs: expected crop above 0 to 1 and pad 0 to {min(height, width) - 1} for "
                f"images of {height} by {width}, found crop {crop} and pad {pad}"
            )
        mean: tuple[float, ...] = ()
        std: tuple[float, ...] = ()
        if standardize == "dataset":
            mean, std = _statistics(source)
        elif standardize == "unit":
            mean, std = (0.0,) * channels, (255.0,) * channels
        return cls(
            height=height,
            width=width,
            channels=channels,
            crop_height=max(1, round(crop * height)),
            crop_width=max(1, round(crop * width)),
            pad=pad,
            flip=flip,
            contrast=contrast,
            standardize=standardize,
            mean=mean,
            std=std,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Inputs:
        """Undo `to_dict`, after JSON has turned tuples into lists."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return asdict(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return self.channels, self.crop_height, self.crop_width

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return self.height, self.width, self.channels

    @property
    def row_offsets(self) -> int:
        """How many places a crop can start at, vertically."""
        return self.height + 2 * self.pad - self.crop_height + 1

    @property
    def column_offsets(self) -> int:
        """How many places a crop can start at, horizontally."""
        return self.width + 2 * self.pad - self.crop_width + 1

    def draw(self, seed: int, *, index: Tensor, epoch: Tensor, position: Tensor) -> Draws:
        """Make the random choices for B examples: functions of (seed, epoch, position) alone.

        `index`, `epoch`, `position`: int64 [B], as a feed's batch has them.
        """
        row = order.bits(seed, order.ROW, epoch, position)
        column = order.bits(seed, order.COLUMN, epoch, position)
        if self.flip == "random":
            flip = (order.bits(seed, order.FLIP, epoch, position) & 1).bool()
        elif self.flip == "alternate":
            first = order.bits(seed, order.FLIP, torch.zeros_like(epoch), index)
            flip = ((first + epoch) & 1).bool()
        else:
            flip = torch.zeros_like(epoch, dtype=torch.bool)
        contrast = None
        if self.contrast is not None:
            low, high = self.contrast
            unit = order.unit(order.bits(seed, order.CONTRAST, epoch, position))
            contrast = low + (high - low) * unit.to(torch.float32)
        return Draws(
            order.below(self.row_offsets, row),
            order.below(self.column_offsets, column),
            flip,
            contrast,
        )

    def train(self, images: Tensor, draws: Draws) -> Tensor:
        """Distort a batch of training images (`distorted_inputs`).

        `images`: uint8 [B, H, W, C]. Returns float32 [B, C, crop height, crop width], its memory
        in channels_last order.
        """
        crops = crop(
            images,
            draws.row - self.pad,
            draws.column - self.pad,
            draws.flip,
            (self.crop_height, self.crop_width),
        )
        return self._standardize(crops, draws.contrast)

    def evaluate(self, images: Tensor) -> Tensor:
        """Prepare images for evaluation: the central crop, not distorted. Shapes as in `train`."""
        row = (self.height - self.crop_height) // 2
        column = (self.width - self.crop_width) // 2
        crops = images[:, row : row + self.crop_height, column : column + self.crop_width]
        return self._standardize(crops, None)

    def _standardize(self, crops: Tensor, contrast: Tensor | None) -> Tensor:
        if self.standardize == "image":
            centre, scale, offset = _by_image(crops, contrast)
        else:
            mean = torch.tensor(self.mean, dtype=torch.float32, device=crops.device)
            std = torch.tensor(self.std, dtype=torch.float32, device=crops.device)
            centre, scale, offset = mean[None], 1 / std[None], torch.zeros_like(mean)[None]
            if contrast is not None:
                centre = crops.sum((1, 2)) / (crops.shape[1] * crops.shape[2])
                scale, offset = scale * contrast[:, None], (centre - mean) / std
        values = torch.addcmul(
            offset[:, None, None, :], crops - centre[:, None, None, :], scale[:, None, None, :]
        )
        return values.permute(0, 3, 1, 2)


def crop(
    images: Tensor, row: Tensor, column: Tensor, flip: Tensor, size: tuple[int, int]
) -> Tensor:
    """Cut a window out of each image, and mirror it left to right where `flip` says so.

    `images`: uint8 [B, H, W, C]; `row`, `column`: int64 [B], where the windows start. What lies
    outside an image is its reflection about the edge pixels. Returns uint8 [B, *size, C].
    """
    height, width = size
    rows = row[:, None] + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device)
    columns = column[:, None] + torch.where(flip[:, None], width - 1 - across, across)
    rows = _reflect(rows, images.shape[1])
    columns = _reflect(columns, images.shape[2])
    each = torch.arange(len(images), device=images.device)
    return images[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices that lie up to size - 1 outside of [0, size) back into it."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _by_image(crops: Tensor, contrast: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return m_c, the scale and the offset of this module's docstring, each float32 [B, C]."""
    _, height, width, channels = crops.shape
    area = height * width
    total = crops.sum((1, 2))  # int64 [B, C]
    squares = crops.to(torch.int32).square().sum((1, 2))
    # `area²` times the variance of a channel, and `(channels * area)²` times the variance of the
    # channels' means: integers, so that nothing cancels.
    within = (area * squares - total.square()).sum(1)
    between = channels * total.square().sum(1) - total.sum(1).square()
    factor = torch.ones(len(crops), device=crops.device) if contrast is None else contrast
    variance = (
        factor.square() * within.to(torch.float32) / (channels * area**2)
        + between.to(torch.float32) / (channels * area) ** 2
    )
    deviation = variance.sqrt().clamp_min(1 / math.sqrt(channels * area))[:, None]
    image_total = total.sum(1, keepdim=True)
    from_image_mean = (channels * total - image_total).to(torch.float32) / (channels * area)
    return total / area, factor[:, None] / deviation, from_image_mean / deviation


def _statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of each channel over all pixels."""
    height, width, channels = source.shape
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    for images, _ in source.blocks():
        values = torch.from_numpy(images).reshape(-1, channels).to(torch.float32)
        total += values.sum(0, dtype=torch.float64)
        squares += values.square().sum(0, dtype=torch.float64)
    pixels = len(source) * height * width
    mean = total / pixels
    std = (squares / pixels - mean.square()).sqrt().clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())

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

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn import hashing
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError
from deepcnn.hardware import runs_triton
from deepcnn.kernels.crop import crop
from deepcnn.kernels.resize import resize_by_products


@dataclass(frozen=True)
class Draws:
    """The random choices for a batch of B images.

    `row`, `column`: int64 [B], where the crop starts in the padded image; `flip`: bool [B];
    `contrast`: float32 [B], the factor, or None for no change; `cut_row`, `cut_column`: int64 [B],
    where the square that is blanked starts in the crop, or None for no such square.
    """

    row: Tensor
    column: Tensor
    flip: Tensor
    contrast: Tensor | None = None
    cut_row: Tensor | None = None
    cut_column: Tensor | None = None


@dataclass(frozen=True)
class Transform:
    """The training and the evaluation transform of a run, with the statistics of its data.

    `height`, `width`, `channels`: of the images; `crop_height`, `crop_width`: of the network's
    input; `pad`: pixels of reflection added at each edge before a random crop; `flip`: "random"
    (each time anew), "alternate" (each image every other epoch) or "none"; `contrast`: range of
    the factor, or None; `cutout`: pixels a side of the square, wholly inside, that becomes zero in
    a standardized image, 0 for none (DeVries and Taylor: "Improved regularization of convolutional
    neural networks with cutout", 2017); `standardize`: by each "image" alone, or by the mean and
    the standard deviation of each channel of the training set ("dataset"), which `mean` and `std`
    hold, in pixel values of 0 to 255; "unit" only divides by 255; `scales`: from which share of the
    training on distorted images are scaled to which share of each side, empty for never, but not to
    less than `least_side` pixels. (Images that grow while a network is trained: Howard et al.,
    DAWNBench, 2018; Karras et al., "Progressive growing of GANs", 2018.) `views`: over which views
    of an image scoring averages, see `views_of`.
    """

    height: int
    width: int
    channels: int
    crop_height: int
    crop_width: int
    pad: int
    flip: Literal["random", "alternate", "none"]
    contrast: tuple[float, float] | None
    cutout: int
    standardize: Literal["image", "dataset", "unit"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scales: tuple[tuple[float, float], ...]
    least_side: int
    views: Literal["one", "mirrored", "shifted", "unsure"]

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
        cutout: int = 0,
        scales: tuple[tuple[float, float], ...] = (),
        least_side: int = 1,
        views: Literal["one", "mirrored", "shifted", "unsure"] = "one",
    ) -> Transform:
        """Make the inputs for a training set; `crop` is the share of each side that is seen."""
        height, width, channels = source.shape
        if not 0 < crop <= 1 or not 0 <= pad < min(height, width):
            raise ConfigError(
                f"inputs: expected crop above 0 to 1 and pad 0 to {min(height, width) - 1} for "
                f"images of {height} by {width}, found crop {crop} and pad {pad}"
            )
        crop_height, crop_width = max(1, round(crop * height)), max(1, round(crop * width))
        if views in ("shifted", "unsure") and min(crop_height, crop_width) < 2:
            raise ConfigError(
                "inputs: shifted views need at least 2 pixels a side, found "
                f"{crop_height} by {crop_width}"
            )
        if not 0 <= cutout <= min(crop_height, crop_width):
            raise ConfigError(
                f"inputs.cutout: expected 0 to {min(crop_height, crop_width)} for a network's "
                f"input of {crop_height} by {crop_width}, found {cutout}"
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
            crop_height=crop_height,
            crop_width=crop_width,
            pad=pad,
            flip=flip,
            contrast=contrast,
            cutout=cutout,
            standardize=standardize,
            mean=mean,
            std=std,
            scales=scales,
            least_side=least_side,
            views=views,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Transform:
        """Undo `to_dict`, after JSON has turned tuples into lists."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        fields["scales"] = tuple(tuple(pair) for pair in fields["scales"])
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

    @property
    def drawn(self) -> tuple[str, ...]:
        """The fields of `Draws` that hold choices for these inputs."""
        names: tuple[str, ...] = ("row", "column", "flip")
        names += ("contrast",) if self.contrast is not None else ()
        return names + (("cut_row", "cut_column") if self.cutout else ())

    def draw(self, seed: int, *, index: Tensor, epoch: Tensor, position: Tensor) -> Draws:
        """Make the random choices for B examples: functions of (seed, epoch, position) alone.

        `index`, `epoch`, `position`: int64 [B], as a feed's batch has them.
        """
        cut_streams = (hashing.CUT_ROW, hashing.CUT_COLUMN) if self.cutout else ()
        streams = (hashing.ROW, hashing.COLUMN, hashing.FLIP, hashing.CONTRAST, *cut_streams)
        if epoch.device.type == "cpu":  # NumPy is quicker where numbers are few
            found = hashing.bits(seed, streams, epoch.numpy(), position.numpy())
            bits = torch.from_numpy(found).unbind()
        else:
            # one by one: their keys in a tensor would be copied to a GPU, which then is waited for
            bits = tuple(hashing.bits(seed, stream, epoch, position) for stream in streams)
        row, column, flip_bits, contrast_bits, *cut = bits
        if self.flip == "random":
            flip = (flip_bits & 1).bool()
        elif self.flip == "alternate":
            first = hashing.bits(seed, hashing.FLIP, torch.zeros_like(epoch), index)
            flip = ((first + epoch) & 1).bool()
        else:
            flip = torch.zeros_like(epoch, dtype=torch.bool)
        draws = {
            "row": hashing.below(self.row_offsets, row),
            "column": hashing.below(self.column_offsets, column),
            "flip": flip,
        }
        if self.contrast is not None:
            low, high = self.contrast
            draws["contrast"] = low + (high - low) * hashing.unit(contrast_bits).to(torch.float32)
        if self.cutout:
            draws["cut_row"] = hashing.below(self.crop_height - self.cutout + 1, cut[0])
            draws["cut_column"] = hashing.below(self.crop_width - self.cutout + 1, cut[1])
        return Draws(**draws)

    def scale_at(self, progress: float) -> float:
        """Return the share of each side that is used at `progress`, 0 to below 1, of training."""
        return next((scale for start, scale in reversed(self.scales) if start <= progress), 1.0)

    def work_at(self, progress: float) -> float:
        """Return the share of the work that is done at `progress`, 0 to 1, of the training.

        A step's work is taken to go with the pixels.
        """
        phases = self.scales or ((0.0, 1.0),)
        stops = [*(start for start, _ in phases[1:]), 1.0]
        done, total = (
            sum(
                scale**2 * max(0.0, min(until, stop) - start)
                for (start, scale), stop in zip(phases, stops, strict=True)
            )
            for until in (progress, 1.0)
        )
        return done / total

    def scaled(self, scale: float) -> tuple[int, int]:
        """Return height and width of the network's input at a share of each side."""
        height, width = (
            max(min(side, self.least_side), round(scale * side))
            for side in (self.crop_height, self.crop_width)
        )
        return height, width

    def train(self, images: Tensor, draws: Draws, scale: float = 1.0) -> Tensor:
        """Distort a batch of training images (`distorted_inputs`).

        `images`: uint8 [B, H, W, C]. Returns float32 [B, C, *scaled(scale)], its memory in
        channels_last order.
        """
        size = (self.crop_height, self.crop_width)
        where = draws.row, draws.column, draws.flip
        if runs_triton(images) and self.standardize != "image" and draws.contrast is None:
            from deepcnn.kernels.crop_triton import crop_and_standardize

            mean, std = _on_device(self.mean, images.device), _on_device(self.std, images.device)
            distorted = crop_and_standardize(
                images, where, size, pad=self.pad, mean=mean, scale=1 / std
            )
        else:
            distorted = self._standardize(crop(images, *where, size, pad=self.pad), draws.contrast)
        if draws.cut_row is not None and draws.cut_column is not None:
            down = torch.arange(self.crop_height, device=images.device) - draws.cut_row[:, None]
            across = torch.arange(self.crop_width, device=images.device) - draws.cut_column[:, None]
            blanked = _within(down, self.cutout)[:, :, None] & _within(across, self.cutout)[:, None]
            distorted.masked_fill_(blanked[:, None], 0.0)
        if scale == 1.0:
            return distorted
        if images.device.type == "cpu":
            return F.interpolate(distorted, self.scaled(scale), mode="bilinear")
        return resize_by_products(distorted, self.scaled(scale))

    def evaluate(self, images: Tensor) -> Tensor:
        """Prepare images for evaluation: the central crop, not distorted. Shapes as in `train`."""
        row = (self.height - self.crop_height) // 2
        column = (self.width - self.crop_width) // 2
        crops = images[:, row : row + self.crop_height, column : column + self.crop_width]
        return self._standardize(crops, None)

    def views_of(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Return the views that scoring averages over, each with its weight; the weights sum to 1.

        "one": what `evaluate` returns; "mirrored": that and its mirror image; "shifted": half the
        weight for these two, and half for `shifted_views_of`; "unsure": as "mirrored", and who
        scores asks for `shifted_views_of` the images that these leave unsure.
        """
        central = self.evaluate(images)
        if self.views == "one":
            return [(1.0, central)]
        both = [(0.5, central), (0.5, central.flip(3))]
        if self.views != "shifted":
            return both
        return [(weight / 2, view) for weight, view in [*both, *_shifted(central)]]

    def shifted_views_of(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Return views with weights that sum to 1, for images uint8 [B, H, W, C].

        They are `evaluate`'s, shifted by a pixel up and left, and down and right, over reflected
        edges, and their mirror images. (Jordan's airbench, 2024.)
        """
        return _shifted(self.evaluate(images))

    def _standardize(self, crops: Tensor, contrast: Tensor | None) -> Tensor:
        """Apply `(x - centre) * scale + offset`, three passes over memory that is still cached."""
        if contrast is None and torch.compiler.is_compiling():
            return self._in_a_graph(crops)
        count, height, width, channels = crops.shape
        values = crops.to(torch.float32).reshape(count, height, width * channels)
        if self.standardize == "image":
            sums, squares = channel_sums(values, channels), channel_sums(values.square(), channels)
            parts = image_moments(sums, squares, contrast, area=height * width)
        else:
            mean, std = _on_device(self.mean, crops.device), _on_device(self.std, crops.device)
            parts = torch.stack([mean, 1 / std, torch.zeros_like(mean)])[:, None]
            if contrast is not None:
                centre = channel_sums(values, channels) / (height * width)
                parts = torch.stack([centre, contrast[:, None] / std, (centre - mean) / std])
        # The same for each pixel of a row, since loops over the channels alone would be slow.
        centre, scale, offset = parts.repeat(1, 1, width)[:, :, None]
        values.sub_(centre).mul_(scale).add_(offset)
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _in_a_graph(self, crops: Tensor) -> Tensor:
        """Do the same without contrast, where it is traced to be computed elsewhere.

        In float32 alone, since some runtimes have no int64 and no float64. Means are subtracted
        before anything is squared, so that nothing large cancels; they are taken of rows, then of
        columns, so that the mean of equal values is exact.
        """
        values = crops.to(torch.float32).permute(0, 3, 1, 2)
        if self.standardize != "image":
            mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
            return (values - mean) / std
        values = values - _mean_of_each(values)
        deviation = _mean_of_each(values.square()).sqrt()
        return values / deviation.clamp_min(1 / math.sqrt(math.prod(self.shape)))


def _shifted(central: Tensor) -> list[tuple[float, Tensor]]:
    height, width = central.shape[2:]
    padded = F.pad(central, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[:, :, i : i + height, i : i + width] for i in (0, 2)]
    return [(0.25, view) for view in [*shifted, *(view.flip(3) for view in shifted)]]


def _mean_of_each(values: Tensor) -> Tensor:
    """Return the mean of each image of [N, C, H, W]: [N, 1, 1, 1]."""
    return values.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


@functools.lru_cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return constants as float32, copied to the device once, since a GPU waits for each copy."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def channel_sums(values: Tensor, channels: int) -> Tensor:
    """Sum each channel of integers in float32 [B, H, W·C] over the pixels: int64 [B, C], exact.

    Columns are summed first, since float32 holds sums of 256 squares of pixels exactly, in any
    order of summation, and few numbers are left for the slower integers.
    """
    if values.shape[1] > 256:
        values = values.to(torch.float64)
    columns = values.sum(1).to(torch.int64)
    return columns.view(len(values), -1, channels).sum(1)


def image_moments(sums: Tensor, squares: Tensor, contrast: Tensor | None, *, area: int) -> Tensor:
    """Return m_c, the scale and the offset of this module's docstring: float32 [3, B, C].

    `sums`, `squares`: int64 [B, C], of the pixels and of their squares, over `area` pixels.
    """
    if sums.device.type == "cpu":  # NumPy is quicker where numbers are few
        factor = None if contrast is None else contrast.numpy().astype(np.float64)
        found = moments(sums.numpy(), squares.numpy(), factor, area)
        return torch.from_numpy(np.stack(found).astype(np.float32))
    return torch.stack(moments(sums, squares, contrast, area)).to(torch.float32)


def moments(sums: Any, squares: Any, factor: Any, area: int) -> tuple[Any, Any, Any]:
    """Do the arithmetic of `image_moments`, on NumPy arrays or torch tensors."""
    channels = sums.shape[1]
    of_sums = (sums * sums).sum(1)
    image = sums.sum(1)
    # `area²` times the variance of a channel, and `(channels * area)²` times the variance of the
    # channels' means: integers, so that nothing cancels.
    within = (area * squares.sum(1) - of_sums) / (channels * area**2)
    between = (channels * of_sums - image * image) / (channels * area) ** 2
    if factor is not None:
        within = factor * factor * within
    deviation = ((within + between) ** 0.5).clip(min=1 / math.sqrt(channels * area))
    scale = (1 if factor is None else factor) / deviation
    scale = scale[:, None] + 0.0 * sums  # the same for all channels: [B, C], as the others
    offset = (channels * sums - image[:, None]) / (channels * area * deviation[:, None])
    return sums / area, scale, offset


def _statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of each channel over all pixels."""
    height, width, channels = source.shape
    total, squares = torch.zeros(2, height * width * channels, dtype=torch.float64)
    # So few images that float32 holds the sums of squares exactly, and the cache all there is.
    count = max(1, min(256, 2**20 // len(total)))
    for images, _ in source.blocks():
        for some in torch.split(torch.from_numpy(images).flatten(1), count):
            values = some.to(torch.float32)
            total += values.sum(0)
            squares += values.square_().sum(0)
    total, squares = (sums.view(-1, channels).sum(0) for sums in (total, squares))
    pixels = len(source) * height * width
    mean = total / pixels
    std = (squares / pixels - mean.square()).sqrt().clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())

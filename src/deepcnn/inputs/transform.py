"""From uint8 images to the network's input, for a whole batch at once on any device.

A training image is distorted in this order:

1. It is rotated about its centre, and moved. A window is cut out of it, and mirrored. Beyond the
   edges, the image is continued by its reflection.
2. Brightness is added, and clipped to 0 to 255. Then its saturation is multiplied, and its hue
   turned; both stay within 0 to 255 by themselves.
3. A rectangle of it is erased.
4. The contrast of each channel is multiplied, about the channel's own mean. As in the reference,
   nothing is clipped here. Then the image is standardized (see `standardize`).
5. A square of it is blanked. If images grow, it is scaled.

After each of the first three steps it is a picture again, uint8. At the end it may be mixed with
another image of the batch (see `mixing`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn import hashing
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError
from deepcnn.hardware import runs_triton
from deepcnn.inputs import erasing, mixing
from deepcnn.inputs.draws import Draws, hashed, uniform
from deepcnn.inputs.mean_image import mean_image_of, without_mean_image
from deepcnn.inputs.standardize import Statistics, on_device, standardize, statistics_of
from deepcnn.inputs.views import shifted, ten_crops
from deepcnn.kernels.boxes import inside
from deepcnn.kernels.colour import brighten, recolour
from deepcnn.kernels.crop import crop
from deepcnn.kernels.resize import resize_by_products
from deepcnn.kernels.rotate import crop_turned
from deepcnn.settings import Views


@dataclass(frozen=True)
class Transform:
    """The training and the evaluation transform of a run, with the statistics of its data.

    `height`, `width`, `channels`: of the images. `crop_height`, `crop_width`: of the network's
    input. `pad`: pixels of reflection added at each edge before a random crop. `flip`: "random" (a
    new choice each time), "alternate" (each image every other epoch) or "none". `contrast`: range
    of the factor, or None. `cutout`: side, in pixels, of a square inside the standardized image
    that becomes zero; 0 for none (DeVries and Taylor: "Improved regularization of convolutional
    neural networks with cutout", 2017).

    `standardize`: "image" uses each image's own mean and standard deviation. "dataset" uses those
    of each channel of the training set, which `mean` and `std` hold, in pixel values of 0 to 255.
    "unit" only divides by 255. "mean_image" only subtracts the mean image (see `mean_image`);
    `mean` then holds its crop_height · crop_width · channels values.

    `scales`: pairs of a share of the training and a share of each side. From that share of the
    training on, distorted images are scaled to that share of each side, but to no less than
    `least_side` pixels. Empty: never. (Images that grow while a network is trained: Howard et al.,
    DAWNBench, 2018; Karras et al., "Progressive growing of GANs", 2018.) `views`: the views of an
    image over which scoring averages; see `views_of`.

    `translation`: largest shift up, down, left and right, in whole pixels. `rotation`: largest
    angle to either side, in degrees. `brightness`: largest amount that is added or subtracted, in
    pixel values. `saturation`: range of the factor, or None. `hue`: largest turn to either side, as
    a share of the circle. `erase`: the probability of random erasing. `mixup`, `cutmix`: their
    alphas. All are drawn from uniform distributions, and 0 means never.
    """

    height: int
    width: int
    channels: int
    crop_height: int
    crop_width: int
    pad: int
    flip: Literal["random", "alternate", "none"]
    contrast: tuple[float, float] | None
    standardize: Literal["image", "dataset", "unit", "mean_image"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cutout: int = 0
    scales: tuple[tuple[float, float], ...] = ()
    least_side: int = 1
    views: Views = "one"
    translation: int = 0
    rotation: float = 0.0
    brightness: float = 0.0
    saturation: tuple[float, float] | None = None
    hue: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        crop: float,
        standardize: Literal["image", "dataset", "unit", "mean_image"],
        **settings: Any,
    ) -> Transform:
        """Make the inputs for a training set.

        `crop`: the share of each side that the network sees. `settings`: the other fields, except
        for the sizes, `mean` and `std`. Raises ConfigError for settings that images of this size
        cannot have.
        """
        height, width, channels = source.shape
        crop_height, crop_width = (max(1, round(crop * side)) for side in (height, width))
        mean: tuple[float, ...] = ()
        std: tuple[float, ...] = ()
        if standardize == "dataset":
            mean, std = statistics_of(source)
        elif standardize == "unit":
            mean, std = (0.0,) * channels, (255.0,) * channels
        elif standardize == "mean_image":
            mean = mean_image_of(source, (crop_height, crop_width))
        made = cls(
            height=height,
            width=width,
            channels=channels,
            crop_height=crop_height,
            crop_width=crop_width,
            standardize=standardize,
            mean=mean,
            std=std,
            **settings,
        )
        made._check(crop)
        return made

    def _check(self, crop: float) -> None:
        least = min(self.height, self.width)
        found = f"images of {self.height} by {self.width}"
        if not 0 < crop <= 1 or not 0 <= self.pad < least:
            raise ConfigError(
                f"inputs: expected crop above 0 to 1 and pad 0 to {least - 1} for {found}, found "
                f"crop {crop} and pad {self.pad}"
            )
        if not self.pad + self.translation < least:
            raise ConfigError(
                f"inputs.translation: expected pad and translation of at most {least - 1} together "
                f"for {found}, found {self.pad} and {self.translation}"
            )
        if (self.saturation is not None or self.hue) and self.channels != 3:
            raise ConfigError(
                "inputs: expected images of red, green and blue for saturation and hue, found "
                f"{self.channels} channels; leave both out"
            )
        if not 0 <= self.cutout <= min(self.shape[1:]):
            raise ConfigError(
                f"inputs.cutout: expected 0 to {min(self.shape[1:])} for a network's input of "
                f"{self.crop_height} by {self.crop_width}, found {self.cutout}"
            )
        self._check_views()

    def _check_views(self) -> None:
        found = f"{self.crop_height} by {self.crop_width}"
        if self.views in ("shifted", "unsure") and min(self.shape[1:]) < 2:
            raise ConfigError(f"inputs: shifted views need at least 2 pixels a side, found {found}")
        if self.views == "ten" and self.shape[1:] == self.image_shape[:2]:
            raise ConfigError(
                "inputs: ten views are the centre and the four corners, so they need a network's "
                f"input that is smaller than the images, found {found} of both. Choose other "
                "views, or a crop below 1"
            )

    def seen_from(self, views: Views) -> Transform:
        """Return the transform with other views; raise ConfigError if it cannot have them."""
        changed = replace(self, views=views)
        changed._check_views()
        return changed

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
        """Return the fields in a form that JSON can hold."""
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
    def statistics(self) -> Statistics | None:
        """What `standardize` subtracts and divides by; None: each image's own statistics."""
        return None if self.standardize == "image" else (self.mean, self.std)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others of the batch, after `train`."""
        return bool(self.mixup or self.cutmix)

    def _ranges(self) -> dict[str, tuple[int, float, float]]:
        """Return the stream, the least and the largest value of each choice that is uniform."""
        ranges = {
            "contrast": (hashing.CONTRAST, self.contrast),
            "brightness": (hashing.BRIGHTNESS, _either_side(self.brightness)),
            "saturation": (hashing.SATURATION, self.saturation),
            "hue": (hashing.HUE, _either_side(self.hue)),
            "angle": (hashing.ANGLE, _either_side(self.rotation)),
        }
        return {
            name: (stream, *limits)
            for name, (stream, limits) in ranges.items()
            if limits is not None
        }

    def draw(self, seed: int, *, index: Tensor, epoch: Tensor, position: Tensor) -> Draws:
        """Make the random choices for B examples; they depend on (seed, epoch, position) alone.

        `index`, `epoch`, `position`: int64 [B], from a feed's batch.
        """
        ranges = self._ranges()
        streams = (hashing.ROW, hashing.COLUMN, hashing.FLIP, *(r[0] for r in ranges.values()))
        streams += (hashing.CUT_ROW, hashing.CUT_COLUMN) if self.cutout else ()
        streams += (hashing.SHIFT_ROW, hashing.SHIFT_COLUMN) if self.translation else ()
        streams += erasing.STREAMS if self.erase else ()
        streams += mixing.STREAMS if self.mixes else ()
        bits = hashed(seed, streams, epoch, position)
        draws = {
            "row": hashing.below(self.row_offsets, bits[hashing.ROW]),
            "column": hashing.below(self.column_offsets, bits[hashing.COLUMN]),
            "flip": self._flips(seed, bits[hashing.FLIP], index, epoch),
        }
        for name, (stream, low, high) in ranges.items():
            draws[name] = uniform(low, high, bits[stream])
        if self.translation:
            shifts = 2 * self.translation + 1
            draws["row"] += hashing.below(shifts, bits[hashing.SHIFT_ROW])
            draws["column"] += hashing.below(shifts, bits[hashing.SHIFT_COLUMN])
        if self.cutout:
            rows, columns = (side - self.cutout + 1 for side in self.shape[1:])
            draws["cut_row"] = hashing.below(rows, bits[hashing.CUT_ROW])
            draws["cut_column"] = hashing.below(columns, bits[hashing.CUT_COLUMN])
        if self.erase:
            draws |= erasing.draw(self.erase, self.shape[1:], bits)
        if self.mixes:
            draws |= mixing.draw(self.mixup, self.cutmix, bits)
        return Draws(**draws)

    def _flips(self, seed: int, bits: Tensor, index: Tensor, epoch: Tensor) -> Tensor:
        if self.flip == "random":
            return (bits & 1).bool()
        if self.flip == "alternate":
            bits = epoch + hashing.bits(seed, hashing.FLIP, torch.zeros_like(epoch), index)
            return (bits & 1).bool()
        return torch.zeros_like(epoch, dtype=torch.bool)

    def scale_at(self, progress: float) -> float:
        """Return the share of each side that is used at `progress`, 0 to below 1, of training."""
        return next((scale for start, scale in reversed(self.scales) if start <= progress), 1.0)

    def work_at(self, progress: float) -> float:
        """Return the share of the work that is done at `progress`, 0 to 1, of the training.

        The work of a step is assumed to be proportional to the pixels.
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
        if runs_triton(images) and self._crops_only(draws):
            from deepcnn.kernels.crop_triton import crop_and_standardize

            mean, std = (on_device(each, images.device) for each in (self.mean, self.std))
            distorted = crop_and_standardize(
                images,
                (draws.row, draws.column, draws.flip),
                self.shape[1:],
                pad=self.pad + self.translation,
                mean=mean,
                scale=1 / std,
            )
        else:
            pictures = self.pictures(images, draws)
            distorted = self._standardize(pictures, draws.contrast)
        if draws.cut_row is not None and draws.cut_column is not None:
            side = self.cutout
            blanked = inside(draws.cut_row, draws.cut_column, side, side, self.shape[1:])
            distorted.masked_fill_(blanked[:, None], 0.0)
        if scale == 1.0:
            return distorted
        if images.device.type == "cpu":
            return F.interpolate(distorted, self.scaled(scale), mode="bilinear")
        return resize_by_products(distorted, self.scaled(scale))

    def pictures(self, images: Tensor, draws: Draws) -> Tensor:
        """Distort training images as far as they stay pictures: all before the contrast.

        `images`: uint8 [B, H, W, C]. Returns uint8 [B, crop_height, crop_width, C].
        """
        where, size = (draws.row, draws.column, draws.flip), self.shape[1:]
        margin = self.pad + self.translation
        if draws.angle is None:
            pictures = crop(images, *where, size, pad=margin)
        else:
            pictures = crop_turned(images, where, draws.angle, size, pad=margin)
        if draws.brightness is not None:
            pictures = brighten(pictures, draws.brightness)
        if draws.saturation is not None or draws.hue is not None:
            pictures = recolour(pictures, draws.saturation, draws.hue)
        return pictures if draws.erase_key is None else erasing.erase(pictures, draws)

    def _crops_only(self, draws: Draws) -> bool:
        """Tell whether images are only cropped, mirrored, and standardized by fixed numbers."""
        more = (draws.angle, draws.brightness, draws.saturation, draws.hue, draws.erase_key)
        by_channel = self.standardize in ("dataset", "unit")
        return by_channel and draws.contrast is None and more == (None,) * 5

    def evaluate(self, images: Tensor) -> Tensor:
        """Prepare images for evaluation: the central crop, undistorted. Shapes as in `train`."""
        row = (self.height - self.crop_height) // 2
        column = (self.width - self.crop_width) // 2
        crops = images[:, row : row + self.crop_height, column : column + self.crop_width]
        return self._standardize(crops, None)

    def views_of(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Return the views that scoring averages over, each with its weight; the weights sum to 1.

        "one": what `evaluate` returns. "mirrored": this and its mirror image. "shifted": half the
        weight for these two, and half for `shifted_views_of`. "unsure": like "mirrored"; the
        scoring code then asks for `shifted_views_of` the images that these leave unsure. "ten": the
        crops at the centre and in the four corners, and their mirror images. Logits are averaged;
        for "ten", probabilities are.
        """
        if self.views == "ten":
            crops = ten_crops(images, (self.crop_height, self.crop_width))
            return [(0.1, self._standardize(crop, None)) for crop in crops]
        central = self.evaluate(images)
        if self.views == "one":
            return [(1.0, central)]
        both = [(0.5, central), (0.5, central.flip(3))]
        if self.views != "shifted":
            return both
        return [(weight / 2, view) for weight, view in [*both, *shifted(central)]]

    def shifted_views_of(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Return views with weights that sum to 1, for images uint8 [B, H, W, C].

        They are the images of `evaluate`, shifted by a pixel, and their mirror images.
        """
        return shifted(self.evaluate(images))

    def _standardize(self, pictures: Tensor, contrast: Tensor | None) -> Tensor:
        if self.standardize == "mean_image":
            return without_mean_image(pictures, self.mean, contrast)
        return standardize(pictures, contrast, self.statistics)


def _either_side(most: float) -> tuple[float, float] | None:
    return (-most, most) if most else None

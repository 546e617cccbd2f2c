"""The groups of settings that a configuration is made of: network, inputs, optimizer, data."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from deepcnn.errors import ConfigError

NETWORKS = ("tutorial", "speednet", "residual_speednet", "mlp", "cuda_convnet")
MOST_PIXELS = 2**26 // 3  # of an image of a set
MOST_FILTERS = 2**16  # or units, of a layer
Fit = Literal["crop", "pad", "squeeze"]
Views = Literal["one", "mirrored", "shifted", "unsure", "ten"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: str
    """The network: tutorial, speednet, residual_speednet, mlp, cuda_convnet; or your own, as
    package.module:function, which makes an nn.Module."""
    widths: tuple[int, ...] = ()
    """Filters or units of its layers; empty: those of the literature. For speednet, the filters of
    its groups; you may put those of its first layer before them (else 8 for each channel)."""

    def __post_init__(self) -> None:
        own = re.fullmatch(r"[\w.]+:[\w.]+|\(.*\)", self.name)  # in parentheses: no name to import
        if self.name not in NETWORKS and own is None:
            near = difflib.get_close_matches(self.name, NETWORKS, n=1)
            raise ConfigError(
                f"model.name: expected one of {', '.join(NETWORKS)}, or package.module:function, "
                f"found {self.name!r}" + (f". Did you mean {near[0]}?" if near else "")
            )
        if not all(0 < width <= MOST_FILTERS for width in self.widths):
            raise ConfigError(
                f"model.widths: expected numbers of 1 to {MOST_FILTERS:,}, found {self.widths}"
            )


@dataclass(frozen=True)
class TransformConfig:
    """How images become the network's input."""

    crop: float = 1.0
    """Share of each side that the network sees: a random part in training, otherwise the middle."""
    pad: int = 0
    """Pixels of reflection added at each edge before a random crop."""
    flip: Literal["random", "alternate", "none"] = "random"
    """Mirror images left to right: at random; every other epoch (alternate); or never."""
    contrast: tuple[float, float] | None = None
    """Range of the random contrast factor."""
    cutout: int = 0
    """Side, in pixels, of a square that is blanked at a random place in each training image."""
    standardize: Literal["image", "dataset", "unit", "mean_image"] = "dataset"
    """image, dataset: subtract the mean and divide by the deviation, of each image or of the
    training set's channels. unit: only scale pixels to 0 to 1. mean_image: only subtract the
    training set's mean image."""
    scales: tuple[tuple[float, float], ...] = ()
    """Growing images. Each pair names a share of the training, and the share of each side to which
    images are scaled from then on. They never get smaller than the network needs. Empty: images
    always have their full size. Only for networks that take any size."""
    views: Views = "one"
    """Views of an image over which scoring averages the network's answers. one: the image alone.
    mirrored: also its mirror image. shifted: both of these also shifted by a pixel, up left and
    down right. unsure: like shifted, but only for the quarter of the images of which the first two
    views leave the network least sure. ten: crops at the centre and in the four corners, and their
    mirror images; here probabilities are averaged."""
    translation: int = 0
    """Largest shift of a training image up, down, left and right, in pixels, over reflected edges.
    It comes on top of the shift by a random crop with pad."""
    rotation: float = 0.0
    """Largest angle by which a training image is turned to either side, in degrees, 0 to 180."""
    brightness: float = 0.0
    """Largest amount that is added to or subtracted from a training image, in pixel values, 0 to
    255. The result is clipped to 0 to 255."""
    saturation: tuple[float, float] | None = None
    """Range of the factor of a training image's saturation. 0 gives gray, 1 changes nothing."""
    hue: float = 0.0
    """Largest turn of a training image's hue to either side, as a share of the colour circle, 0 to
    0.5."""
    erase: float = 0.0
    """Random erasing: the probability that a rectangle of a training image is filled with random
    values. It covers 2 to 40 % of the area."""
    mixup: float = 0.0
    """MixUp: two training images and their labels are blended. This is the alpha of the beta
    distribution of their shares; 0: never."""
    cutmix: float = 0.0
    """CutMix: a rectangle of another training image is pasted in, and the label is shared by area.
    This is the alpha of the beta distribution of the area; 0: never. If mixup is set too, each
    image gets one of the two."""

    def __post_init__(self) -> None:
        at_least(
            ("inputs.translation", self.translation, 0),
            ("inputs.mixup", self.mixup, 0),
            ("inputs.cutmix", self.cutmix, 0),
            ("inputs.pad", self.pad, 0),
            ("inputs.cutout", self.cutout, 0),
        )
        for name, most in (("rotation", 180), ("brightness", 255), ("hue", 0.5), ("erase", 1)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ConfigError(f"inputs.{name}: expected 0 to {most}, found {value}")
        low, high = self.contrast or (0.0, 0.0)
        if not -math.inf < low <= high < math.inf:
            raise ConfigError(
                f"inputs.contrast: expected a least and a largest factor, found {self.contrast}"
            )
        low, high = self.saturation or (0.0, 0.0)
        if not 0 <= low <= high < math.inf:
            raise ConfigError(
                "inputs.saturation: expected a least and a largest factor, 0 or more, found "
                f"{self.saturation}"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    learning_rate: float
    """Initial learning rate; with one_cycle, the highest one."""
    method: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """sgd (stochastic gradient descent), or a method that divides gradients by their usual size."""
    momentum: float = 0.0
    """Momentum of sgd and rmsprop."""
    nesterov: bool = True
    """True: sgd uses Nesterov's momentum, which looks a step ahead. False: plain momentum."""
    beta1: float = 0.9
    """adam and adamw: decay of the mean of gradients."""
    beta2: float | None = None
    """Decay of the mean of squared gradients. None: 0.999; for rmsprop 0.99. sgd has none."""
    epsilon: float = 1e-8
    """Added to the square root of the mean of squared gradients."""
    schedule: Literal["staircase", "linear", "cosine", "one_cycle", "constant"] = "staircase"
    """How the learning rate changes. staircase: it is multiplied by decay_factor now and then.
    linear, cosine: it falls to zero at the last step. one_cycle: it rises for 0.3 of the training,
    then falls. constant: it stays the same."""
    warm_up: float = 0.0
    """Share of the training, at its beginning, in which the rate rises from zero. Not for
    one_cycle."""
    decay_epochs: float = 350.0
    """Staircase: epochs from one drop to the next."""
    drops: tuple[float, ...] = ()
    """Staircase: at which shares of the training the rate drops; empty: every decay_epochs."""
    decay_factor: float = 0.1
    """Staircase: the learning rate is multiplied by this at each drop."""
    weight_decay: float = 0.0
    """Share of each weight that a step takes away at the initial rate. adam and rmsprop instead add
    this share of the weight to its gradient. Not for Muon."""
    decayed: tuple[str, ...] = ()
    """Weight decay applies only to layers whose names begin like this; empty: to all layers."""
    head_learning_rate: float | None = None
    """Initial learning rate of the last layer's weights; None: learning_rate."""
    bias_learning_rate: float | None = None
    """Initial learning rate of biases; None: learning_rate."""
    muon_learning_rate: float | None = None
    """Initial learning rate of Muon, for the filters of convolutions; None: no Muon."""
    muon_momentum: float = 0.6
    """Momentum of Muon."""
    freeze: tuple[tuple[str, float], ...] = ()
    """Layers that stop learning before the others: the beginning of their names, and the share of
    the training in which they learn."""
    old_layers_rate: float = 1.0
    """The learning rates of layers that come from start_from are multiplied by this. So is their
    weight_decay with sgd and adamw, since it is multiplied by the rate."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which data to use: all that `open_dataset` needs to know."""

    data: str
    """Name of a data set, a path, or a folder of shards elsewhere: https://host/folder/."""
    train_size: int = 0
    """Training examples to use, the same share of each class. 0, or more than there are: all."""
    validation_size: int = 0
    """Training examples to hold out. If not 0, training is scored on them, not on the test set."""
    validation_choice: Literal["stratified", "first"] = "stratified"
    """Which examples are held out: a random share of each class, or the first ones."""
    validation_seed: int = 0
    """Determines which examples are held out. It does not depend on seed, so runs can be
    compared."""
    copies_together: bool = False
    """Hold out all copies of an image, or none of them. A training that itself chooses what to
    hold out does this."""
    train_on_extra: bool = False
    """Also train on the split extra, if the data have one, as SVHN does. None of it is held out."""
    image_size: tuple[int, int] | None = None
    """Height and width to which pictures in files are scaled. One number: a square. None: the size
    that most pictures have. If half of them share no size, a new run takes a middle one."""
    fit: Fit = "crop"
    """How pictures with another aspect are brought to this size: crop cuts off what does not fit,
    pad adds black, squeeze changes their aspect."""
    skip_bad: bool = False
    """Leave out picture files that cannot be read, and name them."""
    data_dir: str | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""
    cache_gigabytes: float = 2.0
    """Most space for shards from elsewhere on this machine, in the folder of all data sets. New
    shards replace those that were not used for longest."""
    exclude: str | None = None
    """Table of examples to leave out, as `deepcnn doctor --fixes` writes it."""

    def __post_init__(self) -> None:
        if isinstance(self.image_size, int):  # from Python
            object.__setattr__(self, "image_size", (self.image_size, self.image_size))
        if "@" in self.data.partition("://")[2].partition("/")[0]:  # nor may an error show it
            raise ConfigError(
                "data: expected an address without a user or a password, which would get into logs "
                "and stored settings. Data can only be read where all may read."
            )
        at_least(("cache_gigabytes", self.cache_gigabytes, 0))
        at_least(("train_size", self.train_size, 0))
        at_least(("validation_size", self.validation_size, 0))
        at_least(("image_size", min(self.image_size or (1,)), 1))
        height, width = self.image_size or (1, 1)
        if height * width > MOST_PIXELS:
            raise ConfigError(
                f"image_size: expected at most {MOST_PIXELS:,} pixels, found {height}×{width}"
            )


def at_least(*settings: tuple[str, float, float]) -> None:
    """Check settings, each given with its name and its smallest allowed value."""
    for name, value, least in settings:
        if not value >= least:
            raise ConfigError(f"{name}: expected at least {least}, found {value}")


def at_most(*settings: tuple[str, float, float]) -> None:
    """Check settings, each given with its name and its largest allowed value."""
    for name, value, most in settings:
        if not value <= most:
            raise ConfigError(f"{name}: expected at most {most:,}, found {value:,}")

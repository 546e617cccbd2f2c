"""The kind of pictures that a network knows, by a few statistics of their pixels.

A network also answers with confidence about pictures unlike all that it has learned. But noise,
letters or drawings differ from photographs in statistics that need no network: how bright they are,
how rich in contrast and colour, and how fast neighbouring pixels change. The distance is
Mahalanobis's; the logarithms of the statistics are assumed to have a normal distribution.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NAMES = ("brightness", "contrast", "change across", "change down", "sharpness", "colour")
SMALLEST_SIDE = 3  # of images that have all statistics
_LITTLE = 1e-3  # added before a logarithm: less than a level of 256
_BLOCK = 128  # images at a time: as many as the cache holds
_RIDGE = 1e-4  # added to the variances, for statistics that are the same everywhere


@dataclass(frozen=True)
class Kind:
    """The pictures of a split: `mean` [6] of their statistics, `precision` [6, 6], and a limit.

    `most_distance`: all but a few in a thousand pictures of this kind are nearer than this.
    """

    mean: tuple[float, ...] = field(repr=False)
    precision: tuple[tuple[float, ...], ...] = field(repr=False)
    most_distance: float

    @classmethod
    def from_dict(cls, values: Any) -> Kind:
        """Undo `dataclasses.asdict`, after JSON has turned tuples into lists.

        Raises TypeError or ValueError if this is not possible.
        """
        found = cls(**values)
        rows = [found.mean, *found.precision]
        if len(rows) != len(NAMES) + 1 or {len(row) for row in rows} != {len(NAMES)}:
            raise ValueError(f"kind: expected {len(NAMES)} statistics")
        for number in (*(n for row in rows for n in row), found.most_distance):
            check_number("kind", number)
        mean, *precision = map(tuple, rows)
        return cls(mean, tuple(precision), found.most_distance)

    def distances(self, images: NDArray[np.uint8]) -> Floats:
        """Return the distance of each image uint8 [N, H, W, C] from the kind, float64 [N]."""
        away = statistics_of(images) - np.array(self.mean)
        found: Floats = np.einsum("ni,ij,nj->n", away, np.array(self.precision), away)
        return found


def check_number(what: str, value: Any, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise ValueError unless a value is a finite number from `least` to `most`."""
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{what}: expected a finite number, found {value!r:.40}")


def statistics_of(images: NDArray[np.uint8]) -> Floats:
    """Return the statistics NAMES of images uint8 [N, H, W, C], sides of 3 and more: [N, 6].

    Pixels are taken as values of 0 to 1. The first statistic is their mean. The others are
    logarithms: of the standard deviation of the gray picture, of the mean step to the pixel on the
    right and below, of the mean second difference (five points), and of the mean difference between
    the largest and the smallest channel.
    """
    found = [_statistics(images[at : at + _BLOCK]) for at in range(0, len(images), _BLOCK)]
    return np.concatenate(found) if found else np.empty((0, len(NAMES)))


def _statistics(images: NDArray[np.uint8]) -> Floats:
    x = images.astype(np.float32) / 255
    # Channel by channel, since NumPy is slow where it reduces an axis of three.
    channels = [np.ascontiguousarray(x[..., channel]) for channel in range(x.shape[3])]
    gray = np.asarray(functools.reduce(np.add, channels) / np.float32(len(channels)), np.float32)
    colour = functools.reduce(np.maximum, channels) - functools.reduce(np.minimum, channels)
    second = 4 * x[:, 1:-1, 1:-1] - x[:, :-2, 1:-1] - x[:, 2:, 1:-1]
    second -= x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    steps = (x[:, :, 1:] - x[:, :, :-1], x[:, 1:] - x[:, :-1], second)
    sizes = [_means(np.abs(each, out=each)) for each in steps]
    spread = gray.reshape(len(gray), -1).std(1)
    rest = np.stack([spread, *sizes, _means(colour)], 1)
    return np.concatenate([_means(gray)[:, None], np.log(rest + _LITTLE)], 1).astype(np.float64)


def _means(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of each image's values, float32 [N]."""
    found: NDArray[np.float32] = values.reshape(len(values), -1).mean(1)
    return found


def fit_kind(statistics: Floats, share: float) -> Kind:
    """Return the kind of pictures with these `statistics` [N, 6]; it contains `share` of them."""
    mean = statistics.mean(0)
    covariance = np.cov(statistics.T) + _RIDGE * np.eye(statistics.shape[1])
    precision = np.linalg.inv(covariance)
    away = statistics - mean
    distances = np.einsum("ni,ij,nj->n", away, precision, away)
    rows = tuple(tuple(row) for row in precision.tolist())
    return Kind(tuple(mean.tolist()), rows, float(np.quantile(distances, share)))

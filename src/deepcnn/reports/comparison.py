"""Compares runs with each other: the mean over seeds, and whether one is better than another."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVEL = 0.05  # below it a difference is no longer taken for chance


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (of a sample) and 95 % interval of the mean of `count` values."""

    count: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Pair:
    """Two runs on the same images: how many only the first got right, and only the second.

    `p`: of McNemar's exact test, two-sided. `corrected`: by Holm's method, for the number of pairs
    that were compared together.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float
    corrected: float

    @property
    def words(self) -> str:
        """The meaning of the result, in a sentence."""
        p = f"p {_shown(self.p)}"
        if self.corrected != self.p:
            p += f" ({_shown(self.corrected).removeprefix('= ')} corrected)"
        large, small = sorted((self.only_first, self.only_second), reverse=True)
        if self.corrected < LEVEL:
            better = self.first if self.only_first > self.only_second else self.second
            return f"{better} is better: {large:,} against {small:,} images, {p}"
        return (
            f"no evidence of a difference: {self.only_first:,} against {self.only_second:,} "
            f"images, {p}"
        )


def spread(values: list[float]) -> Spread:
    """Return the mean of at least one value, and its interval by Student's t."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Spread(count, mean, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_t(count - 1) * deviation / math.sqrt(count)
    return Spread(count, mean, deviation, (mean - half, mean + half))


def student_t(freedom: int, share: float = 0.95) -> float:
    """Return t such that `share` of Student's distribution is in -t to t, to 9 digits.

    `freedom`: the degrees of freedom, 1 and more. (Student: "The probable error of a mean", 1908.)
    """
    low, high = 0.0, 1e6
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < share else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return the probability of -t to t (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= (k + 1) / (k + 2) * cosine**2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the probability of such an unequal split of the images that only one run got right.

    It is exact and two-sided, if both runs were equally good. (McNemar: "Note on the sampling error
    of the difference between correlated proportions or percentages", 1947.)
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(each - count * math.log(2)) for each in logs))


def holm(values: list[float]) -> list[float]:
    """Correct p-values for their number, by Holm's method (1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def _shown(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"

"""How sure a trained network is: a temperature, and when it should say "unsure".

All of this is found on the split that the training was scored on. It changes no label, and is
stored in the run. There are two kinds of doubt. "error": the likeliest class is not likely enough;
answers below `least_probability` would be wrong more often than wanted. "unknown": the picture is
unlike everything that was learned, by its pixels (see `kinds`) or by its energy. Each of these two
criteria calls 5 in 1,000 pictures of the split itself unknown.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn.errors import RunError
from deepcnn.inference.kinds import Kind, check_number, fit_kind
from deepcnn.shown import shown

FEWEST = 200  # examples of a split from which a temperature and thresholds can be told
KNOWN_SHARE = 0.995  # of the split's pictures, by each of the two scores, do not count as unknown
UNSURE_SHARE = 0.25  # of the split's pictures are looked at again, where views are "unsure"
TEMPERATURES = 0.05, 20.0  # between which one is looked for
ERROR = 0.02  # of the answers, at most, are wrong

Doubt = Literal["error", "unknown"] | None
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """The results for a checkpoint; a field is None if the split has too few examples for it.

    `step`, `averaged`: of the checkpoint. `split`, `examples`: on which it was found. `margin`: a
    picture is looked at again if its two largest logits differ by less. `temperature`: logits are
    divided by it. `error`: the wanted share of wrong answers. `least_probability`: the probability
    that an answer needs for this; above 1 if no answer is sure enough. `least_energy`: the smallest
    energy of a picture of a known kind.
    """

    step: int
    averaged: bool
    split: str
    examples: int
    margin: float | None = None
    temperature: float = 1.0
    error: float = ERROR
    least_probability: float | None = None
    least_energy: float | None = None
    kind: Kind | None = None

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Calibration:
        """Undo `to_dict`, also after a trip through JSON; raises RunError if it cannot be done."""
        try:
            kind = values.get("kind")
            found = cls(**{**values, "kind": None if kind is None else Kind.from_dict(kind)})
            found._check()
        except (AttributeError, ArithmeticError, TypeError, ValueError) as error:
            raise RunError(
                f"{where}: not a calibration as deepcnn writes it ({shown(error)}). Bring the file "
                "back, or remove it: then no answer is called unsure"
            ) from error
        return found

    def _check(self) -> None:
        """Raise ValueError for values that `calibrate` never finds."""
        for name in ("step", "examples"):
            if type(value := getattr(self, name)) is not int or value < 0:
                raise ValueError(f"{name}: expected a number of them, found {value!r:.40}")
        if type(self.averaged) is not bool or type(self.split) is not str:
            raise ValueError("averaged, split: expected true or false, and a name")
        check_number("temperature", self.temperature, *TEMPERATURES)
        check_number("error", self.error, 0.0, 1.0)
        for name in ("margin", "least_probability", "least_energy"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in a form that JSON can hold."""
        return dataclasses.asdict(self)

    def doubts(self, images: NDArray[np.uint8], logits: Floats) -> list[Doubt]:
        """Return the doubts about the answers for images uint8 [N, H, W, C].

        `logits`: float32 [N, classes], as the network gives them.
        """
        unknown = np.zeros(len(logits), np.bool_)
        if self.least_energy is not None:
            unknown |= energy(logits) < self.least_energy
        if self.kind is not None:
            unknown |= self.kind.distances(images) > self.kind.most_distance
        wrong = np.zeros(len(logits), np.bool_)
        if self.least_probability is not None:
            wrong = probabilities(logits, self.temperature).max(1) < self.least_probability
        return [
            "unknown" if u else "error" if w else None
            for u, w in zip(unknown.tolist(), wrong.tolist(), strict=True)
        ]


def probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return softmax(logits / temperature), float32 [N, classes]."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def energy(logits: Floats) -> NDArray[np.float64]:
    """Return log Σ exp of each row, float64 [N]: low if the network has no evidence.

    (Liu et al.: "Energy-based out-of-distribution detection", 2020.)
    """
    exact = logits.astype(np.float64)
    largest = exact.max(1)
    found: NDArray[np.float64] = largest + np.log(np.exp(exact - largest[:, None]).sum(1))
    return found


def margins(logits: Floats) -> Floats:
    """Return the difference of the two largest logits of each row, float32 [N]."""
    if logits.shape[1] < 2:
        return np.zeros(len(logits), np.float32)
    two = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0], np.float32)


def margin_of(logits: Floats) -> float:
    """Return the margin that is above the margins of `UNSURE_SHARE` of the rows of logits."""
    return between(margins(logits), UNSURE_SHARE)


def between(values: NDArray[np.floating[Any]], share: float) -> float:
    """Return a number above exactly this many of the values, halfway between two of them.

    So rounding in another runtime or on another device moves no value across it.
    """
    if len(values) < 2:
        return float(values[0])
    below = min(max(1, round(share * len(values))), len(values) - 1)
    low, high = np.partition(values, [below - 1, below])[below - 1 : below + 1].tolist()
    return float((low + high) / 2)


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Return the temperature at which the labels are likeliest, one of `TEMPERATURES`.

    (Guo, Pleiss, Sun, Weinberger: "On calibration of modern neural networks", 2017.) The loss is
    convex in 1 / temperature, so a golden-section search finds it.
    """
    exact = logits.astype(np.float64)
    shifted = exact - exact.max(1, keepdims=True)
    right = shifted[np.arange(len(labels)), labels]

    def loss(log_inverse: float) -> float:
        inverse = math.exp(log_inverse)
        return float((np.log(np.exp(inverse * shifted).sum(1)) - inverse * right).mean())

    low, high = (-math.log(limit) for limit in reversed(TEMPERATURES))
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return math.exp(-(low + high) / 2)


def fit_threshold(largest: Floats, right: NDArray[np.bool_], error: float) -> float:
    """Return the least probability with which at most `error` of the answers are wrong.

    `largest`: the largest probability of each example. `right`: whether it is the label's. The
    result lies halfway to the next smaller probability, so that rounding in another runtime makes
    no answer unsure. It is above 1 if even the surest answers are wrong more often.
    """
    order = np.argsort(-largest, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    # examples of equal probability are answered together
    last = np.append(largest[order][1:] != largest[order][:-1], True)
    fitting = np.flatnonzero((wrong <= error) & last)
    if not len(fitting):
        return 1.1
    least, *smaller = largest[order][fitting[-1] : fitting[-1] + 2].tolist()
    return float((least + (smaller[0] if smaller else 0)) / 2)


def expected_calibration_error(largest: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the mean distance between how sure answers are and how many are right, 0 to 1.

    The mean is over `bins` of equal width, weighted by their examples (Naeini, Cooper, Hauskrecht,
    2015).
    """
    index = np.minimum((largest * bins).astype(np.int64), bins - 1)
    total = 0.0
    for each in np.unique(index):
        inside = index == each
        total += inside.sum() * abs(float(largest[inside].mean()) - float(right[inside].mean()))
    return total / len(largest)


def halves(examples: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two halves of the examples, bool [N] each: every other one."""
    first = np.arange(examples) % 2 == 0
    return first, ~first


def cross_fitted(logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, tuple[float, float]]:
    """Return the probabilities of all examples, with each half's temperature found on the other."""
    found = np.empty(logits.shape, np.float32)
    temperatures = []
    for mine, other in (one := halves(len(labels)), one[::-1]):
        temperature = fit_temperature(logits[other], labels[other])
        found[mine] = probabilities(logits[mine], temperature)
        temperatures.append(temperature)
    return found, (temperatures[0], temperatures[1])


def calibrate(
    logits: Floats,
    labels: NDArray[np.int64],
    *,
    step: int,
    averaged: bool,
    split: str,
    margin: float | None,
    statistics: NDArray[np.float64] | None = None,
    error: float = ERROR,
) -> Calibration:
    """Find temperature and thresholds from the logits [N, classes] and the labels of a split.

    `statistics`: of its pictures, see `kinds`; None for images without any. Nothing can be found
    from fewer than `FEWEST` examples, or from logits that are not finite.
    """
    common = {"step": step, "averaged": averaged, "split": split, "examples": len(labels)}
    if len(labels) < FEWEST or not np.isfinite(logits).all():
        return Calibration(**common, margin=margin, error=error)  # type: ignore[arg-type]
    temperature = fit_temperature(logits, labels)
    found = probabilities(logits, temperature)
    return Calibration(
        **common,  # type: ignore[arg-type]
        margin=margin,
        temperature=temperature,
        error=error,
        least_probability=fit_threshold(found.max(1), found.argmax(1) == labels, error),
        least_energy=between(energy(logits), 1 - KNOWN_SHARE),
        kind=None if statistics is None else fit_kind(statistics, KNOWN_SHARE),
    )

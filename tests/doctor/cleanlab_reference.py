"""Makes cleanlab.npz: what cleanlab says of labels and probabilities, for test_confident.py.

    python -m venv VENV && VENV/bin/pip install cleanlab==2.9.0
    VENV/bin/python tests/doctor/cleanlab_reference.py

For each case: `labels`, `probabilities` (float32, as cleanlab gets them in float64), `joint` (the
confident joint, not calibrated), `thresholds`, and `indices`, those of the suspects, worst first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.count import compute_confident_joint, get_confident_thresholds
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray

Given = tuple[NDArray[np.int64], NDArray[np.float64]]


def case(examples: int, classes: int, noise: float, sharpness: float, seed: int) -> Given:
    """Return labels, some of them wrong, and probabilities that know better."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, examples)
    logits = random.normal(size=(examples, classes))
    logits[np.arange(examples), true] += sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = random.random(examples) < noise
    labels = np.where(wrong, (true + random.integers(1, classes, examples)) % classes, true)
    return labels, probabilities


def cases() -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the name, labels and probabilities of each case."""
    yield "few_wrong", *case(200, 10, 0.02, 4.0, 0)
    yield "many_wrong", *case(200, 5, 0.3, 3.0, 1)
    yield "knows_little", *case(100, 4, 0.1, 0.5, 2)
    yield "two_classes", *case(100, 2, 0.2, 2.0, 3)
    labels, probabilities = case(200, 6, 0.1, 3.0, 4)
    yield "absent_class", np.where(labels == 2, 5, labels), probabilities
    labels, probabilities = case(150, 4, 0.1, 3.0, 5)
    first = np.flatnonzero(labels == 3)[0]
    yield (
        "one_of_a_class",
        np.where((labels == 3) & (np.arange(150) != first), 1, labels),
        probabilities,
    )
    labels, probabilities = case(120, 3, 0.2, 2.0, 6)
    yield "ties", labels, np.round(probabilities * 4) / 4
    labels, probabilities = case(60, 3, 0.0, 0.0, 7)
    yield "all_alike", labels, np.full((60, 3), 1 / 3)
    yield "none_wrong", *case(100, 3, 0.0, 9.0, 8)


def main() -> None:
    """Ask cleanlab, and write its answers beside this file."""
    warnings.simplefilter("ignore")
    stored: dict[str, Any] = {}
    for name, labels, probabilities in cases():
        small = probabilities.astype(np.float32)
        given = small.astype(np.float64)
        stored |= {
            f"{name}.labels": labels.astype(np.int8),
            f"{name}.probabilities": small,
            f"{name}.thresholds": get_confident_thresholds(labels, given),
            f"{name}.joint": compute_confident_joint(labels, given, calibrate=False),
            f"{name}.indices": find_label_issues(
                labels,
                given,
                filter_by="low_self_confidence",
                return_indices_ranked_by="self_confidence",
                n_jobs=1,
            ),
        }
    np.savez_compressed(Path(__file__).with_name("cleanlab.npz"), **stored)


if __name__ == "__main__":
    main()

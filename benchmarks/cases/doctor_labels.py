"""How well wrong labels are found: planted ones, and those of CIFAR-10's test set.

    python benchmarks/run.py doctor_labels cifar10 --share 0.05
    python benchmarks/run.py doctor_labels cifar10 --label-errors DIR --cifar10h DIR

Training and test set are judged together. With --share so many of their labels are replaced by
other ones first, at random. What people said of the test images is in checkouts of
github.com/cleanlab/label-errors (five people about each of the 275 images that its authors'
ranking led to) and of github.com/jcpeterson/cifar-10h (about fifty about every image). An image
counts as wrong where fewer than three of the five, or not the most of the fifty, say its label.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn import load_dataset
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.doctor.confident import suspects, suspicion
from deepcnn.doctor.labels import FOLDS, out_of_fold, recipe
from tools import report

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def main(arguments: list[str]) -> int:
    """Train, judge, print the figures and store them."""
    parser = report.parser("doctor_labels", __doc__)
    parser.add_argument("data", help="a data set with a training and a test split")
    parser.add_argument("--share", type=float, default=0.0, help="of the labels to make wrong")
    parser.add_argument("--seed", type=int, default=0, help="of the wrong labels and the training")
    parser.add_argument("--label-errors", type=Path, help="a checkout of cleanlab/label-errors")
    parser.add_argument("--cifar10h", type=Path, help="a checkout of jcpeterson/cifar-10h")
    parser.add_argument("--keep", type=Path, help="file for the probabilities, read if it is there")
    options = parser.parse_args(arguments)
    out = report.new_file("doctor_labels", options.out, options.remark)
    about = report.circumstances(precision="auto")
    figures = measure(options)
    print(json.dumps(figures, indent=2))
    result = {
        "what": "wrong labels found",
        "data": options.data,
        "share": options.share,
        "seed": options.seed,
        **about,
        "figures": figures,
    }
    report.store(result, out, options.remark)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a data set."""
    whole, tested = both_splits(options.data)
    labels = planted(whole, options.share, options.seed)
    known = Arrays(whole.images, labels, whole.classes)
    probabilities, seconds = judged(known, options.data, options.seed, options.keep)
    index = suspects(labels, probabilities)
    figures: dict[str, Any] = {
        "examples": len(labels),
        "seconds": seconds,
        "accuracy": float((probabilities.argmax(1) == whole.labels).mean()),
        "suspects": len(index),
        "suspects in the test set": int((index >= len(labels) - tested).sum()),
    }
    if options.share:
        found = np.zeros(len(labels), np.bool_)
        found[index] = True
        wrong = labels != whole.labels
        figures["planted"] = int(wrong.sum())
        figures["planted: precision"] = float(wrong[found].mean())
        figures["planted: recall"] = float(found[wrong].mean())
        figures |= of_ranking("planted", suspicion(labels, probabilities), wrong)
    given, of_test = whole.labels[-tested:], probabilities[-tested:]
    ours = suspicion(given, of_test)
    if options.label_errors is not None:
        theirs = published(options.label_errors, given)
        places, wrong = refused_by_five(options.label_errors)
        figures |= of_ranking("five people", ours[places], wrong)
        figures |= of_ranking("five people, published ranking", theirs[places], wrong)
    if options.cifar10h is not None:
        wrong = refused_by_most(options.cifar10h, given)
        figures |= of_ranking("cifar-10h", ours, wrong)
        if options.label_errors is not None:
            figures |= of_ranking("cifar-10h, published ranking", theirs, wrong)
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}


def both_splits(data: str) -> tuple[Arrays, int]:
    """Return the training set followed by the test set, and how many are in the latter."""
    train, test = load_dataset(data, "train"), load_dataset(data, "test")
    images = np.concatenate([train.images, test.images])
    return Arrays(images, np.concatenate([train.labels, test.labels]), train.classes), len(test)


def planted(whole: Arrays, share: float, seed: int) -> Labels:
    """Return the labels, of which so many are replaced by another class, any with equal chance."""
    random = np.random.default_rng(seed)
    count, classes = round(share * len(whole)), len(whole.classes)
    chosen = random.choice(len(whole), count, replace=False)
    labels = whole.labels.copy()
    labels[chosen] = (labels[chosen] + random.integers(1, classes, count)) % classes
    return labels


def judged(known: Arrays, data: str, seed: int, keep: Path | None) -> tuple[Floats, float | None]:
    """Return the probabilities of all classes for each example, and the seconds that they took.

    None for those that were kept.
    """
    if keep is not None and keep.exists():
        stored = np.load(keep)
        if (stored["labels"] != known.labels).any():
            sys.exit(f"{keep}: its probabilities are those of other labels")
        return stored["probabilities"], None
    config = recipe(data, len(known) * (FOLDS - 1) // FOLDS)
    began = time.perf_counter()
    found = out_of_fold(in_memory(known), dataclasses.replace(config, seed=seed))
    seconds = round(time.perf_counter() - began, 1)
    if keep is not None:
        np.savez(keep, probabilities=found, labels=known.labels)
    return found, seconds


def of_ranking(name: str, score: Floats, wrong: Bools) -> dict[str, Any]:
    """Return how far in front the wrong ones are, by falling score."""
    hits = wrong[np.argsort(-score, kind="stable")]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return {
        f"{name}: judged": len(wrong),
        f"{name}: wrong": int(wrong.sum()),
        f"{name}: wrong of the first 50": int(hits[:50].sum()),
        f"{name}: average precision": float(precisions[hits].mean()),
    }


def refused_by_five(checkout: Path) -> tuple[Labels, Bools]:
    """Return the places of the test images that five people judged, and which they refused."""
    found = json.loads((checkout / "mturk" / "cifar10_mturk.json").read_text())
    places = np.array([image["id"] for image in found])
    return places, np.array([image["mturk"]["given"] < 3 for image in found])


def published(checkout: Path, given: Labels) -> Floats:
    """Return how suspicious the test images are by the probabilities that were published.

    By their margin, as the authors ranked them: of another class, above that of the label.
    """
    labels = np.load(checkout / "original_test_labels" / "cifar10_test_set_original_labels.npy")
    if (labels != given).any():
        sys.exit(f"{checkout}: its labels are not those of this test set")
    folder = checkout / "cross_validated_predicted_probabilities"
    others = np.load(folder / "cifar10_test_set_pyx.npy").astype(np.float64)
    own = others[np.arange(len(given)), given]
    others[np.arange(len(given)), given] = -1
    return np.asarray(others.max(1) - own)


def refused_by_most(checkout: Path, given: Labels) -> Bools:
    """Return of which test images most people say another class than the given one, bool [N]."""
    counts = np.load(checkout / "data" / "cifar10h-counts.npy")
    return np.asarray(counts.argmax(1) != given)

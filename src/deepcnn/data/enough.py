"""Tells whether there are enough examples to learn from and to score on, without pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepcnn.intervals import wilson
from deepcnn.shown import shown

FEW_OF_CLASS = 10  # examples of a class, below which nothing can be said of it
WIDEST = 0.2  # of the 95 % interval of an accuracy near one half that still tells something
UNBALANCED = 10  # times as many examples in the largest class as in the smallest
NAMED = 5

Counts = Mapping[str, Sequence[int]]


def check_counts(classes: Sequence[str], counts: Counts) -> list[tuple[str, str]]:
    """Return the problems with the counts of a data set, (kind, sentence) each, worst first.

    `counts`: examples of each class in each split.
    """
    found: list[tuple[str, str]] = []
    train = counts.get("train", ())
    there = len([count for count in train if count])
    if len(train) and there < 2:
        text = f"The training set has examples of {there} class; there is nothing to tell apart."
        found.append(("one class", text))
    for split, of_class in counts.items():
        name = f"The {split} split"
        if split != "train" and any(of_class):
            found += _too_small(name, of_class)
        missing = [c for c, count in zip(classes, of_class, strict=True) if not count]
        if missing and any(of_class):
            found.append(("class missing", f"{name} has no example of {_named(missing)}."))
        few = [
            f"{c} ({count})"
            for c, count in zip(classes, of_class, strict=True)
            if 0 < count < FEW_OF_CLASS
        ]
        if few:
            what = "learn" if split == "train" else "score"
            text = f"{name} has too few examples to {what} these classes: {_named(few)}."
            found.append(("small class", text))
    present = [count for count in train if count]
    if present and max(present) >= UNBALANCED * min(present):
        text = (
            f"The largest class of the training set has {max(present):,} examples, the smallest "
            f"{min(present):,}. Consider --class-weights balanced."
        )
        found.append(("unbalanced", text))
    return found


def _too_small(name: str, of_class: Sequence[int]) -> list[tuple[str, str]]:
    total = sum(of_class)
    low, high = wilson(round(total / 2), total)
    if high - low <= WIDEST:
        return []
    examples = f"{total:,} example{'' if total == 1 else 's'}"
    text = (
        f"{name} has {examples}, too few to say how good a network is: of an accuracy of "
        f"one half the 95 % interval is {100 * low:.0f} to {100 * high:.0f} %."
    )
    return [("small split", text)]


def senseless(classes: Sequence[str], counts: Counts) -> list[str]:
    """Return reasons why training on these examples, or its score, would be meaningless, if any."""
    found = [
        text for kind, text in check_counts(classes, counts) if kind in ("one class", "small split")
    ]
    train = counts.get("train", ())
    lonely = [c for c, count in zip(classes, train, strict=False) if count == 1]
    if lonely:
        found.append(f"The training set has a single example of {_named(lonely)}.")
    return found


def majority(split: str, correct: int, of_class: Sequence[int]) -> str | None:
    """Return a warning if an accuracy is no better than always answering the largest class."""
    if not sum(of_class) or correct > max(of_class):
        return None
    return (
        f"The network is right about {correct:,} of {sum(of_class):,} {split} images; always "
        f"saying the largest class would be right about {max(of_class):,}. It has learned nothing "
        "that can be shown."
    )


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(map(shown, names[:NAMED])) + (f" and {rest:,} more" if rest > 0 else "")

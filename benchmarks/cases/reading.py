"""The time to read CIFAR-10 into memory, from each format."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from deepcnn.data.convert import FORMS, convert
from deepcnn.data.open import load_dataset
from tools.comparison import Case

BY_NAME = "cifar10 by name"


def convert_to_all(folder: Path) -> None:
    """Write the set in each format; so the files are in the system's cache."""
    for form in FORMS:
        convert("cifar10", folder / form, form, shards=1 if form == "folder" else 5)


def seconds(name: str, folder: Path) -> dict[str, float]:
    """Return the time of a whole read, verified as far as a format can be.

    CIFAR's own files are verified by SHA-256 where they are read by name, TFRecords and .npz by
    their CRCs.
    """
    place = folder / name if name in FORMS else "cifar10"
    load_dataset(place, "test")  # imports what it needs
    began = time.perf_counter()
    load_dataset(place, "train")
    return {"seconds": round(time.perf_counter() - began, 3)}


CASE = Case(
    what="reading and verifying CIFAR-10's 50,000 training images into memory",
    unit="s",
    contenders={name: partial(seconds, name) for name in (BY_NAME, *FORMS)},
    denominator=BY_NAME,
    higher_is_better=False,
    prepare=convert_to_all,
)

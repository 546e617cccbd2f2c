"""The time to read CIFAR-10 into memory, from each format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

from deepcnn.data.convert import Form, convert
from deepcnn.data.open import load_dataset


def convert_to_all(folder: Path) -> None:
    """Write the set in each format; so the files are in the system's cache."""
    for form in get_args(Form):
        convert("cifar10", folder / form, form, shards=1 if form == "folder" else 5)


def seconds(name: str, folder: Path) -> dict[str, float]:
    """Return the time of a whole read, verified as far as a format can be.

    CIFAR's own files are verified by SHA-256 where they are read by name, TFRecords and .npz by
    their CRCs.
    """
    place = folder / name if name in get_args(Form) else "cifar10"
    load_dataset(place, "test")  # imports what it needs
    began = time.perf_counter()
    load_dataset(place, "train")
    return {"seconds": round(time.perf_counter() - began, 3)}

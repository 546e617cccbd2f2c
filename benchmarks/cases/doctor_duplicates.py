"""Duplicates that `deepcnn doctor` finds in CIFAR-10, held against the list that ciFAIR made.

python benchmarks/run.py doctor_duplicates --lists FOLDER [--pictures FOLDER] [--out FILE]

FOLDER has duplicates_cifar10.csv and duplicates_cifar10_test.csv of
https://github.com/cvjena/cifair (meta/), where people judged the nearest pairs by the features of
a network: 1 is a near duplicate, 2 very similar. Recall is the share of its pairs judged 1 that are
found. Precision counts as true what is on the list as 1 or 2, for pairs of test images that are on
the list; other pairs are those that the list lacks, of which `--pictures` writes sheets, to be
looked at.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.open import open_dataset
from deepcnn.doctor.duplicates import LEAST
from deepcnn.doctor.examine import examine
from deepcnn.intervals import wilson
from deepcnn.settings import DataSpec

ACROSS, ZOOM = 8, 3
Pair = tuple[str, int, str, int]


def main(arguments: list[str]) -> int:
    """Find the duplicates, compare, and print a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    listed = read(options.lists / "duplicates_cifar10.csv", "train")
    listed |= read(options.lists / "duplicates_cifar10_test.csv", "test")
    began = time.perf_counter()
    found, _ = examine(DataSpec(data="cifar10"))
    seconds = time.perf_counter() - began
    pairs = {
        ("test", b.index, a.split, a.index): duplicate.similarity
        for duplicate in found.duplicates
        for a, b in [
            sorted((duplicate.a, duplicate.b), key=lambda p: (p.split == "test", -p.index))
        ]
        if b.split == "test"
    }
    near = [pair for pair, judged in listed.items() if judged == 1]
    result = {
        "case": "doctor_duplicates",
        "least": LEAST,
        "seconds": round(seconds, 1),
        "pairs": len(found.duplicates),
        "with_test_images": len(pairs),
        "listed_near": len(near),
        "found_near": sum(pair in pairs for pair in near),
        "listed_similar": len(listed) - len(near),
        "found_similar": sum(pair in pairs for pair, judged in listed.items() if judged == 2),
        "not_listed": sum(pair not in listed for pair in pairs),
        "kinds": {k: sum(d.kind == k for d in found.duplicates) for k in ("exact", "near")},
    }
    result["recall"] = round(result["found_near"] / len(near), 4)
    result["recall_interval"] = [round(v, 4) for v in wilson(result["found_near"], len(near))]
    print(json.dumps(result))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
        unlisted = sorted((p for p in pairs if p not in listed), key=lambda p: pairs[p])
        draw(unlisted, options.pictures / "not_listed.png")
        draw([p for p in near if p not in pairs], options.pictures / "missed.png")
        (options.pictures / "not_listed.json").write_text(
            json.dumps([[*pair, pairs[pair]] for pair in unlisted])
        )
    return 0


def read(path: Path, other: str) -> dict[Pair, int]:
    """Return the judgment of each pair of a list; of two test images the later one comes first."""
    found: dict[Pair, int] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            a, b = int(row["TestID"]), int(row["TrainID"])
            if other == "test":
                a, b = max(a, b), min(a, b)
            found["test", a, other, b] = int(row["Judgment"])
    return found


def draw(pairs: list[Pair], path: Path) -> None:
    """Draw pairs side by side on a sheet, in their order."""
    if not pairs:
        return
    dataset = open_dataset("cifar10")
    images: dict[str, Arrays] = {s: dataset.split(s).load() for s in ("train", "test")}  # type: ignore[arg-type]
    side = 32 * ZOOM
    down = -(-len(pairs) // ACROSS)
    sheet = np.full((down * (side + 8), ACROSS * (2 * side + 12), 3), 255, np.uint8)
    for number, (first, a, second, b) in enumerate(pairs):
        top, left = number // ACROSS * (side + 8), number % ACROSS * (2 * side + 12)
        both = np.concatenate([images[first].images[a], images[second].images[b]], 1)
        both = both.repeat(ZOOM, 0).repeat(ZOOM, 1)
        sheet[top : top + side, left : left + 2 * side] = both
    Image.fromarray(sheet).save(path)

"""Duplicates that `deepcnn doctor` finds in CIFAR-10, held against the list that ciFAIR made.

python benchmarks/run.py doctor_duplicates --lists FOLDER [--pictures FOLDER] [--remark TEXT]

FOLDER has duplicates_cifar10.csv and duplicates_cifar10_test.csv of
https://github.com/cvjena/cifair (meta/), where people judged the nearest pairs by the features of
a network: 1 is a near duplicate, 2 very similar. Recall is the share of its pairs judged 1 that
are found. The list has for each test image its nearest one alone; pairs of a test image that it
lacks may well be right: `--pictures` draws SAMPLE of them, by chance, and all that are missed.
"""

from __future__ import annotations

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
from deepcnn.doctor.findings import Place
from deepcnn.intervals import wilson
from deepcnn.settings import DataSpec
from tools import report

ACROSS, ZOOM = 6, 3
SAMPLE = 60
Pair = tuple[str, int, str, int]


def main(arguments: list[str]) -> int:
    """Find the duplicates, compare, and store a line."""
    parser = report.parser("doctor_duplicates", __doc__)
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args(arguments)
    out = report.new_file("doctor_duplicates", options.out, options.remark)
    about = report.circumstances()
    listed = read(options.lists / "duplicates_cifar10.csv", "train")
    listed |= read(options.lists / "duplicates_cifar10_test.csv", "test")
    began, worked = time.perf_counter(), time.process_time()
    found, _ = examine(DataSpec(data="cifar10"))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    pairs = {
        in_order(d.a, d.b): d.similarity
        for d in found.duplicates
        if "test" in (d.a.split, d.b.split)
    }
    figures = {"seconds": round(seconds, 1), "processor seconds": round(worked, 1), "least": LEAST}
    figures |= held_against(listed, set(pairs)) | {
        "pairs": len(found.duplicates),
        "exact": sum(d.kind == "exact" for d in found.duplicates),
    }
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
        beyond = sorted(pair for pair in pairs if pair not in listed)
        some = np.random.default_rng(0).permutation(len(beyond))[:SAMPLE]
        sample = sorted((beyond[i] for i in some), key=lambda pair: -pairs[pair])
        draw(sample, options.pictures / "not_listed.png")
        draw(
            [p for p, k in listed.items() if k == 1 and p not in pairs],
            options.pictures / "missed.png",
        )
        (options.pictures / "not_listed.json").write_text(
            json.dumps([[*p, pairs[p]] for p in sample])
        )
    print(json.dumps(figures))
    report.store(
        {"what": "listed duplicates found", **about, "figures": figures}, out, options.remark
    )
    return 0


def in_order(a: Place, b: Place) -> Pair:
    """Return a pair as lists have it: the test image first, of two the later one."""
    b, a = sorted((a, b), key=lambda place: (place.split == "test", place.index))
    return a.split, a.index, b.split, b.index


def held_against(listed: dict[Pair, int], pairs: set[Pair]) -> dict[str, object]:
    """Return how many pairs were found of those judged 1 and 2, and how many are not listed."""
    near = {pair for pair, judged in listed.items() if judged == 1}
    similar = listed.keys() - near
    return {
        "listed near": len(near),
        "found near": len(near & pairs),
        "recall": round(len(near & pairs) / len(near), 4),
        "recall interval": [round(v, 4) for v in wilson(len(near & pairs), len(near))],
        "listed similar": len(similar),
        "found similar": len(similar & pairs),
        "with a test image": len(pairs),
        "not listed": len(pairs - listed.keys()),
    }


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

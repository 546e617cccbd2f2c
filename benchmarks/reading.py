"""Seconds to read CIFAR-10's 50,000 training images into memory, from each format.

    python benchmarks/reading.py --out results/NAME.json

The set is converted into a temporary folder first, so all files are in the system's cache. Every
read is whole: CIFAR's own files are verified by SHA-256, TFRecords by their CRCs, .npz by its CRC.
Rounds go through the formats in turn; stored are all figures and their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

import torch

from deepcnn.data.convert import Form, convert
from deepcnn.data.datasets import load_dataset
from deepcnn.devices import Place, describe_environment


def main() -> None:
    """Convert, read, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {"cifar10 by name": "cifar10"}
        for form in get_args(Form):
            places[form] = str(Path(folder) / form)
            convert("cifar10", Path(folder) / form, form, shards=1 if form == "folder" else 5)
        figures: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(options.rounds):
            for name, place in places.items():
                began = time.perf_counter()
                load_dataset(place, "train")
                figures[name].append(round(time.perf_counter() - began, 3))
    result = {
        "what": "seconds to read 50,000 images of 32×32×3 into memory",
        "medians": {name: statistics.median(values) for name, values in figures.items()},
        "all": figures,
        "environment": describe_environment(Place(torch.device("cpu"), "fp32")),
    }
    print(json.dumps(result["medians"], indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

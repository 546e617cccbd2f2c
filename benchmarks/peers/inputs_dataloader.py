"""Distorted inputs with PyTorch's DataLoader: images per second, from files and from memory.

    python inputs_dataloader.py BATCHES_DIR     # needs torch and numpy

BATCHES_DIR holds data_batch_1.bin .. data_batch_5.bin. Shuffled batches of 128 images, each
distorted on its own by a transform in a map-style Dataset. The last line printed is JSON.

Chosen, by measuring on two cores:

- the transform in NumPy, in place, on planar images (NCHW): 3 times as fast as the same in torch,
  whose cost for each small operation is larger;
- Python's `random` for the five draws: DataLoader seeds it in each worker, and it is faster than a
  NumPy generator for single numbers;
- batches put together by `collate_fn` as NumPy arrays, made tensors, without a copy, on arrival:
  faster than the default, which makes each image a tensor and each batch a new shared memory file;
- one sampler over many epochs, so that workers never stop between epochs;
- `prefetch_factor` 4; DataLoader itself sets one torch thread in each worker.

Whether worker processes pay depends on the machine, so both 0 and one for each core are measured,
and the better one counts.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

BATCH = 128
RECORD = 1 + 3 * 32 * 32
WARM_UP, MEASURED = 100, 800  # batches
PREFETCH = 4
CHANNEL = 24 * 24
SIZE = 3 * CHANNEL
AVERAGE = np.full(CHANNEL, 1 / CHANNEL, np.float32)


def distort(image: np.ndarray) -> np.ndarray:
    """Crop, flip, brighten, change the contrast of and standardize one planar image."""
    top, left = int(9 * random.random()), int(9 * random.random())
    image = image[:, top : top + 24, left : left + 24]
    if random.random() < 0.5:
        image = image[:, :, ::-1]
    x = image.astype(np.float32).reshape(3, CHANNEL)
    x += 126 * random.random() - 63
    means = x @ AVERAGE
    x -= means[:, None]
    x *= 0.2 + 1.6 * random.random()
    x += means[:, None]
    x -= sum(means.tolist()) / 3  # contrast keeps the means
    flat = x.ravel()
    x *= 1 / max(math.sqrt(np.vdot(flat, flat) / SIZE), 1 / math.sqrt(SIZE))
    return x.reshape(3, 24, 24)


class Cifar10(Dataset):
    """Distorted images and labels, from memory-mapped files or from one array."""

    def __init__(self, folder: Path, in_memory: bool) -> None:
        paths = [folder / f"data_batch_{i}.bin" for i in range(1, 6)]
        maps = [np.asarray(np.memmap(path, np.uint8, "r")).reshape(-1, RECORD) for path in paths]
        self.files = [np.concatenate(maps)] if in_memory else maps
        self.per_file = len(self.files[0])

    def __len__(self) -> int:
        return sum(map(len, self.files))

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        file, index = divmod(index, self.per_file)
        record = self.files[file][index]
        return distort(record[1:].reshape(3, 32, 32)), record[0]


def collate(examples: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch as NumPy arrays."""
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.array(labels, np.int64)


def measure(dataset: Cifar10, workers: int) -> int:
    """Return images per second."""
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=RandomSampler(dataset, num_samples=1000 * len(dataset)),  # 1000 permutations
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context="fork" if workers else None,  # workers share the array
    )
    batches = iter(loader)
    for batch in range(WARM_UP + MEASURED):
        if batch == WARM_UP:
            start = time.perf_counter()
        images, labels = map(torch.from_numpy, next(batches))
    seconds = time.perf_counter() - start
    assert images.shape == (BATCH, 3, 24, 24)
    assert labels.shape == (BATCH,)
    return round(MEASURED * BATCH / seconds)


def main() -> None:
    """Measure and print."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    candidates = [0, len(os.sched_getaffinity(0))]
    result: dict[str, object] = {"what": "distorted inputs, images/s"}
    best: dict[str, int] = {}
    for name in ("files", "memory"):
        dataset = Cifar10(Path(sys.argv[1]), name == "memory")
        rates = {workers: measure(dataset, workers) for workers in candidates}
        print(name, {f"{workers} workers": rate for workers, rate in rates.items()})
        best[name] = max(rates, key=rates.__getitem__)
        result[name] = rates[best[name]]
    result["settings"] = {
        "layout": "NCHW",
        "transform": "numpy",
        "num_workers": best,
        "num_workers tried": candidates,
        "prefetch_factor": PREFETCH,
    }
    result["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

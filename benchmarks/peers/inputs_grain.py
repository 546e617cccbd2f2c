"""Distorted inputs with Google's Grain: images per second, from files and from memory.

    python inputs_grain.py BATCHES_DIR     # needs grain and numpy

BATCHES_DIR holds data_batch_1.bin .. data_batch_5.bin. Shuffled batches of 128 images, each
distorted on its own by a `random_map`. The last line printed is JSON.

Chosen, by measuring on two cores:

- sources that return a record's bytes, the cheapest element for Grain's own book-keeping;
- the transform in NumPy, in place, on planar images (NCHW), all five draws in one call;
- `batch` before `to_iter_dataset`: one element of the iterator is a batch, not an image;
- no read threads (`ReadOptions(num_threads=0)`), as Grain's documentation recommends for data in
  memory: threads only contend for the interpreter's lock, for the page cache's files too;
- the default batching, which in worker processes writes straight into shared memory, and
  `per_worker_buffer_size` 4.

Whether worker processes pay depends on the machine, so both 0 and one for each core are measured,
and the better one counts.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import mmap
import os
import platform
import sys
import time
from pathlib import Path

import grain
import numpy as np

BATCH = 128
RECORD = 1 + 3 * 32 * 32
WARM_UP, MEASURED = 100, 800  # batches
BUFFER = 4
CHANNEL = 24 * 24
SIZE = 3 * CHANNEL
AVERAGE = np.full(CHANNEL, 1 / CHANNEL, np.float32)


def distort(record: bytes, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Crop, flip, brighten, change the contrast of and standardize one planar image."""
    image = np.frombuffer(record, np.uint8, offset=1).reshape(3, 32, 32)
    top, left, side, brightness, contrast = rng.random(5).tolist()
    top, left = int(9 * top), int(9 * left)
    image = image[:, top : top + 24, left : left + 24]
    if side < 0.5:
        image = image[:, :, ::-1]
    x = image.astype(np.float32).reshape(3, CHANNEL)
    x += 126 * brightness - 63
    means = x @ AVERAGE
    x -= means[:, None]
    x *= 0.2 + 1.6 * contrast
    x += means[:, None]
    x -= sum(means.tolist()) / 3  # contrast keeps the means
    flat = x.ravel()
    x *= 1 / max(math.sqrt(np.vdot(flat, flat) / SIZE), 1 / math.sqrt(SIZE))
    return x.reshape(3, 24, 24), record[0]


class Files:
    """Records of memory-mapped files, opened anew in each worker process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = []
        for i in range(1, 6):
            with (folder / f"data_batch_{i}.bin").open("rb") as file:
                self.files.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.per_file = len(self.files[0]) // RECORD

    def __reduce__(self) -> tuple[type[Files], tuple[Path]]:
        return Files, (self.folder,)

    def __len__(self) -> int:
        return len(self.files) * self.per_file

    def __getitem__(self, index: int) -> bytes:
        file, index = divmod(index, self.per_file)
        return self.files[file][index * RECORD : (index + 1) * RECORD]


class Memory:
    """The same records, from one array of bytes."""

    def __init__(self, folder: Path) -> None:
        self.records = b"".join((folder / f"data_batch_{i}.bin").read_bytes() for i in range(1, 6))

    def __len__(self) -> int:
        return len(self.records) // RECORD

    def __getitem__(self, index: int) -> bytes:
        return self.records[index * RECORD : (index + 1) * RECORD]


def measure(source: Files | Memory, workers: int) -> int:
    """Return images per second."""
    records = grain.MapDataset.source(source).seed(0).shuffle().repeat()
    data = (
        records.random_map(distort)
        .batch(BATCH)
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        .mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=BUFFER))
    )
    batches = iter(data)
    for batch in range(WARM_UP + MEASURED):
        if batch == WARM_UP:
            start = time.perf_counter()
        images, labels = next(batches)
    seconds = time.perf_counter() - start
    assert images.shape == (BATCH, 3, 24, 24)
    assert labels.shape == (BATCH,)
    batches.close()
    return round(MEASURED * BATCH / seconds)


def main() -> None:
    """Measure and print."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    candidates = [0, len(os.sched_getaffinity(0))]
    result: dict[str, object] = {"what": "distorted inputs, images/s"}
    best: dict[str, int] = {}
    for name, kind in (("files", Files), ("memory", Memory)):
        source = kind(Path(sys.argv[1]))
        rates = {workers: measure(source, workers) for workers in candidates}
        print(name, {f"{workers} workers": rate for workers, rate in rates.items()})
        best[name] = max(rates, key=rates.__getitem__)
        result[name] = rates[best[name]]
    result["settings"] = {
        "layout": "NCHW",
        "transform": "numpy",
        "num_workers": best,
        "num_workers tried": candidates,
        "per_worker_buffer_size": BUFFER,
        "read threads": 0,
    }
    result["versions"] = {
        "python": platform.python_version(),
        "grain": importlib.metadata.version("grain"),
        "numpy": np.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

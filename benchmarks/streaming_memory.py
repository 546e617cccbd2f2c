"""Anonymous memory and speed of streaming a set much larger than memory needs to be.

    python benchmarks/streaming_memory.py BATCHES_DIR SCRATCH_DIR --gigabytes 20 --out NAME.json

CIFAR-10's five training files are hard-linked into SCRATCH_DIR, a new folder on the same disk,
until they make up the size asked for; then every label is read, as a training does before its
first step, and one epoch goes through the streamed feed, distortions included. Anonymous memory
(RssAnon) is what the process holds itself; pages of files that the system keeps are not.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import closing
from pathlib import Path

import torch

from deepcnn.data.augment import Inputs
from deepcnn.data.datasets import open_dataset
from deepcnn.data.feeds import Streamed
from deepcnn.data.shuffle import Shuffle
from deepcnn.data.stream import Stream
from deepcnn.devices import Part, Place, describe_environment

BATCH = 128


def anonymous_megabytes() -> float:
    """Return the anonymous memory that this process occupies now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon")


class Peak:
    """The largest anonymous memory seen while it is entered, looked at every 50 ms."""

    def __enter__(self) -> Peak:
        self.megabytes = anonymous_megabytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.megabytes = max(self.megabytes, anonymous_megabytes())


def main() -> None:
    """Link, stream, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    whole = Part(0, 1, cpu)
    options.scratch.mkdir()
    size, count = 0, 0
    while size < options.gigabytes * 1e9:
        original = options.folder / f"data_batch_{count % 5 + 1}.bin"
        (options.scratch / f"data_batch_{count:04}.bin").hardlink_to(original)
        size += original.stat().st_size
        count += 1
    at_start = anonymous_megabytes()
    with Peak() as peak:
        source = open_dataset(options.scratch, "train")
        began = time.perf_counter()
        labels = source.labels()
        survey = time.perf_counter() - began
        inputs = Inputs.of(
            source, crop=0.75, pad=0, flip="random", contrast=(0.2, 1.8), standardize="image"
        )
        shuffle = Shuffle.of(source.shards, seed=0, readers=16, buffer=20_000)
        stream = Stream.extract(source.shards, shuffle).shuffle()
        began = time.perf_counter()
        with closing(Streamed(stream, batch_size=BATCH)) as feed:
            for step in range(len(source) // BATCH):
                batch = feed.batch(step, whole)
                draws = inputs.draw(
                    0, index=batch.index, epoch=batch.epoch, position=batch.position
                )
                inputs.train(batch.images, draws)
        seconds = time.perf_counter() - began
    result = {
        "what": "streaming one epoch, distorted, batch 128",
        "gigabytes": round(size / 1e9, 2),
        "files": count,
        "images": len(labels),
        "peak_anonymous_megabytes": round(peak.megabytes),
        "anonymous_megabytes_after_imports": round(at_start),
        "seconds_to_read_all_labels": round(survey, 1),
        "images_per_second": round(len(labels) / seconds),
        "environment": describe_environment(Place(cpu, "fp32")),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

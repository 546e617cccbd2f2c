"""The memory that streaming a set larger than memory needs."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deepcnn.data.fetch import fetch
from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source
from deepcnn.inputs.feeds import Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from tools.comparison import Case
from tools.distorting import BATCH, SEED, WAITING, WHOLE, distorted


def anonymous_megabytes() -> float:
    """Return what this process holds itself; pages of files that the system keeps are not in it."""
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


def megabytes(gigabytes: float, folder: Path) -> dict[str, Any]:
    """Return the memory at the start and at the most, while a set of this size is streamed.

    CIFAR-10's five training files are linked until they make up that size. As a training does, it
    reads every label first, and then one epoch.
    """
    torch.set_num_threads(1)
    originals = sorted(fetch("cifar10").glob("data_batch_*.bin"))
    with tempfile.TemporaryDirectory(dir=folder) as links:
        size = count = 0
        while size < gigabytes * 1e9:
            original = originals[count % len(originals)]
            (Path(links) / f"data_batch_{count:04}.bin").symlink_to(original.resolve())
            size += original.stat().st_size
            count += 1
        return measured(lambda: open_dataset(links).split("train"), files=count)


def measured(opened: Callable[[], Source], files: int | None = None) -> dict[str, Any]:
    """Return the memory at the start and at the most of a pass over a set that is streamed.

    `opened`: opens it, within what is measured; `files`: of how many, or as many as its shards.
    """
    at_start = anonymous_megabytes()
    with Peak() as peak:
        source = opened()
        began = time.perf_counter()
        images = len(source.labels())
        survey = time.perf_counter() - began
        shuffle = Shuffle.of(source.shards, seed=SEED, readers=16, buffer=WAITING)
        stream = Stream.extract(source.shards, shuffle).shuffle()
        began = time.perf_counter()
        with closing(Streamed(stream, batch_size=BATCH)) as feed:
            batches = distorted(feed, source)
            for step in range(images // BATCH):
                batches.load(step, WHOLE)
        seconds = time.perf_counter() - began
    return {
        "at the start": round(at_start),
        "at the most": round(peak.megabytes),
        "seeds": [SEED],
        "on the way": {
            "files": len(source.shards) if files is None else files,
            "images": images,
            "seconds to read all labels": round(survey, 1),
            "images/s": round(images / seconds),
        },
    }


CASE = Case(
    what="anonymous memory while one epoch is streamed, distorted, batch 128",
    unit="MB",
    contenders={f"{gigabytes} GB": partial(megabytes, gigabytes) for gigabytes in (1, 20)},
    denominator="1 GB",
    higher_is_better=False,
)

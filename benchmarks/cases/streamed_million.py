"""The memory that a pass over a million images in shards behind HTTP needs."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cases.streaming_memory import measured
from deepcnn.data import remote
from deepcnn.data.formats import tfrecord
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import ToWrite
from deepcnn.data.splits import Split
from deepcnn.settings import DataSpec
from tools.comparison import Case

IMAGES = 1_000_000
SIDE, CLASSES = 32, 100
PER_SHARD = 5_000  # some 16 MB
CACHE_GIGABYTES = 1.0  # of 3.2, so that each pass fetches all shards anew


def write(folder: Path, images: int) -> None:
    """Write shards of random images, and the index that a server offers."""
    folder.mkdir()
    listed: list[tuple[str, int]] = []
    shards = -(-images // PER_SHARD)
    for shard, name in enumerate(tfrecord.file_names("train", shards)):
        count = min(PER_SHARD, images - shard * PER_SHARD)
        random = np.random.default_rng(shard)
        pixels = random.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        labels = random.integers(0, CLASSES, count)
        classes = tuple(map(str, range(CLASSES)))
        with (folder / name).open("wb") as file:
            tfrecord.write(file, ToWrite(count, (SIDE, SIDE, 3), classes, [(pixels, labels)]))
        listed.append((name, count))
    splits: dict[Split, list[tuple[str, int]]] = {"train": listed}
    remote.describe(folder, splits, (SIDE, SIDE, 3), tuple(map(str, range(CLASSES))))


def main(arguments: list[str]) -> int:
    """Serve the files of a folder on this machine, from a process of its own; say the port."""
    handler = functools.partial(Quiet, directory=arguments[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
    return 0


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of each request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder while the context lasts, so that the server's memory is not this one's."""
    program = Path(__file__).parent.parent / "run.py"
    command = [sys.executable, str(program), "worker", "served_folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/"
        finally:
            server.terminate()


def megabytes(elsewhere: bool, folder: Path, images: int = IMAGES) -> dict[str, Any]:
    """Return the memory at the start and at the most: the labels are read, and then one epoch."""
    torch.set_num_threads(1)
    shards = folder / "shards"
    if not shards.exists():
        write(shards, images)
    with served(shards) as url:
        spec = DataSpec(
            data=url if elsewhere else str(shards),
            data_dir=str(folder / "data"),
            cache_gigabytes=CACHE_GIGABYTES,
        )
        return measured(lambda: open_dataset(spec).split("train"))


CASE = Case(
    what="anonymous memory while a million images of 32×32 are streamed, one epoch, distorted",
    unit="MB",
    contenders={"files": partial(megabytes, False), "http": partial(megabytes, True)},
    denominator="files",
    higher_is_better=False,
)

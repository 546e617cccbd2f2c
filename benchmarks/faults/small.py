"""Trainings of a tenth of a second, which the campaigns on one machine hurt."""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.events import Event, Started
from deepcnn.runs.run import CONFIG, Run
from deepcnn.training import start

SIDE, CLASSES, TRAIN, TEST, BATCH = 12, 3, 48, 16, 8
OLD_SEED = 7  # of the run that --overwrite replaces; the new one has seed 0


@dataclass(frozen=True)
class Training:
    """A training that is begun, or that replaces another.

    `by_python`: its batches come from a function of the step; `judged`: it is evaluated now and
    then, keeps its best checkpoint and writes summaries.
    """

    name: str
    feed: str = "preloaded"
    precision: str = "fp32"
    towers: int = 0
    processes: int = 1
    overwrite: bool = False
    judged: bool = False

    def config(self, data: Path, **changes: Any) -> Config:
        """Return its settings."""
        tiny = presets.tiny()
        more = {"evaluate_every": 2, "keep_best": True, "summary_every": 3, "validation_size": 8}
        return dataclasses.replace(
            tiny,
            data=str(data),
            model=dataclasses.replace(tiny.model, widths=(4, 4, 8, 8)),
            batch_size=BATCH,
            save_every=2,
            keep=2,
            log_every=2,
            device="cpu",
            threads=1,
            feed="preloaded" if self.feed == "fed" else self.feed,
            precision=self.precision,
            towers=self.towers,
            **({"steps": 6, "summary_every": 0} | (more if self.judged else {}) | changes),
        )

    def begin(self, data: Path, run: Path, **changes: Any) -> int:
        """Train it from its first step; return that."""
        heard = Heard()
        config = self.config(data, **changes)
        start.train(config, run_dir=run, overwrite=self.overwrite, feed=self._feed, emit=heard)
        return heard.first_step

    def go_on(self, data: Path, run: Path) -> int:
        """Do what a user does after a kill; return the step from which it went on.

        A run is resumed; what is none yet, or is not the new one yet, is started again.
        """
        if not (run / CONFIG).exists() or (self.overwrite and Run(run).config().seed == OLD_SEED):
            return self.begin(data, run)
        heard = Heard()
        start.resume(run, feed=self._feed, emit=heard)
        return heard.first_step

    @property
    def _feed(self) -> Any:
        return fed if self.feed == "fed" else None


TRAININGS = (
    Training("preloaded"),
    Training("queued, bf16", feed="queued", precision="bf16"),
    Training("streamed", feed="streamed"),
    Training("fed by Python", feed="fed"),
    Training("two towers", towers=2),
    Training("two processes", processes=2),
    Training("judged, summaries", judged=True),
    Training("overwrite", overwrite=True),
    Training("overwrite, bf16", precision="bf16", overwrite=True),
    Training("overwrite, queued", feed="queued", overwrite=True),
    Training("overwrite, streamed, bf16", feed="streamed", precision="bf16", overwrite=True),
    Training("overwrite, fed, two towers", feed="fed", towers=2, overwrite=True),
    Training("overwrite, judged", judged=True, overwrite=True),
)


class Heard:
    """Notes at which step a training started."""

    first_step = -1

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        if isinstance(event, Started):
            self.first_step = event.step


def examples(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [count, SIDE, SIDE, 3] and labels int64 [count]."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return images, np.arange(count, dtype=np.int64) % CLASSES


def fed(step: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the batch of a step."""
    return examples(BATCH, step)


def make_data(folder: Path) -> Path:
    """Write a data set of a few images into a new folder."""
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": TRAIN, "test": TEST}.items()):
        images, labels = examples(count, seed)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


def make_old(data: Path, run: Path) -> None:
    """Train the run that others replace."""
    Training("old").begin(data, run, seed=OLD_SEED)


def be_one_of(count: int, rank: int, port: int) -> None:
    """Make this process one of several, as torchrun would."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

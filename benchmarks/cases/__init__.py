"""The cases that `run.py` runs: what is measured, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from cases import inputs, links, prediction, reading, streaming, training
from deepcnn.data.convert import Form

# Measures itself and returns its figures by metric; what is no number is noted beside them. It is
# given the folder that the case has prepared. A fresh process calls it, so it must be picklable.
Contender = Callable[[Path], Mapping[str, Any]]


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Case:
    """A comparison. The denominator, to which ratios are taken, is a contender or a peer."""

    what: str
    unit: str
    contenders: Mapping[str, Contender]
    denominator: str
    higher_is_better: bool = True
    lower_is_better: tuple[str, ...] = ()  # metrics that are exceptions to this
    peers: tuple[str, ...] = ()  # that may come from the command line
    prepare: Callable[[Path], None] = nothing


# Without summaries and checkpoints, which only one of several processes writes.
PLAIN = ("--summary-every", "0", "--save-every", "100000")
CASES = {
    "tutorial_training": Case(
        what="training the tutorial network with distorted inputs, batch 128, by precision",
        unit="images/s",
        contenders={
            "deepcnn": partial(training.images_per_second, "fp32", ()),
            "deepcnn, bf16": partial(training.images_per_second, "bf16", ()),
        },
        denominator="tensorflow",
        peers=("tensorflow",),
    ),
    "prediction": Case(
        what="logits of trained networks: a batch of 256, and one image",
        unit="images/s, ms",
        contenders={
            "deepcnn": prediction.prepared,
            "deepcnn, bf16": prediction.prepared_in_bf16,
            "torch": prediction.plain,
        },
        denominator="onnxruntime",
        lower_is_better=tuple(f"{preset}: ms, batch 1" for preset in prediction.PRESETS),
        peers=("tensorflow", "onnxruntime"),
        prepare=prediction.train_all,
    ),
    "feeds_training": Case(
        what="training the tutorial network through each feed, batch 128",
        unit="images/s",
        contenders={
            feed: partial(training.images_per_second, "fp32", ("--feed", feed))
            for feed in ("preloaded", "fed", "queued", "streamed")
        },
        denominator="preloaded",
    ),
    "inputs": Case(
        what="distorted inputs from files or memory, batch 128, float32",
        unit="images/s",
        contenders={
            feed: partial(inputs.images_per_second, feed)
            for feed in ("preloaded", "queued", "streamed")
        },
        denominator="tensorflow",
        peers=("tensorflow", "dataloader", "grain"),
    ),
    "reading": Case(
        what="reading and verifying CIFAR-10's 50,000 training images into memory",
        unit="s",
        contenders={
            name: partial(reading.seconds, name) for name in ("cifar10 by name", *get_args(Form))
        },
        denominator="cifar10 by name",
        higher_is_better=False,
        prepare=reading.convert_to_all,
    ),
    # An exercise of TensorFlow's tutorial: two devices with batch 64 each against one with 128.
    # One tower and one process show what the machinery costs by itself.
    "devices": Case(
        what="training the tutorial network, batch 128 over all devices",
        unit="images/s",
        contenders={
            name: partial(training.images_per_second, "fp32", (*PLAIN, *options), steps=120)
            for name, options in {
                "one device": (),
                "one tower": ("--towers", "1"),
                "two towers": ("--towers", "2"),
                "one process": ("--devices", "1"),
                "two processes": ("--devices", "2"),
            }.items()
        },
        denominator="one device",
    ),
    "links": Case(
        what="summing gradients, and a step of batch 128, between two hosts (needs root)",
        unit="ms",
        contenders={
            name: partial(links.milliseconds, megabits)
            for name, megabits in {"unshaped": None, "1 Gb/s": 1_000, "100 Mb/s": 100}.items()
        },
        denominator="unshaped",
        higher_is_better=False,
    ),
    "streaming_memory": Case(
        what="anonymous memory while one epoch is streamed, distorted, batch 128",
        unit="MB",
        contenders={
            f"{gigabytes} GB": partial(streaming.megabytes, gigabytes) for gigabytes in (1, 20)
        },
        denominator="1 GB",
        higher_is_better=False,
    ),
}

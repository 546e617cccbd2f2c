"""Distorted inputs per second: deepcnn's feeds against tf.data, PyTorch's DataLoader and Grain.

    python benchmarks/inputs.py BATCHES_DIR --tensorflow COMMAND --dataloader COMMAND \
        --grain COMMAND --out results/NAME.json

BATCHES_DIR holds CIFAR-10's data_batch_1.bin to data_batch_5.bin. Each COMMAND, to which the folder
is appended, runs a peer in an environment of its own; its last line is JSON with "files" and
"memory": images per second of batches of 128, distorted as in TensorFlow's tutorial, in float32.
Cases and peers run in turn, each in a fresh process, several times over. Stored are all figures,
the medians, and the ratios of medians to those of tf.data.

One case alone: python benchmarks/inputs.py BATCHES_DIR --case preloaded|queued|streamed
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

BATCH = 128
WARM_UP, STEPS = 450, 1200  # as many to warm up as the peers; three epochs to measure
CASES = {"preloaded": "memory", "queued": "files", "streamed": "files"}  # where peers read from


def measure(folder: Path, case: str) -> dict[str, object]:
    """Return images per second of one feed, and the environment."""
    import torch

    from deepcnn.data.augment import Inputs
    from deepcnn.data.feeds import Feed, Preloaded, Queued, Streamed
    from deepcnn.data.formats.cifar import CifarShard
    from deepcnn.data.shuffle import Shuffle
    from deepcnn.data.source import Source, in_memory
    from deepcnn.data.stream import Stream
    from deepcnn.devices import Part, Place, describe_environment

    torch.set_num_threads(1)  # one core distorts; the other one reads, where there is reading
    cpu = torch.device("cpu")
    whole = Part(0, 1, cpu)
    shards = tuple(CifarShard(folder / f"data_batch_{i}.bin") for i in range(1, 6))
    source = Source(shards, tuple(map(str, range(10))))
    feed: Feed
    if case == "preloaded":
        arrays = source.load()
        source = in_memory(arrays)
        feed = Preloaded(arrays, Shuffle.full(0, len(arrays)), batch_size=BATCH)
    else:
        waiting = 20_000  # as the reference, and tf.data's shuffle buffer
        shuffle = Shuffle.of(shards, seed=0, readers=16, buffer=waiting + BATCH)
        stream = Stream.extract(shards, shuffle, threads=case == "queued").shuffle()
        if case == "queued":
            feed = Queued(stream, examples_in_queue=waiting, batch_size=BATCH)
        else:
            feed = Streamed(stream, batch_size=BATCH)
    inputs = Inputs.of(
        source, crop=0.75, pad=0, flip="random", contrast=(0.2, 1.8), standardize="image"
    )

    def step(number: int) -> None:
        batch = feed.batch(number, whole)
        draws = inputs.draw(0, index=batch.index, epoch=batch.epoch, position=batch.position)
        inputs.train(batch.images, draws)

    with closing(feed):
        for number in range(WARM_UP):
            step(number)
        began = time.perf_counter()
        for number in range(WARM_UP, WARM_UP + STEPS):
            step(number)
        seconds = time.perf_counter() - began
    return {
        CASES[case]: round(STEPS * BATCH / seconds),
        "environment": describe_environment(Place(cpu, "fp32")),
    }


def run(command: list[str]) -> dict[str, object]:
    """Return what a program prints as JSON on its last line."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure one case, or all of them against the peers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--tensorflow")
    parser.add_argument("--dataloader")
    parser.add_argument("--grain")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.folder, options.case)))
        return
    peers = {
        name: [*shlex.split(command), str(options.folder)]
        for name in ("tensorflow", "dataloader", "grain")
        if (command := getattr(options, name))
    }
    ours = {case: [sys.executable, __file__, str(options.folder), "--case", case] for case in CASES}
    figures: dict[str, list[float]] = {}
    notes: dict[str, object] = {}
    for number in range(options.rounds):
        for name, command in (ours | peers).items():
            found = run(command)
            for place in ("files", "memory"):
                if place in found:
                    figures.setdefault(f"{name} {place}", []).append(float(str(found.pop(place))))
            notes[name] = found
        print(f"round {number + 1}: { ({name: round(f[-1]) for name, f in figures.items()}) }")
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {
        f"{case} to {peer}": round(medians[f"{case} {place}"] / medians[f"{peer} {place}"], 2)
        for case, place in CASES.items()
        for peer in peers
    }
    result = {
        "what": "distorted inputs, images/s, batch 128, float32",
        "medians": medians,
        "ratios": ratios,
        "all": figures,
        "programs": notes,
    }
    print(json.dumps({"medians": medians, "ratios": ratios}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

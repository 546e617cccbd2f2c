"""Training speed of the tutorial network through each feed, in fp32.

    python benchmarks/feeds_training.py --out results/NAME.json

The feeds take turns, each in a fresh process, several times over. Stored are all figures, their
medians, and the ratios to the preloaded feed's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from tutorial_training import deepcnn

FEEDS = ("preloaded", "fed", "queued", "streamed")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    figures: dict[str, list[float]] = {feed: [] for feed in FEEDS}
    environment: dict[str, object] = {}
    for _ in range(options.rounds):
        for feed, found in figures.items():
            rate, environment = deepcnn("fp32", options.steps, feed)
            found.append(round(rate))
    medians = {feed: statistics.median(found) for feed, found in figures.items()}
    result = {
        "what": "training of the tutorial network, images/s, batch 128, fp32",
        "medians": medians,
        "ratios": {f: round(m / medians["preloaded"], 3) for f, m in medians.items()},
        "all": figures,
        "environment": environment,
    }
    print(json.dumps({name: result[name] for name in ("medians", "ratios", "all")}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

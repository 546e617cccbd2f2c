"""Training speed of the tutorial network, distorted inputs included, against a peer.

    python benchmarks/tutorial_training.py --peer COMMAND --out results/NAME.json

Runs, in turn and several times over: deepcnn in each precision, and the peer, a command whose last
line is JSON with "fp32": images per second for the same network, inputs and batch size. Prints and
stores all figures, their medians and the ratios to the peer's median. Every figure is the median
of the groups of ten steps of a fresh process, after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP = 20  # steps


def deepcnn(precision: str, steps: int, feed: str = "preloaded") -> tuple[float, dict[str, object]]:
    """Return images per second of `deepcnn train tutorial`, summaries on, and its environment."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "deepcnn", "train", "tutorial", "--json"]
        command += ["--precision", precision, "--steps", str(steps), "--run-dir", str(run)]
        command += ["--feed", feed]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        environment = json.loads((run / "environment.json").read_text())
    events = [json.loads(line) for line in out.splitlines()]
    rates = [
        event["examples_per_second"]
        for event in events
        if event["event"] == "Stepped" and event["step"] > WARM_UP
    ]
    return statistics.median(rates), environment


def peer(command: str) -> float:
    """Return the peer's images per second."""
    done = subprocess.run(shlex.split(command), check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["fp32"])


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument(
        "--slow-steps", type=int, default=50, help="of bf16 without hardware for it"
    )
    options = parser.parse_args()
    found: dict[str, list[float]] = {"peer": [], "fp32": [], "bf16": []}
    environment: dict[str, object] = {}
    for _ in range(options.rounds):
        found["peer"].append(peer(options.peer))
        rate, environment = deepcnn("fp32", options.steps)
        found["fp32"].append(rate)
        rate, _ = deepcnn("bf16", options.slow_steps)
        found["bf16"].append(rate)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    result = {
        "what": "training the tutorial network with distorted inputs, batch 128, images/s",
        "environment": environment,
        "rates": {name: [round(rate) for rate in rates] for name, rates in found.items()},
        "medians": {name: round(rate) for name, rate in medians.items()},
        "ratios": {name: round(medians[name] / medians["peer"], 2) for name in ("fp32", "bf16")},
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

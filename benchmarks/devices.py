"""What dividing a step costs: towers and processes against one device.

    python benchmarks/devices.py --out results/NAME.json

Trains the tutorial network at the same batch of 128 on one device, in two towers and in two
processes of 64 (an exercise that TensorFlow's tutorial sets its readers), and through the machinery
of towers and processes with one device only, which shows its overhead alone. Cases take turns,
several times over; a figure is the median over the groups of steps of a fresh process after a
warm-up, and what is shown is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP = 20  # steps
TRAIN = ["-m", "deepcnn", "train", "tutorial", "--summary-every", "0", "--save-every", "100000"]
DIVIDED = {
    "one device": [],
    "one tower": ["--towers", "1"],
    "two towers": ["--towers", "2"],
    "one process": ["--devices", "1"],
    "two processes": ["--devices", "2"],
}


def rates(run: Path) -> float:
    """Return the median images per second of a run, after the warm-up."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return statistics.median(
        e["examples_per_second"] for e in events if e["event"] == "Stepped" and e["step"] > WARM_UP
    )


def one_machine(case: list[str], steps: int) -> tuple[float, dict[str, object]]:
    """Return the images per second of a case, and its environment."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, *TRAIN, "--steps", str(steps), "--run-dir", str(run), *case]
        subprocess.run(command, check=True, capture_output=True)
        return rates(run), json.loads((run / "environment.json").read_text())


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    divided: dict[str, list[float]] = {name: [] for name in DIVIDED}
    environment: dict[str, object] = {}
    for _ in range(options.rounds):
        for name, case in DIVIDED.items():
            rate, about = one_machine(case, options.steps)
            divided[name].append(round(rate))
            environment = about if name == "one device" else environment
    medians = {name: statistics.median(found) for name, found in divided.items()}
    result = {
        "what": "training of the tutorial network, images/s, batch 128 over all devices, fp32",
        "medians": medians,
        "ratios": {n: round(m / medians["one device"], 3) for n, m in medians.items()},
        "all": divided,
        "environment": environment,
    }
    shown = ("medians", "ratios", "all")
    print(json.dumps({name: result[name] for name in shown}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

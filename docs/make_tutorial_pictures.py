"""Makes the pictures of docs/tutorial.md, from a training that it makes or goes on with.

python -m docs.make_tutorial_pictures                    # 3,000 steps of the tutorial, then all
python -m docs.make_tutorial_pictures --only network     # from the run that is there
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.pictures_of import curves, inputs, network, visualizer
from records.scores import log_of, runs_of

import deepcnn
from deepcnn.inference.trained import Trained, newest
from deepcnn.runs.log import read_log
from deepcnn.runs.run import Run

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("inputs", "network", "curves", "tensorboard")
LONG_RUN = ROOT / "records" / "2026-11-21_tutorial_60000"


def main() -> int:
    """Train where that is not done yet, and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3000, help="of the training; default: 3000")
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "tutorial-run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "tutorial")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    run = trained(options.run, options.steps)
    folder = options.out
    network_of = Trained.load(run, newest(run)[0])
    if "inputs" in options.only:
        train = deepcnn.load_dataset("cifar10", "train")
        inputs.make(train, network_of.trained_on.transform, folder)
    if "network" in options.only:
        network.make(network_of, deepcnn.load_dataset("cifar10", "test"), folder)
    if "curves" in options.only:
        curves.make(read_log(run.log), runs_of(log_of(LONG_RUN))["seed-0"], folder)
    if "tensorboard" in options.only:
        visualizer.make(run.path / "summaries", folder)
    return 0


def trained(path: Path, steps: int) -> Run:
    """Return the pictures' run: a new one, or the one that is there, brought to its last step."""
    if not (path / "config.json").exists():
        result = deepcnn.train("tutorial", steps=steps, seed=0, run_dir=path, progress=True)
        if result.evaluated is None:
            sys.exit("stopped; the same command goes on")
    run = Run.open(path)
    if run.config().steps != steps:
        sys.exit(f"{path}: a run of {run.config().steps} steps; name another with --run")
    if not run.is_finished() and deepcnn.resume(path, progress=True).evaluated is None:
        sys.exit("stopped; the same command goes on")
    return run


if __name__ == "__main__":
    sys.exit(main())

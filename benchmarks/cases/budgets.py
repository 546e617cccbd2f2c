"""Whether `deepcnn train --data … --budget …` ends in time, and uses its time.

    python benchmarks/run.py budgets --folder SETS [--sets digits mixed] [--budgets 30] [--times 5]

Each training is a process of its own, timed from outside, from its start to its end. A budget is
kept where the process ended within 105 % of it; it is used where it took at least 90 %, or said
that more would not help. The sets are made once in --folder: CIFAR-10 as PNG files with a test
split, Fashion-MNIST by its name, scikit-learn's digits of 8×8 as PNG files, and drawn pictures of
mixed sizes. Sets and budgets take turns, so that no set has the machine's best hour.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tools import report

BUDGETS = (30, 120, 300)  # seconds
KEPT, USED = 1.05, 0.9
MIXED = {"circles": "ellipse", "boxes": "rectangle", "lines": "line", "arcs": "arc"}


def cifar10(folder: Path) -> str:
    """Write CIFAR-10 as 60,000 PNG files."""
    made = folder / "cifar10"
    if not made.exists():
        deepcnn("data", "convert", "cifar10", str(made), "--to", "folder", cwd=folder)
    return str(made)


def fashion_mnist(folder: Path) -> str:  # noqa: ARG001
    """Return the name of Fashion-MNIST."""
    return "fashion_mnist"


def digits(folder: Path) -> str:
    """Write scikit-learn's 1,797 digits of 8×8 as PNG files."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("the set digits needs scikit-learn: pip install scikit-learn, or leave it out")
    made, found = folder / "digits", load_digits()
    for index, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = made / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(path)
    return str(made)


def mixed(folder: Path) -> str:
    """Draw 600 pictures of 60 to 160 pixels a side: circles, boxes, lines and arcs in noise."""
    made, rng = folder / "mixed", np.random.default_rng(0)
    for name, shape in MIXED.items():
        (made / name).mkdir(parents=True, exist_ok=True)
        for index in range(150):
            height, width = rng.integers(60, 161, 2)
            noise = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            picture = Image.fromarray(noise)
            pen = ImageDraw.Draw(picture)
            for _ in range(3):
                left, top = rng.integers(0, width // 2), rng.integers(0, height // 2)
                box = (left, top, left + width // 3, top + height // 3)
                given: dict[str, Any] = {"start": 0, "end": 200} if shape == "arc" else {}
                colour = {"fill": "white"} if shape in ("arc", "line") else {"outline": "white"}
                getattr(pen, shape)([*map(int, box)], width=4, **given, **colour)
            picture.save(made / name / f"{index:03}.jpg")
    return str(made)


SETS = {"cifar10": cifar10, "fashion_mnist": fashion_mnist, "digits": digits, "mixed": mixed}


def deepcnn(*arguments: str, cwd: Path) -> str:
    """Run the program, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "deepcnn", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"deepcnn {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def trained(data: str, budget: float, folder: Path, *more: str) -> dict[str, Any]:
    """Train once, and return how long the process took and what it said."""
    run = folder / f"run-{os.getpid()}"
    arguments = ("train", "--data", data, "--budget", f"{budget:g}s", "--run-dir", str(run))
    began = time.perf_counter()
    printed = deepcnn(*arguments, "--json", *more, cwd=folder)
    seconds = time.perf_counter() - began
    shutil.rmtree(run)
    events = [json.loads(line) for line in printed.splitlines()]
    (planned,) = [event for event in events if event["event"] == "Planned"]
    evaluated = [event for event in events if event["event"] == "Evaluated"][-1]
    steps = [event for event in events if event["event"] == "Finished"][-1]["step"]
    return {
        "seconds": round(seconds, 2),
        "kept": seconds <= KEPT * budget,
        "used": seconds >= USED * budget or planned["enough"],
        "enough": planned["enough"],
        "predicted": {
            name: round(planned[name], 2) for name in ("before", "training", "scoring", "report")
        },
        "image": planned["shape"],
        "examples": planned["examples"],
        "left_out": planned["left_out"],
        "steps": {"planned": planned["steps"], "made": steps},
        "accuracy": evaluated["correct"] / evaluated["total"],
    }


def main(arguments: list[str]) -> int:
    """Train, print how many budgets were kept, and store all."""
    parser = report.parser("budgets", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the sets are made")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="seconds")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args(arguments)
    out = report.new_file("budgets", options.out, options.remark)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    about = report.circumstances()
    data = {name: SETS[name](folder) for name in options.sets}
    found: list[dict[str, Any]] = []
    for number in range(options.times):
        for budget in options.budgets:
            for name, path in data.items():
                one = trained(path, budget, folder, "--seed", str(number))
                found.append({"set": name, "budget": budget, "seed": number, **one})
                verdict = ("kept" if one["kept"] else "too late") + (
                    "" if one["used"] else ", not used"
                )
                print(f"{name:<14}{budget:5g} s: {one['seconds']:7.2f} s, {verdict}", flush=True)
    kept = sum(one["kept"] for one in found)
    good = sum(one["kept"] and one["used"] for one in found)
    print(f"{kept} of {len(found)} ended within {KEPT:.0%}; {good} of these used their time")
    result = {
        "what": "trainings with a budget: ended within 105 % of it, and used 90 % or said that "
        "more would not help",
        **about,
        "trainings": len(found),
        "kept": kept,
        "kept and used": good,
        "each": found,
    }
    report.store(result, out, options.remark)
    return 0

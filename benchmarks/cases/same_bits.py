"""Whether the working tree computes what a commit computes, bit for bit.

    python benchmarks/run.py same_bits --base COMMIT
    python benchmarks/run.py same_bits --base COMMIT --only quick --only fed

For changes of the source that must change no number. Each of `TRAININGS` is run from the commit's
source and then from the working tree's, on this machine and in processes of their own. They go
through the command line and read the runs' files, so that it does not matter how modules and
functions are called. Compared are all losses and scores of the logs, all tensors of the last
checkpoints and, of some, what the networks answer when they are prepared for prediction
(`workers/answers.py`). A line for each comparison says `same` or what differs first; where
anything differs the exit status is 1.

This file needs nothing of deepcnn, so it can be run while the working tree is broken elsewhere.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWERS = (str(REPOSITORY / "benchmarks" / "run.py"), "worker", "answers")
STEPPED = ("losses", "averages", "learning_rate")  # what is compared of a logged step
EVALUATED = ("correct", "total", "loss")  # and of a score

# What is compared of a run: strings or tensors by their names.
Items = Mapping[str, str | Tensor]


@dataclass(frozen=True)
class Training:
    """A short training.

    `options`: of `deepcnn train`; `resumed`: of a second command, which goes on with the run, or
    None; `answers`: whether also the answers of its network are compared, with the weights that
    the seed gives and with the trained ones, in fp32 and in bf16.
    """

    options: str
    resumed: str | None = None
    answers: bool = False


TINY = "tiny --steps 30"
CIFAR10 = "--steps 60 --threads 1"
# Few steps, but a network of full size; scored on few images, over all kinds of views.
LARGE = "speedrun94 --steps 2 --validation-size 500 --threads 1 --precision fp32"
# What no other training has: a residual network, and squares that are cut out.
RESIDUAL = "speedrun96 --data synthetic --model.widths 8 16 16 --steps 10 --batch-size 32"
MLP = "mnist --data synthetic --validation-size 100 --steps 30 --evaluate-every 10"
WEIGHED = f"{TINY} --class-weights balanced --label-smoothing 0.1 --optimizer.decay-epochs 0.05"
TRAININGS = {
    "preloaded": Training(f"{TINY} --feed preloaded"),
    "fed": Training(f"{TINY} --feed fed"),
    "queued": Training(f"{TINY} --feed queued"),
    "streamed": Training(f"{TINY} --feed streamed --shuffle-buffer 1000"),
    "two_towers": Training(f"{TINY} --towers 2"),
    "two_processes": Training(f"{TINY} --devices 2"),
    "fp32": Training(f"{TINY} --precision fp32"),
    "bf16": Training(f"{TINY} --precision bf16"),
    "held_out": Training(f"{TINY} --validation-size 500"),
    "resumed": Training("tiny --steps 17", resumed="--steps 30"),
    "weighed": Training(WEIGHED),
    "mlp": Training(MLP),
    "residual": Training(RESIDUAL),
    "tutorial": Training(f"tutorial {CIFAR10} --precision fp32", answers=True),
    "quick": Training(f"quick {CIFAR10} --precision fp32", answers=True),
    "quick_bf16": Training(f"quick {CIFAR10} --precision bf16"),
    "speedrun94": Training(LARGE, answers=True),
}


class FailedError(Exception):
    """A program that should have been compared did not end well; tells its last line."""


def main(arguments: list[str]) -> int:
    """Compare what the arguments ask for; return 1 where anything differs."""
    options = parse(arguments)
    names = list(dict.fromkeys(options.only)) or [*TRAININGS]
    equal: list[bool] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {
            "base": check_out(options.base, folder / "checkout"),
            "tree": REPOSITORY / "src",
        }
        for name, source in sources.items():
            check_that_it_is_imported(source, folder)
            print(f"{name}: {source}", flush=True)
        for name in names:
            for what, difference in compare(TRAININGS[name], sources, folder / name):
                equal.append(difference is None)
                print(f"{name}: {what}: {difference or 'same'}", flush=True)
    print(f"{equal.count(True)} of {len(equal)} comparisons are the same")
    return 0 if all(equal) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run.py same_bits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="COMMIT", help="what to compare with")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=TRAININGS,
        metavar="NAME",
        help=f"a part: {', '.join(TRAININGS)}; may be repeated",
    )
    return parser.parse_args(arguments)


def check_out(commit: str, folder: Path) -> Path:
    """Write a commit's source below `folder`, and return where; end the program if git cannot."""
    command = ["git", "-C", str(REPOSITORY), "archive", commit, "src"]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        sys.exit(f"--base {commit}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


def check_that_it_is_imported(source: Path, folder: Path) -> None:
    """End the program where Python would take another deepcnn than that of `source`."""
    found = python(source, folder, "-c", "import deepcnn; print(deepcnn.__file__)").strip()
    if not Path(found).resolve().is_relative_to(source.resolve()):
        sys.exit(f"expected to compare {source}, but Python imports {found}")


def compare(
    training: Training, sources: Mapping[str, Path], folder: Path
) -> Iterator[tuple[str, str | None]]:
    """Yield what was compared, and what differs first, or None.

    `sources`: those of base and tree, in this order; `folder`: does not exist yet.
    """
    found: list[dict[str, Items]] = []
    for name, source in sources.items():
        try:
            found.append(run(training, source, folder / name))
        except (FailedError, OSError, LookupError, ValueError) as error:
            yield name, f"failed: {error!r}"
            return
    base, tree = found
    for what, items in base.items():
        difference = first_difference(items, tree[what])
        yield f"{what} ({len(items)})", difference


def run(training: Training, source: Path, folder: Path) -> dict[str, Items]:
    """Run a training from a source, in a new folder; return what is compared of it."""
    folder.mkdir(parents=True)
    command = ("-m", "deepcnn", "train")
    python(source, folder, *command, *training.options.split(), "--log-every=1", "--run-dir=run")
    if training.resumed is not None:
        python(source, folder, *command, "--resume=run", *training.resumed.split())
    log = (folder / "run" / "log.jsonl").read_text()
    found: dict[str, Items] = {
        "losses": events(log, "Stepped", STEPPED),
        "scores": events(log, "Evaluated", EVALUATED),
        "last checkpoint": last_checkpoint(folder / "run" / "checkpoints"),
    }
    if training.answers:
        python(source, folder, *ANSWERS, "run", "answers.safetensors")
        found["answers"] = load_file(folder / "answers.safetensors")
    return found


def python(source: Path, folder: Path, *arguments: str) -> str:
    """Run Python in `folder` with the package of `source`; return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FailedError(f"exit status {done.returncode}: {last}")
    return done.stdout


def events(log: str, kind: str, fields: tuple[str, ...]) -> dict[str, str]:
    """Return these fields of all events of a kind, as JSON: it keeps every bit of a number."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    chosen = [line for line in lines if line["event"] == kind]
    found = {}
    for number, line in enumerate(chosen, start=1):
        name = " ".join([f"{kind} {number}, step {line['step']}", line.get("split", "")]).strip()
        found[name] = json.dumps({field: line[field] for field in fields})
    return found


def last_checkpoint(folder: Path) -> Items:
    """Return the tensors of the last checkpoint, and the name of its file."""
    path = max(folder.glob("step-*.safetensors"))
    return {"name of the file": path.name, **load_file(path)}


def first_difference(base: Items, tree: Items) -> str | None:
    """Return in words what differs first between the items of base and tree, or None."""
    if not base:
        return "expected something to compare, found nothing"
    for name in [*base, *(name for name in tree if name not in base)]:
        if name not in base or name not in tree:
            return f"{name}: only in the {'tree' if name in tree else 'base'}"
        if difference := difference_of(base[name], tree[name]):
            return f"{name}: {difference}"
    return None


def difference_of(base: str | Tensor, tree: str | Tensor) -> str | None:
    """Return in words how an item differs, or None where not a bit does."""
    if isinstance(base, str) or isinstance(tree, str):
        return None if str(base) == str(tree) else f"base {base}, tree {tree}"
    kinds = [f"{x.dtype} {list(x.shape)}" for x in (base, tree)]
    if kinds[0] != kinds[1]:
        return f"base {kinds[0]}, tree {kinds[1]}"
    unlike = (bits(base) != bits(tree)).any(1)
    if not unlike.any():
        return None
    distance = (base.double() - tree.double()).abs().max()
    return f"{int(unlike.sum())} of {len(unlike)} values differ, by up to {distance:.3g}"


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor's values: uint8 [values, bytes of each]."""
    return tensor.reshape(-1, 1).view(torch.uint8)

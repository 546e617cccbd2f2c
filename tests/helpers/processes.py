"""Several processes of one training. As a program this module is what each of them runs."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from filelock import FileLock
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import deepcnn
from deepcnn.config import Config
from deepcnn.data import catalog
from deepcnn.data.fetch import default_data_dir
from deepcnn.data.open import load_dataset
from deepcnn.data.source import Source, in_memory
from deepcnn.devices import Part, Place
from deepcnn.errors import ConfigError
from deepcnn.events import EnvironmentChanged, Event
from deepcnn.inference import scoring
from deepcnn.inference.answers import Answers
from deepcnn.inference.scoring import blocks_to_score, score
from deepcnn.inputs.loader import Loader
from deepcnn.models.build import build_model
from deepcnn.team.join import join
from deepcnn.team.team import Team
from deepcnn.training.loop import Result
from tests.helpers.distorting import EVERYTHING
from tests.helpers.home_page import Handler, Server, tiny_archive, tiny_files
from tests.helpers.tiny import ADAMW, CPU, PLAIN, QUICK, TINY, transform_of, with_inputs

ROOT = Path(__file__).parent.parent.parent
# More than the 1 MiB of the first bucket that gradients are put into, so that there are two.
WIDE = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, widths=(16, 16, 600, 64)),
    steps=8,
    batch_size=12,
    save_every=4,
)
DISTORTED = with_inputs(dataclasses.replace(PLAIN, steps=15), **EVERYTHING)
PLACE = Place(CPU, "fp32")
FEW = range(1, 34)  # images that are scored, four at a time


def with_steps(config: Config, steps: int) -> Config:
    return dataclasses.replace(config, steps=steps)


def until(steps: int) -> Callable[[Config], Config]:
    return lambda config: with_steps(config, steps)


# What each process does


def work(folder: Path) -> dict[str, Any]:
    """Train, resume and score in `folder`, and return what this process saw."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seen: dict[str, Any] = {"written": [], "left": []}
    watch_groups(seen["left"])
    if rank:
        watch_writing(folder, seen["written"])
    catalog.CATALOG["cifar10"] = stand_in(json.loads((folder / "server.json").read_text()))
    seen["whole"] = as_json(deepcnn.train(WIDE, run_dir=folder / "whole"))
    deepcnn.train(with_steps(WIDE, 4), run_dir=folder / "resumed")
    seen["resumed"] = as_json(deepcnn.resume(folder / "resumed", changes=until(8)))
    deepcnn.train(PLAIN, run_dir=folder / "plain")
    deepcnn.train(DISTORTED, run_dir=folder / "distorted")
    if count == 2:
        seen |= work_of_two(folder)
    seen["few"] = score_few()
    if count == 3:
        catalog.CATALOG["cifar10"] = catalog.CIFAR10
        seen["real"] = score_real()
    changes: dict[str, Any] = {"batch_size": 1} if count == 2 else {"towers": 2}
    try:
        deepcnn.train(dataclasses.replace(TINY, **changes), run_dir=folder / "error")
    except ConfigError as error:
        seen["error"] = [str(error), error.told]
    return seen


def work_of_two(folder: Path) -> dict[str, Any]:
    """Do what takes two processes, and return what this one saw."""
    seen: dict[str, Any] = {}
    synchronized = dataclasses.replace(QUICK, sync_batch_norm=True, keep=1)
    deepcnn.train(synchronized, run_dir=folder / "quick")
    deepcnn.train(ADAMW, run_dir=folder / "adamw")
    with watched_batches() as seen["batches"]:
        seen["changes"] = change_processes(folder / "changing", seen["batches"])
    tiny = with_steps(TINY, 1)
    fetched = dataclasses.replace(tiny, data="cifar10", batch_size=4, data_dir=str(folder / "data"))
    deepcnn.train(fetched, run_dir=folder / "fetched")
    os.chdir(folder)
    seen["unnamed"] = [as_json(deepcnn.train(with_steps(tiny, n))) for n in (1, 2)]
    return seen


def watch_groups(left: list[int]) -> None:
    """Note, whenever a group of processes ends, how many networks still hold it."""
    destroy = dist.destroy_process_group

    def watched() -> None:
        left.append(sum(type(found) is DistributedDataParallel for found in gc.get_objects()))
        destroy()

    dist.destroy_process_group = watched  # type: ignore[assignment]


def watch_writing(folder: Path, written: list[str]) -> None:
    """Note whatever this process opens for writing, makes or removes in a run below `folder`."""
    runs = str(folder)
    data = str(folder / "data")
    changing = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in changing:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)):
            path = os.path.realpath(path)
            if path.startswith(runs) and not path.startswith(data):
                written.append(f"{event} {path}")

    sys.addaudithook(hook)


@contextlib.contextmanager
def watched_batches() -> Iterator[list[list[str]]]:
    """Collect each step's examples, distorted, with their labels, as a digest for each."""
    seen: list[list[str]] = []
    original = Loader.load

    def load(self: Loader, step: int, part: Part) -> tuple[Tensor, Tensor]:
        images, labels = original(self, step, part)
        examples = zip(images.numpy(), labels.numpy(), strict=True)
        seen.append([hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() for x, y in examples])
        return images, labels

    Loader.load = load  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Loader.load = original  # type: ignore[method-assign]


def change_processes(run: Path, seen: list[list[str]]) -> list[str]:
    """Train with two processes, go on with one, and again with two, ten steps each.

    Returns what the environments differed in; `seen` is what this process sees in each step.
    """
    heard: list[Event] = []
    deepcnn.train(with_steps(PLAIN, 10), run_dir=run)
    alone = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE")}
    if alone["RANK"] == "0":
        deepcnn.resume(run, changes=until(20), emit=heard.append)
    else:
        seen += [[]] * 10
    os.environ.update(alone)  # the second process waits for the first one here
    deepcnn.resume(run, changes=until(30), emit=heard.append)
    changes = [event for event in heard if isinstance(event, EnvironmentChanged)]
    return [text for event in changes for text in event.differences]


def score_few() -> list[tuple[int, int, float]]:
    """Score a network that learned nothing on 1 to 33 synthetic images, four at a time."""
    images = load_dataset("synthetic", "test")
    with join() as team, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BATCH", 4)
        return [score_untrained(in_memory(images.select(slice(0, n))), team) for n in FEW]


def score_real() -> tuple[int, int, float]:
    """Score a network that learned nothing on the test images of CIFAR-10."""
    source = deepcnn.open_dataset(
        deepcnn.DataSpec(data="cifar10", data_dir=str(default_data_dir()))
    ).split("test")
    with join() as team:
        return score_untrained(source, team)


def score_untrained(source: Source, team: Team) -> tuple[int, int, float]:
    """Return how many are right, of how many, and the loss, of all processes together."""
    transform = transform_of(TINY)
    model = build_model("tutorial", widths=(8, 8, 32, 16))
    blocks = blocks_to_score(source, math.prod(transform.shape), PLACE, team)
    found = score(Answers(model, transform, PLACE), lambda: blocks).over(team)
    return found.correct, found.total, found.loss


def as_json(result: Result) -> dict[str, Any]:
    scores = [dataclasses.asdict(scored) for scored in result.scores]
    return {"run": str(result.run), "step": result.step, "scores": scores}


def stand_in(server: dict[str, Any]) -> catalog.Entry:
    """A small CIFAR-10 whose home page is `server`."""
    files = tiny_files()

    def describe(file: catalog.File) -> catalog.File:
        content = files[file.name]
        digest = hashlib.sha256(content).hexdigest()
        return dataclasses.replace(file, size=len(content), sha256=digest)

    return dataclasses.replace(
        catalog.CIFAR10,
        train=tuple(map(describe, catalog.CIFAR10.train)),
        test=tuple(map(describe, catalog.CIFAR10.test)),
        urls=((server["url"], server["size"]),),
    )


# How they are started, and what they saw


def torchrun(processes: int, *program: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", "-m", *program],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,  # a busy machine takes its time
    )


def launched(processes: int, factory: pytest.TempPathFactory) -> Path:
    """Let so many processes work, once for all workers of pytest; return the folder."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / f"{processes} processes"
    with FileLock(base / f"{processes} processes.lock"):
        if folder.exists():
            return folder
        folder.mkdir()
        with Server(("127.0.0.1", 0), Handler) as server:
            server.ranges = []
            server.content = tiny_archive(tiny_files())
            url = f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
            about = {"url": url, "size": len(server.content)}
            (folder / "server.json").write_text(json.dumps(about))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            done = torchrun(processes, __name__, str(folder))
            server.shutdown()
            thread.join()
        (folder / "answers.json").write_text(json.dumps(len(server.ranges)))
        (folder / "said.txt").write_text(f"status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return folder


def seen(folder: Path) -> list[dict[str, Any]]:
    """What each process returned from `work`."""
    found = sorted(folder.glob("seen-*.json"))
    assert len(found) == int(folder.name.split()[0]), (folder / "said.txt").read_text()
    return [json.loads(path.read_text()) for path in found]


if __name__ == "__main__":
    warnings.simplefilter("error")
    _folder = Path(sys.argv[1])
    _seen = work(_folder)
    _path = _folder / f"seen-{os.environ['RANK']}.json"
    _path.write_text(json.dumps(_seen))

"""Several processes of one training. As a program this module is what each of them runs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

import deepcnn
from deepcnn.config import Config
from deepcnn.data import catalog
from deepcnn.data.open import default_data_dir, load_dataset, open_dataset
from deepcnn.data.source import Source, in_memory
from deepcnn.devices import Part, Place
from deepcnn.errors import ConfigError
from deepcnn.events import EnvironmentChanged, Event
from deepcnn.inference.prepared import evaluation
from deepcnn.inputs.loader import Batches
from deepcnn.inputs.transform import Inputs
from deepcnn.models import build_model
from deepcnn.team.join import join
from deepcnn.team.team import Team
from deepcnn.training.start import start as training
from tests.test_datasets import Handler, Server, tiny_archive, tiny_files
from tests.test_engines import PLAIN, QUICK, SUMMATION, TINY, difference, last, tensors

ROOT = Path(__file__).parent.parent
# More than the 1 MiB of the first bucket that gradients are put into, so that there are two.
WIDE = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, widths=(16, 16, 600, 64)),
    steps=8,
    batch_size=12,
    save_every=4,
)
PLACE = Place(torch.device("cpu"), "fp32")
FEW = range(1, 34)


def with_steps(config: Config, steps: int) -> Config:
    return dataclasses.replace(config, steps=steps)


def until(steps: int) -> Callable[[Config], Config]:
    return lambda config: with_steps(config, steps)


# What each process does


def work(folder: Path) -> dict[str, Any]:
    """Train, resume and score in `folder`, and return what this process saw."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seen: dict[str, Any] = {"written": []}
    if rank:
        watch_writing(folder, seen["written"])
    catalog.DATASETS["cifar10"] = stand_in(json.loads((folder / "server.json").read_text()))
    seen["whole"] = as_json(deepcnn.train(WIDE, run_dir=folder / "whole"))
    deepcnn.train(with_steps(WIDE, 4), run_dir=folder / "resumed")
    seen["resumed"] = as_json(deepcnn.resume(folder / "resumed", changes=until(8)))
    deepcnn.train(PLAIN, run_dir=folder / "plain")
    if count == 2:
        deepcnn.train(
            dataclasses.replace(QUICK, sync_batch_norm=True, keep=1), run_dir=folder / "quick"
        )
        with watched_batches() as seen["batches"]:
            seen["changes"] = change_processes(folder / "changing", seen["batches"])
        tiny = dataclasses.replace(TINY, steps=1)
        deepcnn.train(
            dataclasses.replace(tiny, data="cifar10", batch_size=4, data_dir=str(folder / "data")),
            run_dir=folder / "fetched",
        )
        os.chdir(folder)
        seen["unnamed"] = [as_json(deepcnn.train(with_steps(tiny, n))) for n in (1, 2)]
    seen["few"] = score_few()
    if count == 3:
        catalog.DATASETS["cifar10"] = catalog.CIFAR10
        seen["real"] = score_real()
    changes: dict[str, Any] = {"batch_size": 1} if count == 2 else {"towers": 2}
    try:
        deepcnn.train(dataclasses.replace(TINY, **changes), run_dir=folder / "error")
    except ConfigError as error:
        seen["error"] = [str(error), error.told]
    return seen


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
    original = Batches.load

    def load(self: Batches, step: int, part: Part) -> tuple[Tensor, Tensor]:
        images, labels = original(self, step, part)
        examples = zip(images.numpy(), labels.numpy(), strict=True)
        seen.append([hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() for x, y in examples])
        return images, labels

    Batches.load = load  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Batches.load = original  # type: ignore[method-assign]


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
    model, inputs = untrained(in_memory(images))
    with join() as team:
        return [
            score(model, inputs, in_memory(images.select(slice(0, n))), team, batch=4) for n in FEW
        ]


def score_real() -> tuple[int, int, float]:
    """Score a network that learned nothing on the test images of CIFAR-10."""
    source = open_dataset("cifar10", "test", data_dir=default_data_dir())
    model, inputs = untrained(source)
    with join() as team:
        return score(model, inputs, source, team)


def score(
    model: nn.Module, inputs: Inputs, source: Source, team: Team, batch: int | None = None
) -> tuple[int, int, float]:
    blocks = evaluation.blocks_to_score(source, inputs, PLACE, team, batch)
    return evaluation.score(model, inputs, blocks, PLACE, team)


def untrained(source: Source) -> tuple[nn.Module, Inputs]:
    inputs = Inputs.of(source, crop=0.75, pad=0, flip="none", contrast=None, standardize="image")
    return build_model("tutorial", widths=(8, 8, 32, 16)), inputs


def as_json(result: training.Result) -> dict[str, Any]:
    scores = [dataclasses.asdict(scored) for scored in result.scores]
    return {"run": str(result.run), "step": result.step, "scores": scores}


def stand_in(server: dict[str, Any]) -> catalog.Dataset:
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


# What is then true


def torchrun(processes: int, *program: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", "-m", *program],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
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
            done = torchrun(processes, "tests.test_processes", str(folder))
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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(2, tmp_path_factory)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(3, tmp_path_factory)


@pytest.fixture(params=[2, 3])
def some(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue({2: "two", 3: "three"}[request.param])
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The end of `PLAIN` on one device."""
    run = tmp_path_factory.mktemp("alone") / "run"
    training.train(PLAIN, run_dir=run)
    return tensors(run)


def test_processes_train_to_the_numbers_of_one_device(some: Path, alone: dict[str, Tensor]) -> None:
    """Two have 16 examples of 32 each, three 10, 11 and 11."""
    seen(some)
    assert difference(tensors(some / "plain"), alone) < SUMMATION


def test_two_processes_write_the_bytes_of_two_towers(two: Path, tmp_path: Path) -> None:
    seen(two)
    training.train(dataclasses.replace(PLAIN, towers=2), run_dir=tmp_path / "towers")
    assert last(two / "plain") == last(tmp_path / "towers")


def test_processes_resume_to_the_same_bits(some: Path) -> None:
    """Three numbers and more have several sums: their order must not depend on where one began."""
    seen(some)
    assert sum(t.numel() for n, t in tensors(some / "whole").items() if "model" in n) * 4 > 1 << 20
    assert last(some / "resumed") == last(some / "whole")


def test_batch_normalization_over_two_processes_is_that_of_one_device(
    two: Path, tmp_path: Path
) -> None:
    seen(two)
    training.train(QUICK, run_dir=tmp_path / "single")
    assert difference(tensors(two / "quick"), tensors(tmp_path / "single")) < 2e-3


def test_the_order_of_the_examples_does_not_depend_on_the_processes(
    two: Path, tmp_path: Path
) -> None:
    """Two, one, and again two processes, ten steps each."""
    first, second = seen(two)
    changes = ["processes: was 2, is 1", "processes: was 1, is 2"]
    assert [text for text in first["changes"] if text.startswith("processes")] == changes
    assert second["changes"] == []
    with watched_batches() as expected:
        training.train(with_steps(PLAIN, 30), run_dir=tmp_path / "single")
    joined = [a + b for a, b in zip(first["batches"], second["batches"], strict=True)]
    assert joined == expected
    assert {len(examples) for examples in second["batches"]} == {0, 16}
    assert difference(tensors(two / "changing"), tensors(tmp_path / "single")) < SUMMATION


def test_an_evaluation_counts_each_example_once(some: Path) -> None:
    """Also where there are fewer blocks of four than processes."""
    expected = score_few()
    assert [total for _, total, _ in expected] == list(FEW)
    for process in seen(some):
        for (correct, total, loss), found in zip(expected, process["few"], strict=True):
            assert found == [correct, total, pytest.approx(loss, rel=1e-6)]


def test_three_processes_score_the_real_test_set_as_one(three: Path, cifar10_folder: Path) -> None:
    correct, total, loss = score_real()
    assert total == 10_000
    for process in seen(three):
        assert process["real"] == [correct, total, pytest.approx(loss, rel=1e-6)]


def test_every_process_returns_the_same_result(some: Path) -> None:
    first, *others = seen(some)
    assert first["whole"]["run"] == str(some / "whole")
    assert first["whole"]["step"] == first["resumed"]["step"] == 8
    (scored,) = first["whole"]["scores"]
    assert scored["total"] == 512
    assert first["resumed"]["scores"] == first["whole"]["scores"]
    for other in others:
        assert other["whole"] == first["whole"]
        assert other["resumed"] == first["resumed"]


def test_two_trainings_of_one_program_are_two_runs(two: Path) -> None:
    """A restarted job finds the run that it began; a second training is none of that."""
    first, second = seen(two)
    assert [run["step"] for run in first["unnamed"]] == [1, 2]
    assert first["unnamed"][0]["run"] != first["unnamed"][1]["run"]
    assert second["unnamed"] == first["unnamed"]


def test_only_the_first_process_writes(some: Path) -> None:
    for other in seen(some)[1:]:
        assert other["written"] == []


def test_data_are_fetched_once(two: Path) -> None:
    seen(two)
    assert json.loads((two / "answers.json").read_text()) == 1
    assert (two / "fetched" / "config.json").is_file()


def test_settings_that_cannot_be_are_one_clear_error(two: Path, three: Path) -> None:
    for folder, message in (
        (two, "batch_size: expected at least one example for each of 2 processes, found 1"),
        (three, "towers: 3 processes were started, each of which has one device; leave out"),
    ):
        for rank, process in enumerate(seen(folder)):
            text, told = process["error"]
            assert text.startswith(message)
            assert rank or not told


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            ("--batch-size", "1"),
            "batch_size: expected at least one example for each of 2 processes, found 1",
        ),
        (
            ("--steps-per-plan", "5"),
            "steps_per_plan: 2 processes were started, and only one process alone plans ahead; "
            "expected 1, found 5",
        ),
    ],
)
def test_the_command_starts_processes_and_tells_their_error_once(
    tmp_path: Path, setting: tuple[str, str], message: str
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deepcnn", "train", "tiny", "--devices", "2"),
            *(*setting, "--device", "cpu"),
        ],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"deepcnn: {message}"]


if __name__ == "__main__":
    warnings.simplefilter("error")
    _folder = Path(sys.argv[1])
    _seen = work(_folder)
    _path = _folder / f"seen-{os.environ['RANK']}.json"
    _path.write_text(json.dumps(_seen))

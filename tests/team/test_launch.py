"""Processes that are killed, stopped, or in error; `benchmarks/run.py faults` tries many more."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepcnn.runs import checkpoint
from tests.helpers.tiny import logged, saved
from tests.helpers.waiting import PATIENCE, wait_for

TRAIN = ["train", "tiny", "--summary-every", "0", "--log-every", "10"]


# What hurts is built into the worker: at a step of rank 1, in the first attempt only. By then the
# processes have trained for seconds, so that each has heard the other's signs of life.
WORKER = """
import itertools, os, signal
from pathlib import Path

from deepcnn.cli.main import main
from deepcnn.inputs.loader import Loader
from deepcnn.team import signs
from deepcnn.errors import DataError

load = Loader.load
steps = itertools.count()
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

def hurt(loader, step, part):
    if next(steps) == 250 and first and os.environ["RANK"] == "1":
        Path("hurt").write_text(str(os.getpid()))
        HOW
    return load(loader, step, part)

Loader.load = hurt
signs.LOST = 10
main()
"""


pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@dataclass
class Job:
    """Starts programs in a folder, and finds what is left of them."""

    folder: Path
    token: str

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "DEEPCNN_TEST": self.token},
                stdout=out,
                stderr=err,
                text=True,
            )

    def deepcnn(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start("-m", "deepcnn", *arguments)

    def torchrun(self, restarts: int, how: str, *arguments: str) -> subprocess.Popen[str]:
        (self.folder / "worker.py").write_text(WORKER.replace("HOW", how))
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return self.start(*run, "--max-restarts", str(restarts), "worker.py", *arguments)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def processes(self) -> list[int]:
        return [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if f"DEEPCNN_TEST={self.token}" in _text(entry / "environ")
            and _text(entry / "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])
        ]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path, secrets.token_hex(8))
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process has ended meanwhile
        return ""


def test_a_killed_process_is_named_and_the_restart_ends_in_the_same_bits(job: Job) -> None:
    steps = ["--steps", "300", "--save-every", "40"]
    assert job.deepcnn(*TRAIN, *steps, "--run-dir", "peace", "--devices", "2").wait(PATIENCE) == 0
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    hurt = job.torchrun(1, kill, *TRAIN, *steps, "--run-dir", "run")
    assert wait_for((job.folder / "hurt").exists)
    began = time.monotonic()
    assert wait_for(lambda: "is lost" in job.err)
    assert time.monotonic() - began < 30
    assert hurt.wait(PATIENCE) == 0, job.err
    pid = (job.folder / "hurt").read_text()
    (named,) = [line for line in job.err.splitlines() if line.startswith("deepcnn: ")]
    about = f"rank 1 (machine {socket.gethostname()}, process {pid}) is lost: no sign of life"
    assert named.startswith(f"deepcnn: rank 0: {about}")
    assert "--resume" in named
    assert [event["step"] for event in logged(job.folder / "run", "Started")] == [0, 240]
    for before in saved(job.folder / "peace"):
        after = job.folder / "run" / "checkpoints" / before.name
        assert after.read_bytes() == before.read_bytes(), before.name
    assert wait_for(lambda: not job.processes())


@pytest.mark.endurance
def test_a_stopped_process_is_named_when_its_time_is_up(job: Job) -> None:
    stop = "os.kill(os.getpid(), signal.SIGSTOP)"
    hurt = job.torchrun(0, stop, *TRAIN, "--steps", "300", "--run-dir", "run")
    assert wait_for(lambda: "is lost" in job.err), job.err
    pid = int((job.folder / "hurt").read_text())
    assert f"rank 0: rank 1 (machine {socket.gethostname()}, process {pid}) is lost" in job.err
    assert "killed, stopped, or cut off" in job.err
    assert wait_for(lambda: len(job.processes()) == 2)  # it and torchrun: the other has ended
    os.kill(pid, signal.SIGKILL)  # as torchrun does, half a minute later
    assert hurt.wait(PATIENCE) == 1
    assert wait_for(lambda: not job.processes())


def test_an_error_in_one_process_is_told_by_the_other(job: Job) -> None:
    error = "raise DataError('images.bin: damaged')"
    hurt = job.torchrun(0, error, *TRAIN, "--steps", "300", "--run-dir", "run")
    assert hurt.wait(PATIENCE) == 1
    told = sorted(line for line in job.err.splitlines() if line.startswith("deepcnn: "))
    assert len(told) == 2, job.err
    pid = (job.folder / "hurt").read_text()
    assert told[0] == "deepcnn: images.bin: damaged"
    assert told[1].startswith(
        f"deepcnn: rank 0: rank 1 (machine {socket.gethostname()}, process {pid}) stopped: "
        "images.bin: damaged. "
    )
    assert "Error: [" not in job.err  # what the library says of its broken connections
    assert not job.processes()


def test_no_process_outlives_a_launcher_that_is_killed(job: Job) -> None:
    command = [*TRAIN, "--steps", "1000000", "--save-every", "1000000", "--run-dir", "run"]
    launcher = job.deepcnn(*command, "--devices", "2")
    assert wait_for(lambda: ": step 10," in job.out), job.err
    assert len(job.processes()) >= 3
    launcher.kill()
    launcher.wait()
    assert wait_for(lambda: not job.processes(), 30)
    assert "the process that started this one has ended" in job.err


def test_control_c_saves_and_any_number_of_processes_goes_on(job: Job) -> None:
    command = [*TRAIN, "--steps", "1000000", "--save-every", "1000000", "--run-dir", "run"]
    launcher = job.deepcnn(*command, "--devices", "2")
    assert wait_for(lambda: ": step 10," in job.out), job.err
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(PATIENCE) == 130
    assert "Traceback" not in job.err
    found = re.search(r"Stopped and saved at step (\d+)\. Go on with: .* --resume run", job.out)
    assert found is not None, job.out
    step = int(found[1])
    assert [checkpoint.step_of(p) for p in saved(job.folder / "run")] == [step]
    assert not job.processes()
    for more, processes in ((5, []), (10, ["--devices", "2"])):
        on = job.deepcnn("train", "--resume", "run", "--steps", str(step + more), *processes)
        assert on.wait(PATIENCE) == 0, job.err
    started = logged(job.folder / "run", "Started")
    assert [event["step"] for event in started] == [0, step, step + 5]
    assert [event["processes"] for event in started] == [2, 1, 2]
    assert [event["step"] for event in logged(job.folder / "run", "Finished")] == [
        step + 5,
        step + 10,
    ]


def test_a_mistake_is_told_once(job: Job) -> None:
    (job.folder / "taken").mkdir()
    (job.folder / "taken" / "letter.txt").touch()
    assert job.deepcnn(*TRAIN, "--run-dir", "taken", "--devices", "2").wait(PATIENCE) == 1
    assert job.err == (
        "deepcnn: taken: is neither empty nor a run; choose another directory with --run-dir\n"
    )
    assert [entry.name for entry in (job.folder / "taken").iterdir()] == ["letter.txt"]
    assert not job.processes()


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
    job: Job, setting: tuple[str, str], message: str
) -> None:
    command = ["train", "tiny", "--devices", "2", *setting, "--device", "cpu"]
    assert job.deepcnn(*command).wait(PATIENCE) == 1
    assert job.err.splitlines() == [f"deepcnn: {message}"]

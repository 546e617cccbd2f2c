"""Processes that are killed, stopped, or in error; `benchmarks/run.py faults` tries many more."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepcnn.runs import checkpoint
from deepcnn.team import signs
from deepcnn.team.signs import Peer, Signs

TRAIN = ["train", "tiny", "--summary-every", "0", "--log-every", "10"]
PATIENCE = 90.0  # seconds for what takes a few on an idle machine
# What hurts is built into the worker: at a step of rank 1, in the first attempt only. By then the
# processes have trained for seconds, so that each has heard the other's signs of life.
WORKER = """
import itertools, os, signal
from pathlib import Path

from deepcnn.cli.main import main as cli
from deepcnn.inputs.loader import Batches
from deepcnn.team import signs
from deepcnn.errors import DataError

load = Batches.load
steps = itertools.count()
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

def hurt(batches, step, part):
    if next(steps) == 250 and first and os.environ["RANK"] == "1":
        Path("hurt").write_text(str(os.getpid()))
        HOW
    return load(batches, step, part)

Batches.load = hurt
signs.LOST = 10
cli.main()
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


def wait_for(true: Callable[[], object], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(holds)


def events(run: Path, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


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
    assert [event["step"] for event in events(job.folder / "run", "Started")] == [0, 240]
    for before in checkpoint.paths(job.folder / "peace" / "checkpoints"):
        after = job.folder / "run" / "checkpoints" / before.name
        assert after.read_bytes() == before.read_bytes(), before.name
    assert wait_for(lambda: not job.processes())


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
    assert [checkpoint.step_of(p) for p in checkpoint.paths(job.folder / "run/checkpoints")] == [
        step
    ]
    assert not job.processes()
    for more, processes in ((5, []), (10, ["--devices", "2"])):
        on = job.deepcnn("train", "--resume", "run", "--steps", str(step + more), *processes)
        assert on.wait(PATIENCE) == 0, job.err
    started = events(job.folder / "run", "Started")
    assert [event["step"] for event in started] == [0, step, step + 5]
    assert [event["processes"] for event in started] == [2, 1, 2]
    assert [event["step"] for event in events(job.folder / "run", "Finished")] == [
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


# ---- signs of life without processes


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make all quick, and collect the messages of processes that would have ended."""
    messages: list[str] = []
    monkeypatch.setattr(signs, "BEAT", 0.1)
    monkeypatch.setattr(signs, "LOST", 10)
    monkeypatch.setattr(signs, "_exit", messages.append)
    return messages


class Ends:
    """Sockets of two processes and the signs of life that go from one to the other."""

    def __init__(self) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self.sockets:
            one.bind(("127.0.0.1", 0))
        self.made: list[Signs] = []

    def signs(self, rank: int, parent: int | None = None) -> Signs:
        peer = Peer(1 - rank, f"the {1 - rank}", self.sockets[1 - rank].getsockname())
        self.made.append(Signs(self.sockets[rank], rank, [peer], "token", parent))
        return self.made[-1]

    def send(self, message: object) -> None:
        """Send something to rank 0."""
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(content, self.sockets[0].getsockname())

    def close(self) -> None:
        for one in self.made:
            one.leave()
        for each in self.sockets:
            each.close()


@pytest.fixture
def ends(exits: list[str]) -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def kill(one: Signs) -> None:
    """Let signs of life end without a farewell."""
    one._end.set()
    one._thread.join()


def test_silence_is_noticed(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    assert here.whom_to_blame(20) is None  # both send: nobody is lost
    kill(there)
    blamed = here.whom_to_blame()
    assert blamed is not None
    assert blamed.startswith("the 1 is lost: no sign of life for ")
    assert not exits
    assert wait_for(lambda: exits, 30)
    assert exits[0].startswith("rank 0: the 1 is lost: no sign of life for ")
    assert "--resume" in exits[0]


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_killed_process_is_blamed_whenever_one_asks(ends: Ends, phase: float) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    kill(there)
    time.sleep(phase * signs.BEAT)
    assert here.whom_to_blame() is not None


def test_who_is_killed_in_the_first_beat_is_missed(ends: Ends) -> None:
    here, there = ends.signs(0), ends.signs(1)
    kill(there)
    assert here.whom_to_blame() is not None


def test_a_farewell_tells_why(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    assert here.reason_of(1) is None
    there.leave("the disk is full")
    assert here.whom_to_blame() == "the 1 stopped: the disk is full"
    assert here.reason_of(1) == "the disk is full"
    assert wait_for(lambda: exits, 30)
    assert exits[0].startswith("rank 0: the 1 stopped: the disk is full")


def test_who_leaves_when_all_is_done_is_not_missed(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    there.leave()
    assert here.whom_to_blame(signs.LOST + signs.GRACE + 10) is None
    assert here.reason_of(1) == ""
    assert not exits


def test_other_datagrams_are_ignored(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    for message in (
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"x" * 60_000,
        None,
        7,
        [],
        ["token", 1],
        ["other", 1, "an error", False],
        [None, 1, "an error", False],
        ["token", 2, "an error", False],
        ["token", 0, "an error", False],
    ):
        ends.send(message)
    assert here.whom_to_blame(20) is None
    assert not exits
    kill(there)
    for _ in range(20):  # nor do they count as a sign of life
        ends.send(["other", 1, None, True])
        ends.send(b"\x00")
        time.sleep(signs.BEAT)
    assert here.whom_to_blame() is not None


def test_who_was_never_heard_is_not_given_up(ends: Ends, exits: list[str]) -> None:
    here = ends.signs(0)
    assert here.whom_to_blame(signs.LOST + signs.GRACE + 10) is None
    assert not exits


def test_without_its_launcher_a_process_ends(ends: Ends, exits: list[str]) -> None:
    here = ends.signs(0, parent=os.getppid())
    assert here.whom_to_blame(4) is None
    assert not exits
    ends.signs(1, parent=os.getpid())
    assert wait_for(lambda: exits, 30)
    assert exits[0] == "rank 1: the process that started this one has ended"

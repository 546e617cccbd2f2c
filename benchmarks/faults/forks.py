"""The command line in children of one process that has imported everything already."""

from __future__ import annotations

import codecs
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from deepcnn.cli import main as cli
from deepcnn.exports import export  # noqa: F401 (imported before it forks)
from deepcnn.inference import evaluation  # noqa: F401
from deepcnn.reports import write  # noqa: F401
from deepcnn.runs import tensorboard  # noqa: F401
from deepcnn.training import start  # noqa: F401

LIMIT = 120.0  # seconds after which a child hangs

codecs.lookup("unicode-escape")  # of pages; another user may be unable to read where Python lies


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit status as a shell tells it, what it said, and seconds."""

    status: int
    out: str
    err: str
    seconds: float


class Child:
    """A child in which the program runs with some arguments in a folder, after `prepare`.

    `folder` must exist; what it prints goes to `said`, a folder elsewhere, unless `output` is the
    end of a pipe for standard output.
    """

    def __init__(
        self,
        folder: Path,
        said: Path,
        arguments: list[str],
        prepare: Callable[[], None] = lambda: None,
        output: int | None = None,
    ) -> None:
        said.mkdir(parents=True, exist_ok=True)
        self._said = said
        self._began = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(folder, said, arguments, prepare, output)

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for its end, or kill it (status 137)."""
        end = time.monotonic() + limit
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                end = float("inf")
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(status)
        return Ended(
            code if code >= 0 else 128 - code,
            (self._said / "out").read_text(errors="replace"),
            (self._said / "err").read_text(errors="replace"),
            time.monotonic() - self._began,
        )


def _be(
    folder: Path,
    said: Path,
    arguments: list[str],
    prepare: Callable[[], None],
    output: int | None,
) -> None:
    """Be the child: never return."""
    status = 70
    try:
        for name, number in (("out", 1), ("err", 2)):
            handle = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output if number == 1 and output is not None else handle, number)
        if output is not None:
            os.close(output)
        os.chdir(folder)
        torch.set_num_threads(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.argv = ["deepcnn", *arguments]
        prepare()
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        try:
            sys.stdout.flush()
        except OSError:
            status = 120  # as Python itself ends then
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)

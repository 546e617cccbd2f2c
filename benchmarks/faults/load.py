"""A load beside which something is measured or compared: busy processes of several kinds.

python benchmarks/run.py worker load KIND     # until its parent ends
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from tools import program

NICE = 10  # so that others on the machine are not kept waiting
THREADS = 2  # of each that multiplies


def multiply() -> None:
    """Multiply matrices with NumPy's BLAS."""
    x = np.ones((384, 384), np.float32)
    x @ x


def copy() -> None:
    """Move more memory than any cache holds."""
    x = np.zeros(64 << 20, np.uint8)
    x[::64] = 1
    x.copy()


def fork() -> None:
    """Make a child that ends at once."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def of_torch(dtype: str) -> Callable[[], None]:
    """Return what multiplies matrices of a type of torch's, and convolves."""
    import torch

    torch.set_num_threads(THREADS)
    kind = getattr(torch, dtype)
    x = torch.ones(256, 256).to(kind)
    images, weight = torch.ones(16, 16, 24, 24).to(kind), torch.ones(16, 16, 3, 3).to(kind)

    def work() -> None:
        x @ x
        torch.nn.functional.conv2d(images, weight)

    return work


# The first few are cheap to begin.
KINDS: dict[str, Callable[[], Callable[[], None]]] = {
    "fork": lambda: fork,
    "copy": lambda: copy,
    "multiply": lambda: multiply,
    "bfloat16": lambda: of_torch("bfloat16"),
    "float16": lambda: of_torch("float16"),
    "float32": lambda: of_torch("float32"),
}


@contextmanager
def load(processes: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep so many processes busy, of all kinds in turn, which work when this is entered."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    with ExitStack() as stack:
        started = []
        for number in range(processes):
            kind = list(KINDS)[number % len(KINDS)]
            command = [sys.executable, *program.as_worker("load", kind)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, env=os.environ | threads, bufsize=0
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != b"busy\n":
                raise RuntimeError(f"a process of the load ended: {process.args}")
        yield started


def main(arguments: list[str]) -> int:
    """Be busy in one way until the parent ends or kills this."""
    os.nice(NICE)
    parent = os.getppid()
    work = KINDS[arguments[0]]()
    work()
    print("busy", flush=True)
    while os.getppid() == parent:
        work()
    return 0

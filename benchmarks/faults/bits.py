"""Trains small networks beside a heavy load, and compares all bits with a training without it.

    python benchmarks/run.py bits_under_load               # 300 trainings of 60 steps
    python benchmarks/run.py bits_under_load --cases 24 --log log.jsonl

The preset tiny and a narrow speednet, in bf16, fp16 and fp32, with one thread and with two, many
trainings in a row in one process and one in a process of its own. The twin of each kind is trained
before there is a load. Compared are, of each step, the images, the losses and the gradients, in the
order in which they are computed, and all tensors in the end; the first that differs is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, product
from typing import Any

from faults.load import load
from faults.trials import options_of, parser_of, report
from tools import program

NETWORKS = ("tiny", "speednet")
PRECISIONS = ("bf16", "fp16", "fp32")
THREADS = (1, 2)
KINDS = [" ".join(map(str, each)) for each in product(NETWORKS, PRECISIONS, THREADS)]
ROW = 8  # trainings in a process
FRESH = 2  # trainings in processes of their own, for each row
AT_ONCE = 2
STEPS = 60
LIMIT = 1800  # seconds for a process: a row in fp16, which few processors multiply

Bits = dict[str, str]  # a digest by what it is of, in the order of time


def difference(twin: Bits, found: Bits) -> str:
    """Return in words what differs first, and of how much; or nothing."""
    unlike = [name for name in {**twin, **found} if twin.get(name) != found.get(name)]
    if not unlike:
        return ""
    first = unlike[0]
    values = f"{twin.get(first, 'nothing')[:16]} and {found.get(first, 'nothing')[:16]}"
    return f"{first}: {values}; {len(unlike)} of {len(twin)} differ"


def trained(kind: str, steps: int, times: int) -> list[Bits]:
    """Train so many times in a process of its own; return the bits of each."""
    command = [sys.executable, *program.as_worker("bits", kind, str(steps), str(times))]
    free = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    done = subprocess.run(command, capture_output=True, text=True, env=free, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{kind}: status {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def plan(cases: int, kinds: list[str]) -> list[tuple[str, int]]:
    """Return which kind to train how many times in a process, `cases` times in all."""
    planned: list[tuple[str, int]] = []
    for number in count():
        times = (ROW, *[1] * FRESH)[number // len(kinds) % (1 + FRESH)]
        left = cases - sum(times for _, times in planned)
        if left == 0:
            return planned
        planned.append((kinds[number % len(kinds)], min(times, left)))
    raise AssertionError


def cases(number: int, kinds: list[str], steps: int, processes: int) -> Iterator[dict[str, Any]]:
    """Train so many times beside a load of `processes`; yield what came of each."""
    planned = plan(number, kinds)
    used = list(dict.fromkeys(kind for kind, _ in planned))
    with ThreadPoolExecutor(AT_ONCE) as pool, ExitStack() as stack:
        stack.callback(lambda: pool.shutdown(wait=False, cancel_futures=True))
        alone = pool.map(lambda kind: trained(kind, steps, 1)[0], used)
        twins = dict(zip(used, alone, strict=True))
        loading = stack.enter_context(load(processes))
        made = [pool.submit(trained, kind, steps, times) for kind, times in planned]
        for (kind, times), future in zip(planned, made, strict=True):
            for place, found in enumerate(future.result(), 1):
                busy = sum(process.poll() is None for process in loading)
                problem = difference(twins[kind], found)
                if busy < processes:
                    problem = f"of the load {processes - busy} ended; {problem}"
                yield {
                    "what": kind,
                    "place": f"{place} of {times}",
                    "compared": len(twins[kind]),
                    "load": busy,
                    "ok": not problem,
                    "problem": problem,
                }


def main(arguments: list[str]) -> int:
    """Train, compare, log and say how many differed."""
    parser = parser_of("bits_under_load", __doc__, 300)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--load", type=int, default=8, help="busy processes; default: 8")
    found = options_of(parser, arguments)
    return report(cases(found.cases, found.only, found.steps, found.load), found.log)

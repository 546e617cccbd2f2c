"""Cases whose contenders take turns, and are compared.

The contenders of a case take turns (A B C, A B C, …), each in a fresh process, since a machine's
speed drifts while they run. Stored are all figures, their medians over the rounds, and how many
times better than the case's denominator each median is. A peer is a contender that needs an
environment of its own: a command whose last line is JSON with its figures. `peers/README.md` has
them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools import report

# Measures itself and returns its figures by metric; what is no number is noted beside them. It is
# given the folder that the case has prepared. A fresh process calls it, so it must be picklable.
Contender = Callable[[Path], Mapping[str, Any]]
Figures = dict[str, dict[str, list[float]]]  # by contender and metric, one for each round
Medians = dict[str, dict[str, float]]


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Case:
    """A comparison. The denominator, to which ratios are taken, is a contender or a peer."""

    what: str
    unit: str
    contenders: Mapping[str, Contender]
    denominator: str
    higher_is_better: bool = True
    lower_is_better: tuple[str, ...] = ()  # metrics that are exceptions to this
    peers: tuple[str, ...] = ()  # that may come from the command line
    prepare: Callable[[Path], None] = nothing

    def title(self) -> str:
        """Return what is measured, and beside which peers, in a line."""
        peers = f"; peers: {', '.join(self.peers)}" if self.peers else ""
        return f"{self.what}, {self.unit}{peers}"


def command(arguments: list[str], _: Path) -> dict[str, Any]:
    """Return what a command says on its last line, as a contender."""
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_fresh_process(contender: Contender, folder: Path) -> Mapping[str, Any]:
    """Let a contender measure itself where nothing was computed before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(contender, folder).result()


def take_turns(
    contenders: Mapping[str, Contender], rounds: int, folder: Path
) -> tuple[Figures, dict[str, dict[str, Any]]]:
    """Return the figures of all contenders, and what else each said in the last round."""
    figures: Figures = {name: {} for name in contenders}
    notes: dict[str, dict[str, Any]] = {name: {} for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            found = in_fresh_process(contender, folder)
            now = {key: value for key, value in found.items() if isinstance(value, int | float)}
            notes[name] = {key: value for key, value in found.items() if key not in now}
            for metric, value in now.items():
                figures[name].setdefault(metric, []).append(value)
            print(f"round {number} of {rounds}: {name}: {now}", flush=True)
    return figures, notes


def compare(medians: Medians, case: Case) -> Medians:
    """Return how many times better than the denominator each contender is, by metric."""
    base = medians.get(case.denominator, {})  # a peer may be absent

    def better(metric: str, ratio: float) -> float:
        higher = case.higher_is_better and metric not in case.lower_is_better
        return round(ratio if higher else 1 / ratio, 3)

    return {
        name: {
            metric: better(metric, median / base[metric])
            for metric, median in found.items()
            if metric in base
        }
        for name, found in medians.items()
    }


def measure(name: str, case: Case, rounds: int, peers: Mapping[str, Contender]) -> dict[str, Any]:
    """Return the result of a case."""
    about = report.circumstances()  # of the code that is measured: asked for before
    with tempfile.TemporaryDirectory() as scratch:
        case.prepare(Path(scratch))
        rates, notes = take_turns({**peers, **case.contenders}, rounds, Path(scratch))
    medians = {
        contender: {metric: statistics.median(values) for metric, values in found.items()}
        for contender, found in rates.items()
    }
    return {
        "what": case.what,
        "unit": case.unit,
        "higher_is_better": case.higher_is_better,
        "denominator": case.denominator,
        "case": name,
        **about,
        "rounds": rounds,
        "medians": medians,
        "ratios": compare(medians, case),
        "rates": rates,
        "notes": notes,
    }


def main(name: str, case: Case, arguments: list[str]) -> int:
    """Measure, print and store a case."""
    parser = report.parser(name, f"{case.title()}\n\n{__doc__}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    peers = named_peers(parser, case, options.peer)
    out = report.new_file(name, options.out, options.remark)
    result = measure(name, case, options.rounds, peers)
    print(json.dumps({key: result[key] for key in ("medians", "ratios")}, indent=2))
    denominator = result["denominator"]
    if denominator not in result["medians"]:
        print(f"no ratios: they are to {denominator}, which --peer did not name")
    report.store(result, out, options.remark)
    return 0


def named_peers(
    parser: argparse.ArgumentParser, case: Case, given: list[str]
) -> dict[str, Contender]:
    """Return the peers that the command line names; end the program where a case has no such."""
    peers: dict[str, Contender] = {}
    for peer in given:
        name, _, words = peer.partition("=")
        if name not in case.peers or not words:
            parser.error(f"--peer {peer}: expected NAME=COMMAND, a NAME that the case lists")
        peers[name] = partial(command, shlex.split(words))
    return peers

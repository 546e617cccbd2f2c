"""Runs a case of the benchmarks, and compares its contenders.

    python benchmarks/run.py                                  # lists the cases
    python benchmarks/run.py inputs --peer "tensorflow=COMMAND" --peer "grain=COMMAND"
    python benchmarks/run.py same_bits --base COMMIT          # measures nothing: same numbers?

The contenders of a case take turns (A B C, A B C, …), each in a fresh process, since a machine's
speed drifts while they run. Stored are all figures, their medians over the rounds, and how many
times better than the case's denominator each median is. A peer is a contender that needs an
environment of its own: a command whose last line is JSON with its figures. `peers/README.md` has
them. `same_bits` has options of its own (--help) and its docstring in `cases/same_bits.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import report
from cases import CASES, Case, Contender, same_bits

Figures = dict[str, dict[str, list[float]]]  # by contender and metric, one for each round
Medians = dict[str, dict[str, float]]


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


def measure(name: str, rounds: int, peers: Mapping[str, Contender]) -> dict[str, Any]:
    """Return the result of a case."""
    case = CASES[name]
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


def main() -> None:
    """List the cases, or measure, print and store one; or compare the bits of two sources."""
    if sys.argv[1:2] == ["same_bits"]:
        same_bits.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="?", choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    report.add_options(parser, "CASE")
    options = parser.parse_args()
    if options.case is None:
        for name, case in CASES.items():
            peers = f"; peers: {', '.join(case.peers)}" if case.peers else ""
            print(f"{name:<19}{case.what}, {case.unit}{peers}")
        print(f"{'same_bits':<19}whether the working tree computes what a commit does; no timing")
        return
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    peers = {}
    for peer in options.peer:
        name, _, words = peer.partition("=")
        if name not in CASES[options.case].peers or not words:
            parser.error(f"--peer {peer}: expected NAME=COMMAND, a NAME that the case lists")
        peers[name] = partial(command, shlex.split(words))
    out = report.new_file(options.case, options.out, options.remark)
    result = measure(options.case, options.rounds, peers)
    print(json.dumps({key: result[key] for key in ("medians", "ratios")}, indent=2))
    denominator = result["denominator"]
    if denominator not in result["medians"]:
        print(f"no ratios: they are to {denominator}, which --peer did not name")
    report.store(result, out, options.remark)


if __name__ == "__main__":
    main()

"""Changes the source in small ways, and looks whether the tests of what was changed notice.

    python benchmarks/run.py mutants --count 40 --seed 0

A mutant is the source with one change: a comparison turned, `and` for `or`, an integer one more or
less, a statement left out. They are drawn by chance from the rooms training, runs, data and inputs,
and made in a copy of the repository. Each is given the tests that belong to its module:
`tests/ROOM/test_NAME.py`, and for modules without one those of `BELONGS`. A mutant that no test
notices survives. Some survivors mean the same as the source; the others are holes of the tests, or
are noticed by tests elsewhere.

Before a module's mutants its tests are given the source as it is: where they fail, what they say of
mutants means nothing, and the program ends. They also tell how long they take. A mutant has four
times as long (at least 30 s); one that takes longer counts as noticed, and is counted apart.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import program, report

ROOMS = ("training", "runs", "data", "data/formats", "inputs")
LIMIT = 240.0  # seconds for the tests of a module as it is
TIMES, AT_LEAST = 4, 30.0  # a mutant's limit: so many times as long, and so many seconds at least
LATE = "not done after"
# Tests of modules that have none of their own name.
BELONGS = {
    "training/inheriting": ["training/test_start_from.py"],
    "training/making": ["training/test_start.py", "training/test_session.py"],
    "training/judge": ["training/test_scores.py", "training/test_after_kills.py"],
    "training/rollback": ["training/test_not_finite.py"],
    "training/room": ["training/test_storage.py", "training/test_not_finite.py"],
    "training/checks": ["training/test_checks.py", "training/test_not_finite.py"],
    "training/loop": ["training/test_python_feeds.py"],
    "training/session": [
        "training/test_loop.py",
        "training/test_feeding.py",
        "training/test_not_finite.py",
    ],
    "runs/beginning": ["training/test_start_from.py"],
    "data/catalog": ["data/test_fetch.py"],
    "data/shards": ["data/test_source.py", "data/test_dataset.py"],
    "data/formats/csv_head": ["data/formats/test_pixel_csv.py"],
    "data/formats/csv_text": ["data/formats/test_pixel_csv.py"],
    "data/formats/folders": ["data/formats/test_label_tables.py"],
    "data/formats/tfrecord": ["data/formats/test_tfrecord_pictures.py", "data/test_convert.py"],
    "data/formats/pixel_csv": ["data/test_convert.py"],
    "data/layouts": ["data/formats/test_label_tables.py", "data/formats/test_pixel_csv.py"],
    "data/formats/decoding": ["data/formats/test_pictures.py", "data/formats/test_bad_pictures.py"],
    "data/formats/gzipped": ["data/formats/test_idx.py"],
    "data/formats/npz_archive": ["data/formats/test_npz.py"],
    "inputs/draws": ["inputs/test_transform.py", "inputs/test_distortions.py"],
    "inputs/flows": ["inputs/test_stream.py", "inputs/test_feeds.py"],
    "inputs/handed": ["inputs/test_fed.py", "training/test_python_feeds.py"],
    "inputs/standardize": ["inputs/test_transform.py"],
    "inputs/steps": ["inputs/test_stream.py"],
    "inputs/views": ["inputs/test_transform.py"],
}
TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
DROPPED = (ast.Expr, ast.Raise, ast.AugAssign, ast.Break, ast.Continue)


@dataclass(frozen=True)
class Mutant:
    """A module below `src/deepcnn` with one change, at a `line` of what it was."""

    module: str
    line: int
    change: str
    source: str


def places(source: str) -> list[tuple[int, str]]:
    """Return all changes that a source may have, each with the number of its node in the tree."""
    nodes = enumerate(ast.walk(ast.parse(source)))
    return [(number, change) for number, node in nodes for change in changes(node)]


def mutant(module: str, source: str, number: int, change: str) -> Mutant:
    """Return a module with a change at a node."""
    tree = ast.parse(source)
    node: Any = next(node for at, node in enumerate(ast.walk(tree)) if at == number)
    before = _short(ast.unparse(node))
    apply(node, change)
    after = "nothing" if change == "drop" else _short(ast.unparse(node))
    return Mutant(module, node.lineno, f"{before}  →  {after}", ast.unparse(tree))


def changes(node: ast.AST) -> list[str]:
    """Return the names of the changes that a node may have."""
    if isinstance(node, ast.Compare):
        return [f"turn {i}" for i in range(len(node.ops))]
    if isinstance(node, ast.BoolOp):
        return ["swap"]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ["more", "less"]
    if isinstance(node, DROPPED) and not (
        isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Yield))
    ):
        return ["drop"]
    return []


def apply(node: Any, change: str) -> None:
    """Make a change of a node, in place."""
    kind, _, number = change.partition(" ")
    if kind == "turn":
        node.ops[int(number)] = TURNED[type(node.ops[int(number)])]()
    elif kind == "swap":
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif kind == "drop":
        node.__class__ = ast.Pass
    else:
        node.value += 1 if kind == "more" else -1


def tests_of(module: str, tests: Path) -> list[str]:
    """Return the files of tests that belong to a module such as `training/loop`."""
    room, _, name = module.rpartition("/")
    own = [f"{room}/test_{name}.py"] if (tests / room / f"test_{name}.py").exists() else []
    return list(dict.fromkeys([*own, *BELONGS.get(module, [])]))


def drawn(repository: Path, rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Draw so many mutants of rooms' modules that have tests, each by its number of mutants.

    They are sorted by module.
    """
    source, every = repository / "src" / "deepcnn", []
    for room in rooms:
        for path in sorted((source / room).glob("*.py")):
            module = f"{room}/{path.stem}"
            if tests_of(module, repository / "tests"):
                text = path.read_text()
                every += [(module, text, *place) for place in places(text)]
    return [mutant(*each) for each in sorted(random.Random(seed).sample(every, count))]


def noticed(copied: Path, tests: list[str], limit: float) -> str | None:
    """Run tests; return what failed, or that the time was over; None where all passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(copied / "src")}
    names = [f"tests/{name}" for name in tests]
    try:
        ended = subprocess.run(
            [*command, *names],
            cwd=copied,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return f"{LATE} {limit:.0f} s"
    if ended.returncode == 0:
        return None
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0] if lines else ended.stdout[-200:]


def try_out(changed: Mutant, copied: Path, limit: float) -> dict[str, Any]:
    """Give a mutant to its tests; return what is told of it."""
    path = copied / "src" / "deepcnn" / f"{changed.module}.py"
    whole = path.read_text()
    path.write_text(changed.source)
    try:
        found = noticed(copied, tests_of(changed.module, copied / "tests"), limit)
    finally:
        path.write_text(whole)
    about = {"module": changed.module, "line": changed.line, "change": changed.change}
    return {**about, "noticed": found is not None, "by": found}


def main(arguments: list[str]) -> int:
    """Try so many mutants, print the survivors and the score, and log each."""
    parser = report.parser("mutants", __doc__)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=ROOMS)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for a mutant's tests")
    parser.add_argument("--log", type=Path, help="a file for a line of JSON of each mutant")
    parser.add_argument("--scratch", type=Path, help="where the copy is made")
    options = parser.parse_args(arguments)
    repository, found = program.BENCHMARKS.parent, []
    chosen = drawn(repository, options.rooms, options.count, options.seed)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        copied = copy(repository, Path(scratch) / "copy")
        for module, mutants in itertools.groupby(chosen, lambda each: each.module):
            start = time.perf_counter()
            failing = noticed(copied, tests_of(module, copied / "tests"), options.limit)
            if failing is not None:
                print(f"{module}: its tests fail on the source as it is: {failing}")
                return 1
            limit = max(AT_LEAST, TIMES * (time.perf_counter() - start))
            for each in mutants:
                found.append(try_out(each, copied, limit))
                if not found[-1]["noticed"]:
                    print(f"{each.module}.py:{each.line}: {each.change}", flush=True)
                if options.log:
                    with options.log.open("a") as file:
                        file.write(f"{json.dumps(found[-1])}\n")
    late = sum(str(told["by"]).startswith(LATE) for told in found)
    killed = sum(told["noticed"] for told in found)
    print(
        json.dumps({"mutants": len(found), "noticed": killed, "late": late, "seed": options.seed})
    )
    return 0


def copy(repository: Path, to: Path) -> Path:
    """Copy a repository without what was made in it; `src/deepcnn/runs` is source."""
    anywhere = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache")

    def ignored(folder: str, names: list[str]) -> set[str]:
        made = {"runs", "build"} if Path(folder) == repository else set()
        return anywhere(folder, names) | made

    return shutil.copytree(repository, to, ignore=ignored, symlinks=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."

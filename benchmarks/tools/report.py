"""What every result says of its circumstances, and how results are written.

`results/CASE.jsonl` holds the results of a case, each in a line, by date. A remark tells those of a
day apart: it is the second thing in a line, after the date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from deepcnn.devices import Place, Precision, describe_environment
from tools import program
from tools.program import BENCHMARKS

DATE = "%Y-%m-%d"


def parser(name: str, about: str | None, case: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of a program that stores a result, with options that say where.

    `about`: what --help says; `case`: the name of the result's file, if not that of the program.
    """
    made = program.parser(name, about)
    made.add_argument("--remark", default="", help="tells this result from others of the same day")
    made.add_argument(
        "--out",
        type=Path,
        help=f"a new file; default: a line of results/{case or name}.jsonl, as in any other .jsonl",
    )
    return made


def new_file(name: str, given: Path | None, remark: str = "") -> Path:
    """Return where a result goes; end the program, before it measures, if that is taken."""
    path = given or BENCHMARKS / "results" / f"{name}.jsonl"
    if path.suffix != ".jsonl":
        if path.exists():
            sys.exit(f"{path} exists, and results are kept: name another file with --out")
    elif (time.strftime(DATE), remark) in stored(path):
        sys.exit(
            f"{path}: a result of today with the remark {remark!r} exists, and results are kept: "
            "give this one another --remark"
        )
    return path


def stored(path: Path) -> dict[tuple[str, str], str]:
    """Return a file's lines by date and remark; none where there is no file."""
    found = {}
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        result = json.loads(line)
        found[result["date"], result["remark"]] = line
    return found


def circumstances(
    device: str = "cpu", precision: Literal["auto"] | Precision = "fp32"
) -> dict[str, Any]:
    """Return the command, the commit, the date and the environment of a measurement."""
    # Results that were just written change nothing that is measured.
    changes = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    environment = describe_environment(Place.choose(device, precision))
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "date": time.strftime(DATE),
        "environment": environment | {"processor": processor()},
    }


def git(*arguments: str) -> str | None:
    """Return what git says of this repository, or None where this is none."""
    command = ["git", "-C", str(BENCHMARKS.parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """Return the name of the processor's model, and its family: virtual machines may hide more."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    about = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    name = about.get("model name", platform.processor())
    return f"{name}, family {about['cpu family']}" if "cpu family" in about else name


def store(result: dict[str, Any], path: Path, remark: str = "") -> None:
    """Write a result: a line of a .jsonl file, in which it takes the place of one like it.

    The file is replaced as a whole, so that nobody finds a part of it.
    """
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if path.suffix == ".jsonl":
        line = {"date": result["date"], "remark": remark, **result}
        lines = stored(path)
        lines[line["date"], remark] = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        text = "".join(f"{lines[key]}\n" for key in sorted(lines))
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(text)
    new.replace(path)
    print(f"written to {path}")

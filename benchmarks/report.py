"""What every result says of its circumstances, and how results are written."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from deepcnn.devices import Place, Precision, describe_environment

HERE = Path(__file__).parent
DATE = "%Y-%m-%d"


def new_file(name: str, given: Path | None) -> Path:
    """Return where a result goes; end the program, before it measures, if that is taken."""
    path = given or HERE / "results" / f"{time.strftime(DATE)}_{name}.json"
    if path.exists():
        sys.exit(f"{path} exists, and results are kept: name another file with --out")
    return path


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
    command = ["git", "-C", str(HERE.parent), *arguments]
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


def store(result: dict[str, Any], path: Path) -> None:
    """Write a result."""
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {path}")

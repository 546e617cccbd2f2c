"""The program `run.py`: where it lies, how its parts read arguments, how it starts workers."""

from __future__ import annotations

import argparse
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of what is run by this name; `about`: what --help says."""
    return argparse.ArgumentParser(
        prog=f"run.py {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def as_worker(name: str, *arguments: str) -> list[str]:
    """Return the script and the arguments that Python runs to be one of run.py's `WORKERS`."""
    return [str(BENCHMARKS / "run.py"), "worker", name, *arguments]

"""What the campaigns on one machine share: options, cases in children, the log and the summary."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools import program

CASE_LIMIT = 120  # seconds after which a child hangs


def parser_of(name: str, about: str | None, cases: int) -> argparse.ArgumentParser:
    """Return the parser of a campaign's options; `cases`: how many there are without one."""
    parser = program.parser(name, about)
    parser.add_argument("--cases", type=int, default=cases, help=f"default: {cases:,}")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cases")
    parser.add_argument("--log", type=Path, help="a new file, with a JSON line for each case")
    return parser


def options(name: str, about: str | None, cases: int, arguments: list[str]) -> argparse.Namespace:
    """Read the options of a campaign that can be told to try some of its cases only."""
    parser = parser_of(name, about, cases)
    parser.add_argument("--only", nargs="+", metavar="WHAT", help="of what a log calls `what`")
    return options_of(parser, arguments)


def options_of(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Read a campaign's options; a log that is there is never written to."""
    found = parser.parse_args(arguments)
    if found.log is not None and found.log.exists():
        sys.exit(f"{found.log} exists, and logs are kept: name another file with --log")
    return found


def report(found: Iterable[dict[str, Any]], log: Path | None) -> int:
    """Write cases as they come, then say how many failed; return the exit status."""
    began, count, failed = time.perf_counter(), 0, 0
    with open(log or os.devnull, "x" if log else "w") as file:  # noqa: PTH123 (a device, or new)
        for case in found:
            count += 1
            file.write(json.dumps({"case": count, **case}) + "\n")
            file.flush()
            if not case["ok"]:
                failed += 1
                print(json.dumps(case), file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{count:,} cases, {failed:,} failed, {seconds:.0f} s")
    return 1 if failed or not count else 0


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for the cases: in memory where there is one, which SIGKILL cannot tell."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else None) as folder:
        yield Path(folder)


def start(work: Callable[[], Any], said: Path) -> int:
    """Do something in a child, which keeps what comes of it in a file; return its process.

    The parent must have no threads: the child has only the one that called.
    """
    said.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        signal.alarm(CASE_LIMIT)
        from deepcnn.errors import DeepcnnError

        try:
            found = {"found": work()}
        except DeepcnnError as error:
            found = {"error": str(error), "kind": type(error).__name__}
        except BaseException:
            found = {"error": traceback.format_exc(), "kind": "traceback"}
        said.with_suffix(".new").write_text(json.dumps(found))
        said.with_suffix(".new").rename(said)
        status = 0 if "found" in found else 3
    finally:
        os._exit(status)


def end_of(child: int, said: Path) -> dict[str, Any]:
    """Wait for a child; return what it said, with `signal`, that which killed it, or 0."""
    _, status = os.waitpid(child, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    found: dict[str, Any] = json.loads(said.read_text()) if said.exists() else {}
    return {**found, "signal": number}


def in_child(work: Callable[[], Any], said: Path) -> dict[str, Any]:
    """Do something in a child and wait for it; see `end_of`."""
    return end_of(start(work, said), said)


def tree(folder: Path) -> dict[str, str]:
    """Return what a folder holds: the SHA-256 of each file by its path, folders as "folder"."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "device"
    return found

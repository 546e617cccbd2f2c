"""What files made to hurt do: a hundred kinds, each read in a process of its own.

    python benchmarks/run.py hostile_files

Pickles, archives, headers, bombs, names, links, devices and deep nesting (`crafted.py` makes them),
as data sets, pictures, runs, checkpoints and archives to fetch from. Each must end with one of
deepcnn's own errors, or be read where it is merely odd, in a second of processor time and 300 MB
over what an honest file of that kind takes; nothing may be written outside or executed, and what is
said has no character that commands a terminal. Needs Linux.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepcnn.shown import printable
from faults.crafted import Crafted, crafted, honest
from faults.trials import in_child, options, report, scratch, tree

LIMIT = 20  # seconds after which reading hangs
MOST_SECONDS = 1.0  # of the processor
MOST_BYTES = 300e6  # over an honest file


def measured(case: Crafted, place: Path) -> dict[str, Any]:
    """Read a file as a command would; return what came of it, in seconds and bytes at most."""
    signal.alarm(LIMIT)
    os.chdir(place.with_name("outside"))  # what a file executes would show there
    before, began = _most_memory(), time.process_time()
    try:
        outcome = case.read(place)
        said = "read" if outcome is None else str(outcome)
        kind = "read"
    except Exception as error:  # what is none of ours is what is looked for
        said, kind = str(error), type(error).__name__
        if not _is_ours(error):
            kind = f"foreign {kind}"
    return {
        "kind": kind,
        "said": said,
        "seconds": time.process_time() - began,
        "bytes": _most_memory() - before,
    }


def _is_ours(error: Exception) -> bool:
    from deepcnn.data.formats.decoding import BadPictureError
    from deepcnn.errors import DeepcnnError

    return isinstance(error, (DeepcnnError, BadPictureError))


def _most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def judged(case: Crafted, found: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return what is wrong with how a file was read, beside an honest one of its kind."""
    if "kind" not in found:
        return f"the process ended: {found}"
    if found["kind"].startswith("foreign"):
        return f"{found['kind']}: {found['said']}"
    if case.refused and found["kind"] == "read":
        return "it was taken"
    if found["seconds"] > MOST_SECONDS + usual.get("seconds", 0):
        return f"it took {found['seconds']:.1f} s"
    if found["bytes"] > MOST_BYTES + usual.get("bytes", 0):
        return f"it took {found['bytes'] / 1e6:.0f} MB"
    shown = printable(found["said"])  # as the command line prints it
    if any(not c.isprintable() and c not in "\n\xa0" for c in shown) or len(shown) > 4000:
        return f"what it says is not to be shown: {shown[:200]}"
    return ""


def cases(count: int, seed: int, only: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read so many files, each in a process of its own, and yield what came of each."""
    kinds = [case for case in crafted() if only is None or case.what in only]
    order = random.Random(seed)
    order.shuffle(kinds)
    with scratch() as folder:
        usual = {kind: _tried(case, folder) for kind, case in honest().items()}
        for number in range(count):
            case = kinds[number % len(kinds)]
            found = _tried(case, folder)
            problem = found.pop("changed", "") or judged(case, found, usual.get(case.kind, {}))
            yield {
                "what": case.what,
                "of": case.kind,
                "ended": found.get("kind", "killed"),
                "said": printable(found.get("said", ""))[:300],
                "seconds": round(found.get("seconds", 0), 3),
                "megabytes": round(found.get("bytes", 0) / 1e6, 1),
                "ok": not problem,
                "problem": problem,
            }


def _tried(case: Crafted, folder: Path) -> dict[str, Any]:
    """Make a file, read it, and look whether anything changed outside."""
    place = folder / "case"
    outside = folder / "outside"
    for each in (place, outside):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir()
    (outside / "precious").write_text("precious")
    try:
        case.make(place)
        before = tree(folder)
        ended = in_child(lambda: measured(case, place), folder.with_name(f"{folder.name}-said"))
        found: dict[str, Any] = ended.get("found", ended)
        if case.keeps and tree(folder) != before:
            found["changed"] = "something was changed"
    finally:
        folder.with_name(f"{folder.name}-said").unlink(missing_ok=True)
    return found


def main(arguments: list[str]) -> int:
    """Try, log and say how many failed."""
    found = options("hostile_files", __doc__, len(crafted()), arguments)
    return report(cases(found.cases, found.seed, found.only), found.log)

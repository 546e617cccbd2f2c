"""The runs below a folder, newest first, and what a list of runs shows."""

from __future__ import annotations

import contextlib
import stat
from dataclasses import dataclass
from pathlib import Path

from deepcnn.data.formats.listings import is_file
from deepcnn.errors import DeepcnnError, RunError
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import CONFIG, INPUTS, Run

RUNS = Path("runs")


@dataclass(frozen=True)
class Summary:
    """What a list of runs shows about one run.

    `correct`, `total`, `split`: its newest score, or None. `step`: of the newest checkpoint.
    `bytes`: of all its files. `changed`: when its log was last written, in seconds since 1970.
    """

    path: Path
    preset: str
    data: str
    step: int
    steps: int
    correct: int | None
    total: int | None
    split: str | None
    bytes: int
    changed: float


def is_run(path: Path) -> bool:
    """Tell whether a directory is a run."""
    return is_file(path / CONFIG) and is_file(path / INPUTS)


def all_runs(folder: Path = RUNS) -> list[Path]:
    """Return the runs in a folder, the one that was trained last first."""
    found = [path for path in folder.glob("*") if is_run(path)]
    return sorted(found, key=_changed, reverse=True)


def newest_run(folder: Path = RUNS) -> Path:
    """Return the run in a folder that was trained last; raise RunError if there is none."""
    found = all_runs(folder)
    if not found:
        raise RunError(
            f"{folder}/: expected a run, found none. Name one, or train one: deepcnn train"
        )
    return found[0]


def summary(path: Path) -> Summary:
    """Read what a list shows about a run; raises RunError if it cannot be read."""
    run = Run.open(path)
    config = run.config()
    scores: list[dict[str, object]] = []
    with contextlib.suppress(DeepcnnError):  # no log yet, or a damaged one
        scores = list(events(read_log(run.log), "Evaluated"))
    last = scores[-1] if scores else {}
    return Summary(
        path=path,
        preset=config.preset,
        data=config.data,
        step=_newest_step(run),
        steps=config.steps,
        correct=_number(last.get("correct")),
        total=_number(last.get("total")),
        split=str(last["split"]) if "split" in last else None,
        bytes=sum(map(_size, path.rglob("*"))),
        changed=_changed(path),
    )


def _newest_step(run: Run) -> int:
    names = [path.stem.removeprefix("step-") for path in run.checkpoints.glob("step-*.safetensors")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):  # a training may have removed it meanwhile
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def _changed(path: Path) -> float:
    for written in (Run(path).log, path):
        with contextlib.suppress(OSError):  # no log yet, or the run is gone
            return written.stat().st_mtime
    return 0.0

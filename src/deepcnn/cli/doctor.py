"""Say what is wrong with a data set: duplicates, leaks, odd files, too few examples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from deepcnn import atomic
from deepcnn.console import console, say, say_json
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec
from deepcnn.shown import printable

if TYPE_CHECKING:
    from deepcnn.doctor.findings import Duplicate, Findings

SHOWN = 10  # findings of a kind that are printed


@dataclass(frozen=True)
class Options:
    """Read a data set once and say what is wrong with it, worst first. Nothing is ever deleted.

    The exit status is 1 if a duplicate of a test image is in another split, else 0.
    """

    data: tyro.conf.Positional[str]
    """Name of a data set, a path, or the directory of a run; then its data are examined."""
    out: Path | None = None
    """File for a page with the pictures of what was found (HTML)."""
    fixes: Path | None = None
    """File for a table of fixes (CSV), for deepcnn train --exclude."""
    labels: bool = False
    """Also look for wrong labels. This takes several short trainings."""
    strict: bool = False
    """Exit status 1 if anything is found."""
    image_size: tuple[int, int] | None = None
    """Height and width to which pictures in folders are scaled; None: the size that most of them
    have."""
    data_dir: str | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""
    json: bool = False
    """Print one JSON object with all that was found on standard output, and nothing else."""


def run(options: Options) -> int:
    """Examine, print, and write what was asked for."""
    from deepcnn.doctor.examine import examine

    with console(False, to="stderr") as tell:
        found, seen = examine(_spec(options), labels=options.labels, emit=tell)
    if options.out is not None:
        from deepcnn.doctor.page import page

        _write(options.out, page(found, seen).encode())
    if options.fixes is not None:
        from deepcnn.doctor.fixes import table

        _write(options.fixes, table(found, seen))
    if options.json:
        paths = {split: looked.paths for split, looked in seen.splits.items()}
        say_json(found.to_dict(paths), indent=1)
    else:
        say("\n".join(map(printable, _lines(found))))
        if options.out is not None:
            say(f"page: {printable(str(options.out))}")
        if options.fixes is not None:
            from deepcnn.data.exclusions import Exclusions

            left_out = sum(map(len, Exclusions.read(options.fixes).rows.values()))
            examples = sum(map(sum, found.counts.values()))
            say(
                f"fixes: {printable(str(options.fixes))}, by which training leaves out "
                f"{left_out:,} of {examples:,} examples"
            )
    return int(bool(found.leaks) or (options.strict and bool(found)))


def _spec(options: Options) -> DataSpec:
    """Return which data are meant; for a run its own, with the validation split it held out."""
    changes = {
        name: value
        for name in ("image_size", "data_dir")
        if (value := getattr(options, name)) is not None
    }
    path = Path(options.data).expanduser()
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        from deepcnn.runs.run import Run

        config = Run.open(path).config()
        names = {field.name for field in dataclasses.fields(DataSpec)}
        values = {name: getattr(config, name) for name in names}
        return DataSpec(**{**values, "train_on_extra": False, **changes})
    return DataSpec(data=options.data, **changes)


def _write(path: Path, content: bytes) -> None:
    try:
        atomic.write(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Choose another place."
        ) from error


def _lines(found: Findings) -> list[str]:
    """Return what is printed: a summary of each kind, and its worst."""
    from deepcnn.doctor.findings import counted

    total = ", ".join(f"{sum(counts):,} {split}" for split, counts in found.counts.items())
    lines = [f"{found.data}: {counted(len(found.classes), 'class')}; {total}"]
    leaks = [d for d in found.duplicates if d.leaks]
    others = [d for d in found.duplicates if not d.leaks]
    if leaks:
        lines.append(f"Duplicates between the test set and other splits: {len(leaks):,}")
        lines += _few([_pair(d) for d in leaks])
    if others:
        differ = sum(not d.same_label for d in others)
        lines.append(f"Other duplicates: {len(others):,}, {differ:,} with different labels")
        lines += _few([_pair(d) for d in others])
    if found.suspects:
        lines.append(f"Labels that seem wrong: {len(found.suspects):,}")
        lines += _few(
            [
                f"{s.split} {s.index}: given {found.classes[s.given]}, likely "
                f"{found.classes[s.likely]}, {s.score:.2f}"
                for s in found.suspects
            ]
        )
    for kind in dict.fromkeys(problem.kind for problem in found.problems):
        lines.append(f"{kind[0].upper()}{kind[1:]}: {found.total(kind):,}")
        of_kind = [problem for problem in found.problems if problem.kind == kind]
        told = [f"{p.path}: {p.detail}" if p.path else p.detail for p in of_kind if p.count < 2]
        lines += _few(told, sum(p.count for p in of_kind if p.count > 1))
    if found.duplicates:
        several = f"{found.repeated:,} of {sum(map(sum, found.counts.values())):,} examples"
        text = f"In all, {several} have a duplicate."
        if list(found.counts) == ["train"]:
            text += (
                " If some are held out to score on, their copies are trained on, and the accuracy "
                "means little: leave copies out (--fixes FILE, then train --exclude FILE)."
            )
        lines.append(text)
    if not found:
        lines.append("Nothing was found.")
    return lines


def _few(lines: list[str], uncounted: int = 0) -> list[str]:
    """Return the first lines, and how many more there are; `uncounted`: besides these lines."""
    more = max(0, len(lines) - SHOWN) + uncounted
    return [f"  {line}" for line in lines[:SHOWN]] + ([f"  … {more:,} more"] if more > 0 else [])


def _pair(duplicate: Duplicate) -> str:
    a, b = (place.path or f"{place.split} {place.index}" for place in (duplicate.a, duplicate.b))
    how = "exact" if duplicate.kind == "exact" else f"near ({duplicate.similarity:.3f})"
    return f"{how}: {a} and {b}" + ("" if duplicate.same_label else ", with different labels")

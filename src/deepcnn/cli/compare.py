"""Say whether one of two runs is better, and where they differ."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.cells import cell_len, set_cell_size

from deepcnn.cli.arguments import own_network
from deepcnn.cli.importing import importing
from deepcnn.console import say
from deepcnn.errors import ConfigError
from deepcnn.shown import printable

if TYPE_CHECKING:
    from deepcnn.reports.differing import Compared

SHOWN = 20  # images that are printed; all of them go into JSON and CSV


@dataclass(frozen=True)
class Options:
    """Say whether one of two runs is better on the same images, and on which they differ.

    McNemar's exact test looks at the images that only one of the two got right. It compares these
    two networks, not their settings. To compare settings, train several seeds; see `deepcnn sweep`.
    """

    runs: tyro.conf.Positional[tuple[Path, Path]]
    """Directories of two runs."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """CSV file for all images on which the two runs differ."""
    split: Literal["train", "validation", "test"] | None = None
    """Which split to use. None: the one that each training was scored on; it must be the same for
    both."""
    data: str | None = None
    """Another labelled data set, or the runs' own data at another place: a name or a path."""
    averaged: bool = True
    """Use the moving averages of the parameters, if a run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the runs' own."""
    json: bool = False
    """Print one JSON object with all results."""


def run(options: Options) -> int:
    """Let both runs answer, and print the comparison."""
    if options.runs[0].resolve() == options.runs[1].resolve():
        raise ConfigError(f"{options.runs[0]}: expected two runs, found the same one twice")
    from deepcnn.console import console

    with importing():
        from deepcnn.reports.differing import Answering, compare
        from deepcnn.reports.subject import subject_of
        from deepcnn.reports.write import save

    answering = []
    with console(as_json=False, to="stderr" if options.json else "stdout") as tell:
        for path in options.runs:
            subject = subject_of(
                path,
                options.split,
                averaged=options.averaged,
                device=options.device,
                threads=options.threads,
                data=options.data,
                data_dir=options.data_dir,
                model=own_network(options.model),
                emit=tell,
            )
            answering.append(Answering.of(subject))
    found = compare(*answering)
    if options.out is not None:
        save(options.out, [_csv(found)])
    if options.json:
        text = json.dumps(found.to_dict(), ensure_ascii=True, allow_nan=False)
        say(text)
    else:
        _say(found, options.out)
    return 0


def _say(found: Compared, out: Path | None) -> None:
    say(printable("\n".join(found.scores())))
    words = found.pair.words
    say(printable(words.replace("no evidence", "No evidence", 1)) + ".")
    different = found.differences
    if not different:
        say("They answer the same about every image.")
        return
    rows: list[Sequence[str]] = [("index", "image", *found.names, "truth", "right")]
    for each in different[:SHOWN]:
        right = next((n for n, r in zip(found.names, each.right, strict=True) if r), "neither")
        rows.append((str(each.index), each.image, *each.answers, each.truth, right))
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    say(f"\nThey differ on {len(different):,} images:")
    for row in rows:
        say("  ".join(map(set_cell_size, row, widths)).rstrip())
    if len(different) > SHOWN and out is None:
        say(f"… and {len(different) - SHOWN:,} more; all of them: --out FILE.csv, or --json")
    if out is not None:
        say(printable(f"All of them: {out}"))


def _csv(found: Compared) -> bytes:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["index", "image", "truth", *found.names, *(f"right: {n}" for n in found.names)])
    for each in found.differences:
        right = [str(right).lower() for right in each.right]
        lines.writerow([each.index, each.image, each.truth, *each.answers, *right])
    return text.getvalue().encode(errors="surrogateescape")

"""Write a page about a run, or compare several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import say

SEVERAL = Path("comparison.html")  # where a comparison goes


@dataclass(frozen=True)
class Options:
    """Write a page about a trained network, or compare several.

    The page is one HTML file that opens from disk, with a box to drop pictures into. Beside it lie
    two files: the same content as .json, and all answers as .csv.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Directories of runs; none: the newest run below runs/. Several are compared."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File for the page; None: report.html in the run, comparison.html here for several."""
    split: Literal["train", "validation", "test"] | None = None
    """Which split to use; None: the one that the training was scored on."""
    step: int | None = None
    """Step of the checkpoint. None: the best one, if the run keeps it; else the newest."""
    data: str | None = None
    """Another labelled data set, or the run's own data at another place: a name or a path."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the run's own."""
    json: bool = False
    """Print the page's path as JSON."""


def run(options: Options) -> int:
    """Score the runs and write the page."""
    from deepcnn.console import console

    with importing():
        from deepcnn.reports.against import Contender
        from deepcnn.reports.subject import subject_of
        from deepcnn.reports.write import write, write_comparison

    paths = list({path.resolve(): path for path in options.runs}.values()) or [which_run(None)]
    contenders = []
    with console(options.json) as tell:
        for path in paths:
            subject = subject_of(
                path,
                options.split,
                step=options.step,
                averaged=options.averaged,
                device=options.device,
                threads=options.threads,
                data=options.data,
                data_dir=options.data_dir,
                model=own_network(options.model),
                emit=tell,
            )
            if len(paths) == 1:
                page = write(subject, options.out)
            else:
                contenders.append(Contender.of(subject))
        if contenders:
            page = write_comparison(contenders, options.out or SEVERAL)
    say(json.dumps({"report": str(page)}) if options.json else f"Report: {page}")
    return 0

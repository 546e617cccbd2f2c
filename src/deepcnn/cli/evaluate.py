"""Score a run, once or while it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network
from deepcnn.cli.console import console


@dataclass(frozen=True)
class Options:
    """Score the newest checkpoint of a run."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    split: Literal["train", "validation", "test"] | None = None
    """Which examples; None: those that the training was scored on."""
    averaged: bool = True
    """Use the moving averages of the parameters, where the run keeps them."""
    examples: int | None = None
    """Score only the first so many; None: all."""
    follow: bool = False
    """Score every newest checkpoint while the run is trained, and write summaries."""
    interval: float = 300.0
    """With --follow: seconds from one look for a new checkpoint to the next."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows. Beside a training choose
    another one than its own, or few --threads: memory and processor are shared."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """A network of your own, named again as package.module:function: else its code does not run."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the run's own."""
    json: bool = False
    """Print events as JSON, a line each."""


def run(options: Options) -> int:
    """Score the newest checkpoint, or one after the other."""
    from deepcnn.inference.evaluation import Scorer

    with console(options.json) as tell:
        scorer = Scorer(
            options.run,
            options.split,
            averaged=options.averaged,
            examples=options.examples,
            device=options.device,
            threads=options.threads,
            data_dir=options.data_dir,
            model=own_network(options.model),
            emit=tell,
        )
        for event in scorer.follow(options.interval) if options.follow else [scorer.once()]:
            tell(event)
    return 0
